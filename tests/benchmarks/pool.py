"""Cost of a pool: acquire and release against a fresh object, buffers against fresh bytearrays, and
what counting Python's allocations adds.

Times are net of the loop, the least of short runs that take turns; ratios are of one run.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import timeit
from collections import deque
from collections.abc import Iterator
from typing import Any

from tests.benchmarks.figure import Figure

ROUNDS = 9
RUNS = 60
CALLS = 3_000
BUFFER_BYTES = 64 << 10


class Slots:
    """The small object a pool is held against."""

    __slots__ = ("a", "b", "c", "d")

    def __init__(self) -> None:
        self.a = self.b = self.c = self.d = 1


def run() -> Iterator[Figure]:
    """Yield the figures; counts into a segment of its own."""
    with tempfile.TemporaryDirectory() as directory:
        os.environ["CFCTL_SEGMENT_DIR"] = f"{directory}/segments"
        yield from _pools()
        yield _tracking()


def _undisturbed_ns(timers: dict[str, Any], calls: dict[str, int]) -> dict[str, float]:
    """The least time of each statement over short runs that take turns."""
    least = dict.fromkeys(timers, float("inf"))
    for _ in range(RUNS):
        for name, timer in timers.items():
            least[name] = min(least[name], timer(calls[name]) / calls[name] * 1e9)
    return least


def _pools() -> Iterator[Figure]:
    from cfctl import BufferPool, Pool

    objects, buffers, plain = Pool(Slots), BufferPool(BUFFER_BYTES), deque([Slots()])
    names = {
        "acquire": objects.acquire, "release": objects.release, "pool": objects, "Slots": Slots,
        "take": buffers.acquire, "give": buffers.release, "append": plain.append, "pop": plain.pop,
    }  # fmt: skip
    statements = (
        "pass", "release(acquire())", "with pool.item(): pass", "Slots()", "append(pop())", "give(take())",
        f"bytearray({BUFFER_BYTES})",
    )  # fmt: skip
    timers = {statement: timeit.Timer(statement, globals=names).timeit for statement in statements}
    calls = {statement: CALLS // 10 if "bytearray" in statement else CALLS for statement in statements}
    rounds = [_undisturbed_ns(timers, calls) for _ in range(ROUNDS)]
    net = {name: tuple(r[name] - r["pass"] for r in rounds) for name in statements}
    pair, fresh, bare = net["release(acquire())"], net["Slots()"], net["append(pop())"]
    buffer, fresh_buffer = net["give(take())"], net[f"bytearray({BUFFER_BYTES})"]
    yield Figure(
        "acquire and release",
        pair,
        "ns",
        20,
        reference=statistics.median(bare),
        reference_name="deque append(pop())",
    )
    yield Figure("acquire and release : fresh slots object", _ratios(pair, fresh), "x", 0.25)
    yield Figure("with pool.item()", net["with pool.item(): pass"], "ns", 150)
    # At least 20 times as fast.
    yield Figure("buffer of 64 KiB : fresh bytearray", _ratios(buffer, fresh_buffer), "x", 1 / 20)


def _ratios(values: tuple[float, ...], references: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(value / reference for value, reference in zip(values, references, strict=True))


def _tracking() -> Figure:
    from cfctl.alloc import track

    def work() -> list[list[int]]:
        return [[number] for number in range(2000)]

    def tracked() -> None:
        with track():
            work()

    timers = {"plain": timeit.Timer(work).timeit, "tracked": timeit.Timer(tracked).timeit}
    rounds = [_undisturbed_ns(timers, {"plain": 10, "tracked": 10}) for _ in range(ROUNDS)]
    ratios = tuple(r["tracked"] / r["plain"] for r in rounds)
    return Figure("small lists while tracking : without", ratios, "x", 1.25)
