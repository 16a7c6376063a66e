from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cfctl.errors import InputError
from cfctl.profile.recording import record_of_file, record_of_segment
from cfctl.profile.report import (
    SORT_KEYS,
    Choice,
    ProfileReport,
    Recording,
    build_report,
    selected,
    sort_operations,
)
from cfctl.profile.saved import load_recordings, load_report
from cfctl.records import to_json
from cfctl.segment.file import Liveness
from cfctl.segment.reader import parse_segment
from cfctl.segment.records import ClockPair
from cfctl.segment.tick_rate import LocalClock
from tests.unit.profile_runs import CLOCK, tally
from tests.unit.segment_builder import SegmentBuilder, operation_payload

LOCAL = LocalClock("boot-of-the-test", False, ClockPair(2_000_001_000, 2 * 10**9))


def recording(builder: SegmentBuilder, local: LocalClock = LOCAL) -> Recording:
    return record_of_segment(parse_segment(builder.build()), Liveness.ENDED, local)


def builder(**header: Any) -> SegmentBuilder:
    made = SegmentBuilder(header)
    made.entry(b"fast", [operation_payload([100] * 30), operation_payload([200] * 10)])
    made.entry(b"slow", [operation_payload([9000], errors=1)], labels={b"k": b"v"})
    return made


def test_a_report_has_all_samples_the_slowest_mean_first() -> None:
    report = build_report([recording(builder())])
    assert report.total_samples == 41
    assert [operation.name for operation in report.operations] == ["slow", "fast"]
    assert report.operations[0].labels == (("k", "v"),)
    assert report.operations[1].mean.value == pytest.approx(62.5)
    assert report.problems == ()


def test_equal_operations_of_processes_of_one_boot_become_one_row() -> None:
    report = build_report([recording(builder(pid=1)), recording(builder(pid=2))])
    assert [(o.name, o.count) for o in report.operations] == [("slow", 2), ("fast", 80)]
    assert [process.pid for process in report.processes] == [1, 2]
    assert len(report.clocks) == 1


def test_operations_of_two_clocks_stay_apart() -> None:
    report = build_report([recording(builder()), recording(builder(tick_source=3))])
    assert sorted((o.name, o.clock, o.mean.value) for o in report.operations) == [
        ("fast", 0, 62.5), ("fast", 1, 125.0), ("slow", 0, 4500.0), ("slow", 1, 9000.0),
    ]  # fmt: skip


def test_losses_other_kinds_and_damage_are_in_the_report() -> None:
    made = builder(lost=5, refused=2)
    made.entry(b"pool", [operation_payload([1])], kind=b"pool")
    made.entry(b"bad", [operation_payload([1], errors=9)])
    report = build_report([recording(made)])
    assert (report.samples_lost, report.shards_refused) == (5, 2)
    assert report.other_kinds == {"pool": 1}
    assert any("'bad' is damaged: 9 errors in 1 samples" in problem for problem in report.problems)


@pytest.mark.parametrize(
    ("liveness", "state", "word"),
    [(Liveness.LOCKED, 1, "live"), (Liveness.ENDED, 2, "ended"), (Liveness.ENDED, 1, "killed")],
)
def test_a_process_that_left_its_segment_open_was_killed(liveness: Liveness, state: int, word: str) -> None:
    segment = parse_segment(builder(state=state).build())
    assert record_of_segment(segment, liveness, LOCAL).processes[0].state == word


def test_a_segment_of_another_boot_has_no_timer_floor() -> None:
    elsewhere = LocalClock("another boot", False, LOCAL.pair)
    report = build_report([recording(builder(), elsewhere)])
    assert report.clocks[0].floor_ns is None
    assert report.operations[0].near_timer_floor is None


@pytest.mark.parametrize("key", SORT_KEYS)
def test_sorting_puts_the_largest_first_and_missing_values_last(key: str) -> None:
    operations = sort_operations(build_report([recording(builder())]).operations, key)
    assert len(operations) == 2
    if key == "p50":
        assert [operation.name for operation in operations] == ["fast", "slow"]
    if key == "errors":
        assert [operation.name for operation in operations] == ["slow", "fast"]
    if key == "name":
        assert [operation.name for operation in operations] == ["fast", "slow"]


