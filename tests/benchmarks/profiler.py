"""Reading, comparing and being read: the profiler's figures, with peers measured in the same run."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import timeit
from collections.abc import Iterator

import numpy as np

from tests.benchmarks import peers
from tests.benchmarks.figure import Figure

OPERATIONS = 500
ROUNDS = 9
CALLS = 20_000
# Each window sees one reading.
WINDOW_S, WINDOWS, WINDOW_GROUPS = 0.1, 21, 9
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
        yield from peers.figures()


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
    """How much longer recording takes while another process reads the segment ten times a second.

    The reader is stopped and continued in turn, so that a change of the machine's speed hits both, and
    each window with it stands between two without. Processor time of the writer's thread, on a CPU of its
    own where there are two: what others do to the machine, and the reader's own work, are not the reader's
    effect on the writer. Whole windows are compared, as the least of many runs would miss just those that
    a reading falls into; a value is the median of a group of windows, so that their spread is that of the
    figure.
    """
    from cfctl import Profiler

    cpus = sorted(os.sched_getaffinity(0))
    operation = Profiler().operation("read from outside")
    timer = timeit.Timer("with operation: pass", globals={"operation": operation}, timer=time.thread_time)
    command = [
        "taskset", "-c", str(cpus[-1]), sys.executable, "-m", "cfctl", "profile", "report", "--live",
        "--interval", "100ms", "--json", str(os.getpid()),
    ]  # fmt: skip
    os.sched_setaffinity(0, cpus[:1])
    calls = int(WINDOW_S / min(timer.timeit(CALLS) for _ in range(20)) * CALLS)
    slowdown = []
    with tempfile.TemporaryFile() as read_out, subprocess.Popen(command, stdout=read_out) as reader:
        # Into a file: who empties a pipe would take turns with the writer.
        while os.fstat(read_out.fileno()).st_size == 0 and reader.poll() is None:
            time.sleep(0.01)
        for _ in range(WINDOW_GROUPS):
            group = []
            for _ in range(WINDOWS):
                reader.send_signal(signal.SIGSTOP)
                before = timer.timeit(calls // 2)
                reader.send_signal(signal.SIGCONT)
                read = timer.timeit(calls)
                reader.send_signal(signal.SIGSTOP)
                group.append((read / (before + timer.timeit(calls // 2)) - 1) * 100)
                reader.send_signal(signal.SIGCONT)
            slowdown.append(statistics.median(group))
        reader.terminate()
    os.sched_setaffinity(0, cpus)
    return Figure("slower while read at 10 Hz", tuple(slowdown), "%", 1.0)
