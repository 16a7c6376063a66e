"""What is read from a segment: its header and its entries, with the shards merged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cfctl.segment.format import FieldType, MergeRule, SegmentState, TickSource


@dataclass(frozen=True, slots=True)
class ClockPair:
    """One moment on two clocks: the writer's ticks and CLOCK_MONOTONIC_RAW."""

    tick: int
    raw_ns: int


@dataclass(frozen=True, slots=True)
class SegmentHeader:
    """Who wrote a segment, when, on which clock, and what found no room.

    `pid` is as the writer saw itself in `pid_namespace`; `start_time` is field 22 of its
    /proc/PID/stat. 0 and "" stand for what the writer could not read. `paused`: its instrumentation by
    name is switched off for now.
    """

    version: int
    limit_bytes: int
    used_bytes: int
    first_entry: int
    shards_refused: int
    samples_lost: int
    pid: int
    start_time: int
    pid_namespace: int
    uid: int
    tick_source: TickSource
    opened: ClockPair
    opened_unix_ns: int
    latest: ClockPair
    state: SegmentState
    boot_id: str
    run_id: str
    command_line: tuple[str, ...]
    paused: bool = False


@dataclass(frozen=True, slots=True)
class Field:
    """One field of an entry's shards, as its field table describes it.

    `offset` is in the payload; `count` is the number of buckets of a histogram or of records of a
    ring, else 1; `parameter` a histogram's sub-bucket bits, the bytes between a ring's records, or the
    offset of the histogram that a latest sample belongs to.
    """

    name: str
    unit: str
    type: FieldType
    merge: MergeRule
    offset: int
    count: int
    parameter: int

    @property
    def sub_bits(self) -> int:
        """Return a histogram's sub-bucket bits."""
        return self.parameter


@dataclass(frozen=True, slots=True)
class Shard:
    """One thread's part of an entry: `owner_tid` is 0 when it has ended, `owners` those it ever had.

    Its values: `merge_values(entry.fields, [shard.payload])`.
    """

    owner_tid: int
    owners: int
    payload: memoryview


@dataclass(frozen=True, slots=True)
class Entry:
    """An instrument with the values of all its shards, merged by each field's rule.

    `values` maps a field's name to int or float, to bytes (native uint64) for the buckets of a
    histogram and for the slots of a ring, one shard's after the other's, or to None for a minimum of
    nothing. `offset` is where the entry stands, by which other entries name it. `threads` counts owners the shards ever had, `live_shards`
    those that have one now. `parts` are the shards one by one, in the order of their making.
    """

    kind: str
    name: str
    labels: tuple[tuple[str, str], ...]
    fields: tuple[Field, ...]
    values: Mapping[str, int | float | bytes | None]
    shards: int
    live_shards: int
    threads: int
    offset: int = 0
    parts: tuple[Shard, ...] = ()


@dataclass(frozen=True, slots=True)
class Segment:
    """What is whole of a segment, and what is not: one sentence per problem."""

    header: SegmentHeader
    entries: tuple[Entry, ...]
    problems: tuple[str, ...]
