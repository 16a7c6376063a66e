"""The timeline of one process as a document: when each recent sample ran, on which thread, inside of what."""

from __future__ import annotations

from dataclasses import dataclass
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
