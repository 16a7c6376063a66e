"""A segment's file: opened with care, read whole, and asked whether its writer still runs.

Read, never mapped: a mapped file that is truncated by somebody is SIGBUS in the reader.
"""

from __future__ import annotations

import enum
import errno
import fcntl
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cfctl.errors import SegmentError, os_error_reason
from cfctl.segment import format as layout
from cfctl.segment.reader import parse_header, parse_segment

if TYPE_CHECKING:
    from cfctl.segment.records import Segment, SegmentHeader

# struct flock of a 64-bit Linux: type, whence, start, length, pid.
_FLOCK: Final = struct.Struct("@hhqqi4x")
_NEXT_STEP_FOREIGN: Final = "Name one of your own segments; `cfctl segments list` shows them."


class Liveness(enum.StrEnum):
    """Whether the writer of a segment still runs, and how that is known."""

    LOCKED = "live"  # it holds its lock on the file
    MAPPED = "live without lock"  # it closed its files, as a daemon does, and has the file mapped
    ENDED = "ended"

    @property
    def live(self) -> bool:
        """Return whether the writer still runs."""
        return self is not Liveness.ENDED


@dataclass(frozen=True, slots=True)
class SegmentFile:
    """A segment's file as it was seen: where, how large, how old, whether live, and its header.

    `written_unix_ns` is the latest moment at which the file is known to have grown or been closed.
    """

    path: Path
    size_bytes: int
    written_unix_ns: int
    liveness: Liveness
    header: SegmentHeader


def read_segment(path: Path) -> Segment:
    """Return the segment in a file; raises SegmentError when it can not be opened or used."""
    with open_segment(path) as fd:
        return parse_segment(read_all(fd, path))


def read_with_state(path: Path) -> tuple[Segment, Liveness]:
    """Return the segment in a file and whether its writer still ran before it was read.

    Raises SegmentError as `read_segment`.
    """
    with open_segment(path) as fd:
        # Asked before the reading: of a program that had ended by then, all fields must agree.
        state = liveness(fd, parse_header(os.pread(fd, layout.HEADER_BYTES, 0), []))
        return parse_segment(read_all(fd, path)), state


def state_word(header: SegmentHeader, state: Liveness) -> str:
    """Return "live", "ended", or "killed" for a segment that its writer had not closed."""
    if state.live:
        return "live"
    return "ended" if header.state is layout.SegmentState.CLOSED else "killed"


def describe_segment(path: Path, dir_fd: int | None = None) -> SegmentFile:
    """Return a segment's header and state without reading its entries; raises SegmentError.

    With `dir_fd` the last part of the path is opened in that directory.
    """
    with open_segment(path, dir_fd) as fd:
        status = os.fstat(fd)
        header = parse_header(os.pread(fd, layout.HEADER_BYTES, 0), [])
        opened_for_ns = max(0, header.latest.raw_ns - header.opened.raw_ns)
        written_unix_ns = max(status.st_mtime_ns, header.opened_unix_ns + opened_for_ns)
        return SegmentFile(path, status.st_size, written_unix_ns, liveness(fd, header), header)


@contextmanager
def open_segment(path: Path, dir_fd: int | None = None) -> Iterator[int]:
    """Yield a descriptor of a regular file of this user (root: of anybody), never through a link.

    Raises SegmentError that says what stands in the way.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
    try:
        fd = os.open(path if dir_fd is None else path.name, flags, dir_fd=dir_fd)
    except (OSError, ValueError) as error:
        raise _unopened(path, error) from error
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise SegmentError(f"{path} is not read.", "It is no regular file.", _NEXT_STEP_FOREIGN)
        if status.st_uid != os.geteuid() != 0:
            raise SegmentError(f"{path} is not read.", "It belongs to another user.", _NEXT_STEP_FOREIGN)
        yield fd
    finally:
        os.close(fd)


def _unopened(path: Path, error: OSError | ValueError) -> SegmentError:
    if isinstance(error, ValueError):
        return SegmentError("The segment can not be opened.", f"Its path is unusable: {error}.")
    if error.errno == errno.ENOENT:
        return SegmentError(
            f"There is no segment {path}.", "The file does not exist.", "See: cfctl segments list"
        )
    why = "It is a symbolic link." if error.errno == errno.ELOOP else os_error_reason(error)
    return SegmentError(f"{path} can not be opened.", why, _NEXT_STEP_FOREIGN)


def read_all(fd: int, path: Path) -> bytes:
    """Return the whole file, also what it grows by while it is read.

    Read front to back: what an offset leads to is stored before the offset and lies behind it, so
    all that is linked when its link is read is there too. Raises SegmentError beyond
    MAX_SEGMENT_BYTES.
    """
    parts: list[bytes] = []
    size = 0
    try:
        # One part, which is not copied again, unless the file grows meanwhile.
        wanted = min(os.fstat(fd).st_size, layout.MAX_SEGMENT_BYTES) + 1
        while part := os.pread(fd, wanted, size):
            parts.append(part)
            size += len(part)
            if size > layout.MAX_SEGMENT_BYTES:
                raise SegmentError(
                    f"{path} is not read.",
                    f"It holds more than {layout.MAX_SEGMENT_BYTES >> 20} MiB, which no segment does.",
                    _NEXT_STEP_FOREIGN,
                )
    except OSError as error:
        raise SegmentError(f"{path} can not be read.", os_error_reason(error), _NEXT_STEP_FOREIGN) from error
    return b"".join(parts)


def liveness(fd: int, header: SegmentHeader) -> Liveness:
    """Return whether the writer of an open segment still runs.

    It does while it holds the lock on the file, which works across pid namespaces; or, without the
    lock, when a process of that pid and start time in this pid namespace still maps the file.
    """
    query = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    try:
        (lock_type, *_) = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_OFD_GETLK, query))
    except OSError:
        # A file system without locks: only the process can tell.
        lock_type = fcntl.F_UNLCK
    if lock_type != fcntl.F_UNLCK:
        return Liveness.LOCKED
    return Liveness.MAPPED if _is_mapped_by_writer(fd, header) else Liveness.ENDED


def _is_mapped_by_writer(fd: int, header: SegmentHeader) -> bool:
    """Return whether the process of the header runs and maps the file.

    A process that replaced itself by exec keeps pid and start time but not the mapping.
    """
    process = Path(f"/proc/{header.pid}")
    try:
        if header.pid_namespace != Path("/proc/self/ns/pid").stat().st_ino:
            return False
        stat_fields = (process / "stat").read_bytes().rpartition(b")")[2].split()
        if int(stat_fields[19]) != header.start_time:
            return False
        file = os.fstat(fd)
        device = f"{os.major(file.st_dev):02x}:{os.minor(file.st_dev):02x}"
        maps = (process / "maps").read_text("utf-8", "replace")
    except (OSError, ValueError, IndexError):
        # No such process, or not ours to look into.
        return False
    wanted = [device, str(file.st_ino)]
    return any(line.split(maxsplit=5)[3:5] == wanted for line in maps.splitlines())
