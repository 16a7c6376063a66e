"""The ring files of a directory as an inspector sees them, from outside, while they are used and after.

Read, never mapped, and hostile until each number is checked; cfctl/native/ring.h defines the layout.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cfctl.bus.files import RING_SUFFIX, names, opened, topic_hash, unusable
from cfctl.bus.leases import Leases
from cfctl.bus.topic_pages import TOPIC_BYTES, Seat, SeatFlag, SeatKind, TopicPage, list_topics
from cfctl.errors import SegmentError

_WHAT: Final = "ring"
_MAGIC: Final = b"CFCTLRNG"
_VERSION: Final = 2
_PAGE_BYTES: Final = 4096
_READERS_BYTES: Final = 20480
_FIXED_BYTES: Final = _PAGE_BYTES + _READERS_BYTES
_MAX_LINES: Final = 256
_MAX_CAPACITY: Final = 1 << 20
_MAX_ARENA: Final = 1 << 30
# magic, version, header bytes, ring id, topic hash, capacity, slot bytes, arena bytes, file bytes,
# overwrite, priority, publisher, uid, pid, start time, pid namespace, tick source, topic bytes,
# opened (tick, raw ns, realtime ns), boot id, state, scheduled, participant, own
_HEADER: Final = struct.Struct("<8s2I2Q2I2Q4I3Q2I3Q40s2IQI")
_TOPIC_OFFSET: Final = 512
_WRITER_OFFSET: Final = 2048
# tail, arena floor, rejected, orphaned
_WRITER: Final = struct.Struct("<4Q")
# subscription, position, joined, dropped, claim, participant, flags, reserved
_READER: Final = struct.Struct("<8Q")
_LINES_OFFSET: Final = _PAGE_BYTES + 64
# A group's claim: the first message that no member has taken, and the seat of who took the one before.
_CLAIM_SEAT_BITS: Final = 8
# seq, hlc, tick, length | publisher << 32 | flags << 48
_SLOT: Final = struct.Struct("<4Q")
_CLOSED: Final = 2
# A stamp this far ahead of this host's clock is no time at which something was written.
_AHEAD_NS: Final = 1_000_000_000
# Further than this no reader has gone on since the tail was read: such a line is nonsense, and counts nothing.
_AHEAD_MESSAGES: Final = 1 << 32


@dataclass(frozen=True, slots=True)
class RingReader:
    """A subscription's or a group's place in a ring; copies = delivered + dropped + pending.

    What was overwritten and not passed yet by a slow reader is dropped. `alive`: it may come back for its messages,
    of a group: a member. `pid` is 0 when its seat is gone. `unfinished`: taken by members of a group that work on
    them, or died; they are delivered. `waits_for`: the publisher waits for it.
    """

    seat: int
    subscription: int
    pid: int
    pid_namespace: int
    flags: SeatFlag
    group: str | None
    alive: bool
    waits_for: bool
    position: int
    copies: int
    delivered: int
    dropped: int
    pending: int
    unfinished: int
    oldest_tick: int | None

    @property
    def own(self) -> bool:
        """Return whether it is one of cfctl's own commands."""
        return bool(self.flags & SeatFlag.OWN)


@dataclass(frozen=True, slots=True)
class Ring:
    """A ring file. `live`: its publisher's process lives; `closed`: it said that no more comes.

    `written_unix_ns`: when its last message was stamped, without one when it was made. `own`: of cfctl's own
    commands.
    """

    path: Path
    ring_id: int
    topic: str
    topic_hash: int
    publisher: int
    priority: int
    scheduled: bool
    overwrite: bool
    own: bool
    capacity: int
    slot_bytes: int
    arena_bytes: int
    size_bytes: int
    written_unix_ns: int
    pid: int
    start_time: int
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

    @property
    def is_needed(self) -> bool:
        """Return whether it must stay: it is written, or a living reader has messages left to take."""
        unread = any(each.alive and (each.pending or each.unfinished) for each in self.readers)
        return unread or (self.live and not self.closed)


@dataclass(frozen=True, slots=True)
class BusFiles:
    """The topics and rings of a directory, and what is wrong with its other files."""

    topics: tuple[TopicPage, ...]
    rings: tuple[Ring, ...]
    errors: tuple[SegmentError, ...]


