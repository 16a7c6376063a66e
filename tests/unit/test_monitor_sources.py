"""What the metrics measure, on fakes; and invariants of the real machine."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfctl.errors import StateError
from cfctl.monitor.metric import Metric, Subject
from cfctl.monitor.rates import Rates
from cfctl.monitor.snapshot import Collector, Found, History, Moment, Series, Snapshot
from cfctl.monitor.sources.clock import REFRESH_NS, SETTLE_NS, ClockSource
from cfctl.monitor.sources.cpu import FIELDS, Cpu, busy_share, share_of
from cfctl.monitor.sources.memory import Memory
from cfctl.monitor.sources.processes import Processes, rss_slack_bytes
from cfctl.records import Measurement

NOW_NS = 1_800_000_000_000_000_000
TICK_S = 0.01


def spent(**seconds: float) -> dict[str, float]:
    return dict.fromkeys(FIELDS, 0.0) | seconds


def moment(seconds: float = 0.0) -> Moment:
    return Moment(round(seconds * 1e9), NOW_NS)


def series(found: Iterable[Found], metric: str) -> Series:
    return next(item for item in found if isinstance(item, Series) and item.metric == metric)


def of_process(pid: int | None = None) -> Series:
    pids = (os.getpid(),) if pid is None else (pid,)
    return series(Processes(Subject(pids)).collect(moment()), "memory_rss")


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ({"idle": 2.0}, 0.0),
        ({"user": 2.0}, 1.0),
        ({"user": 1.0, "iowait": 1.0}, 0.5),
        ({"steal": 0.5, "idle": 1.5}, 0.25),
        ({"idle": -0.01, "user": 1.0}, 1.0),
    ],
)
def test_the_busy_share_counts_everything_but_idle_and_iowait(
    times: dict[str, float], expected: float
) -> None:
    measured = busy_share(spent(**times), TICK_S)
    assert measured.value == pytest.approx(expected, abs=1e-12)
    assert measured.uncertainty


def test_stolen_time_is_a_share_of_all_time() -> None:
    assert share_of(spent(steal=0.5, idle=1.5), "steal", TICK_S).value == pytest.approx(0.25)


def test_guest_time_is_not_counted_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    class Times(dict[str, float]):
        def _asdict(self) -> dict[str, float]:
            return self

    readings = iter([[Times(spent(guest=0.0))], [Times(spent(user=1.0, idle=1.0, guest=500.0))]])
    monkeypatch.setattr(psutil, "cpu_times", lambda percpu: next(readings))
    source = Cpu(Subject())
    list(source.collect(moment(0)))
    assert series(source.collect(moment(1)), "cpu_utilization").measurement.value == pytest.approx(0.5)


def test_counters_that_stand_still_are_no_measurement() -> None:
    assert busy_share(spent(), TICK_S).reason
    assert share_of(spent(), "steal", TICK_S).reason


@given(st.lists(st.floats(min_value=0.02, max_value=50), min_size=8, max_size=8))
def test_the_uncertainty_of_the_busy_share_covers_counters_floored_to_a_tick(seconds: list[float]) -> None:
    times = dict(zip(FIELDS, seconds, strict=True))
    floored = {name: value // TICK_S * TICK_S for name, value in times.items()}
    exact = busy_share(spent(**times), TICK_S)
    measured = busy_share(spent(**floored), TICK_S)
    assert exact.value is not None
    assert measured.value is not None
    assert measured.uncertainty is not None
    # All eight floored the same way is the worst case, beyond 2 sigma: 3 times is allowed here.
    assert abs(measured.value - exact.value) <= 3 * measured.uncertainty


def test_a_longer_window_is_more_certain() -> None:
    short = busy_share(spent(user=1.0, idle=1.0), TICK_S).uncertainty
    long = busy_share(spent(user=10.0, idle=10.0), TICK_S).uncertainty
    assert short is not None
    assert long == pytest.approx(short / 10)


def test_the_first_reading_of_the_cpu_has_no_share_and_says_so() -> None:
    assert "two readings" in str(
        series(Cpu(Subject()).collect(moment()), "cpu_utilization").measurement.reason
    )


def test_a_rate_is_growth_over_the_time_between_two_readings() -> None:
    rates = Rates()
    assert rates.per_second("k", 0, 100, "1/s").reason
    measured = rates.per_second("k", 2_000_000_000, 300, "1/s")
    assert measured.value == 100
    assert measured.uncertainty == pytest.approx(0.5 + 0.05)


def test_a_counter_that_began_anew_has_no_rate_and_the_next_reading_has_one() -> None:
    rates = Rates()
    rates.per_second("k", 0, 100, "1/s")
    assert "anew" in str(rates.per_second("k", 10**9, 5, "1/s").reason)
    assert rates.per_second("k", 2 * 10**9, 15, "1/s").value == 10


def test_a_counter_that_is_forgotten_begins_anew() -> None:
    rates = Rates()
    rates.per_second("k", 0, 100, "1/s")
    rates.forget_all_but({"other"})
    assert rates.per_second("k", 10**9, 200, "1/s").reason


def test_time_that_grows_with_the_clock_is_a_share_of_one() -> None:
    rates = Rates()
    rates.share("k", 0, 0.0, 1000.0)
    assert rates.share("k", 10**9, 0.25e9, 1000.0).value == pytest.approx(0.25)


def test_pressure_and_throttling_are_shares_or_have_a_reason() -> None:
    source = Memory(Subject())
    list(source.collect(moment(0)))
    found = [s for s in source.collect(moment(1)) if isinstance(s, Series) and s.measurement.unit == "ratio"]
    assert {s.metric for s in found} == {"pressure", "cpu_throttled"}
    assert all((s.measurement.value is None) == bool(s.measurement.reason) for s in found)


@pytest.mark.parametrize(
    ("kernel", "expected_pages"),
    [
        ("6.18.5", 3 * 32 * 2),
        ("6.2.0-rc1", 3 * 32 * 2),
        ("6.1.0-13-amd64", 3 * 64 * 5),
        ("weird", 3 * 64 * 5),
    ],
)
def test_the_slack_of_rss_follows_how_the_kernel_batches_its_counters(
    kernel: str, expected_pages: int
) -> None:
    assert rss_slack_bytes(threads=5, cpus=2, page_bytes=4096, kernel=kernel) == expected_pages * 4096


def test_the_memory_of_cfctl_itself_is_named_as_such() -> None:
    reading = of_process()
    assert reading.subject == f"cfctl itself (pid {os.getpid()})"
    assert reading.measurement.value
    assert reading.measurement.value > 5e6


def test_a_process_that_is_gone_has_no_memory_and_a_reason() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    reading = of_process(child.pid)
    assert reading.measurement.value is None
    assert str(child.pid) in str(reading.measurement.reason)


def test_a_zombie_has_no_memory_and_a_reason() -> None:
    child = subprocess.Popen(["true"])
    # Waits for the end without reaping.
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    try:
        assert "zombie" in str(of_process(child.pid).measurement.reason)
    finally:
        child.wait()


@pytest.mark.parametrize(
    ("error", "in_reason"),
    [(psutil.AccessDenied(1), "closed to this user"), (psutil.NoSuchProcess(1), "no process")],
)
def test_a_process_that_vanishes_or_is_not_ours_is_a_reason_and_no_crash(
    monkeypatch: pytest.MonkeyPatch, error: Exception, in_reason: str
) -> None:
    def fail(self: Any) -> None:
        raise error

    monkeypatch.setattr(psutil.Process, "num_threads", fail)
    assert in_reason in str(of_process().measurement.reason)


@dataclass(frozen=True)
class FakeCalibration:
    created_realtime_ns: int
    tick_step_ns: float | None = 10.01
    reference: str = "raw"
    independence: str = "none"


class FakeClock:
    """A clock whose calibration is `age_ns` old; None when nothing is saved."""

    def __init__(self, age_ns: int | None, residual: Callable[[], Measurement] | None = None) -> None:
        self.saved = None if age_ns is None else FakeCalibration(NOW_NS - age_ns)
        self.calibrations = 0
        self.measure = residual or (lambda: Measurement(1.5, "ns", 0.5))

    def calibration(self) -> Any:
        return self.saved

    def calibrate(self) -> Any:
        self.calibrations += 1
        return FakeCalibration(NOW_NS)

    def residual(self, calibration: Any) -> Measurement:
        return self.measure()


def accuracy(clock: FakeClock, settle: bool = False) -> tuple[Any, list[float]]:
    slept: list[float] = []
    source = ClockSource(Subject(settle=settle, sleep=slept.append), clock, lambda: NOW_NS)
    return series(source.collect(moment()), "temporal_accuracy"), slept


def test_the_accuracy_is_measured_anew_every_ten_seconds_and_not_each_second() -> None:
    values = iter([1.0, 2.0])
    clock = FakeClock(SETTLE_NS, lambda: Measurement(next(values), "ns", 0.5))
    source = ClockSource(Subject(), clock, lambda: NOW_NS)
    seen = [
        series(source.collect(moment(at)), "temporal_accuracy").measurement.value
        for at in (0, 1, REFRESH_NS / 1e9 - 0.1, REFRESH_NS / 1e9)
    ]
    assert seen == [1.0, 1.0, 1.0, 2.0]


def test_a_calibration_of_a_minute_is_judged_with_the_step_beside_it() -> None:
    reading, slept = accuracy(FakeClock(SETTLE_NS))
    assert reading.measurement.value == 1.5
    assert reading.resolution.value == 10.01
    assert "CLOCK_MONOTONIC_RAW (independence: none)" in reading.subject
    assert slept == []


def test_a_younger_calibration_is_not_judged_and_says_how_long_to_wait() -> None:
    reading, _ = accuracy(FakeClock(12_000_000_000))
    assert reading.measurement.value is None
    assert "12 s old" in reading.measurement.reason
    assert "in 48 s" in reading.measurement.reason


def test_settling_waits_for_the_rest_of_the_minute() -> None:
    reading, slept = accuracy(FakeClock(12_000_000_000), settle=True)
    assert slept == [48.0]
    assert reading.measurement.value == 1.5


def test_without_a_calibration_there_is_a_reason_and_settling_makes_one() -> None:
    clock = FakeClock(None)
    assert "cfctl calibrate" in accuracy(clock)[0].measurement.reason
    assert clock.calibrations == 0
    reading, slept = accuracy(clock, settle=True)
    assert (clock.calibrations, slept) == (1, [60.0])
    assert reading.measurement.value == 1.5


def test_a_calibration_from_the_future_is_not_judged() -> None:
    reading, slept = accuracy(FakeClock(-5_000_000_000), settle=True)
    assert "set back" in reading.measurement.reason
    assert slept == []


def test_an_error_of_the_clock_is_a_reason() -> None:
    def fail() -> Measurement:
        raise StateError("The history is corrupt.", "It is.", "Run again.")

    reading, _ = accuracy(FakeClock(SETTLE_NS, fail))
    assert reading.measurement.reason == "The history is corrupt. It is. Run again."


def no_segments(subject: Subject) -> tuple[tuple[()], tuple[()]]:
    return (), ()


class Failing:
    METRICS: ClassVar[tuple[Metric, ...]] = (
        Metric("mood", "ratio", "A mood."),
        Metric("moods", "ratio", "Several.", ("who",)),
    )

    def __init__(self, subject: Subject) -> None:
        pass

    def collect(self, moment: Moment) -> Iterable[Found]:
        raise StateError("The mood is corrupt.", "It is.")


def test_a_source_that_fails_leaves_its_gauges_missing_with_the_reason_and_the_others_whole() -> None:
    snapshot = Collector(Subject(), no_segments, [Failing, Memory]).collect()
    assert snapshot.problems == ("The mood is corrupt. It is.",)
    assert snapshot.of("mood")[0].measurement.reason == "The mood is corrupt. It is."
    assert snapshot.of("moods") == ()
    assert snapshot.of("memory_used")[0].measurement.value


class Clockwork:
    """A monotonic clock that only sleeping moves, and a collection that takes its time."""

    def __init__(self, collecting_s: float = 0.0) -> None:
        self.now_ns = 0
        self.slept: list[float] = []
        self.collecting_ns = round(collecting_s * 1e9)

    def read(self) -> int:
        return self.now_ns

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_ns += round(seconds * 1e9)

    def segments(self, subject: Subject) -> tuple[tuple[()], tuple[()]]:
        self.now_ns += self.collecting_ns
        return (), ()


def ticking(clock: Clockwork) -> Iterator[Snapshot]:
    return Collector(Subject(), clock.segments, [], clock.read, lambda: NOW_NS).snapshots(1.0, clock.sleep)


def test_what_a_collection_takes_does_not_lengthen_the_interval() -> None:
    clock = Clockwork(collecting_s=0.25)
    windows = [snapshot.window_ns for snapshot in islice(ticking(clock), 4)]
    assert windows[1:] == [10**9] * 3
    assert clock.slept[1:] == [0.75] * 3


def test_a_moment_that_was_slept_through_is_skipped_and_not_made_up_for() -> None:
    clock = Clockwork()
    ticks = ticking(clock)
    next(ticks)
    clock.now_ns += 3600 * 10**9
    assert next(ticks).window_ns >= 3600 * 10**9
    next(ticks)
    assert clock.slept[-1] == 1.0


def test_the_history_is_bounded_and_gives_a_series_over_time() -> None:
    history = History(most=3)
    for value in range(5):
        found = (Series("m", Measurement(float(value), "ns"), (("k", "a"),)),) if value != 3 else ()
        history.add(Snapshot(value, 1, found))
    assert len(history) == 3
    assert history.values("m", (("k", "a"),)) == (2.0, None, 4.0)


def test_the_history_holds_values_and_no_snapshot_alive() -> None:
    history = History()
    for value in range(600):
        history.add(Snapshot(value, 1, (Series("m", Measurement(float(value), "ns")),)))
    assert len(history) == len(history.values("m")) == 60
    assert not [kept for kept in gc.get_objects() if isinstance(kept, Snapshot) and kept.unix_ns == 598]


@pytest.mark.host
def test_on_this_machine_a_busy_loop_is_seen() -> None:
    loop = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        snapshot = next(Collector(Subject(), no_segments, [Cpu]).snapshots(0.5))
    finally:
        loop.kill()
        loop.wait()
    measured = snapshot.of("cpu_utilization")[0].measurement
    assert measured.value is not None
    assert measured.uncertainty is not None
    assert measured.value + measured.uncertainty > 0.5 / (os.cpu_count() or 1)


@pytest.mark.host
def test_on_this_machine_allocated_memory_is_seen() -> None:
    before = of_process().measurement
    held = bytearray(b"x" * 50_000_000)
    after = of_process().measurement
    assert before.value is not None
    assert after.value is not None
    assert before.uncertainty is not None
    assert abs(after.value - before.value - len(held)) < 2 * before.uncertainty + 5e6
