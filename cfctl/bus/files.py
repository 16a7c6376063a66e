"""The files of a bus's directory, found and opened for reading: another's, links and devices are refused."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from cfctl.errors import SegmentError, os_error_reason
from cfctl.segment.directory import MAX_FILES, open_directory

RING_SUFFIX: Final = ".ring"
TOPIC_SUFFIX: Final = ".topic"
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


def names(directory: Path, suffix: str) -> list[str]:
    """Return the names of a directory's files that end like that; none when there is no directory.

    Raises SegmentError for a directory that cannot be read or is not this user's.
    """
    fd = open_directory(directory)
    if fd is None:
        return []
    try:
        found = [name for name in os.listdir(fd) if name.endswith(suffix)]  # noqa: PTH208 - of a descriptor
    finally:
        os.close(fd)
    return found[:MAX_FILES]


@contextlib.contextmanager
def opened(path: Path, what: str) -> Iterator[tuple[int, os.stat_result]]:
    """Open a regular file of this user (root may read all) for reading: its descriptor and status.

    Raises FileNotFoundError, and SegmentError for anything else than such a file; `what` names its kind.
    """
    try:
        fd = os.open(path, _READ)
    except FileNotFoundError:
        raise
    except OSError as error:
        why = "It is a symbolic link." if error.errno == errno.ELOOP else os_error_reason(error)
        raise unusable(path, what, why) from error
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() != 0:
            raise unusable(path, what, "It is no regular file of this user.")
        yield fd, status
    finally:
        os.close(fd)


def unusable(path: Path, what: str, why: str) -> SegmentError:
    """Return the error of a file that is not what its name says."""
    return SegmentError(f"{path} is no usable {what}.", why, "Remove it.")


def topic_hash(topic: bytes) -> int:
    """Return the hash of a topic's name, FNV-1a of 64 bits: cf_topic_hash."""
    value = 0xCBF29CE484222325
    for byte in topic:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return value
