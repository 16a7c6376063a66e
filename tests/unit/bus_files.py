"""The files of a bus for tests, written by the layouts' definitions and independently of what reads them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

OPEN, CLOSED = 1, 2
READER, GROUP, MEMBER = 1, 2, 3
LOSSY, SLEEPS, REDELIVER, PATTERN, OWN = 1, 2, 4, 8, 16
TOPIC_LOCKS = 1 << 62
FLOCK = struct.Struct("@hhqqi4x")
STAMP_NS = 1_700_000_000_000_000_000


def fnv1a(name: bytes) -> int:
    value = 14695981039346656037
    for byte in name:
        value = ((value ^ byte) * 1099511628211) % 2**64
    return value


@contextlib.contextmanager
def living(directory: Path, *participants: int) -> Iterator[None]:
    """Hold the leases of participants, as their processes do."""
    directory.mkdir(mode=0o700, exist_ok=True)
    fds = []
    for participant in participants:
        fds.append(fd := os.open(directory / "bus.leases", os.O_RDWR | os.O_CREAT, 0o600))
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, participant, 1, 0))
    try:
        yield
    finally:
        for fd in fds:
            os.close(fd)


@dataclass
class SeatOf:
    """A seat, by its fields."""

    subscription: int
    participant: int = 0
    pid: int = 4711
    kind: int = READER
    group: int = 0
    flags: int = SLEEPS
    ring: int = 0
    begin: int = 0
    end: int = 0
    abandoned: int = 0
    redelivered: int = 0
    name: bytes = b""
    taken_ns: int = STAMP_NS

    def pack(self) -> bytes:
        return struct.pack(
            "<6Q4I5Q24s", self.subscription, self.participant, self.pid, 77, 88, self.taken_ns, self.kind,
            self.group, self.flags, 0, self.ring, self.begin, self.end, self.abandoned, self.redelivered, self.name,
        )  # fmt: skip


@dataclass
class TopicFile:
    """A topic's page. `rings`: (ring id, participant, state, number)."""

    topic: bytes = b"prices"
    rings: list[tuple[int, int, int, int]] = field(default_factory=list)
    seats: dict[int, SeatOf] = field(default_factory=dict)
    wake_word: int = 0
    seats_used: int | None = None
    rings_used: int | None = None

    def data(self) -> bytes:
        page = bytearray(45056)
        struct.pack_into("<8s2IQ", page, 0, b"CFCTLTOP", 2, len(self.topic), fnv1a(self.topic))
        struct.pack_into(
            "<2I", page, 128, self.wake_word, sum(s.flags & SLEEPS > 0 for s in self.seats.values())
        )
        used = max(self.seats, default=-1) + 1 if self.seats_used is None else self.seats_used
        rings = len(self.rings) if self.rings_used is None else self.rings_used
        struct.pack_into("<2IQ", page, 192, used, rings, 3)
        page[1024 : 1024 + len(self.topic)] = self.topic
        for index, ring in enumerate(self.rings):
            struct.pack_into("<2Q2IQ", page, 4096 + 32 * index, *ring, 0)
        for index, seat in self.seats.items():
            page[12288 + 128 * index : 12288 + 128 * (index + 1)] = seat.pack()
        return bytes(page)

    def write(self, directory: Path) -> Path:
        directory.mkdir(mode=0o700, exist_ok=True)
        path = directory / f"{fnv1a(self.topic):016x}.topic"
        path.write_bytes(self.data())
        return path


@dataclass
class LineOf:
    """A reader's line in a ring, by its fields."""

    subscription: int
    participant: int = 0
    position: int = 0
    joined: int = 0
    dropped: int = 0
    claim: int = 0
    flags: int = 0

    def pack(self) -> bytes:
        return struct.pack(
            "<8Q", self.subscription, self.position, self.joined, self.dropped, self.claim, self.participant,
            self.flags, 0,
        )  # fmt: skip


@dataclass
class RingFile:
    """A ring with the slots of its last messages, each stamped STAMP_NS + its index in seconds and tick = index."""

    ring_id: int = 0xA1
    participant: int = 0
    topic: bytes = b"prices"
    capacity: int = 16
    slot_bytes: int = 64
    arena_bytes: int = 4096
    overwrite: int = 0
    tail: int = 0
    rejected: int = 0
    orphaned: int = 0
    state: int = OPEN
    pid: int = 100
    own: int = 0
    opened_ns: int = STAMP_NS
    lines: dict[int, LineOf] = field(default_factory=dict)
    lines_used: int | None = None
    header: dict[str, int] = field(default_factory=dict)

    def data(self) -> bytes:
        size = 4096 + 20480 + self.capacity * self.slot_bytes + self.arena_bytes
        values = {
            "version": 2, "header_bytes": 4096, "ring_id": self.ring_id, "hash": fnv1a(self.topic),
            "capacity": self.capacity, "slot_bytes": self.slot_bytes, "arena_bytes": self.arena_bytes,
            "file_bytes": size, "overwrite": self.overwrite, "priority": 0, "publisher": 21, "uid": os.geteuid(),
            "pid": self.pid, "start_time": 5, "namespace": 6, "tick_source": 1, "topic_bytes": len(self.topic),
            "opened_tick": 0, "opened_raw_ns": 0, "opened_ns": self.opened_ns,
        } | self.header  # fmt: skip
        data = bytearray(size)
        struct.pack_into("<8s2I2Q2I2Q4I3Q2I3Q", data, 0, b"CFCTLRNG", *values.values())
        struct.pack_into("<2IQI", data, 168, self.state, 0, self.participant, self.own)
        data[512 : 512 + len(self.topic)] = self.topic
        struct.pack_into("<4Q", data, 2048, self.tail, 0, self.rejected, self.orphaned)
        used = max(self.lines, default=-1) + 1 if self.lines_used is None else self.lines_used
        struct.pack_into("<I", data, 4096, used)
        for index, line in self.lines.items():
            data[4160 + 64 * index : 4160 + 64 * (index + 1)] = line.pack()
        for index in range(max(0, self.tail - self.capacity), self.tail):
            at = 24576 + index % self.capacity * self.slot_bytes
            struct.pack_into("<4Q", data, at, index + 1, STAMP_NS + index * 10**9, index, 0)
        return bytes(data)

    def write(self, directory: Path) -> Path:
        directory.mkdir(mode=0o700, exist_ok=True)
        path = directory / f"{fnv1a(self.topic):016x}-{self.ring_id:016x}.ring"
        path.write_bytes(self.data())
        return path
