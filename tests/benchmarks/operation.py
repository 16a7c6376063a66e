"""Cost of recording an operation: decorator, with statement, values measured elsewhere, bytes per
sample, error of a quantile.

Times are net of the loop and of the bare call, and shown as ratios to two tick reads of the same
run, which no recorder can do without.
"""

from __future__ import annotations

import itertools
import os
import statistics
import sys
import tempfile
import timeit
from array import array
from collections.abc import Iterator
from random import Random

from tests.benchmarks.figure import Figure

ROUNDS = 9
# Short enough that some of the runs of a round are not interrupted, also on a busy machine.
RUNS = 60
CALLS = 5_000
SAMPLES = 100_000
QUANTILES = (0.5, 0.9, 0.99, 0.999)
# From 3.12 on the interpreter's own part of a call and of `with` is larger (profiling.md, 1.1).
DECORATOR_GOAL_NS, WITH_GOAL_NS = (30, 90) if sys.version_info < (3, 12) else (40, 115)
SPAN_GOAL_NS, RECORD_GOAL_NS, VALUE_GOAL_NS = 140, 15, 2
VALUES = 1000


def run() -> Iterator[Figure]:
    """Yield the figures; records into a segment of its own."""
    with tempfile.TemporaryDirectory() as directory:
        os.environ["CFCTL_SEGMENT_DIR"] = f"{directory}/segments"
        yield from _costs()
        yield _bytes_per_sample()
        yield _bytes_per_operation()
        yield _quantile_error()


def _costs() -> Iterator[Figure]:
    from cfctl import Profiler, _native

    operation = Profiler().operation("benchmark")

    def bare() -> None:
        pass

    names = {"bare": bare, "timed": operation(bare), "operation": operation, "ticks": _native.ticks}
    names |= {"record": operation.record, "many": operation.record_many, "values": array("q", range(VALUES))}

    statements = (
        "pass", "bare()", "timed()", "with operation: pass", "with operation.span(): pass", "ticks()",
        "record(1500)", "many(values)",
    )  # fmt: skip
    timers = {statement: timeit.Timer(statement, globals=names).timeit for statement in statements}

    def undisturbed_ns() -> dict[str, float]:
        """The least time of each statement over short runs that take turns."""
        runs = [{name: timer(_calls(name)) for name, timer in timers.items()} for _ in range(RUNS)]
        return {name: min(run[name] for run in runs) / _calls(name) * 1e9 for name in timers}

    rounds = [undisturbed_ns() for _ in range(ROUNDS)]
    two_reads = statistics.median(2 * (r["ticks()"] - r["pass"]) for r in rounds)
    decorator = tuple(r["timed()"] - r["bare()"] for r in rounds)
    block = tuple(r["with operation: pass"] - r["pass"] for r in rounds)
    span = tuple(r["with operation.span(): pass"] - r["pass"] for r in rounds)
    record = tuple(r["record(1500)"] - r["pass"] for r in rounds)
    many = tuple((r["many(values)"] - r["pass"]) / VALUES for r in rounds)
    for name, values, goal in (
        ("decorator, net of the bare call", decorator, DECORATOR_GOAL_NS),
        ("with statement, net of the loop", block, WITH_GOAL_NS),
        ("with statement of a span, right across await", span, SPAN_GOAL_NS),
        ("a value in ns, net of the loop", record, RECORD_GOAL_NS),
        ("a value in ns of a buffer", many, VALUE_GOAL_NS),
    ):
        yield Figure(
            name, values, "ns", goal, reference=two_reads, reference_name="two tick reads from Python"
        )


def _calls(statement: str) -> int:
    return CALLS // 100 if statement == "many(values)" else CALLS


def _resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _bytes_per_sample() -> Figure:
    from cfctl import Profiler, _native

    operation = Profiler().operation("bytes")
    record = operation.record_ticks
    for ticks in range(10_000):
        record(ticks)
    before = len(_native.segment_bytes())
    resident = _resident_bytes()
    for ticks in range(1_000_000):
        record(ticks % 10_000)
    grown = max(0, _resident_bytes() - resident) + len(_native.segment_bytes()) - before
    # A million samples; the interpreter itself and the copies made here may keep a few pages.
    return Figure("memory per sample, after the first", (grown / 1_000_000,), "B", 0.05)


def _bytes_per_operation() -> Figure:
    """What each further operation of a thread takes of the segment."""
    from cfctl import Profiler, _native

    sizes = []
    for number in range(20):
        Profiler().operation(f"sized {number}").record_ticks(1)
        sizes.append(len(_native.segment_bytes()))
    grown = tuple((after - before) / 1000 for before, after in itertools.pairwise(sizes))
    return Figure("memory of an operation on a thread", grown, "KB", 40, "max")


def _quantile_error() -> Figure:
    from cfctl import Profiler
    from cfctl.profile.own import own_report

    random = Random(1)
    errors = []
    for number, spread in enumerate((0.3, 1.0, 2.0)):
        values = sorted(round(random.lognormvariate(9, spread)) + 1 for _ in range(SAMPLES))
        operation = Profiler().operation(f"quantile {number}")
        for value in values:
            operation.record_ticks(value)
        report = own_report()
        (found,) = [o for o in report.operations if o.name == f"quantile {number}"]
        ns_per_tick = report.clocks[0].rate.ns_per_tick or 1.0
        for quantile, measured in zip(QUANTILES, (found.p50, found.p90, found.p99, found.p99_9), strict=True):
            exact = values[-int(-quantile * SAMPLES // 1) - 1]
            assert measured.value is not None
            errors.append(abs(measured.value / ns_per_tick / exact - 1) * 100)
    return Figure("error of p50 to p99.9, three lognormal shapes", tuple(errors), "%", 0.4, "max")
