"""The topics of a directory as their pages show them: who publishes, who listens, and how.

Read, never mapped, and hostile until each number is checked; native/topic.h defines the layout.
"""

from __future__ import annotations

import enum
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cfctl.bus.files import TOPIC_SUFFIX, names, opened, topic_hash, unusable
from cfctl.errors import SegmentError

if TYPE_CHECKING:
    from cfctl.bus.leases import Leases

MAX_SEATS: Final = 256
MAX_RINGS: Final = 256
TOPIC_BYTES: Final = 1024
_WHAT: Final = "topic"
_MAGIC: Final = b"CFCTLTOP"
_VERSION: Final = 2
_NAME_OFFSET: Final = 1024
_RINGS_OFFSET: Final = 4096
_SEATS_OFFSET: Final = 12288
PAGE_BYTES: Final = 45056
# magic, version, name bytes, hash
_HEADER: Final = struct.Struct("<8s2IQ")
# waiters, sleepers; seats used, rings used, departures
_WAITERS: Final = struct.Struct("<2I")
_USED: Final = struct.Struct("<2IQ")
# ring id, participant, state, number
_RING: Final = struct.Struct("<2Q2I8x")
# subscription, participant, pid, start time, pid namespace, taken; kind, group, flags; ring, from, to,
# abandoned, redelivered; group name
_SEAT: Final = struct.Struct("<6Q3I4x5Q24s")
_LONGEST_WORK: Final = 1 << 20


class SeatKind(enum.IntEnum):
    """What a seat is of: enum cf_seat_kind. A group has one of its own, and each member of it has one."""

    READER = 1
    GROUP = 2
    MEMBER = 3


class SeatFlag(enum.IntFlag):
    """How a seat's subscription is: enum cf_seat_flag."""

    LOSSY = 1
    SLEEPS = 2
    REDELIVER = 4
    PATTERN = 8
    OWN = 16


@dataclass(frozen=True, slots=True)
class Seat:
    """A subscription's place at a topic, or a group's.

    `alive`: its process lives, of a group one of its members. `group`: the seat of a member's group. `unfinished`:
    messages of `ring` that a member took and works on. `abandoned` and `redelivered` are a group's.
    """

    index: int
    subscription: int
    pid: int
    start_time: int
    pid_namespace: int
    taken_unix_ns: int
    kind: SeatKind
    group: int | None
    group_name: str
    flags: SeatFlag
    ring: int
    unfinished: int
    abandoned: int
    redelivered: int
    alive: bool


@dataclass(frozen=True, slots=True)
class ListedRing:
    """A ring as its topic's page lists it. `alive`: its publisher's process lives."""

    ring_id: int
    number: int
    closed: bool
    alive: bool


@dataclass(frozen=True, slots=True)
class TopicPage:
    """A topic. `wake_word`: odd when a subscription sleeps or slept last; two more for each that was woken."""

    path: Path
    topic: str
    hash: int
    wake_word: int
    sleepers: int
    departures: int
    rings: tuple[ListedRing, ...]
    seats: tuple[Seat, ...]

    @property
    def alive(self) -> bool:
        """Return whether anybody who has a seat or a ring here lives."""
        return any(ring.alive for ring in self.rings) or any(seat.alive for seat in self.seats)

    def seat(self, index: int | None) -> Seat | None:
        """Return the seat of an index, None when it is free."""
        return next((each for each in self.seats if each.index == index), None)

    def members(self, group: Seat) -> tuple[Seat, ...]:
        """Return the members of a group."""
        return tuple(each for each in self.seats if each.group == group.index)


def list_topics(directory: Path, leases: Leases) -> tuple[tuple[TopicPage, ...], tuple[SegmentError, ...]]:
    """Return the topics of a directory by name, and what is wrong with the other pages.

    Raises SegmentError for a directory that cannot be read or is not this user's.
    """
    pages, errors = [], []
    for name in names(directory, TOPIC_SUFFIX):
        try:
            page = read_topic(directory / name, leases)
        except FileNotFoundError:
            continue
        except SegmentError as error:
            errors.append(error)
            continue
        if page is not None:
            pages.append(page)
    return tuple(sorted(pages, key=lambda page: page.topic)), tuple(errors)


