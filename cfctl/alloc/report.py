"""The report of what processes allocated: read from their segments, totalled, and judged for growth."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

from cfctl.alloc.counts import Counts, SizeClass
from cfctl.records import Document, Judgement, Measurement

if TYPE_CHECKING:
    from cfctl.alloc.cycles import CycleReport
    from cfctl.alloc.growth import Growth, TimelinePoint

SITES_HINT: Final = "Where in a Python program: cfctl alloc run --with memray -- python app.py"


@dataclass(frozen=True, slots=True)
class ThreadCounts:
    """What the threads of one shard counted: `thread` is the Linux thread id of the one that has it
    now, None when it has ended; `threads` those that ever had it.
    """

    thread: int | None
    threads: int
    counts: Counts


@dataclass(frozen=True, slots=True)
class ProcessAllocations:
    """What one process allocated.

    `total` is over its threads and `shared`, where threads without a shard of their own counted;
    `live_bytes` and `live_blocks` add what was `inherited` at the fork that made the process.
    `peak` is known to within the batch of each thread. `children` is what forked children counted
    that did too little for a segment of their own. `bypass` names what did not come through malloc.
    """

    pid: int
    command_line: tuple[str, ...]
    state: str
    run_id: str
    opened_unix_ns: int
    elapsed_ns: int | None
    total: Counts
    live_bytes: int
    live_blocks: int
    inherited_bytes: int
    inherited_blocks: int
    peak: Measurement
    peak_at_ns: int
    threads: tuple[ThreadCounts, ...]
    shared: Counts
    child_processes: int
    children: Counts
    sizes: tuple[SizeClass, ...]
    timeline: tuple[TimelinePoint, ...]
    growth: Growth
    allocation_rate: Measurement
    byte_rate: Measurement
    bypass: tuple[str, ...]
    shards_refused: int


@dataclass(frozen=True, slots=True)
class LimitOutcome:
    """One limit of --fail-above beside what was measured."""

    name: str
    limit: float
    unit: str
    value: float | None
    judgement: Judgement


@dataclass(frozen=True, slots=True)
class AllocReport(Document):
    """What processes allocated, the one that allocated most first.

    `total` is the sum over them; the live bytes of processes that have ended are those they ended
    with. `sites` is the summary of another tool that records stacks, when it ran along; `cycles` are the
    reference cycles of a Python program that was watched for them.
    """

    SCHEMA: ClassVar[str] = "cfctl.alloc"
    VERSION: ClassVar[int] = 1
    ROWS: ClassVar[str | None] = "processes"
    ROWS_WITHOUT: ClassVar[frozenset[str]] = frozenset({"threads", "sizes", "timeline"})
    total: Counts
    processes: tuple[ProcessAllocations, ...]
    problems: tuple[str, ...]
    limits: tuple[LimitOutcome, ...] = ()
    sites: tuple[str, ...] = ()
    host: dict[str, Any] | None = None
    cycles: CycleReport | None = None

    def judgements(self) -> tuple[Judgement, ...] | None:
        """Return the limits' judgements, None without limits."""
        return tuple(outcome.judgement for outcome in self.limits) or None


def build_report(processes: Sequence[ProcessAllocations], problems: Sequence[str]) -> AllocReport:
    """Return the report of processes, the one that allocated the most bytes first."""
    ordered = tuple(sorted(processes, key=lambda process: -process.total.bytes_allocated))
    whole = Counts()
    for process in ordered:
        whole = whole.plus(process.total).plus(process.children)
    return AllocReport(whole, ordered, tuple(problems))


def with_host(report: AllocReport, host: dict[str, Any]) -> AllocReport:
    """Return the report with the fingerprint of the host it was recorded on."""
    return dataclasses.replace(report, host=host)


def since(later: AllocReport, earlier: AllocReport) -> AllocReport:
    """Return the later report with the rates of the time between the two readings."""
    before = {(process.pid, process.opened_unix_ns): process for process in earlier.processes}
    return dataclasses.replace(
        later,
        processes=tuple(
            _rates_since(process, before.get((process.pid, process.opened_unix_ns)))
            for process in later.processes
        ),
    )


def _rates_since(process: ProcessAllocations, earlier: ProcessAllocations | None) -> ProcessAllocations:
    if earlier is None or process.elapsed_ns is None or earlier.elapsed_ns is None:
        return process
    window_ns = process.elapsed_ns - earlier.elapsed_ns
    if window_ns <= 0:
        return process
    part = process.total.since(earlier.total)

    def rate(count: int, unit: str) -> Measurement:
        return Measurement(count * 1e9 / window_ns, unit, None, count, "since the reading before")

    return dataclasses.replace(
        process,
        allocation_rate=rate(part.allocations + part.reallocations, "1/s"),
        byte_rate=rate(part.bytes_allocated, "B/s"),
    )
