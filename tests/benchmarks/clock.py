"""Calibration, residual and the cost of a stamp: `python -m tests.benchmarks clock`; about 3 minutes.

Deviations are from the rate of the kernel's own mult and shift, which a calibration of 3 s must
snap to: everything here is against CLOCK_MONOTONIC_RAW and says nothing about true time.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
import timeit
from collections.abc import Iterator
from contextlib import contextmanager

from cfctl import clock
from tests.benchmarks.figure import Figure

RUNS = 20
CALLS = 1000
REPEATS = 300


def run() -> Iterator[Figure]:
    """Yield the figures of the clock."""
    exact = clock.calibrate(3_000_000_000)
    if not exact.snapped:
        print(f"no deviation can be given: {exact.snap_reason}", file=sys.stderr)
        return
    yield from _deviations(exact.frequency_hz)
    with _every_cpu_loaded():
        loaded = [_calibrate(1000) for _ in range(RUNS)]
    yield _deviation("1 s, every CPU loaded", loaded, exact.frequency_hz, 0.1)
    yield _cpu_time("1 s, every CPU loaded", loaded)
    yield from _call_costs()
    yield from _residual_after_a_minute()


def _calibrate(duration_ms: int) -> clock.Calibration:
    return clock.calibrate(duration_ms * 1_000_000, snap=False, publish=False)


def _deviations(exact_hz: float) -> Iterator[Figure]:
    for duration_ms, goal_ppb in ((10, 5.0), (100, 0.5), (1000, 0.05)):
        made = [_calibrate(duration_ms) for _ in range(RUNS)]
        yield _deviation(f"{duration_ms} ms", made, exact_hz, goal_ppb)
        yield _cpu_time(f"{duration_ms} ms", made)
    # The guide's method at the largest of the three budgets, to compare with.
    median = [
        clock.calibrate(method="median", samples=10, sample_ns=100_000_000, publish=False) for _ in range(3)
    ]
    yield _deviation("1 s by the median of ten intervals", median, exact_hz, float("inf"))


def _deviation(name: str, made: list[clock.Calibration], exact_hz: float, goal_ppb: float) -> Figure:
    deviations = tuple(abs(each.estimate_hz / exact_hz - 1) * 1e9 for each in made)
    return Figure(f"calibration of {name}: deviation", deviations, "ppb", goal_ppb, "max")


def _cpu_time(name: str, made: list[clock.Calibration]) -> Figure:
    times = tuple(each.cpu_time_ns / each.attempts / 1e6 for each in made)
    return Figure(f"calibration of {name}: CPU time", times, "ms", 5.0, "max")


def _call_costs() -> Iterator[Figure]:
    """Yield the costs per call beside time.perf_counter_ns() in the same run, on one CPU."""
    clock.calibrate()
    ring = clock.StampRing(1 << 10)
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(allowed)})
    try:
        beside = min(_per_call("call()", time.perf_counter_ns))
        for name, statement, call, goal_ns in (
            ("now_ns()", "call()", clock.now_ns, 35.0),
            ("a raw stamp", "call(7)", ring.stamp, 12.0),
            ("ticks()", "call()", clock.ticks, 35.0),
        ):
            costs = _per_call(statement, call)
            # The least of many short batches: other work on a shared machine only ever adds.
            yield Figure(f"{name} per call", costs, "ns", goal_ns, "min", beside, "time.perf_counter_ns()")
    finally:
        os.sched_setaffinity(0, allowed)


def _per_call(statement: str, call: object) -> tuple[float, ...]:
    """Return ns per call of short batches, the loop spread over 20 calls."""
    timer = timeit.Timer(";".join([statement] * 20), setup="call = bound", globals={"bound": call})
    return tuple(timer.timeit(CALLS) / (CALLS * 20) * 1e9 for _ in range(REPEATS))


def _residual_after_a_minute() -> Iterator[Figure]:
    made = clock.calibrate(1_000_000_000, snap=False)
    time.sleep(60)
    residuals = [clock.residual(made) for _ in range(5)]
    values = tuple(abs(each.value) for each in residuals if each.value is not None)
    yield Figure("residual 60 s after a calibration of 1 s", values, "ns", 5.0, "max")


def _spin() -> None:
    while True:
        pass


@contextmanager
def _every_cpu_loaded() -> Iterator[None]:
    """Keep one busy process on each CPU."""
    hogs = []
    for cpu in sorted(os.sched_getaffinity(0)):
        hog = multiprocessing.get_context("spawn").Process(target=_spin, daemon=True)
        hog.start()
        os.sched_setaffinity(hog.pid or 0, {cpu})
        hogs.append(hog)
    time.sleep(0.5)
    try:
        yield
    finally:
        for hog in hogs:
            hog.kill()
            hog.join()
