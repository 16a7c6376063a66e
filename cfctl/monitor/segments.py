"""The segments of live processes, read once for all sources, and how their numbers become measurements."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cfctl.errors import SegmentError, StateError
from cfctl.profile.recording import saved_rate
from cfctl.profile.statistics import TimeScale
from cfctl.segment.directory import list_segments
from cfctl.segment.file import SegmentFile, describe_segment, read_segment
from cfctl.segment.tick_rate import LocalClock, SavedRate, local_clock, tick_rate

if TYPE_CHECKING:
    from cfctl.monitor.metric import Labels, Subject
    from cfctl.segment.records import Entry, Segment

_MAX_COMMAND: Final = 60


@dataclass(frozen=True, slots=True)
class LiveSegment:
    """A live process's segment: who it is, since when, what it holds, and how long its ticks are."""

    path: Path
    pid: int
    start_time: int
    command: str
    segment: Segment
    scale: TimeScale

    @property
    def labels(self) -> Labels:
        """Return the labels every series of this process carries."""
        return (("pid", str(self.pid)), ("process", self.command))

    def entries(self, kind: str) -> tuple[Entry, ...]:
        """Return the instruments of a kind."""
        return tuple(entry for entry in self.segment.entries if entry.kind == kind)


class LiveSegments:
    """Reads the segments of a subject's live processes again and again.

    What has ended never lives again, and is not looked at a second time. Not thread-safe.
    """

    def __init__(self) -> None:
        self._ended: frozenset[Path] = frozenset()

    def __call__(self, subject: Subject) -> tuple[tuple[LiveSegment, ...], tuple[str, ...]]:
        """Return the segments, and one sentence per one that can not be read.

        Raises SegmentError for an unusable directory.
        """
        listing = list_segments(subject.segment_directories(), self._ended)
        self._ended |= {file.path for file in listing.files if not file.liveness.live}
        local = local_clock()
        problems = [f"{u.path.name}: {u.error}" for u in listing.unreadable]
        try:
            saved = saved_rate()
        except StateError as error:
            saved = None
            problems.append(str(error))
        found = []
        for file in listing.files:
            if file.liveness.live and (subject.pids is None or file.header.pid in subject.pids):
                try:
                    found.append(live_segment(file, local, saved))
                except SegmentError as error:
                    # A process that ended since it was listed takes nothing with it that a monitor needs.
                    problems.append(f"{file.path.name}: {error}")
        return tuple(found), tuple(problems)


def segment_of(path: Path) -> LiveSegment:
    """Return one segment, live or not; raises SegmentError."""
    return live_segment(describe_segment(path), local_clock(), saved_rate())


def live_segment(file: SegmentFile, local: LocalClock, saved: SavedRate | None) -> LiveSegment:
    """Return what a segment's file holds now; raises SegmentError."""
    segment = read_segment(file.path)
    header = segment.header
    scale = TimeScale(tick_rate(header, local, saved), header.opened.tick, header.opened_unix_ns, None)
    command = " ".join(
        Path(word).name if index == 0 else word for index, word in enumerate(header.command_line)
    )
    return LiveSegment(file.path, header.pid, header.start_time, command[:_MAX_COMMAND], segment, scale)
