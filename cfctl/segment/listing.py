"""The list of segments as a document."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from cfctl.errors import SegmentError
from cfctl.records import Document
from cfctl.segment.file import SegmentFile, read_segment

if TYPE_CHECKING:
    from cfctl.segment.directory import Listing


@dataclass(frozen=True, slots=True)
class ListedSegment:
    """A segment in the list. `operations` is None when the entries can not be read."""

    path: str
    pid: int
    uid: int
    state: str
    live: bool
    command_line: tuple[str, ...]
    run_id: str
    opened_unix_ns: int
    age_ns: int
    size_bytes: int
    operations: int | None
    problems: int


@dataclass(frozen=True, slots=True)
class UnreadableFile:
    """A file that is no usable segment, and why."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class SegmentList(Document):
    """Segments, newest first. `age_ns` is since the file was last known to be written."""

    SCHEMA: ClassVar[str] = "cfctl.segments"
    VERSION: ClassVar[int] = 1
    directories: tuple[str, ...]
    segments: tuple[ListedSegment, ...]
    unreadable: tuple[UnreadableFile, ...]


def segment_list(listing: Listing, now_unix_ns: int) -> SegmentList:
    """Return the document of a listing; reads each segment once to count its operations."""
    return SegmentList(
        tuple(str(directory) for directory in listing.directories),
        tuple(_listed(file, now_unix_ns) for file in listing.files),
        tuple(UnreadableFile(str(u.path), f"{u.error.what} {u.error.why}") for u in listing.unreadable),
    )


def _listed(file: SegmentFile, now_unix_ns: int) -> ListedSegment:
    header = file.header
    operations: int | None = None
    problems = 0
    try:
        segment = read_segment(file.path)
        operations = sum(entry.kind == "operation" for entry in segment.entries)
        problems = len(segment.problems)
    except SegmentError:
        # It was removed or cut since it was listed.
        problems = 1
    return ListedSegment(
        str(file.path), header.pid, header.uid, file.liveness.value, file.liveness.live, header.command_line,
        header.run_id, header.opened_unix_ns, max(0, now_unix_ns - file.written_unix_ns), file.size_bytes,
        operations, problems,
    )  # fmt: skip
