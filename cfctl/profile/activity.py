"""What processes did between two readings of their segments: histograms subtract."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, ClassVar, Final

from cfctl.profile.statistics import operation_statistics
from cfctl.profile.tally import NS, Labels, Tally, merge
from cfctl.records import Document, Measurement

if TYPE_CHECKING:
    from cfctl.profile.report import Recording

_GAP: Final = "not kept for a part of the run"

_Key = tuple[str, Labels, str]


def since(later: Tally, earlier: Tally | None) -> Tally:
    """Return what was recorded after `earlier`, None standing for the beginning.

    Both must be of one operation of one process. The extremes of a part are not known.
    """
    before = dict(earlier.buckets) if earlier else {}
    buckets = tuple(
        (bucket, samples - before.get(bucket, 0))
        for bucket, samples in later.buckets
        if samples > before.get(bucket, 0)
    )
    errors = None if later.errors is None else max(0, later.errors - ((earlier and earlier.errors) or 0))
    return Tally(
        later.name, later.labels, max(0, later.count - (earlier.count if earlier else 0)), errors,
        max(0, later.sum_ticks - (earlier.sum_ticks if earlier else 0)),
        max(0, later.out_of_range - (earlier.out_of_range if earlier else 0)), later.threads, buckets,
        None, None, None, None, max(0, later.child_sum_ticks - (earlier.child_sum_ticks if earlier else 0)),
        later.unit, _GAP,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class ActiveOperation:
    """One operation of one process in the window.

    `rate` counts samples that ended in it; `busy` is the time they took per time of the window: 1
    is one thread that does nothing else. A sample counts whole in the window it ends in.
    """

    pid: int
    command_line: tuple[str, ...]
    name: str
    labels: Labels
    count: int
    errors: int | None
    error_ratio: float | None
    rate: Measurement
    busy: Measurement
    mean: Measurement
    p50: Measurement
    p99: Measurement
    recorded: int


@dataclass(frozen=True, slots=True)
class Activity(Document):
    """What the operations of all processes that were read did in a window, busiest first.

    `bus` is the report of the message bus over the same window (schema cfctl.bus), None where none runs.
    """

    SCHEMA: ClassVar[str] = "cfctl.top"
    VERSION: ClassVar[int] = 1
    ROWS: ClassVar[str | None] = "operations"
    unix_ns: int
    window_ns: int
    processes: int
    operations: tuple[ActiveOperation, ...]
    problems: tuple[str, ...]
    bus: Document | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """The recordings of some processes and the moment they were read at."""

    monotonic_ns: int
    unix_ns: int
    recordings: tuple[Recording, ...]


def activity(earlier: Reading, later: Reading) -> Activity:
    """Return what happened between two readings; a process that was not in the first counts whole."""
    window_ns = max(1, later.monotonic_ns - earlier.monotonic_ns)
    known = {_process(r): _tallies(r) for r in earlier.recordings}
    operations = [
        operation
        for recording in later.recordings
        for operation in _active(recording, known.get(_process(recording), {}), window_ns)
    ]
    operations.sort(key=lambda o: (-(o.busy.value or 0.0), -o.count, o.name, o.pid))
    return Activity(
        later.unix_ns,
        window_ns,
        len(later.recordings),
        tuple(operations),
        tuple(problem for recording in later.recordings for problem in recording.problems),
    )


def _process(recording: Recording) -> tuple[int, int]:
    process = recording.processes[0]
    return process.pid, process.opened_unix_ns


def _tallies(recording: Recording) -> dict[_Key, Tally]:
    return {(tally.name, tally.labels, tally.unit): tally for tally in merge(recording.tallies)}


def _active(recording: Recording, before: dict[_Key, Tally], window_ns: int) -> Iterable[ActiveOperation]:
    process, scale = recording.processes[0], recording.clock.scale
    for key, tally in _tallies(recording).items():
        part = since(tally, before.get(key))
        found = operation_statistics(part, scale)
        yield ActiveOperation(
            process.pid, process.command_line, tally.name, tally.labels, part.count, part.errors,
            found.error_ratio, Measurement(part.count * 1e9 / window_ns, "1/s", None, part.count, "over the window"),
            _busy(part.sum_ticks, 1.0 if part.unit == NS else scale.rate.ns_per_tick, window_ns), found.mean, found.p50, found.p99,
            tally.count,
        )  # fmt: skip


def _busy(ticks: int, ns_per_tick: float | None, window_ns: int) -> Measurement:
    if ns_per_tick is None:
        return Measurement.missing("ratio", "the clock's rate is not known")
    return Measurement(
        ticks * ns_per_tick / window_ns, "ratio", None, None, "time of the samples over the window"
    )


def chosen(found: Activity, patterns: Sequence[str] = (), top: int | None = None) -> Activity:
    """Return the activity with operations that match one of the patterns, and the first `top` of these."""
    operations = [
        o for o in found.operations if not patterns or any(fnmatchcase(o.name, p) for p in patterns)
    ]
    return dataclasses.replace(found, operations=tuple(operations[:top]))
