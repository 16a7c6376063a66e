"""The timeline of one process as a document: when each recent sample ran, on which thread, inside of what."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from cfctl.errors import UnobservableError
from cfctl.profile.recording import record_of_segment
from cfctl.profile.timeline import overwritten, timeline
from cfctl.records import Document
from cfctl.segment.file import liveness, open_segment, read_all
from cfctl.segment.reader import parse_segment
from cfctl.segment.tick_rate import local_clock


@dataclass(frozen=True, slots=True)
class TraceSpan:
    """One sample; `start_ns` is from the first one's start. `parent` is the operation it ran inside of."""

    start_ns: float
    duration_ns: float
    operation: str
    labels: tuple[tuple[str, str], ...]
    failed: bool
    thread: int
    parent: str | None


@dataclass(frozen=True, slots=True)
class Trace(Document):
    """The samples that the rings of a segment still hold, by their start; `overwritten` are gone."""

    SCHEMA: ClassVar[str] = "cfctl.profile.timeline"
    VERSION: ClassVar[int] = 1
    ROWS: ClassVar[str | None] = "spans"
    pid: int
    command_line: tuple[str, ...]
    overwritten: int
    spans: tuple[TraceSpan, ...]
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Lane:
    """Samples of one thread that nest, as (start, end, sample) by their start; whole ns, so that ends agree.

    `number` is 0, and above 0 for what overlaps without lying inside, as interleaved coroutines do.
    """

    thread: int
    number: int
    samples: list[tuple[int, int, TraceSpan]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Return what a viewer calls it."""
        return f"thread {self.thread}" + (f", overlapping {self.number}" if self.number else "")


def lanes(spans: Iterable[TraceSpan]) -> list[Lane]:
    """Return the samples of each thread, which come by their start, spread over lanes in which they nest."""
    threads: dict[int, list[tuple[Lane, list[int]]]] = {}
    for span in spans:
        start, end = round(span.start_ns), round(span.start_ns + span.duration_ns)
        of_thread = threads.setdefault(span.thread, [])
        free = (held for held in of_thread if _nests(held[1], start, end))
        held = next(free, None)
        if held is None:
            held = (Lane(span.thread, len(of_thread)), [])
            of_thread.append(held)
        held[0].samples.append((start, end, span))
        held[1].append(end)
    return [lane for of_thread in threads.values() for lane, _ in of_thread]


def _nests(open_ends: list[int], start: int, end: int) -> bool:
    """Return whether a sample lies inside of those open at its start, after taking off those that are not."""
    while open_ends and open_ends[-1] <= start:
        open_ends.pop()
    return not open_ends or end <= open_ends[-1]


def trace_of_file(path: Path) -> Trace:
    """Return the timeline in a segment's file.

    Raises SegmentError, and UnobservableError when there is no timeline or its clock's rate is not known.
    """
    with open_segment(path) as fd:
        segment = parse_segment(read_all(fd, path))
        recording = record_of_segment(segment, liveness(fd, segment.header), local_clock())
    samples = timeline(segment)
    if not samples:
        raise UnobservableError(
            f"{path} holds no timeline.", "The program did not record one.",
            "Record one: cfctl profile run --timeline -- COMMAND, or Profiler.timeline().",
        )  # fmt: skip
    per_tick = recording.clock.rate.ns_per_tick
    if per_tick is None:
        raise UnobservableError(f"The times in {path} are not known.", recording.clock.rate.reason or "")
    origin = min(sample.start_tick for sample in samples)
    spans = sorted(
        (
            TraceSpan(
                (s.start_tick - origin) * per_tick, s.duration_ticks * per_tick, s.operation, s.labels, s.failed,
                s.thread, s.parent,
            )
            for s in samples
        ),
        key=lambda span: (span.start_ns, -span.duration_ns),
    )  # fmt: skip
    process = recording.processes[0]
    return Trace(process.pid, process.command_line, overwritten(segment), tuple(spans), recording.problems)
