"""What a pool counted, and the report of the pools of a process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

from cfctl import _native
from cfctl.records import Document
from cfctl.segment.file import Liveness, read_with_state, state_word
from cfctl.segment.reader import parse_segment

if TYPE_CHECKING:
    from cfctl.segment.records import Segment

KIND: Final = "pool"
NOT_WATCHED: Final = "only a pool with debug=True sees them"
NOT_WATCHABLE: Final = "its items allow no weak reference"
_COUNTS: Final = (
    "hits", "misses", "created", "released", "discarded", "lost", "abandoned", "factory_errors",
    "reset_errors", "misuses", "in_use", "idle", "high_water", "max_idle", "item_bytes", "watched",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class PoolStatistics:
    """What the pools of one name counted in one process.

    `created` items in all; an acquire was a hit (an idle item) or a miss (the factory was called).
    `in_use` and `idle` are of this moment, `high_water` is the most that one pool had in use at once.
    `discarded` were dropped: above `max_idle`, of another size, their reset failed, or cleared.
    `lost` were destroyed without a release, None with `lost_reason` where that can not be seen.
    `misuses` are refused releases: double, foreign, or still viewed. `abandoned` were in use when
    their pool went. `pools` counts the pools of this name that the process ever had at once.
    `hit_ratio` is None before the first acquire. `item_bytes` is None but for buffers.
    """

    name: str
    created: int
    hits: int
    misses: int
    released: int
    in_use: int
    high_water: int
    idle: int
    max_idle: int
    discarded: int
    lost: int | None
    lost_reason: str | None
    abandoned: int
    factory_errors: int
    reset_errors: int
    misuses: int
    hit_ratio: float | None
    item_bytes: int | None
    pools: int
    in_segment: bool = True

    @property
    def acquired(self) -> int:
        """Return how often an item was asked for."""
        return self.hits + self.misses


def own_statistics(name: str, counters: Mapping[str, int]) -> PoolStatistics:
    """Return the statistics of a pool of this process from its counters."""
    reason = None if counters["watched"] else NOT_WATCHED
    if counters["unwatchable"]:
        reason = NOT_WATCHABLE
    return _statistics(name, counters, 1, reason, bool(counters["in_segment"]))


def _statistics(
    name: str, counters: Mapping[str, int], pools: int, lost_reason: str | None, in_segment: bool
) -> PoolStatistics:
    acquired = counters["hits"] + counters["misses"]
    return PoolStatistics(
        name, counters["created"], counters["hits"], counters["misses"], counters["released"],
        counters["in_use"], counters["high_water"], counters["idle"], counters["max_idle"],
        counters["discarded"], counters["lost"] if lost_reason is None or counters["lost"] else None,
        lost_reason, counters["abandoned"], counters["factory_errors"], counters["reset_errors"],
        counters["misuses"], counters["hits"] / acquired if acquired else None,
        counters["item_bytes"] or None, pools, in_segment,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class PoolReport(Document):
    """The pools of one process, the busiest first; `state` is live, ended or killed (not closed).

    `shards_refused` counts instruments of the process that found no room in its segment.
    `problems` name what of the segment was torn or truncated: the rest is whole.
    """

    SCHEMA: ClassVar[str] = "cfctl.pools"
    VERSION: ClassVar[int] = 1
    ROWS: ClassVar[str | None] = "pools"
    pid: int
    command_line: tuple[str, ...]
    state: str
    pools: tuple[PoolStatistics, ...]
    shards_refused: int
    problems: tuple[str, ...]


def report_of_file(path: Path) -> PoolReport:
    """Return the pools in a segment's file; raises SegmentError."""
    return report_of_segment(*read_with_state(path))


def own_report() -> PoolReport:
    """Return the pools of this process, also when its segment is in anonymous memory."""
    return report_of_segment(parse_segment(_native.segment_bytes()), Liveness.LOCKED)


def report_of_segment(segment: Segment, state: Liveness) -> PoolReport:
    """Return the pools in a segment."""
    header = segment.header
    pools = pools_of_segment(segment)
    return PoolReport(
        header.pid, header.command_line, state_word(header, state), pools, header.shards_refused,
        segment.problems,
    )  # fmt: skip


def pools_of_segment(segment: Segment) -> tuple[PoolStatistics, ...]:
    """Return the pools in a segment, the one that was asked most often first."""
    found = []
    for entry in segment.entries:
        if entry.kind != KIND:
            continue
        counters = {name: _count(entry.values.get(name)) for name in _COUNTS}
        reason = None if counters["watched"] else NOT_WATCHED
        found.append(_statistics(entry.name, counters, entry.shards, reason, True))
    return tuple(sorted(found, key=lambda pool: (-pool.acquired, pool.name)))


def _count(value: object) -> int:
    return value if isinstance(value, int) else 0
