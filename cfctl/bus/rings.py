"""The ring files of a directory as an inspector sees them, from outside, while they are used and after.

Read, never mapped, and hostile until each number is checked; cfctl/native/ring.h defines the layout.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cfctl.errors import SegmentError, os_error_reason
from cfctl.segment.directory import MAX_FILES, open_directory

SUFFIX: Final = ".ring"
TOPIC_SUFFIX: Final = ".topic"
_MAGIC: Final = b"CFCTLRNG"
_VERSION: Final = 1
_PAGE_BYTES: Final = 4096
_READERS: Final = 63
_MAX_CAPACITY: Final = 1 << 20
_TOPIC_BYTES: Final = 1024
# magic, version, header bytes, ring id, topic hash, capacity, slot bytes, arena bytes, file bytes,
# overwrite, priority, publisher, uid, pid, start time, pid namespace, tick source, topic bytes,
# opened (tick, raw ns, realtime ns), boot id, state, scheduled
_HEADER: Final = struct.Struct("<8s2I2Q2I2Q4I3Q2I3Q40s2I")
_TOPIC_OFFSET: Final = 512
_WRITER_OFFSET: Final = 2048
# tail, arena floor, rejected, orphaned
_WRITER: Final = struct.Struct("<4Q")
# position, joined, dropped, subscription, pid, start time, pid namespace, reserved
_READER: Final = struct.Struct("<8Q")
# seq, hlc, tick, length | publisher << 32 | flags << 48
_SLOT: Final = struct.Struct("<4Q")
_CLOSED: Final = 2
# struct flock of a 64-bit Linux: type, whence, start, length, pid.
_FLOCK: Final = struct.Struct("@hhqqi4x")


@dataclass(frozen=True, slots=True)
class RingReader:
    """A subscription's place in a ring; copies = delivered + dropped + pending."""

    subscription: int
    pid: int
    pid_namespace: int
    alive: bool
    copies: int
    delivered: int
    dropped: int
    pending: int
    oldest_tick: int | None


@dataclass(frozen=True, slots=True)
class Ring:
    """A ring file. `live`: its publisher holds it; `closed`: it said that no more comes."""

    path: Path
    ring_id: int
    topic: str
    publisher: int
    priority: int
    scheduled: bool
    overwrite: bool
    capacity: int
    slot_bytes: int
    arena_bytes: int
    size_bytes: int
    written_unix_ns: int
    pid: int
    pid_namespace: int
    boot_id: str
    tick_source: int
    opened_unix_ns: int
    live: bool
    closed: bool
    published: int
    rejected: int
    orphaned: int
    readers: tuple[RingReader, ...]


def list_rings(directory: Path) -> tuple[tuple[Ring, ...], tuple[SegmentError, ...]]:
    """Return the rings of a directory by topic and age, and what is wrong with the others.

    Raises SegmentError for a directory that can not be read or is not this user's.
    """
    rings, errors = [], []
    for name in ring_names(directory):
        try:
            rings.append(read_ring(directory / name))
        except FileNotFoundError:
            continue
        except SegmentError as error:
            errors.append(error)
    rings.sort(key=lambda ring: (ring.topic, ring.opened_unix_ns, ring.ring_id))
    return tuple(rings), tuple(errors)


def ring_names(directory: Path, suffix: str = SUFFIX) -> Iterator[str]:
    """Yield the names of a directory's ring files; none when there is no directory."""
    fd = open_directory(directory)
    if fd is None:
        return
    try:
        names = [name for name in os.listdir(fd) if name.endswith(suffix)]  # noqa: PTH208 - of a descriptor
    finally:
        os.close(fd)
    yield from names[:MAX_FILES]


