"""What the metrics measure, on fakes; and invariants of the real machine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfctl.errors import StateError
from cfctl.monitor.metric import Subject
from cfctl.monitor.metrics.accuracy import SETTLE_NS, measure_accuracy
from cfctl.monitor.metrics.cpu import busy_share, cpu_utilization
from cfctl.monitor.metrics.memory import memory_rss, rss_slack_bytes
from cfctl.records import Measurement

NOW_NS = 1_800_000_000_000_000_000
FIELDS = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")


def cpu_times(**seconds: float) -> dict[str, float]:
    return dict.fromkeys(FIELDS, 0.0) | {"guest": 99.0} | seconds


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        ({"idle": 2.0}, 0.0),
        ({"user": 2.0}, 1.0),
        ({"user": 1.0, "iowait": 1.0}, 0.5),
        ({"steal": 0.5, "idle": 1.5}, 0.25),
        ({"idle": -0.01, "user": 1.0}, 1.0),
    ],
)
def test_the_busy_share_counts_everything_but_idle_and_iowait(
    after: dict[str, float], expected: float
) -> None:
    measured = busy_share(cpu_times(), cpu_times(**after), 0.01)
    assert measured.value == pytest.approx(expected, abs=1e-12)
    assert measured.uncertainty


def test_guest_time_is_not_counted_twice() -> None:
    before, after = cpu_times(), cpu_times(user=1.0, idle=1.0)
    assert busy_share(before, after | {"guest": 500.0}, 0.01).value == pytest.approx(0.5)


def test_counters_that_stand_still_are_no_measurement() -> None:
    assert busy_share(cpu_times(), cpu_times(), 0.01).reason


@given(st.lists(st.floats(min_value=0.02, max_value=50), min_size=8, max_size=8))
def test_the_uncertainty_of_the_busy_share_covers_counters_floored_to_a_tick(seconds: list[float]) -> None:
    spent = dict(zip(FIELDS, seconds, strict=True))
    floored = {name: value // 0.01 * 0.01 for name, value in spent.items()}
    exact = busy_share(cpu_times(), cpu_times(**spent), 0.01)
    measured = busy_share(cpu_times(), cpu_times(**floored), 0.01)
    assert exact.value is not None
    assert measured.value is not None
    assert measured.uncertainty is not None
    # All eight floored the same way is the worst case, beyond 2 sigma: 3 times is allowed here.
    assert abs(measured.value - exact.value) <= 3 * measured.uncertainty


def test_a_longer_window_is_more_certain() -> None:
    short = busy_share(cpu_times(), cpu_times(user=1.0, idle=1.0), 0.01).uncertainty
    long = busy_share(cpu_times(), cpu_times(user=10.0, idle=10.0), 0.01).uncertainty
    assert short is not None
    assert long == pytest.approx(short / 10)


def test_the_cpu_is_observed_over_the_window_that_was_asked_for() -> None:
    slept: list[float] = []
    reading = cpu_utilization(Subject(window_ns=250_000_000, sleep=slept.append))
    assert slept == [0.25]
    assert "0.25 s" in reading.subject


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
    reading = memory_rss(Subject())
    assert reading.subject == f"cfctl itself (pid {os.getpid()})"
    assert reading.measurement.value
    assert reading.measurement.value > 5e6


def test_a_process_that_is_gone_has_no_memory_and_a_reason() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    reading = memory_rss(Subject(pid=child.pid))
    assert reading.measurement.value is None
    assert str(child.pid) in str(reading.measurement.reason)


def test_a_zombie_has_no_memory_and_a_reason() -> None:
    child = subprocess.Popen(["true"])
    # Waits for the end without reaping.
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    try:
        assert "zombie" in str(memory_rss(Subject(pid=child.pid)).measurement.reason)
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
    assert in_reason in str(memory_rss(Subject(pid=os.getpid())).measurement.reason)


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

    def saved_calibration(self) -> Any:
        return self.saved

    def calibrate(self) -> Any:
        self.calibrations += 1
        return FakeCalibration(NOW_NS)

    def residual(self, calibration: Any) -> Measurement:
        return self.measure()


def accuracy(clock: FakeClock, settle: bool = False) -> tuple[Any, list[float]]:
    slept: list[float] = []
    return measure_accuracy(clock, Subject(settle=settle, sleep=slept.append), lambda: NOW_NS), slept


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


@pytest.mark.host
def test_on_this_machine_a_busy_loop_is_seen() -> None:
    loop = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        measured = cpu_utilization(Subject(window_ns=500_000_000)).measurement
    finally:
        loop.kill()
        loop.wait()
    assert measured.value is not None
    assert measured.uncertainty is not None
    assert measured.value + measured.uncertainty > 0.5 / (os.cpu_count() or 1)


@pytest.mark.host
def test_on_this_machine_allocated_memory_is_seen() -> None:
    before = memory_rss(Subject()).measurement
    held = bytearray(b"x" * 50_000_000)
    after = memory_rss(Subject()).measurement
    assert before.value is not None
    assert after.value is not None
    assert before.uncertainty is not None
    assert abs(after.value - before.value - len(held)) < 2 * before.uncertainty + 5e6