def read_topic(path: Path, leases: Leases) -> TopicPage | None:
    """Return what a topic's page shows, None while it is made.

    Raises FileNotFoundError, and SegmentError for what is no topic's page.
    """
    with opened(path, _WHAT) as (fd, status):
        if status.st_size < PAGE_BYTES:
            if status.st_size == 0:
                return None
            raise unusable(path, _WHAT, "It is torn.")
        page = os.pread(fd, PAGE_BYTES, 0)
    if page[: len(_MAGIC)] == bytes(len(_MAGIC)):
        return None
    return _parse(path, page, leases)


def _parse(path: Path, page: bytes, leases: Leases) -> TopicPage:
    if len(page) < PAGE_BYTES or page[: len(_MAGIC)] != _MAGIC:
        raise unusable(path, _WHAT, "It is torn, or no topic's page.")
    _, version, name_bytes, stored_hash = _HEADER.unpack_from(page)
    if version != _VERSION:
        raise unusable(path, _WHAT, f"It is of another version of cfctl: layout {version}, not {_VERSION}.")
    wake_word, sleepers = _WAITERS.unpack_from(page, 128)
    seats_used, rings_used, departures = _USED.unpack_from(page, 192)
    name = page[_NAME_OFFSET : _NAME_OFFSET + min(name_bytes, TOPIC_BYTES)]
    consistent = (
        1 <= name_bytes <= TOPIC_BYTES
        and seats_used <= MAX_SEATS
        and rings_used <= MAX_RINGS
        and stored_hash == topic_hash(name)
        and path.name == f"{stored_hash:016x}{TOPIC_SUFFIX}"
    )
    if not consistent:
        raise unusable(path, _WHAT, "Its header contradicts itself.")
    rings = tuple(_rings(page, rings_used, leases))
    seats = tuple(_with_groups(list(_seats(path, page, seats_used, leases))))
    topic = name.decode("utf-8", "replace")
    return TopicPage(path, topic, stored_hash, wake_word, sleepers, departures, rings, seats)


def _rings(page: bytes, used: int, leases: Leases) -> Iterator[ListedRing]:
    for index in range(used):
        ring_id, participant, state, number = _RING.unpack_from(page, _RINGS_OFFSET + index * _RING.size)
        if ring_id != 0:
            yield ListedRing(ring_id, number, state == 2, leases.lives(participant))


def _seats(path: Path, page: bytes, used: int, leases: Leases) -> Iterator[Seat]:
    for index in range(used):
        (
            subscription, participant, pid, start_time, namespace, taken_ns, kind, group, flags, ring, begin, end,
            abandoned, redelivered, name,
        ) = _SEAT.unpack_from(page, _SEATS_OFFSET + index * _SEAT.size)  # fmt: skip
        if subscription == 0:
            continue
        if kind not in set(SeatKind) or group >= MAX_SEATS:
            raise unusable(path, _WHAT, f"Its seat {index} contradicts itself.")
        works_on = end - begin if ring != 0 and begin < end <= begin + _LONGEST_WORK else 0
        yield Seat(
            index=index, subscription=subscription, pid=pid, start_time=start_time, pid_namespace=namespace,
            taken_unix_ns=taken_ns, kind=SeatKind(kind), group=group if kind == SeatKind.MEMBER else None,
            group_name=name.rstrip(b"\0").decode("utf-8", "replace"), flags=SeatFlag(flags & 31), ring=ring,
            unfinished=works_on if kind == SeatKind.MEMBER else 0, abandoned=abandoned, redelivered=redelivered,
            alive=kind != SeatKind.GROUP and leases.lives(participant),
        )  # fmt: skip


def _with_groups(seats: list[Seat]) -> Iterator[Seat]:
    """Yield the seats; a group lives as long as one of its members does."""
    living = {each.group for each in seats if each.kind is SeatKind.MEMBER and each.alive}
    for each in seats:
        if each.kind is SeatKind.GROUP and each.index in living:
            yield replace(each, alive=True)
        else:
            yield each