def test_an_unknown_sort_key_names_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"p99\.9"):
        sort_operations([], "colour")


def test_top_keeps_the_first_operations_and_the_totals() -> None:
    report = selected(build_report([recording(builder())]), Choice("count", 1))
    assert [operation.name for operation in report.operations] == ["fast"]
    assert report.total_samples == 41


@pytest.mark.parametrize("key", SORT_KEYS)
@pytest.mark.parametrize("patterns", [(), ("o*",), ("o1", "o2*"), ("none",)])
def test_a_choice_made_before_the_statistics_is_that_made_after(key: str, patterns: tuple[str, ...]) -> None:
    tallies = [tally(f"o{n}", np.full(n % 4 * 10 + 1, 50 + n * 7 % 40), n % 3) for n in range(30)]
    recorded = [Recording(CLOCK, tuple(tallies), ())]
    for top in (None, 1, 7, 30, 40):
        choice = Choice(key, top, patterns)
        assert build_report(recorded, choice) == selected(build_report(recorded), choice)


def saved(path: Path, report: ProfileReport) -> Path:
    path.write_text(to_json(report))
    return path


def test_a_saved_report_reads_back_as_it_was(tmp_path: Path) -> None:
    report = build_report([recording(builder(lost=1, pid=9)), recording(builder(tick_source=3))])
    assert load_report(saved(tmp_path / "r.json", report)) == report


def test_a_report_of_a_damaged_segment_reads_back_with_its_problems(tmp_path: Path) -> None:
    made = builder()
    made.entry(b"bad", [operation_payload([1], errors=9)])
    report = build_report([recording(made)])
    assert load_report(saved(tmp_path / "r.json", report)) == report


def test_saved_reports_merge_as_their_segments_do(tmp_path: Path) -> None:
    first, second = recording(builder(pid=1)), recording(builder(pid=2))
    paths = [saved(tmp_path / f"{i}.json", build_report([part])) for i, part in enumerate([first, second])]
    merged = build_report([r for path in paths for r in load_recordings(path, path.read_bytes())])
    assert merged.operations == build_report([first, second]).operations


def test_a_file_that_is_no_json_is_left_to_the_segment_reader(tmp_path: Path) -> None:
    (tmp_path / "a.seg").write_bytes(builder().build())
    assert load_report(tmp_path / "a.seg") is None
    assert load_report(tmp_path / "none") is None
    assert record_of_file(tmp_path / "a.seg").tallies[0].count == 40


def damaged(change: Any) -> bytes:
    document = json.loads(to_json(build_report([recording(builder())])))
    change(document)
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(schema="other"),
        lambda d: d.update(version=2),
        lambda d: d.pop("operations"),
        lambda d: d["operations"].append(7),
        lambda d: d["operations"][0].update(count=-1),
        lambda d: d["operations"][0].update(count=1.5),
        lambda d: d["operations"][0].update(count=True),
        lambda d: d["operations"][0].update(errors=10**6),
        lambda d: d["operations"][0].update(clock=5),
        lambda d: d["operations"][0].update(name=None),
        lambda d: d["operations"][0]["ticks"].update(buckets=[[5000, 1]]),
        lambda d: d["operations"][0]["ticks"].update(buckets=[[5, 1], [5, 1]]),
        lambda d: d["operations"][0]["ticks"].update(buckets=[[5]]),
        lambda d: d["operations"][0]["ticks"].update(sum=10**40),
        lambda d: d["clocks"][0]["rate"].update(ns_per_tick=0),
        lambda d: d["clocks"][0]["rate"].update(ns_per_tick="fast"),
        lambda d: d["clocks"][0].pop("rate"),
        lambda d: d.update(problems=[1]),
    ],
)
def test_a_saved_report_that_was_tampered_with_is_refused(tmp_path: Path, change: Any) -> None:
    (tmp_path / "r.json").write_bytes(damaged(change))
    with pytest.raises(InputError, match="is no saved profile"):
        load_report(tmp_path / "r.json")


@pytest.mark.parametrize("data", [b"{", b"{}", b"[]", b"[" * 100_000, b'{"schema": "cfctl.profile"}', b"\n"])
def test_json_that_is_no_report_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "r.json").write_bytes(data)
    with pytest.raises(InputError, match="is no saved profile"):
        load_report(tmp_path / "r.json")
