"""Running programs as the checks see them: their segments at both ends of the interval, and what
happens to a process's memory meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from cfctl.alloc.growth import TimelinePoint
from cfctl.errors import SegmentError, UnobservableError
from cfctl.host.processes import status_integer
from cfctl.host.view import HostView
from cfctl.segment.directory import find_segment, list_segments, user_directories
from cfctl.segment.file import Liveness, describe_segment, read_with_state

if TYPE_CHECKING:
    from cfctl.bus.statistics import BusReport
    from cfctl.segment.records import Entry, Segment, SegmentHeader

# A course of 200 points tells a slope; reading one costs about 0.1 ms.
COURSE_POINTS: Final = 200
LEAST_STEP_S: Final = 0.02
NO_SEGMENT: Final = "it has no segment: it does not use cfctl and was not run under cfctl alloc run"


@dataclass(frozen=True, slots=True)
class SeenEntry:
    """An instrument of a program: as it is now, and as it was an interval ago where it was there."""

    segment: SeenSegment
    now: Entry
    before: Entry | None

    def value(self, field: str) -> int:
        """Return a field's value now; raises UnobservableError when the entry has none."""
        found = self.now.values.get(field)
        if not isinstance(found, int):
            raise UnobservableError(f"the segment says no {field} of {self.now.kind} {self.now.name}")
        return found

    def has(self, field: str) -> bool:
        """Return whether the entry has a number of that name."""
        return isinstance(self.now.values.get(field), int)

    def rise(self, field: str) -> int | None:
        """Return by how much a field rose in the interval; None without one."""
        if not self.segment.has_interval:
            return None
        earlier = None if self.before is None else self.before.values.get(field)
        return self.value(field) - (earlier if isinstance(earlier, int) else 0)


@dataclass(frozen=True, slots=True)
class SeenSegment:
    """A program's segment now, and an interval ago (None for one view, or when it is newer)."""

    path: Path
    state: Liveness
    now: Segment
    before: Segment | None
    has_interval: bool

    @property
    def header(self) -> SegmentHeader:
        """Return who wrote it."""
        return self.now.header

    def entries(self, kind: str) -> tuple[SeenEntry, ...]:
        """Return its instruments of a kind."""
        earlier = {
            (entry.name, entry.labels): entry
            for entry in (self.before.entries if self.before else ())
            if entry.kind == kind
        }
        return tuple(
            SeenEntry(self, entry, earlier.get((entry.name, entry.labels)))
            for entry in self.now.entries
            if entry.kind == kind
        )


@dataclass(frozen=True, slots=True)
class Live:
    """What was seen of the programs that are diagnosed; `reason` says why there is no segment, or no bus.

    `which` is what of the bus was asked for: a process or a topic.
    """

    segments: tuple[SeenSegment, ...]
    reason: str
    course: tuple[TimelinePoint, ...] = ()
    course_ns: int = 0
    bus: BusReport | None = None
    which: str | None = None

    @property
    def paths(self) -> tuple[str, ...]:
        """Return the files of the segments."""
        return tuple(str(segment.path) for segment in self.segments)

    def entries(self, kind: str) -> tuple[SeenEntry, ...]:
        """Return the instruments of a kind; raises UnobservableError when there is no segment."""
        if not self.segments:
            raise UnobservableError(self.reason)
        return tuple(entry for segment in self.segments for entry in segment.entries(kind))


class Watch(Protocol):
    """Fills the interval of a diagnosis by looking at programs."""

    def watch(self, seconds: float) -> None:
        """Let an interval pass."""

    def seen(self) -> Live:
        """Return what was seen."""


class LiveWatch:
    """Looks at programs: `watch` fills the interval of a diagnosis, `seen` is the result.

    `paths` are their segments. With a `pid` the course of its resident memory is followed.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        pid: int | None = None,
        reason: str = NO_SEGMENT,
        *,
        open_view: Callable[[], HostView] = HostView,
        clock: Callable[[], int] = time.monotonic_ns,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._paths = tuple(paths)
        self._pid = pid
        self._reason = reason
        self._open_view, self._clock, self._sleep = open_view, clock, sleep
        self._before: dict[Path, tuple[Segment, Liveness]] | None = None
        self._course: list[TimelinePoint] = []
        self._course_ns = 0

    def watch(self, seconds: float) -> None:
        """Let an interval pass: segments at its start, resident memory all along."""
        self._before = self._read()
        start_ns = self._clock()
        end_ns = start_ns + round(seconds * 1e9)
        step_s = max(LEAST_STEP_S, seconds / COURSE_POINTS)
        while (now_ns := self._clock()) < end_ns:
            self._add_point(now_ns - start_ns)
            self._sleep(min(step_s, (end_ns - now_ns) / 1e9))
        self._course_ns = self._clock() - start_ns
        self._add_point(self._course_ns)

    def _add_point(self, time_ns: int) -> None:
        if self._pid is None:
            return
        try:
            self._course.append(TimelinePoint(time_ns, resident_bytes(self._open_view(), self._pid)))
        except UnobservableError:
            # It has ended, which the checks that read its files say.
            return

    def seen(self) -> Live:
        """Return what was seen, with the segments as they are now."""
        before = self._before
        segments = tuple(
            SeenSegment(
                path, state, segment,
                before[path][0] if before is not None and path in before else None,
                before is not None,
            )
            for path, (segment, state) in self._read().items()
        )  # fmt: skip
        return Live(segments, self._reason, tuple(self._course), self._course_ns)

    def _read(self) -> dict[Path, tuple[Segment, Liveness]]:
        found = {}
        for path in self._paths:
            try:
                found[path] = read_with_state(path)
            except SegmentError as error:
                self._reason = str(error)
        return found


def resident_bytes(view: HostView, pid: int) -> int:
    """Return a process's resident memory, VmRSS of proc_pid_status(5); raises UnreadableError.

    The kernel counts by CPU and in batches: right to some hundred kB.
    """
    return status_integer(view, pid, "VmRSS") * 1024


@dataclass(frozen=True, slots=True)
class ProgramUnderTest:
    """A program to diagnose: its pid where it can be seen here, else why not, and its segments."""

    pid: int | None
    reason: str
    paths: tuple[Path, ...]


def find_program(which: str | None) -> ProgramUnderTest:
    """Return the program named by a pid or a segment's path, without either that of the newest segment.

    Raises SegmentError when there is none, or the file can not be used.
    """
    if which is not None and which.isdecimal():
        pid = int(which)
        return ProgramUnderTest(pid, NO_SEGMENT, segments_of(pid))
    path = find_segment(which)
    file = describe_segment(path)
    same_namespace = file.header.pid_namespace == Path("/proc/self/ns/pid").stat().st_ino
    if file.liveness.live and same_namespace:
        return ProgramUnderTest(file.header.pid, NO_SEGMENT, (path,))
    reason = "it has ended" if not file.liveness.live else "it lives in another PID namespace"
    return ProgramUnderTest(None, reason, (path,))


def segments_of(pid: int) -> tuple[Path, ...]:
    """Return the live segments of a process; () also when the directory can not be read."""
    try:
        files = list_segments(user_directories()).files
    except SegmentError:
        return ()
    return tuple(file.path for file in files if file.header.pid == pid and file.liveness.live)


def live_segments() -> tuple[Path, ...]:
    """Return the segments of all programs of this user that run; raises SegmentError."""
    return tuple(file.path for file in list_segments(user_directories()).files if file.liveness.live)
