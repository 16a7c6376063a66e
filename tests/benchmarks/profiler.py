"""Reading, comparing and being read: the profiler's figures, with peers measured in the same run."""

from __future__ import annotations

import cProfile
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
import timeit
from bisect import bisect_left
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.figure import Figure

OPERATIONS = 500
ROUNDS = 9
CALLS = 20_000
QUANTILES = (0.5, 0.9, 0.99, 0.999)

WRITER = """
import random
from cfctl import Profiler
draw = random.Random(1)
for number in range({operations}):
    operation = Profiler().operation(f"package.module{{number % 20}}:function_{{number}}")
    spread = draw.uniform(0.2, 1.2)
    for _ in range(2000):
        operation.record_ticks(round(draw.lognormvariate(9, spread)) + 1)
"""


def run() -> Iterator[Figure]:
    """Yield the figures; records into segments of its own."""
    with tempfile.TemporaryDirectory() as directory:
        os.environ["CFCTL_SEGMENT_DIR"] = f"{directory}/segments"
        yield _report_time(directory)
        yield from _quantile_errors()
        yield _reader_slowdown()
        yield from _peers()


def _report_time(directory: str) -> Figure:
    seconds: dict[int, list[float]] = {1: [], OPERATIONS: []}
    environs = {n: os.environ | {"CFCTL_SEGMENT_DIR": f"{directory}/{n}"} for n in seconds}
    for operations, environ in environs.items():
        command = [sys.executable, "-c", WRITER.format(operations=operations)]
        subprocess.run(command, env=environ, cwd=directory, check=True)
    for _ in range(ROUNDS):
        for operations, environ in environs.items():
            start = time.perf_counter()
            command = [sys.executable, "-m", "cfctl", "profile", "report"]
            subprocess.run(command, env=environ, cwd=directory, check=True, stdout=subprocess.DEVNULL)
            seconds[operations].append(time.perf_counter() - start)
    beyond = tuple((many - one) * 1e3 for many, one in zip(seconds[OPERATIONS], seconds[1], strict=True))
    return Figure(
        "report of 500 operations beyond that of one", beyond, "ms", 300,
        reference=sorted(seconds[1])[ROUNDS // 2] * 1e3, reference_name="of the report of one",
    )  # fmt: skip


def _quantile_errors() -> Iterator[Figure]:
    from cfctl import Profiler
    from cfctl.profile.own import own_report
    from tests.unit.profile_runs import bimodal

    random = np.random.default_rng(1)
    shapes = {
        "lognormal": random.lognormal(9, 1.0, 100_000).astype(np.int64) + 1,
        "bimodal": bimodal(random, 100_000),
        "constant": np.full(100_000, 12_345),
    }
    for name, values in shapes.items():
        operation = Profiler().operation(name)
        for value in values.tolist():
            operation.record_ticks(value)
        report = own_report()
        (found,) = [o for o in report.operations if o.name == name]
        ns_per_tick = report.clocks[0].rate.ns_per_tick or 1.0
        exact = np.sort(values)
        errors = []
        for quantile, measured in zip(QUANTILES, (found.p50, found.p90, found.p99, found.p99_9), strict=True):
            truth = exact[int(np.ceil(quantile * len(values))) - 1]
            errors.append(abs((measured.value or 0.0) / ns_per_tick / truth - 1) * 100)
        yield Figure(f"error of p50 to p99.9, {name}", tuple(errors), "%", 0.4, "max")


def _reader_slowdown() -> Figure:
    """How much longer recording takes while another process reads the segment ten times a second."""
    from cfctl import Profiler

    operation = Profiler().operation("read from outside")
    timer = timeit.Timer("with operation: pass", globals={"operation": operation})
    command = [
        sys.executable, "-m", "cfctl", "profile", "report", "--live", "--interval", "100ms", "--json", str(os.getpid()),
    ]  # fmt: skip
    alone, read = [], []
    for _ in range(ROUNDS):
        alone.append(min(timer.timeit(CALLS) for _ in range(60)))
        with subprocess.Popen(command, stdout=subprocess.PIPE) as reader:
            assert reader.stdout is not None
            reader.stdout.readline()
            read.append(min(timer.timeit(CALLS) for _ in range(60)))
            reader.terminate()
            reader.stdout.read()
    slowdown = tuple((b / a - 1) * 100 for a, b in zip(alone, read, strict=True))
    return Figure("slower while read at 10 Hz", slowdown, "%", 1.0)


class _PurePython:
    """The guide's profiler as one would write it in Python: a histogram per operation, two clock reads."""

    def __init__(self) -> None:
        self.edges = [1.1**i for i in range(300)]
        self.buckets = [0] * 301
        self.count = self.errors = 0
        self.total = self.largest = 0
        self.least = 1 << 62

    def record_operation(self, function: Callable[[], Any]) -> Any:
        start = time.perf_counter_ns()
        try:
            return function()
        except BaseException:
            self.errors += 1
            raise
        finally:
            spent = time.perf_counter_ns() - start
            self.count += 1
            self.total += spent
            self.least = min(self.least, spent)
            self.largest = max(self.largest, spent)
            self.buckets[bisect_left(self.edges, spent)] += 1


def _peers() -> Iterator[Figure]:
    from prometheus_client import CollectorRegistry, Histogram

    from cfctl import Profiler

    def bare() -> None:
        pass

    ours = Profiler().operation("peer")(bare)
    pure = _PurePython().record_operation
    prometheus = Histogram("peer_seconds", "Peer.", registry=CollectorRegistry()).time()(bare)
    statements: dict[str, Callable[[], Any]] = {
        "bare": bare, "ours": ours, "pure": lambda: pure(bare), "prometheus": prometheus,
    }  # fmt: skip
    best = {name: min(timeit.repeat(call, number=CALLS, repeat=60)) for name, call in statements.items()}
    profile = cProfile.Profile()
    profile.enable()
    best["cProfile"] = min(timeit.repeat(bare, number=CALLS, repeat=60))
    profile.disable()
    best |= _optional_peers(bare)
    net = {name: (seconds - best["bare"]) / CALLS * 1e9 for name, seconds in best.items() if name != "bare"}
    goals = {"pure": 1 / 20, "cProfile": 1.0, "prometheus": 1.0, "viztracer": 1.0, "opentelemetry": 1.0}
    for name, goal in goals.items():
        if name in net:
            label = f"decorator / {name} [{net['ours']:.0f} / {net[name]:.0f} ns]"
            yield Figure(label, (net["ours"] / net[name],), "x", goal)


def _optional_peers(bare: Callable[[], None]) -> dict[str, float]:
    """The peers that are installed."""
    best = {}
    if importlib.util.find_spec("viztracer"):
        viztracer = importlib.import_module("viztracer")
        with viztracer.VizTracer(verbose=0, output_file=str(Path(tempfile.gettempdir()) / "unused.json")):
            best["viztracer"] = min(timeit.repeat(bare, number=CALLS, repeat=20))
    if importlib.util.find_spec("opentelemetry.sdk") if importlib.util.find_spec("opentelemetry") else None:
        tracer = importlib.import_module("opentelemetry.sdk.trace").TracerProvider().get_tracer("peer")

        def spanned() -> None:
            with tracer.start_as_current_span("peer"):
                bare()

        best["opentelemetry"] = min(timeit.repeat(spanned, number=CALLS // 10, repeat=20)) * 10
    return best