def list_bus(directory: Path) -> BusFiles:
    """Return the topics by name and the rings by topic and age; 0.1 ms a file.

    Raises SegmentError for a directory that cannot be read or is not this user's.
    """
    with Leases(directory) as leases:
        topics, errors = list_topics(directory, leases)
        pages = {page.hash: page for page in topics}
        rings, damaged = [], list(errors)
        for name in names(directory, RING_SUFFIX):
            try:
                ring = read_ring(directory / name, leases, pages)
            except FileNotFoundError:
                continue
            except SegmentError as error:
                damaged.append(error)
                continue
            if ring is not None:
                rings.append(ring)
    rings.sort(key=lambda ring: (ring.topic, ring.opened_unix_ns, ring.ring_id))
    return BusFiles(topics, tuple(rings), tuple(damaged))


def list_rings(directory: Path) -> tuple[tuple[Ring, ...], tuple[SegmentError, ...]]:
    """Return the rings of a directory by topic and age, and what is wrong with other files; as list_bus."""
    found = list_bus(directory)
    return found.rings, found.errors


def read_ring(path: Path, leases: Leases, pages: dict[int, TopicPage]) -> Ring | None:
    """Return what a ring file shows, None while it is made; `pages` by the hash of their topic say who reads it.

    Raises FileNotFoundError, SegmentError for what is no ring.
    """
    with opened(path, _WHAT) as (fd, status):
        header = os.pread(fd, _PAGE_BYTES, 0)
        if header[: len(_MAGIC)] in {b"", bytes(len(_MAGIC))}:
            return None
        return _parse(path, fd, status, header, leases, pages)


