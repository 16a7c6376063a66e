"""The timeline of a segment: each thread's recent samples, as whole records only.

Recorded when `Profiler.timeline()` or `profile run --timeline` asked for it; cfctl/native/timeline.h
says what a record holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cfctl.profile.tally import KIND as OPERATION_KIND
from cfctl.profile.tally import Labels

if TYPE_CHECKING:
    from cfctl.segment.records import Entry, Segment

KIND: Final = "timeline"
_COLUMNS: Final = ("end_tick", "ticks", "operations", "status")
_LOW_32: Final = (1 << 32) - 1


@dataclass(frozen=True, slots=True)
class TimelineSample:
    """One sample: what ran, when it ended, how long it took, on which thread, inside of what.

    Ticks are the segment's. `thread` is the Linux thread id; `parent` is the name of the operation
    on whose span this one's was stacked, None for the outermost and for what has no stack: decorated
    coroutines and generators, `Operation.span` and `begin`, and samples that were measured elsewhere.
    """

    end_tick: int
    duration_ticks: int
    operation: str
    labels: Labels
    failed: bool
    thread: int
    parent: str | None

    @property
    def start_tick(self) -> int:
        """Return the tick at which the sample began."""
        return self.end_tick - self.duration_ticks


def timeline(segment: Segment) -> list[TimelineSample]:
    """Return the samples that a segment's rings hold, by their end; [] without a timeline.

    A record that was being written, or names an operation that is not there, is left out.
    """
    operations = {entry.offset: entry for entry in segment.entries if entry.kind == OPERATION_KIND}
    samples: list[TimelineSample] = []
    for entry in segment.entries:
        if entry.kind == KIND:
            samples += _samples(entry, operations)
    return sorted(samples, key=lambda sample: (sample.end_tick, sample.start_tick))


def overwritten(segment: Segment) -> int:
    """Return how many samples the rings held once and hold no more."""
    return sum(_written(entry) - _held(entry) for entry in segment.entries if entry.kind == KIND)


def _written(entry: Entry) -> int:
    value = entry.values.get("written")
    return value if isinstance(value, int) else 0


def _held(entry: Entry) -> int:
    """Return how many samples of the count are still there, the one being overwritten included."""
    capacity = sum(field.count for field in entry.fields if field.name == "status") * entry.shards
    return min(_written(entry), sum(1 for _, _, _, status in _records(entry) if status), capacity)


def _records(entry: Entry) -> list[tuple[int, ...]]:
    columns = [entry.values.get(name) for name in _COLUMNS]
    words = [memoryview(column).cast("Q") for column in columns if isinstance(column, bytes)]
    return list(zip(*words, strict=True)) if len(words) == len(_COLUMNS) else []


def _samples(entry: Entry, operations: dict[int, Entry]) -> list[TimelineSample]:
    samples = []
    for end_tick, ticks, names, status in _records(entry):
        operation, parent = operations.get(names & _LOW_32), operations.get(names >> 32)
        if not status or operation is None or ticks > end_tick:
            continue
        samples.append(
            TimelineSample(
                end_tick,
                ticks,
                operation.name,
                operation.labels,
                bool(status >> 32 & 1),
                status & _LOW_32,
                None if parent is None else parent.name,
            )
        )
    return samples
