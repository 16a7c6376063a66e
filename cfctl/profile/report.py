"""The report: from segments to statistics per operation. Lossless, so that saved reports merge."""

from __future__ import annotations

import dataclasses
import heapq
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, ClassVar, Final

from cfctl.errors import InputError
from cfctl.profile.edges import Edge, EdgeStatistics, edge_statistics, merge_edges
from cfctl.profile.stacks import StackProfile, merge_stacks
from cfctl.profile.statistics import (
    OperationStatistics,
    TimeScale,
    Whole,
    operation_statistics,
    per_tick_of,
    unit_of,
)
from cfctl.profile.tally import Tally, merge
from cfctl.records import Document

if TYPE_CHECKING:
    from cfctl.segment.tick_rate import TickRate


@dataclass(frozen=True, slots=True)
class ReportClock:
    """A tick counter that times of the report are from, and the Unix time of one of its ticks.

    `floor_ns` is what the timer reads of a span in which nothing happens; None when it is not known
    for this clock.
    """

    boot_id: str
    tick_source: str
    rate: TickRate
    anchor_tick: int
    anchor_unix_ns: int
    floor_ns: float | None

    @property
    def scale(self) -> TimeScale:
        """Return the scale that turns this clock's ticks into nanoseconds."""
        return TimeScale(self.rate, self.anchor_tick, self.anchor_unix_ns, self.floor_ns)


@dataclass(frozen=True, slots=True)
class RecordedProcess:
    """A process whose segment went into the report; `state` is live, ended or killed (not closed)."""

    pid: int
    command_line: tuple[str, ...]
    state: str
    opened_unix_ns: int
    run_id: str
    samples_lost: int
    shards_refused: int


@dataclass(frozen=True, slots=True)
class ProfileReport(Document):
    """Statistics of every operation of some processes.

    `other_kinds` counts entries of instruments that are no operations. `problems` name what of the
    segments was torn, truncated or contradictory: the rest is whole. `recorded_operations` counts
    also those that a selection left out of `operations`. `host` is that of the recording, None
    where it is not known. `edges` say which operation ran directly inside of which; `stacks` are those of
    a sampling profiler that ran beside, None without one.
    """

    SCHEMA: ClassVar[str] = "cfctl.profile"
    VERSION: ClassVar[int] = 1
    ROWS: ClassVar[str | None] = "operations"
    ROWS_WITHOUT: ClassVar[frozenset[str]] = frozenset({"ticks"})
    total_samples: int
    operations: tuple[OperationStatistics, ...]
    samples_lost: int
    shards_refused: int
    processes: tuple[RecordedProcess, ...]
    clocks: tuple[ReportClock, ...]
    other_kinds: dict[str, int]
    problems: tuple[str, ...]
    recorded_operations: int
    host: dict[str, Any] | None = None
    edges: tuple[EdgeStatistics, ...] = ()
    stacks: StackProfile | None = None


@dataclass(frozen=True, slots=True)
class Recording:
    """What one segment, or one clock of a saved report, brings to a report."""

    clock: ReportClock
    tallies: tuple[Tally, ...]
    processes: tuple[RecordedProcess, ...]
    other_kinds: dict[str, int] = dataclasses.field(default_factory=dict)
    problems: tuple[str, ...] = ()
    host: dict[str, Any] | None = None
    edges: tuple[Edge, ...] = ()
    stacks: StackProfile | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """Which operations a report is to hold: the first `top` by `sort` of those that match `patterns`.

    `sort` is one of SORT_KEYS; patterns are fnmatch's, and none match all.
    """

    sort: str = "mean"
    top: int | None = None
    patterns: tuple[str, ...] = ()

    def matches(self, name: str) -> bool:
        """Return whether an operation of this name may be shown."""
        return not self.patterns or any(fnmatchcase(name, pattern) for pattern in self.patterns)


def build_report(recordings: Sequence[Recording], choice: Choice = Choice()) -> ProfileReport:
    """Return one report of all recordings; equal operations of one clock become one row.

    Rows are those of `choice`, all by default, slowest mean first; totals and shares are of all
    operations. Rows that are left out cost next to nothing where their rank needs no histogram.
    """
    clocks: dict[tuple[str, str], ReportClock] = {}
    tallies: dict[tuple[str, str], list[Tally]] = {}
    edges: dict[tuple[str, str], list[Edge]] = {}
    for recording in recordings:
        key = (recording.clock.boot_id, recording.clock.tick_source)
        clocks[key] = _better_clock(clocks.get(key), recording.clock)
        tallies.setdefault(key, []).extend(recording.tallies)
        edges.setdefault(key, []).extend(recording.edges)
    found = [
        (tally, clocks[key].scale, index) for index, key in enumerate(clocks) for tally in merge(tallies[key])
    ]
    whole = _whole(found)
    operations = [
        operation_statistics(tally, scale, index, whole) for tally, scale, index in _candidates(found, choice)
    ]
    joined = [
        edge_statistics(edge, clocks[key].scale, index)
        for index, key in enumerate(clocks)
        for edge in merge_edges(edges[key])
    ]
    processes = tuple(process for recording in recordings for process in recording.processes)
    other_kinds: dict[str, int] = {}
    for recording in recordings:
        for kind, entries in recording.other_kinds.items():
            other_kinds[kind] = other_kinds.get(kind, 0) + entries
    return ProfileReport(
        total_samples=sum(tally.count for tally, _, _ in found),
        operations=tuple(sort_operations(operations, choice.sort)[: choice.top]),
        samples_lost=sum(process.samples_lost for process in processes),
        shards_refused=sum(process.shards_refused for process in processes),
        processes=processes,
        clocks=tuple(clocks.values()),
        other_kinds=other_kinds,
        problems=tuple(problem for recording in recordings for problem in recording.problems),
        recorded_operations=len(found),
        host=_common_host(recordings),
        edges=tuple(joined),
        stacks=merge_stacks([recording.stacks for recording in recordings if recording.stacks]),
    )


