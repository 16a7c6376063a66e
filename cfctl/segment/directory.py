"""The segments of a directory: listed, found by path, process or age."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cfctl import paths
from cfctl.errors import SegmentError, StateError, os_error_reason
from cfctl.segment.file import SegmentFile, describe_segment

SUFFIX: Final = ".seg"
# More than this is somebody filling the directory.
MAX_FILES: Final = 100_000
_SHARED_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - where the segments of all users are


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A file in a segment directory that is no usable segment, and why."""

    path: Path
    error: SegmentError


@dataclass(frozen=True, slots=True)
class Listing:
    """The segments of one or more directories, newest first, and what could not be read."""

    directories: tuple[Path, ...]
    files: tuple[SegmentFile, ...]
    unreadable: tuple[Unreadable, ...]


def user_directories(all_users: bool = False) -> tuple[Path, ...]:
    """Return the directories to look into: this user's own, for root on demand everybody's.

    Raises SegmentError when another than root asks for all users.
    """
    own = paths.segment_directory()
    if not all_users:
        return (own,)
    if os.geteuid() != 0:
        raise SegmentError(
            "The segments of all users can not be read.",
            "They are private to their users.",
            "Run as root, or without --all-users.",
        )
    others = sorted(path for path in _SHARED_MEMORY.glob("cfctl-*") if path != own)
    return (own, *others)


def list_segments(directories: Sequence[Path], skip: Set[Path] = frozenset()) -> Listing:
    """Return the segments of the directories, newest first; a directory that is not there is empty.

    Those in `skip` are not looked at; a segment takes 0.1 ms. Raises SegmentError for a directory that can not be read or is not this user's.
    """
    files: list[SegmentFile] = []
    unreadable: list[Unreadable] = []
    for directory in directories:
        for found in _scan(directory, skip):
            if isinstance(found, SegmentFile):
                files.append(found)
            else:
                unreadable.append(found)
    files.sort(key=lambda file: (file.header.opened_unix_ns, file.path.name), reverse=True)
    return Listing(tuple(directories), tuple(files), tuple(unreadable))


def _scan(directory: Path, skip: Set[Path]) -> Iterator[SegmentFile | Unreadable]:
    fd = open_directory(directory)
    if fd is None:
        return
    try:
        names = [name for name in os.listdir(fd) if name.endswith(SUFFIX)]  # noqa: PTH208 - of a descriptor
        for name in names[:MAX_FILES]:
            path = directory / name
            if path in skip:
                continue
            try:
                yield describe_segment(path, fd)
            except SegmentError as error:
                yield Unreadable(path, error)
    finally:
        os.close(fd)


def open_directory(directory: Path) -> int | None:
    """Return a descriptor of a segment directory, None when there is none.

    Raises SegmentError when it is a link, no directory, or another user's (root may read all).
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(directory, flags)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        why = os_error_reason(error) if isinstance(error, OSError) else f"Its path is unusable: {error}."
        raise SegmentError(
            f"The segment directory {directory} cannot be read.",
            why,
            "Name a directory of your own, of mode 0700, with CFCTL_SEGMENT_DIR.",
        ) from error
    status = os.fstat(fd)
    if status.st_uid != os.geteuid() != 0:
        os.close(fd)
        raise SegmentError(
            f"The segment directory {directory} is not read.",
            "It belongs to another user.",
            "Name a directory of your own with CFCTL_SEGMENT_DIR.",
        )
    return fd


def find_segment(which: str | None = None) -> Path:
    """Return the path of the segment named by a path or a process id, or of the newest one.

    Of several segments of a pid (it was used again, or by another pid namespace) a live one goes
    before an ended one, then the newest. Raises SegmentError when there is none.
    """
    if which is not None and not which.isdecimal():
        return Path(which)
    files = list_segments(user_directories()).files
    if which is not None:
        files = tuple(file for file in files if file.header.pid == int(which))
    if not files:
        raise _nothing_found(which)
    return max(files, key=lambda file: which is not None and file.liveness.live).path


def segments_of_run(run_id: str) -> tuple[SegmentFile, ...]:
    """Return the segments that processes of one `profile run` wrote, oldest first."""
    files = list_segments(user_directories()).files
    return tuple(file for file in reversed(files) if file.header.run_id == run_id)


def _nothing_found(which: str | None) -> SegmentError:
    directory = paths.segment_directory()
    if which is not None:
        return SegmentError(
            f"There is no segment of process {which}.",
            f"{directory} holds none with this pid.",
            "See: cfctl segments list",
        )
    return SegmentError(
        "There is no segment yet.",
        f"{directory} holds none: no program that uses cfctl has run.",
        "Run one: cfctl profile run --function MODULE:NAME -- python app.py",
    )


def remove_segment(file: SegmentFile) -> bool:
    """Remove an ended segment; return whether it was removed. One that is live again stays.

    Raises StateError when the file can not be removed.
    """
    fd = open_directory(file.path.parent)
    if fd is None:
        return False
    try:
        now = describe_segment(file.path, fd)
        if now.liveness.live or now.header != file.header:
            return False
        os.unlink(file.path.name, dir_fd=fd)
    except SegmentError:
        return False
    except OSError as error:
        raise StateError(
            f"{file.path} can not be removed.", os_error_reason(error), "Make its directory writable."
        ) from error
    finally:
        os.close(fd)
    return True
