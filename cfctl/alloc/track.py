"""track: Python's own allocations within a block, counted by hooks that are there only meanwhile."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final

from cfctl import _native
from cfctl.alloc.interpreter import GcFacts, TracemallocFacts, gc_facts, tracemalloc_facts
from cfctl.errors import UnobservableError
from cfctl.records import Document, Measurement
from cfctl.segment.process import open_segment

if TYPE_CHECKING:
    from types import TracebackType

FREED_UNKNOWN: Final = "pymalloc does not tell the size of a block that is freed; tracemalloc does"
HOOKS_REMOVED: Final = (
    "Somebody put back the allocators of before (as tracemalloc.stop() does): allocations are missing."
)


@dataclass(frozen=True, slots=True)
class PythonAllocations(Document):
    """Allocations of the whole process, all threads, through Python's domains mem and obj in a window.

    That is pymalloc, and malloc for more than 512 bytes (`large_allocations`); memory that C code
    takes from malloc by itself and the domain raw are not seen. `requested_bytes` are those of
    allocations and reallocations. `frees` counts blocks of before the window too, so that
    `net_blocks` (allocations - frees) is the exact change of live blocks. `freed_bytes` is missing:
    tracemalloc's figures stand beside it when it is tracing. `failures` were refused for want of
    memory. `problems` say what is not whole.
    """

    SCHEMA: ClassVar[str] = "cfctl.python-allocations"
    VERSION: ClassVar[int] = 1
    name: str | None
    duration_ns: int
    allocations: int
    reallocations: int
    frees: int
    net_blocks: int
    requested_bytes: int
    large_allocations: int
    failures: int
    freed_bytes: Measurement
    allocated_blocks_change: int
    traced_bytes_change: int | None
    gc_before: GcFacts
    gc_after: GcFacts
    tracemalloc: TracemallocFacts
    problems: tuple[str, ...] = ()

    @property
    def collections(self) -> int:
        """Return how many garbage collections there were."""
        return sum(self.gc_after.collections) - sum(self.gc_before.collections)


class track:  # noqa: N801 - used as a function is, like contextlib's
    """`with track() as tracked:` counts; afterwards `tracked.result` is the record.

    Blocks may nest and overlap on any threads; each counts all of the process's allocations while
    it lasts. About 2 to 5 ns an allocation meanwhile, nothing otherwise. With a name the window is
    added to that row in the process's segment. The result is there too when an exception leaves
    the block. Raises UnobservableError where Python's allocators can not be hooked: on a build
    without a GIL.
    """

    __slots__ = ("_before", "_blocks", "_gc", "_name", "_result", "_started_ns", "_traced")

    def __init__(self, name: str | None = None) -> None:
        self._name = name
        self._result: PythonAllocations | None = None
        self._started_ns: int | None = None

    def __enter__(self) -> track:
        if self._started_ns is not None:
            raise RuntimeError("a track() counts one block: make another")
        if self._name is not None:
            open_segment()
        self._gc = gc_facts()
        self._traced = tracemalloc_facts().traced_bytes
        try:
            _native.track_begin()
        except NotImplementedError as error:
            raise UnobservableError(
                "Python's allocations can not be counted.", f"{error}.", "Use a build with a GIL."
            ) from error
        self._started_ns = time.monotonic_ns()
        self._blocks = sys.getallocatedblocks()
        self._before = _native.track_counts()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        after = _native.track_counts()
        blocks = sys.getallocatedblocks()
        whole = _native.track_end()
        assert self._started_ns is not None
        duration_ns = time.monotonic_ns() - self._started_ns
        counts = tuple(late - early for early, late in zip(self._before, after, strict=True))
        allocations, reallocations, frees, requested, large, failures = counts
        problems = [] if whole else [HOOKS_REMOVED]
        if self._name is not None and not _native.track_record(
            self._name, duration_ns, (allocations, reallocations, frees, requested, large, failures)
        ):
            problems.append("The window found no room in the process's segment.")
        traced = tracemalloc_facts()
        both = self._traced is not None and traced.traced_bytes is not None
        self._result = PythonAllocations(
            self._name, duration_ns, allocations, reallocations, frees, allocations - frees, requested, large,
            failures, Measurement.missing("B", FREED_UNKNOWN), blocks - self._blocks,
            (traced.traced_bytes or 0) - (self._traced or 0) if both else None,
            self._gc, gc_facts(), traced, tuple(problems),
        )  # fmt: skip

    @property
    def result(self) -> PythonAllocations:
        """Return what was counted, once the block has ended; raises RuntimeError before."""
        if self._result is None:
            raise RuntimeError("the block has not ended")
        return self._result
