"""From a segment to what its process allocated."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cfctl.alloc.counts import Counts, size_classes, total
from cfctl.alloc.growth import TimelinePoint, growth
from cfctl.alloc.report import ProcessAllocations, ThreadCounts
from cfctl.errors import SegmentError
from cfctl.records import Measurement
from cfctl.segment.file import Liveness, liveness, open_segment, read_all, state_word
from cfctl.segment.format import HEADER_BYTES, SegmentState
from cfctl.segment.merge import merge_values
from cfctl.segment.reader import parse_header, parse_segment
from cfctl.segment.tick_rate import LocalClock, local_clock

if TYPE_CHECKING:
    from cfctl.segment.records import Entry, Segment, SegmentHeader

KIND: Final = "allocations"
_PROCESS_KIND: Final = "alloc_process"
_TIMELINE_KIND: Final = "alloc_timeline"
# The bits of enum cf_alloc_bypass in native/alloc.h.
_BYPASS: Final = {
    1: "The program brings its own malloc; what it allocates by that is not counted.",
    2: "With this allocator C++ new and delete do not call malloc; they are not counted.",
}
_PEAK_METHOD: Final = "each thread tells its net at +-64 KiB or after 8192 calls"
# A batch is told in some nanoseconds and read in a microsecond: twice in a row is rare.
_READINGS: Final = 5
_HALFWAY: Final = (
    "A thread's counters were told when they were read or the program was killed: "
    "they can be off by one batch, 8192 calls or 64 KiB."
)


def process_of_file(path: Path) -> tuple[ProcessAllocations | None, tuple[str, ...]]:
    """Return what the segment in a file says of allocations, None when nothing, and its problems.

    Raises SegmentError when the file can not be used.
    """
    with open_segment(path) as fd:
        for _ in range(_READINGS):
            state = liveness(fd, parse_header(os.pread(fd, HEADER_BYTES, 0), []))
            segment = parse_segment(read_all(fd, path))
            halfway = any(_is_halfway(entry) for entry in segment.entries if entry.kind == KIND)
            if not (halfway and state.live):
                break
    problems = (*segment.problems, *((_HALFWAY,) if halfway else ()))
    return process_of_segment(segment, state, local_clock()), problems


@dataclass(frozen=True, slots=True)
class LiveMemory:
    """What a process has counted so far; `error_bytes` is how far untold batches let `bytes` be off."""

    counts: Counts
    bytes: int
    blocks: int
    error_bytes: int


def live_memory(segment: Segment) -> LiveMemory | None:
    """Return what a process holds now, None when it runs without the preload library; 50 us a thread."""
    counted = {entry.name: entry for entry in segment.entries if entry.kind == KIND}
    record = next((entry for entry in segment.entries if entry.kind == _PROCESS_KIND), None)
    if record is None or not counted:
        return None
    whole = total([_counts(counted.get("threads")), _counts(counted.get("shared"))])
    return LiveMemory(
        whole,
        whole.live_bytes + _integer(record, "inherited_bytes"),
        whole.live_blocks + _integer(record, "inherited_blocks"),
        _integer(record, "batch_bytes") * max(1, _most_threads(counted.get("threads"))),
    )


def process_of_segment(segment: Segment, state: Liveness, local: LocalClock) -> ProcessAllocations | None:
    """Return what a segment says of allocations, None when its process ran without the preload library."""
    counted = {entry.name: entry for entry in segment.entries if entry.kind == KIND}
    record = next((entry for entry in segment.entries if entry.kind == _PROCESS_KIND), None)
    if record is None or not counted:
        return None
    header = segment.header
    threads = _threads(counted.get("threads"))
    shared = _counts(counted.get("shared"))
    whole = total([shared, *(thread.counts for thread in threads)])
    inherited = _integer(record, "inherited_bytes"), _integer(record, "inherited_blocks")
    live_bytes = whole.live_bytes + inherited[0]
    points = _timeline(segment.entries)
    elapsed_ns = _elapsed_ns(header, state, local, points)
    error = _integer(record, "batch_bytes") * max(1, _most_threads(counted.get("threads")))
    if elapsed_ns is not None:
        points = [
            *(point for point in points if point.time_ns < elapsed_ns),
            TimelinePoint(elapsed_ns, live_bytes),
        ]
    end_ns = elapsed_ns or (points[-1].time_ns if points else 0)
    own = [entry for name, entry in counted.items() if name != "children"]
    return ProcessAllocations(
        header.pid, header.command_line, state_word(header, state), header.run_id,
        header.opened_unix_ns, elapsed_ns, whole, live_bytes, whole.live_blocks + inherited[1],
        *inherited, _peak(record, live_bytes, error), _integer(record, "peak_ns"), threads, shared,
        _integer(record, "children"), _counts(counted.get("children")), size_classes(own), tuple(points),
        growth(points, end_ns, error),
        _rate(whole.allocations + whole.reallocations, elapsed_ns, "1/s"),
        _rate(whole.bytes_allocated, elapsed_ns, "B/s"), _bypass(_integer(record, "bypass")),
        header.shards_refused,
    )  # fmt: skip


def _integer(entry: Entry, name: str) -> int:
    value = entry.values.get(name)
    return value if isinstance(value, int) else 0


def _counts(entry: Entry | None) -> Counts:
    return Counts() if entry is None else total(Counts.of_shard(values) for values in _shards(entry))


def _shards(entry: Entry) -> list[Mapping[str, object]]:
    return [merge_values(entry.fields, [shard.payload]) for shard in entry.parts]


def _is_halfway(entry: Entry) -> bool:
    """Return whether a shard was copied, or its program killed, while a batch was told."""
    return any(values.get("tells_begun") != values.get("tells_ended") for values in _shards(entry))


def _threads(entry: Entry | None) -> tuple[ThreadCounts, ...]:
    """Return the counts of each shard, the one with the most bytes first."""
    if entry is None:
        return ()
    found = [
        ThreadCounts(shard.owner_tid or None, shard.owners, Counts.of_shard(values))
        for shard, values in zip(entry.parts, _shards(entry), strict=True)
    ]
    return tuple(sorted(found, key=lambda thread: -thread.counts.bytes_allocated))


def _most_threads(entry: Entry | None) -> int:
    """Return how many threads counted at the same time, at most."""
    return 0 if entry is None else entry.shards


def _peak(record: Entry, live_bytes: int, error: int) -> Measurement:
    peak = max(_integer(record, "peak_bytes"), live_bytes)
    return Measurement(peak, "B", error, None, _PEAK_METHOD)


def _timeline(entries: Iterable[Entry]) -> list[TimelinePoint]:
    """Return the points of all levels by time; one that two levels hold comes once."""
    points: dict[int, int] = {}
    for entry in entries:
        times, live = entry.values.get("time_ns"), entry.values.get("live_bytes")
        if entry.kind != _TIMELINE_KIND or not isinstance(times, bytes) or not isinstance(live, bytes):
            continue
        pairs = zip(memoryview(times).cast("Q"), memoryview(live).cast("q"), strict=False)
        points |= {time: live_bytes for time, live_bytes in pairs if time}
    return [TimelinePoint(time, points[time]) for time in sorted(points)]


def _elapsed_ns(
    header: SegmentHeader, state: Liveness, local: LocalClock, points: Sequence[TimelinePoint]
) -> int | None:
    """Return how long the process was counted: until now, its end, or the last that is known of it."""
    if state.live and local.boot_id == header.boot_id != "":
        elapsed = local.pair.raw_ns - header.opened.raw_ns
    else:
        elapsed = header.latest.raw_ns - header.opened.raw_ns
        if header.state is not SegmentState.CLOSED:
            # Killed: when a thread was last new says nothing of the end, a point does.
            elapsed = max(elapsed, points[-1].time_ns) if points else 0
    return elapsed if elapsed > 0 else None


def _rate(count: int, elapsed_ns: int | None, unit: str) -> Measurement:
    if elapsed_ns is None:
        return Measurement.missing(unit, "how long the process ran is not known")
    return Measurement(count * 1e9 / elapsed_ns, unit, None, count, "over the whole run")


def _bypass(bits: int) -> tuple[str, ...]:
    return tuple(text for bit, text in _BYPASS.items() if bits & bit)


def nothing_counted(path: Path) -> SegmentError:
    """Return the error for a segment of a process that ran without the preload library."""
    return SegmentError(
        f"{path} holds no allocations.",
        "Its program was not started by cfctl alloc run.",
        "Run it so: cfctl alloc run -- COMMAND",
    )