def _parse(
    path: Path, fd: int, status: os.stat_result, page: bytes, leases: Leases, pages: dict[int, TopicPage]
) -> Ring:
    if len(page) < _PAGE_BYTES or page[: len(_MAGIC)] != _MAGIC:
        raise unusable(path, _WHAT, "It is torn, or no ring.")
    (
        _, version, header_bytes, ring_id, stored_hash, capacity, slot_bytes, arena_bytes, file_bytes, overwrite,
        priority, publisher, _, pid, start_time, namespace, tick_source, topic_bytes, _, _, opened_unix_ns, boot_id, state,
        scheduled, participant, own,
    ) = _HEADER.unpack_from(page)  # fmt: skip
    if version != _VERSION:
        raise unusable(path, _WHAT, f"It is of another version of cfctl: layout {version}, not {_VERSION}.")
    name = page[_TOPIC_OFFSET : _TOPIC_OFFSET + min(topic_bytes, TOPIC_BYTES)]
    usable = (
        header_bytes == _PAGE_BYTES
        and 2 <= capacity <= _MAX_CAPACITY
        and capacity & (capacity - 1) == 0
        and slot_bytes in {64, 128}
        and arena_bytes <= _MAX_ARENA
        and arena_bytes % _PAGE_BYTES == 0
        and publisher <= 0xFFFF
        and 1 <= topic_bytes <= TOPIC_BYTES
        and stored_hash == topic_hash(name)
        and path.name == f"{stored_hash:016x}-{ring_id:016x}{RING_SUFFIX}"
        and file_bytes == _FIXED_BYTES + capacity * slot_bytes + arena_bytes
        and status.st_size >= file_bytes
    )
    if not usable:
        raise unusable(path, _WHAT, "Its header contradicts itself.")
    tail, _, rejected, orphaned = _WRITER.unpack_from(page, _WRITER_OFFSET)
    shape = _Shape(path, fd, ring_id, capacity, slot_bytes, overwrite != 0, tail)
    return Ring(
        path=path, ring_id=ring_id, topic=name.decode("utf-8", "replace"), topic_hash=stored_hash,
        publisher=publisher, priority=priority, scheduled=scheduled != 0, overwrite=overwrite != 0, own=own != 0,
        capacity=capacity, slot_bytes=slot_bytes, arena_bytes=arena_bytes, size_bytes=status.st_blocks * 512,
        written_unix_ns=max(opened_unix_ns, shape.last_stamp_ns()), pid=pid,
        start_time=start_time, pid_namespace=namespace,
        boot_id=boot_id.rstrip(b"\0").decode("ascii", "replace"), tick_source=tick_source,
        opened_unix_ns=opened_unix_ns, live=leases.lives(participant), closed=state == _CLOSED, published=tail,
        rejected=rejected, orphaned=orphaned, readers=tuple(_readers(shape, leases, pages.get(stored_hash))),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Shape:
    path: Path
    fd: int
    ring_id: int
    capacity: int
    slot_bytes: int
    overwrite: bool
    tail: int

    def slot(self, index: int) -> tuple[int, int] | None:
        """Return the stamp and the tick of a message, None when it is not there any more."""
        at = _FIXED_BYTES + index % self.capacity * self.slot_bytes
        slot = os.pread(self.fd, _SLOT.size, at)
        if len(slot) < _SLOT.size:
            return None
        seq, hlc, tick, _ = _SLOT.unpack(slot)
        return (hlc, tick) if seq == index + 1 else None

    def last_stamp_ns(self) -> int:
        """Return when the last message was stamped, Unix ns; 0 when that is not known."""
        last = self.slot(self.tail - 1) if self.tail > 0 else None
        return last[0] if last is not None and last[0] <= time.time_ns() + _AHEAD_NS else 0


def _readers(shape: _Shape, leases: Leases, page: TopicPage | None) -> Iterator[RingReader]:
    (used,) = struct.unpack("<I", os.pread(shape.fd, 4, _PAGE_BYTES).ljust(4, b"\0"))
    if used > _MAX_LINES:
        raise unusable(shape.path, _WHAT, "Its table of readers contradicts itself.")
    lines = os.pread(shape.fd, used * _READER.size, _LINES_OFFSET)
    seats = {} if page is None else {each.index: each for each in page.seats}
    for index in range(len(lines) // _READER.size):
        line = _READER.unpack_from(lines, index * _READER.size)
        if line[0] == 0:
            continue
        seat = seats.get(index)
        # Another one may have taken the seat since; the line of who had it before is a dead one's.
        of = seat if seat is not None and seat.subscription == line[0] else None
        yield _reader(shape, leases, index, line, of, () if of is None or page is None else page.members(of))


def _reader(
    shape: _Shape,
    leases: Leases,
    index: int,
    line: tuple[int, ...],
    seat: Seat | None,
    members: tuple[Seat, ...],
) -> RingReader:
    subscription, position, joined, dropped, claim, participant, flags, _ = line
    is_group = participant == 0
    claim >>= _CLAIM_SEAT_BITS
    if max(position, joined + dropped, claim if is_group else 0) > shape.tail + _AHEAD_MESSAGES:
        position = joined = claim = shape.tail
        dropped = 0
    # A drop is counted at once and the position told later; a group's messages are taken at its claim.
    reached = max(position, claim if is_group else 0, joined + dropped)
    # It may have gone on since the tail was read.
    tail = max(shape.tail, reached)
    flags |= 0 if seat is None else int(seat.flags)
    may_be_overwritten = shape.overwrite or bool(flags & SeatFlag.LOSSY)
    overwritten = max(0, tail - shape.capacity - reached) if may_be_overwritten else 0
    pending = tail - reached - overwritten
    oldest = shape.slot(tail - pending) if pending else None
    return RingReader(
        seat=index, subscription=subscription, pid=0 if seat is None else seat.pid,
        pid_namespace=0 if seat is None else seat.pid_namespace, flags=SeatFlag(flags & 31),
        group=seat.group_name if seat is not None and seat.kind is SeatKind.GROUP else None,
        alive=(seat is not None and seat.alive) if is_group else leases.lives(participant),
        waits_for=not may_be_overwritten, position=reached, copies=max(0, tail - joined),
        delivered=max(0, reached - joined - dropped), dropped=dropped + overwritten, pending=pending,
        unfinished=sum(each.unfinished for each in members if each.ring == shape.ring_id),
        oldest_tick=None if oldest is None else oldest[1],
    )  # fmt: skip
