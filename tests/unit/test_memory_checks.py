"""The checks of a process's memory: each on a process that has the defect and on one that has not."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cfctl.alloc.growth import TimelinePoint
from cfctl.diagnose.engine import catalogue, run_check
from cfctl.diagnose.live import NO_SEGMENT, Live, LiveWatch, SeenSegment
from cfctl.diagnose.record import Actor, CheckResult, Status, Subject
from cfctl.diagnose.run import Request, diagnose
from cfctl.diagnose.subject import Facts, sampled
from cfctl.records import Verdict
from cfctl.segment.file import Liveness
from cfctl.segment.reader import parse_segment
from tests.hosts.fake_host import MemoryView
from tests.unit.segment_builder import LAST, MAX, SUM, U64, FieldRow, SegmentBuilder

PID = 77
CHECKS = {check.id: check for check in catalogue(Subject.MEMORY)}
INTERVAL_S = 10
Counters = Mapping[str, int]

STATUS = "Name:\tapp\nVmSize:\t90000 kB\nVmHWM:\t{rss} kB\nVmRSS:\t{rss} kB\nRssAnon:\t{anon} kB\nVmSwap:\t{swap} kB\n"
ROLLUP = (
    "00400000-7fff00000000 ---p 00000000 00:00 0 [rollup]\nAnonymous: {anon} kB\nAnonHugePages: {huge} kB\n"
)
MAPS = "00400000-00452000 r-xp 00000000 08:02 173521 /usr/bin/app\n"


def maps(arenas: int) -> str:
    lines = [MAPS]
    for number in range(arenas):
        start = 0x7F0000000000 + number * (128 << 20)
        used = start + (132 << 10)
        lines.append(
            f"{start:x}-{used:x} rw-p 00000000 00:00 0\n{used:x}-{start + (64 << 20):x} ---p 00000000 00:00 0\n"
        )
    return "".join(lines)


def stat(minor: int, major: int) -> str:
    return f"{PID} (a p) p) S 1 1 1 0 -1 4194560 {minor} 0 {major} 0 1 1 0 0 20 0 1 0 500 1000 100"


@dataclass
class Process:
    """A process as text: its files at the end of the interval, and counters at both ends."""

    files: Mapping[str, str] = field(default_factory=dict)
    rss_kib: int = 50_000
    anon_kib: int = 40_000
    swap_kib: int = 0
    huge_kib: int = 0
    faults: tuple[int, int] = (100, 0)
    arenas: int = 1
    slope_kib: float | None = 0.0
    now: Mapping[tuple[str, str], Counters] = field(default_factory=dict)
    before: Mapping[tuple[str, str], Counters] | None = None
    state: Liveness = Liveness.LOCKED
    pid: int | None = PID

    def view(self, at_end: bool) -> MemoryView:
        minor, major = self.faults if at_end else (0, 0)
        proc = f"proc/{PID}"
        files = {
            f"{proc}/status": STATUS.format(rss=self.rss_kib, anon=self.anon_kib, swap=self.swap_kib),
            f"{proc}/smaps_rollup": ROLLUP.format(anon=self.anon_kib, huge=self.huge_kib),
            f"{proc}/maps": maps(self.arenas),
            f"{proc}/stat": stat(minor, major),
            "sys/devices/system/cpu/online": "0-1",
            **self.files,
        }
        return MemoryView(files, {"monotonic_ns": 10**9 + (INTERVAL_S * 10**9 if at_end else 0)})

    def live(self) -> Live:
        segments: tuple[SeenSegment, ...] = ()
        if self.now or self.before is not None:
            early = segment_of(self.before) if self.before is not None else None
            segments = (
                SeenSegment(Path("/s"), self.state, segment_of(self.now), early, self.before is not None),
            )
        points: tuple[TimelinePoint, ...] = ()
        if self.slope_kib is not None:
            points = tuple(
                TimelinePoint(t * 50_000_000, round((self.rss_kib + self.slope_kib * t / 20) * 1024))
                for t in range(200)
            )
        return Live(segments, NO_SEGMENT, points, INTERVAL_S * 10**9)


def segment_of(entries: Mapping[tuple[str, str], Counters]) -> Any:
    builder = SegmentBuilder({"version": 2})
    for (kind, name), counters in entries.items():
        rule = {"high_water": MAX, "heap_in_use_bytes": LAST, "heap_free_bytes": LAST}
        fields: list[FieldRow] = [
            (key, "1", U64, rule.get(key, SUM), 8 * index, 1, 0) for index, key in enumerate(counters)
        ]
        payload = struct.pack(f"<{len(counters)}Q", *counters.values())
        builder.entry(name.encode(), [payload], kind.encode(), fields)
    return parse_segment(builder.build())


def run(check_id: str, process: Process) -> CheckResult:
    check = CHECKS[check_id]
    early, late = process.view(False), process.view(True)
    samples = {check.sample: sampled(check.sample, early, process.pid)} if check.sample else {}
    return run_check(check, Facts(late, process.pid, "timer", None, early, samples, process.live()))


def pool(**counters: int) -> dict[tuple[str, str], Counters]:
    fields = ("hits", "misses", "created", "released", "discarded", "lost", "misuses", "in_use", "high_water")
    return {("pool", "rows"): {name: counters.get(name, 0) for name in fields}}


def interpreter(**counters: int) -> dict[tuple[str, str], Counters]:
    fields = (
        "collected", "uncollectable", "pause_ns", "longest_pause_ns", "heap_known", "heap_in_use_bytes", "heap_free_bytes",
    )  # fmt: skip
    return {("interpreter", "python"): {name: counters.get(name, 0) for name in fields}}


def subscriptions(subscribed: int, unsubscribed: int) -> dict[tuple[str, str], Counters]:
    return {("bus_dispatcher", "bus 1a2b"): {"subscribed": subscribed, "unsubscribed": unsubscribed}}


MB = 1_000_000
CASES: dict[str, tuple[Process, Process]] = {
    "MEM_GROWTH": (Process(slope_kib=1000), Process(slope_kib=0.5)),
    "MEM_RSS_TARGET": (Process(rss_kib=100_000), Process(rss_kib=97_000)),
    "MEM_SWAPPED": (Process(swap_kib=4), Process()),
    "MEM_MAJOR_FAULTS": (Process(faults=(100, 1)), Process(faults=(100_000, 0))),
    "MEM_MINOR_FAULTS": (Process(faults=(100_001, 0)), Process(faults=(100_000, 9))),
    "MEM_HUGE_PAGES": (Process(anon_kib=300_000), Process(anon_kib=300_000, huge_kib=100_000)),
    "MEM_ARENAS": (Process(arenas=5), Process(arenas=4)),
    "MEM_FRAGMENTATION": (
        Process(now=interpreter(heap_known=1, heap_in_use_bytes=20 * MB, heap_free_bytes=21 * MB)),
        Process(now=interpreter(heap_known=1, heap_in_use_bytes=20 * MB, heap_free_bytes=19 * MB)),
    ),
    "GC_UNCOLLECTABLE": (Process(now=interpreter(uncollectable=1)), Process(now=interpreter())),
    "GC_PAUSES": (
        Process(now=interpreter(longest_pause_ns=10_000_001), before=interpreter()),
        Process(now=interpreter(pause_ns=900_000_000, longest_pause_ns=9_000_000), before=interpreter(pause_ns=500_000_000)),
    ),
    "GC_CYCLES": (
        Process(now=interpreter(collected=20_001), before=interpreter(collected=10_000)),
        Process(now=interpreter(collected=20_000), before=interpreter(collected=10_000)),
    ),
    "POOL_MISSES": (Process(now=pool(hits=899, misses=101)), Process(now=pool(hits=900, misses=100))),
    "POOL_LEAK": (
        Process(now=pool(in_use=9, high_water=9, created=9), before=pool(in_use=5, high_water=5, created=5)),
        Process(now=pool(in_use=8, high_water=9, created=9), before=pool(in_use=5, high_water=5, created=5)),
    ),
    "POOL_MISUSE": (Process(now=pool(misuses=1)), Process(now=pool())),
    "SUBSCRIPTIONS_LEFT": (
        Process(now=subscriptions(5, 2), before=subscriptions(4, 2)),
        Process(now=subscriptions(6, 3), before=subscriptions(5, 2)),
    ),
}  # fmt: skip


def test_every_check_has_a_case() -> None:
    assert set(CASES) == set(CHECKS)


@pytest.mark.parametrize("name", CASES)
def test_a_process_with_the_defect_has_an_issue_of_yours_with_evidence_and_a_remedy(name: str) -> None:
    found = run(name, CASES[name][0])
    assert found.status is Status.ISSUE, found
    assert found.actor is Actor.YOU
    assert found.evidence
    assert found.description
    assert found.solution
    assert found.verify == f"cfctl diagnose memory {PID} --only {name}"


@pytest.mark.parametrize("name", CASES)
def test_a_process_without_it_passes(name: str) -> None:
    assert run(name, CASES[name][1]).status is Status.PASS


@pytest.mark.parametrize(
    "name", [name for name in CASES if not name.startswith(("MEM_G", "MEM_F", "GC", "POOL", "SUB"))]
)
@pytest.mark.parametrize("text", ["", "\0\0", "garbage", "9" * 300, "a: b\nVmRSS: -\n", "1 2 3"])
def test_files_that_make_no_sense_are_unobservable(name: str, text: str) -> None:
    files = {f"proc/{PID}/{file}": text for file in ("status", "smaps_rollup", "maps", "stat")}
    found = run(name, Process(files=files))
    assert found.status is Status.UNOBSERVABLE
    assert found.reason


@pytest.mark.parametrize("name", CASES)
def test_a_process_that_has_ended_and_has_no_segment_is_unobservable(name: str) -> None:
    found = run(name, Process(pid=None))
    assert found.status is Status.UNOBSERVABLE
    assert "it has no segment" in (found.reason or "")


@pytest.mark.parametrize("name", ["GC_UNCOLLECTABLE", "GC_PAUSES", "GC_CYCLES", "MEM_FRAGMENTATION"])
def test_what_a_process_does_not_tell_is_unobservable_and_says_how_it_could(name: str) -> None:
    found = run(name, Process(now=pool()))
    assert found.status is Status.UNOBSERVABLE
    assert "share_facts()" in (found.reason or "")


@pytest.mark.parametrize("name", ["POOL_MISSES", "POOL_LEAK", "POOL_MISUSE", "SUBSCRIPTIONS_LEFT"])
def test_a_process_without_the_instrument_is_not_concerned(name: str) -> None:
    assert run(name, Process(now=interpreter())).status is Status.NOT_APPLICABLE


def test_live_bytes_that_the_preload_counted_are_held_against_anonymous_memory() -> None:
    def counted(live_bytes: int) -> Process:
        return Process(now={("alloc_process", "process"): {"live_bytes": live_bytes}}, anon_kib=100_000)

    assert run("MEM_FRAGMENTATION", counted(20 * MB)).status is Status.ISSUE
    assert run("MEM_FRAGMENTATION", counted(80 * MB)).status is Status.PASS


def test_of_open_subscriptions_one_view_does_not_tell_whether_they_pile_up() -> None:
    assert run("SUBSCRIPTIONS_LEFT", Process(now=subscriptions(3, 1))).status is Status.UNOBSERVABLE
    assert run("SUBSCRIPTIONS_LEFT", Process(now=subscriptions(3, 3))).status is Status.PASS


def test_lost_items_are_a_leak_without_an_interval_too() -> None:
    assert run("POOL_LEAK", Process(now=pool(lost=1))).status is Status.ISSUE


def test_a_slope_that_can_not_be_told_is_unobservable_and_says_that_it_is_inconclusive() -> None:
    found = run("MEM_GROWTH", Process(slope_kib=None))
    assert (found.status, found.reason) == (Status.UNOBSERVABLE, "needs an interval: run with --duration")
    late = Process(rss_kib=50_000)
    points = tuple(
        TimelinePoint(t * 50_000_000, (50_000 + (5_000 if t > 80 else 0)) * 1024) for t in range(200)
    )
    facts = Facts(late.view(True), PID, "timer", None, None, {}, Live((), "", points, 10**10))
    found = run_check(CHECKS["MEM_GROWTH"], facts)
    assert found.status is Status.UNOBSERVABLE
    assert "inconclusive" in (found.reason or "")


def test_the_pages_of_another_users_process_are_unobservable() -> None:
    process = Process()
    view = MemoryView(
        {f"proc/{PID}/status": STATUS}, {"monotonic_ns": 1}, refuse="smaps_rollup|maps", number=13
    )
    found = run_check(CHECKS["MEM_HUGE_PAGES"], Facts(view, PID, "timer", None, live=process.live()))
    assert found.status is Status.UNOBSERVABLE


def test_a_watch_follows_the_memory_and_reads_segments_at_both_ends(tmp_path: Path) -> None:
    path = tmp_path / "s.seg"
    path.write_bytes(pool_file(hits=1))
    now = 0
    sizes = iter(range(50_000, 60_000, 10))

    def clock() -> int:
        return now

    def sleep(seconds: float) -> None:
        nonlocal now
        now += round(seconds * 1e9)
        if now == 10**9:
            path.write_bytes(pool_file(hits=5))

    def open_view() -> MemoryView:
        return MemoryView({f"proc/{PID}/status": f"VmRSS: {next(sizes)} kB"}, {"monotonic_ns": now})

    watch = LiveWatch([path], PID, open_view=open_view, clock=clock, sleep=sleep)
    watch.watch(2.0)
    found = watch.seen()
    assert len(found.course) == 101
    assert found.course[0] == TimelinePoint(0, 50_000 * 1024)
    assert found.course[-1].time_ns == found.course_ns == 2 * 10**9
    (entry,) = found.entries("pool")
    assert (entry.value("hits"), entry.rise("hits")) == (5, 4)
    assert found.paths == (str(path),)


def pool_file(**counters: int) -> bytes:
    builder = SegmentBuilder({"version": 2})
    builder.entry(b"rows", [struct.pack("<Q", counters["hits"])], b"pool", [("hits", "1", U64, SUM, 0, 1, 0)])
    return builder.build()


def test_a_diagnosis_of_memory_runs_its_own_checks_only_and_reads_nothing_but_the_process() -> None:
    process = Process(now=pool(misuses=1), before=pool())
    moments = iter((False, True))
    current = process.view(False)

    def open_view(sysroot: str = "/") -> MemoryView:
        nonlocal current
        current = process.view(next(moments, True))
        return current

    class Seen(LiveWatch):
        def watch(self, seconds: float) -> None:
            assert seconds == INTERVAL_S

        def seen(self) -> Live:
            return process.live()

    request = Request(subject=Subject.MEMORY, pid=PID, interval_ns=INTERVAL_S * 10**9)
    found = diagnose(request, open_view=open_view, live=Seen([], PID))
    assert {result.id for result in found.checks} == set(CHECKS)
    assert found.verdict is Verdict.FAIL
    assert found.subject is Subject.MEMORY
    assert found.measurements is None
    assert [result.id for result in found.checks if result.status is Status.ISSUE] == ["POOL_MISUSE"]
    assert found.segments == ("/s",)