def read_ring(path: Path) -> Ring:
    """Return what a ring file shows. Raises FileNotFoundError, SegmentError for what is no ring."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except FileNotFoundError:
        raise
    except OSError as error:
        why = "It is a symbolic link." if error.errno == errno.ELOOP else os_error_reason(error)
        raise _no_ring(path, why) from error
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() != 0:
            raise _no_ring(path, "It is no regular file of this user.")
        return _parse(path, fd, status)
    finally:
        os.close(fd)


def is_locked(fd: int, byte: int) -> bool:
    """Return whether somebody holds a lock on a byte of an open file."""
    query = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)
    try:
        (lock_type, *_) = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_OFD_GETLK, query))
    except OSError:
        # A file system without locks: nothing is removed that may be in use.
        return True
    return bool(lock_type != fcntl.F_UNLCK)


def _no_ring(path: Path, why: str) -> SegmentError:
    return SegmentError(f"{path} is no usable ring.", why, "Remove it.")


def _parse(path: Path, fd: int, status: os.stat_result) -> Ring:
    pages = os.pread(fd, 2 * _PAGE_BYTES, 0)
    if len(pages) < 2 * _PAGE_BYTES or pages[: len(_MAGIC)] != _MAGIC:
        raise _no_ring(path, "It is torn, or its publisher is making it.")
    (
        _, version, header_bytes, ring_id, _, capacity, slot_bytes, arena_bytes, file_bytes, overwrite, priority,
        publisher, _, pid, _, namespace, tick_source, topic_bytes, _, _, opened_unix_ns, boot_id, state, scheduled,
    ) = _HEADER.unpack_from(pages)  # fmt: skip
    usable = (
        version == _VERSION
        and header_bytes == _PAGE_BYTES
        and 2 <= capacity <= _MAX_CAPACITY
        and capacity & (capacity - 1) == 0
        and slot_bytes in {64, 128}
        and 1 <= topic_bytes <= _TOPIC_BYTES
        and file_bytes == 2 * _PAGE_BYTES + capacity * slot_bytes + arena_bytes
        and status.st_size >= file_bytes
    )
    if not usable:
        raise _no_ring(path, "Its header contradicts itself.")
    tail, _, rejected, orphaned = _WRITER.unpack_from(pages, _WRITER_OFFSET)
    shape = _Shape(fd, capacity, slot_bytes, tail)
    return Ring(
        path, ring_id, pages[_TOPIC_OFFSET : _TOPIC_OFFSET + topic_bytes].decode("utf-8", "replace"), publisher,
        priority, scheduled != 0, overwrite != 0, capacity, slot_bytes, arena_bytes, status.st_blocks * 512,
        status.st_mtime_ns, pid, namespace, boot_id.rstrip(b"\0").decode("ascii", "replace"), tick_source,
        opened_unix_ns, is_locked(fd, 0), state == _CLOSED, tail, rejected, orphaned,
        tuple(_readers(pages[_PAGE_BYTES:], shape)),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Shape:
    fd: int
    capacity: int
    slot_bytes: int
    tail: int


def _readers(page: bytes, shape: _Shape) -> Iterator[RingReader]:
    (members,) = struct.unpack_from("<Q", page)
    for index in range(_READERS):
        if not members >> index & 1:
            continue
        position, joined, dropped, subscription, pid, _, namespace, _ = _READER.unpack_from(
            page, (index + 1) * _READER.size
        )
        # A reader may have gone on since the tail was read; nonsense gives no negative count.
        copies = max(0, max(shape.tail, position) - joined)
        pending = min(copies, max(0, shape.tail - position))
        yield RingReader(
            subscription, pid, namespace, is_locked(shape.fd, 1 + index), copies,
            max(0, copies - pending - dropped), dropped, pending, _oldest_tick(shape, position) if pending else None,
        )  # fmt: skip


def _oldest_tick(shape: _Shape, position: int) -> int | None:
    """Return the stamp of the message at a position; None when it is not there any more."""
    slot = os.pread(shape.fd, _SLOT.size, 2 * _PAGE_BYTES + position % shape.capacity * shape.slot_bytes)
    if len(slot) < _SLOT.size:
        return None
    seq, _, tick, _ = _SLOT.unpack(slot)
    return tick if seq == position + 1 else None