_Found = tuple[Tally, TimeScale, int]
# The sort keys that a tally has without its histogram, as parts of the unit that its times are in.
_RANKS: Final[dict[str, Callable[[Tally], float]]] = {
    "mean": lambda tally: tally.sum_ticks / tally.count if tally.count else -1.0,
    "total": lambda tally: tally.sum_ticks,
    "max": lambda tally: tally.max_ticks or 0,
}


def _candidates(found: Sequence[_Found], choice: Choice) -> Sequence[_Found]:
    """Return what matches, and of it at least the first `top`, those of equal rank included."""
    matching = [one for one in found if choice.matches(one[0].name)]
    rank = _RANKS.get(choice.sort)
    if choice.top is None or choice.top >= len(matching) or rank is None:
        return matching
    ranks = [rank(tally) * per_tick_of(tally, scale) for tally, scale, _ in matching]
    # A part in 10^9 is more than rounding: what is nearly equal is ranked by its statistics.
    least = heapq.nlargest(choice.top, ranks)[-1]
    return [
        one for one, value in zip(matching, ranks, strict=True) if value >= least * (1 - 1e-9) or least <= 0
    ]


def _common_host(recordings: Sequence[Recording]) -> dict[str, Any] | None:
    """Return the host of all recordings, None when they are of several or it is not known."""
    hosts = [recording.host for recording in recordings]
    return hosts[0] if hosts and all(host == hosts[0] for host in hosts) else None


def _whole(found: Sequence[tuple[Tally, TimeScale, int]]) -> Whole:
    """Return what shares are of: all totals, and all times of operations themselves.

    Totals in different units have no sum.
    """
    if len({unit_of(tally, scale) for tally, scale, _ in found}) > 1:
        return Whole(0.0, 0.0)
    total = math.fsum(tally.sum_ticks * per_tick_of(tally, scale) for tally, scale, _ in found)
    own = math.fsum(tally.self_ticks * per_tick_of(tally, scale) for tally, scale, _ in found)
    return Whole(total, own)


def _better_clock(known: ReportClock | None, other: ReportClock) -> ReportClock:
    if known is None or known.rate.uncertainty_ppb is None:
        return other
    worse = other.rate.uncertainty_ppb is None or other.rate.uncertainty_ppb >= known.rate.uncertainty_ppb
    return known if worse else other


_VALUES: Final[dict[str, Callable[[OperationStatistics], float | None]]] = {
    "mean": lambda operation: operation.mean.value,
    "count": lambda operation: operation.count,
    "rate": lambda operation: operation.rate.value,
    "errors": lambda operation: operation.errors,
    "error-ratio": lambda operation: operation.error_ratio,
    "min": lambda operation: operation.min.value,
    "stddev": lambda operation: operation.stddev.value,
    "p50": lambda operation: operation.p50.value,
    "p90": lambda operation: operation.p90.value,
    "p99": lambda operation: operation.p99.value,
    "p99.9": lambda operation: operation.p99_9.value,
    "p99.99": lambda operation: operation.p99_99.value,
    "max": lambda operation: operation.max.value,
    "total": lambda operation: operation.total.value,
    "share": lambda operation: operation.share,
    "self": lambda operation: operation.self_total.value,
    "self-share": lambda operation: operation.self_share,
    "first-seen": lambda operation: operation.first_unix_ns,
    "last-seen": lambda operation: operation.last_unix_ns,
    "threads": lambda operation: operation.threads,
}
SORT_KEYS: Final = ("name", *_VALUES)


def sort_operations(operations: Iterable[OperationStatistics], by: str = "mean") -> list[OperationStatistics]:
    """Return the operations, largest first, or by name; those without the value last.

    Raises InputError for a key that is not in SORT_KEYS.
    """
    if by not in SORT_KEYS:
        raise InputError(f"Operations can not be sorted by '{by}'.", f"Keys: {', '.join(SORT_KEYS)}.")
    named = sorted(operations, key=lambda operation: (operation.name, operation.labels))
    if by == "name":
        return named
    value = _VALUES[by]

    def largest_first(operation: OperationStatistics) -> tuple[bool, float]:
        found = value(operation)
        return (found is None, -(found or 0.0))

    return sorted(named, key=largest_first)


def selected(report: ProfileReport, choice: Choice) -> ProfileReport:
    """Return the report with the operations of a choice only; totals and shares stay as they are."""
    found = [operation for operation in report.operations if choice.matches(operation.name)]
    return dataclasses.replace(report, operations=tuple(sort_operations(found, choice.sort)[: choice.top]))
