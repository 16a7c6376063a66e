"""What others take to record one call of an empty function, in the same run and in turns with ours."""

from __future__ import annotations

import cProfile
import functools
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
import timeit
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.figure import Figure

ROUNDS, RUNS, CALLS = 7, 12, 2_000
# A call of a function that is timed by name goes through the interpreter's two events.
BY_NAME_GOAL_NS, BY_NAME_TO_CPROFILE = 60, 1 / 2
PURE_PYTHON_TO_OURS = 1 / 20


def bare() -> None:
    """Do nothing: what is left of a recorded call is the recording."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A way to record a call: `call` is recorded between `begin` and `end`, and is `calls` calls."""

    call: Callable[[], Any]
    begin: Callable[[], Any] = bare
    end: Callable[[], Any] = bare
    goal: float = 1.0


@dataclass(slots=True)
class Sample:
    """A sample as the guide keeps each one."""

    timestamp: int
    operation: str
    duration_ns: int
    success: bool
    metadata: dict[str, str]


@dataclass(slots=True)
class Statistics:
    """What the guide sums up per operation."""

    count: int = 0
    total_duration_ns: int = 0
    min_duration_ns: int = 0
    max_duration_ns: int = 0
    error_count: int = 0


class GuideProfiler:
    """The guide's PerformanceProfiler, line by line in Python, but that an error is raised and no panic."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self.statistics: dict[str, Statistics] = {}

    def record_operation(self, operation: str, function: Callable[[], Any]) -> Any:
        """Return what the function returns, and keep a sample of it."""
        start, start_ns = time.perf_counter_ns(), time.time_ns()
        success = False
        try:
            result = function()
            success = True
        finally:
            duration_ns = time.perf_counter_ns() - start
            self.samples.append(Sample(start_ns, operation, duration_ns, success, {}))
            found = self.statistics.get(operation)
            if found is None:
                found = self.statistics[operation] = Statistics()
            found.count += 1
            found.total_duration_ns += duration_ns
            if found.count == 1:
                found.min_duration_ns = found.max_duration_ns = duration_ns
            else:
                found.min_duration_ns = min(found.min_duration_ns, duration_ns)
                found.max_duration_ns = max(found.max_duration_ns, duration_ns)
            if not success:
                found.error_count += 1
        return result


def figures() -> Iterator[Figure]:
    """Yield what our decorator takes as a ratio to each peer, and by-name instrumentation on 3.12 and later."""
    yield from _decorator_to_peers()
    yield from _by_name()


def _decorator_to_peers() -> Iterator[Figure]:
    peers = {"bare": Peer(bare), "ours": _ours(), **_others()}
    timers = {name: timeit.Timer(peer.call).timeit for name, peer in peers.items()}
    rounds = []
    for _ in range(ROUNDS):
        best = dict.fromkeys(peers, float("inf"))
        for _ in range(RUNS):
            for name, peer in peers.items():
                peer.begin()
                best[name] = min(best[name], timers[name](CALLS))
                peer.end()
        rounds.append({name: (seconds - best["bare"]) / CALLS * 1e9 for name, seconds in best.items()})
    for name, peer in peers.items():
        if name not in {"bare", "ours"}:
            ours, other = (statistics.median(r[n] for r in rounds) for n in ("ours", name))
            label = f"decorator / {name} [{ours:.0f} / {other:.0f} ns]"
            yield Figure(label, tuple(r["ours"] / r[name] for r in rounds), "x", peer.goal)


def _ours() -> Peer:
    from cfctl import Profiler

    return Peer(Profiler().operation("peer")(bare))


def _others() -> dict[str, Peer]:
    from prometheus_client import CollectorRegistry, Histogram

    guide, profile = GuideProfiler(), cProfile.Profile()
    others = {
        "the guide's in Python": Peer(
            functools.partial(guide.record_operation, "peer", bare), end=guide.samples.clear,
            goal=PURE_PYTHON_TO_OURS,
        ),
        "cProfile": Peer(bare, profile.enable, profile.disable),
        "prometheus .time()": Peer(Histogram("peer_seconds", "Peer.", registry=CollectorRegistry()).time()(bare)),
    }  # fmt: skip
    if _is_installed("viztracer"):
        tracer = importlib.import_module("viztracer").VizTracer(verbose=0)

        def stop() -> None:
            tracer.stop()
            tracer.clear()

        others["viztracer"] = Peer(bare, tracer.start, stop)
    if _is_installed("opentelemetry.sdk"):
        span = importlib.import_module("opentelemetry.sdk.trace").TracerProvider().get_tracer("peer")

        def spanned() -> None:
            with span.start_as_current_span("peer"):
                bare()

        others["OpenTelemetry span"] = Peer(spanned)
    return others


def _is_installed(module: str) -> bool:
    parent = module.partition(".")[0]
    if importlib.util.find_spec(parent) and importlib.util.find_spec(module):
        return True
    print(f"{module} is not installed: not compared.", file=sys.stderr)
    return False


BY_NAME = """
import cProfile, json, sys, timeit
from cfctl.profile.instrument import instrument
from cfctl.profile.patterns import parse_pattern

rounds, runs, calls = map(int, sys.argv[1:])
def timed(): pass
def bare(): pass
empty, timed_call, bare_call = (timeit.Timer(s, globals=globals()).timeit for s in ("pass", "timed()", "bare()"))
instrument([parse_pattern("__main__:timed")], print)
profile, found = cProfile.Profile(), []
for _ in range(rounds):
    best = [1e9] * 4
    for _ in range(runs):
        best[0], best[1] = min(best[0], empty(calls)), min(best[1], bare_call(calls))
        best[2] = min(best[2], timed_call(calls))
        profile.enable()
        best[3] = min(best[3], bare_call(calls))
        profile.disable()
    found.append([(seconds - best[0]) / calls * 1e9 for seconds in best[1:]])
print(json.dumps([".".join(map(str, sys.version_info[:3])), found]))
"""


def _by_name() -> Iterator[Figure]:
    from tests.system.profile_programs import pythons

    modern = [python for python in pythons() if _minor(python) >= 12]
    if not modern:
        print("No CPython 3.12 or later with cfctl (CFCTL_TEST_PYTHONS): by-name not timed.", file=sys.stderr)
    for python in modern:
        command = [python, "-c", BY_NAME, *map(str, (ROUNDS, RUNS * 5, CALLS))]
        # Away from the source tree, whose package another Python has no compiled core for.
        text = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path.home()).stdout
        version, rounds = json.loads(text.splitlines()[-1])
        for name, values, unit, goal in (
            ("net of the bare call", tuple(ours - alone for alone, ours, _ in rounds), "ns", BY_NAME_GOAL_NS),
            ("with the call / cProfile", tuple(ours / c for _, ours, c in rounds), "x", BY_NAME_TO_CPROFILE),
            (
                "net of the call / cProfile", tuple((ours - a) / (c - a) for a, ours, c in rounds), "x",
                BY_NAME_TO_CPROFILE,
            ),
        ):  # fmt: skip
            yield Figure(f"by name on {version}, {name}", values, unit, goal)


def _minor(python: str) -> int:
    command = [python, "-c", "import sys; print(sys.version_info[1])"]
    return int(subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ).stdout)
