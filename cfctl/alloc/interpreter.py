"""What a Python process knows of its own memory: garbage collector, tracemalloc, malloc's heap."""

from __future__ import annotations

import contextlib
import functools
import gc
import sys
import time
from dataclasses import dataclass

from cfctl import _native
from cfctl.segment.process import open_segment


@dataclass(frozen=True, slots=True)
class GcFacts:
    """The garbage collector: its settings, and what it did since the process began.

    `collections`, `collected` and `uncollectable` are by generation, the youngest first. `frozen`
    counts objects that gc.freeze() put aside.
    """

    enabled: bool
    thresholds: tuple[int, ...]
    collections: tuple[int, ...]
    collected: tuple[int, ...]
    uncollectable: tuple[int, ...]
    frozen: int


@dataclass(frozen=True, slots=True)
class TracemallocFacts:
    """What tracemalloc holds, bytes; None but for `tracing` while it is off."""

    tracing: bool
    traced_bytes: int | None
    peak_bytes: int | None
    own_bytes: int | None


@dataclass(frozen=True, slots=True)
class HeapFacts:
    """The heap of malloc over all arenas, bytes (mallinfo2 of glibc 2.33 and later).

    `free_bytes` are held by malloc and used by nobody, `mapped_bytes` of those in use are blocks with
    a mapping of their own.
    """

    in_use_bytes: int
    free_bytes: int
    mapped_bytes: int
    trimmable_bytes: int


def gc_facts() -> GcFacts:
    """Return what the garbage collector is set to and has done; about 3 us."""
    generations = gc.get_stats()
    return GcFacts(
        gc.isenabled(), gc.get_threshold(),
        tuple(each["collections"] for each in generations),
        tuple(each["collected"] for each in generations),
        tuple(each["uncollectable"] for each in generations),
        gc.get_freeze_count(),
    )  # fmt: skip


def tracemalloc_facts() -> TracemallocFacts:
    """Return what tracemalloc holds; it is not started, and not imported unless the program did."""
    tracemalloc = sys.modules.get("tracemalloc")
    if tracemalloc is None or not tracemalloc.is_tracing():
        return TracemallocFacts(False, None, None, None)
    traced, peak = tracemalloc.get_traced_memory()
    return TracemallocFacts(True, traced, peak, tracemalloc.get_tracemalloc_memory())


def heap_facts() -> HeapFacts | None:
    """Return the heap of malloc; None when this C library does not tell."""
    found = _native.heap_read()
    return None if found is None else HeapFacts(*found)


@functools.cache
def share_facts() -> None:
    """Keep this process's facts in its segment from now on, for `cfctl diagnose memory`.

    They are written now and after each garbage collection, at most ten times a second but for the
    counts; about 2 us a collection. Calling it again does nothing; a forked child goes on in its own
    segment.
    """
    open_segment()
    _write()
    gc.callbacks.append(_Sharing().collection)


class _Sharing:
    """The callback of the collector: what it did, and the facts when they are a tenth of a second old."""

    def __init__(self) -> None:
        self._started_ns = 0
        self._written_ns = 0

    def collection(self, phase: str, info: dict[str, int]) -> None:
        now_ns = time.monotonic_ns()
        if phase == "start":
            self._started_ns = now_ns
            return
        took_ns = now_ns - self._started_ns if self._started_ns else 0
        is_full = info["generation"] >= 2
        _native.interpreter_collection(is_full, info["collected"], info["uncollectable"], max(0, took_ns))
        if is_full or now_ns - self._written_ns > 100_000_000:
            self._written_ns = now_ns
            _write()


def _write() -> None:
    with contextlib.suppress(MemoryError):
        _native.interpreter_facts(gc.isenabled(), gc.get_freeze_count(), sys.getallocatedblocks())
