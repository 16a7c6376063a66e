"""Allocation counting: a malloc loop, a Python program and an exec with and without it, and its peers.

With and without run in turn, round by round and in an order that is drawn for each, and the ratio is
of each pair: a slow moment of the machine meets both, and what the one leaves behind for the next
(caches, pages to be freed) meets each as often. The peers also record stacks; their ratios are no
judgement, only company.
"""

from __future__ import annotations

import math
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median

from cfctl.alloc.run import counting_environment, library_path
from tests.benchmarks.figure import Figure

ROUNDS = 41
LOOP_ROUNDS = 250_000
PEER_LOOP_ROUNDS = 200_000
EXEC_ROUNDS = 301
# Of a directory with many files a new one costs more.
FILES = 50
ONE_THREAD_GOAL, TWO_THREADS_GOAL, PYTHON_GOAL, EXEC_GOAL_US = 1.15, 1.20, 1.05, 200.0
STACKS = "(also records stacks)"
_ORDER = random.Random(1)

PYTHON_PROGRAM = """
import json, time
text = json.dumps([{"id": i, "name": "n" * (i % 700), "values": list(range(i % 40))} for i in range(2000)])
start = time.perf_counter()
for _ in range(4):
    rows = json.loads(text)
    buffers = [bytearray(len(row["name"]) + 600) for row in rows]
    joined = b"".join(buffers)
print((time.perf_counter() - start) * 1e9)
"""


def run() -> list[Figure]:
    """Return the ratios to no tool, and the cost of an exec."""
    # Segments are in memory where a user has them too.
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as directory:
        place = Path(directory)
        os.environ["CFCTL_SEGMENT_DIR"] = str(place / "segments")
        loop = _compiled(place)
        script = place / "program.py"
        script.write_text(PYTHON_PROGRAM)
        counted = counting_environment(library_path(), "benchmark", follow_children=False)
        python = [sys.executable, str(script)]
        figures = [
            _ratio("malloc loop, 1 thread", _loop(loop, "loop", 1), counted, ONE_THREAD_GOAL),
            _ratio("malloc loop, 2 threads", _loop(loop, "loop", 2), counted, TWO_THREADS_GOAL),
            _ratio("one block again and again, 1 thread (worst case)", _loop(loop, "tight", 1), counted),
            _ratio("Python program that allocates much", python, counted, PYTHON_GOAL),
            _exec_figure(counted),
        ]
        return [*figures, *_peers(loop, python, place)]


def _compiled(place: Path) -> Path:
    source, program = Path(__file__).with_name("malloc_loop.c"), place / "malloc_loop"
    subprocess.run(["cc", "-O2", "-pthread", "-o", program, source], check=True)
    return program


def _loop(program: Path, kind: str, threads: int, rounds: int = LOOP_ROUNDS) -> list[str]:
    return [str(program), kind, str(threads), str(rounds)]


def _ns(command: list[str], environment: Mapping[str, str] | None = None) -> float:
    """Return what a program prints of itself, the last number of its output."""
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return float(next(line for line in reversed(done.stdout.split("\n")) if _is_number(line)))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _ratio(name: str, command: list[str], counted: Mapping[str, str], goal: float = math.inf) -> Figure:
    return _compare(name, lambda: _ns(command, counted), lambda: _ns(command), ROUNDS, goal)


def _compare(
    name: str, ours: Callable[[], float], bare: Callable[[], float], rounds: int, goal: float = math.inf
) -> Figure:
    pairs = [_in_any_order(ours, bare) for _ in range(rounds)]
    label = f"{name} [{median(a for a, _ in pairs):.3g} / {median(b for _, b in pairs):.3g} ns]"
    return Figure(label, tuple(a / b for a, b in pairs), "x", goal)


def _in_any_order(ours: Callable[[], float], bare: Callable[[], float]) -> tuple[float, float]:
    """Return what both measure, the one that is drawn first."""
    if _ORDER.random() < 0.5:
        first = ours()
        return first, bare()
    second = bare()
    return ours(), second


def _exec_figure(counted: Mapping[str, str]) -> Figure:
    def spawn_us(environment: Mapping[str, str]) -> float:
        start = time.perf_counter_ns()
        os.waitpid(os.posix_spawn("/bin/true", ["true"], environment), 0)
        return (time.perf_counter_ns() - start) / 1e3

    pairs = []
    for number in range(EXEC_ROUNDS):
        if number % FILES == 0:
            shutil.rmtree(os.environ["CFCTL_SEGMENT_DIR"], ignore_errors=True)
        pairs.append(_in_any_order(lambda: spawn_us(counted), lambda: spawn_us(os.environ)))
    bare = median(us for _, us in pairs)
    return Figure(
        "exec of /bin/true, beyond none", tuple(a - b for a, b in pairs), "us", EXEC_GOAL_US,
        reference=bare, reference_name="of none",
    )  # fmt: skip


def _peers(loop: Path, python: list[str], place: Path) -> list[Figure]:
    short = _loop(loop, "loop", 1, PEER_LOOP_ROUNDS)
    figures = []
    if shutil.which("heaptrack"):
        heaptrack = ["heaptrack", "-o", str(place / "heaptrack")]
        figures.append(_peer("malloc loop under heaptrack", [*heaptrack, *short], short))
    tracing = [python[0], "-X", "tracemalloc=1", *python[1:]]
    figures.append(_peer("Python program under tracemalloc, 1 frame", tracing, python))
    if subprocess.run([python[0], "-c", "import memray"], capture_output=True).returncode == 0:
        memray = [python[0], "-m", "memray", "run", "-q", "-f", "-o", str(place / "memray"), *python[1:]]
        figures.append(_peer("Python program under memray", memray, python))
    return figures


def _peer(name: str, command: list[str], bare: list[str]) -> Figure:
    return _compare(f"{name} {STACKS}", lambda: _ns(command), lambda: _ns(bare), 3)
