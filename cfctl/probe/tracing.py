"""What the kernel did on a CPU, from perf_event_open: a thread's own switches, or tracepoints with root.

Times are CLOCK_MONOTONIC_RAW in ns. The rings are read after the run, never during it.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import re
import struct
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cfctl import _native
from cfctl.errors import UnobservableError, os_error_reason

# Where tracefs is looked for, and where it is mounted for ourselves when nobody has.
TRACEFS: Final = (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing"))
# _IO('$', n) of linux/perf_event.h.
_IOC_ENABLE: Final = 0x2400
_IOC_DISABLE: Final = 0x2401
_IOC_SET_OUTPUT: Final = 0x2405
_IOC_SET_FILTER: Final = 0x40082406
_RECORD_LOST: Final = 2
_RECORD_SAMPLE: Final = 9
_RECORD_SWITCH: Final = 14
_MISC_SWITCH_OUT: Final = 1 << 13
# data_head, data_tail, data_offset, data_size of struct perf_event_mmap_page.
_POSITIONS: Final = struct.Struct("=QQQQ")
_POSITIONS_OFFSET: Final = 1024
_HEADER: Final = struct.Struct("=IHH")
_SAMPLE: Final = struct.Struct("=IIQI")
_SWITCH_RING_BYTES: Final = 1 << 20
_SMALLEST_RING_BYTES: Final = 1 << 16
_LARGEST_RING_BYTES: Final = 64 << 20
# 1000 interruptions a second are about 4000 records of 64 bytes.
_RING_BYTES_A_SECOND: Final = 512 << 10
# A ring that is full to its last records tells nothing of what it dropped.
_LARGEST_RECORD_BYTES: Final = 4096
# irq_work is left out: perf itself is built on it, and the kernel refuses to sample it.
_WANTED: Final = re.compile(
    r"irq_vectors/(?!irq_work)\w+_(entry|exit)|irq/(irq_handler|softirq)_(entry|exit)|sched/sched_switch"
    r"|exceptions/page_fault_(user|kernel)|nmi/nmi_handler"
)
_FIELD: Final = re.compile(r"field:[^;]*?(\w+)(?:\[\d*\])?;\s*offset:(\d+);\s*size:(\d+);")


@dataclass(frozen=True, slots=True)
class Tracepoint:
    """A kernel tracepoint: "irq/softirq_entry", its id, and (offset, size) of its fields.

    A field in `located` holds the offset of its text (low 16 bits) and the text's length.
    """

    name: str
    id: int
    fields: dict[str, tuple[int, int]]
    located: frozenset[str] = frozenset()

    def integer(self, raw: bytes, field: str) -> int:
        """Return a field of a raw record; ValueError when the record does not hold it."""
        offset, size = self.fields.get(field, (0, 0))
        if not size or offset + size > len(raw):
            raise ValueError(f"{self.name} has no {field}")
        return int.from_bytes(raw[offset : offset + size], "little" if _LITTLE else "big", signed=True)

    def text(self, raw: bytes, field: str) -> str:
        """Return a field of characters up to its NUL, "" when the record does not hold it."""
        offset, size = self.fields.get(field, (0, 0))
        if field in self.located:
            where = self.integer(raw, field)
            offset, size = where & 0xFFFF, where >> 16 & 0xFFFF
        return raw[offset : offset + size].partition(b"\0")[0].decode("utf-8", "replace")


_LITTLE: Final = struct.pack("=H", 1) == b"\1\0"


@dataclass(frozen=True, slots=True)
class Event:
    """One tracepoint hit: when, by which thread, which tracepoint, and its raw record."""

    ns: int
    tid: int
    tracepoint: Tracepoint
    raw: bytes


@dataclass(frozen=True, slots=True)
class Switch:
    """A switch of the measured thread off its CPU (`out`) or back onto it."""

    ns: int
    out: bool


class Ring:
    """A perf ring in memory, with the descriptors that write into it; a context manager."""

    def __init__(self, fds: Sequence[int], bytes_wanted: int) -> None:
        """Maps the ring, a smaller one where locked memory is short; raises OSError and leaves `fds`."""
        self._fds = list(fds)
        self._map = _map_ring(self._fds[0], bytes_wanted)
        for fd in self._fds[1:]:
            fcntl.ioctl(fd, _IOC_SET_OUTPUT, self._fds[0])

    def __enter__(self) -> Ring:
        for fd in self._fds:
            fcntl.ioctl(fd, _IOC_ENABLE, 0)
        return self

    def __exit__(self, *_: object) -> None:
        self._map.close()
        for fd in self._fds:
            os.close(fd)

    def read(self) -> tuple[bytes, bool]:
        """Return all records written so far, and whether the ring had room for more; it then stops."""
        for fd in self._fds:
            fcntl.ioctl(fd, _IOC_DISABLE, 0)
        head, tail, offset, size = _POSITIONS.unpack_from(self._map, _POSITIONS_OFFSET)
        start, length = tail % size, head - tail
        data = self._map[offset : offset + size]
        return (data[start:] + data[:start])[:length], length + _LARGEST_RECORD_BYTES <= size


def _open_ring(openers: Iterable[Callable[[], int]], bytes_wanted: int) -> Ring:
    """Return the ring of the events the openers open; raises OSError and leaves none of them open."""
    with contextlib.ExitStack() as opened:
        fds = []
        for open_event in openers:
            fd = open_event()
            opened.callback(os.close, fd)
            fds.append(fd)
        ring = Ring(fds, bytes_wanted)
        opened.pop_all()
        return ring


def _map_ring(fd: int, bytes_wanted: int) -> mmap.mmap:
    size = _SMALLEST_RING_BYTES
    while size < min(bytes_wanted, _LARGEST_RING_BYTES):
        size *= 2
    while True:
        try:
            return mmap.mmap(fd, mmap.PAGESIZE + size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        except OSError:
            # perf_event_mlock_kb and RLIMIT_MEMLOCK bound what an ordinary user may lock.
            if size == _SMALLEST_RING_BYTES:
                raise
            size //= 2


def _records(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield (type, misc, body) of each record."""
    position = 0
    while position + _HEADER.size <= len(data):
        kind, misc, size = _HEADER.unpack_from(data, position)
        if size < _HEADER.size:
            return
        yield kind, misc, data[position + _HEADER.size : position + size]
        position += size


def record_switches() -> Ring:
    """Return the ring of the calling thread's own switches.

    Raises UnobservableError when the kernel or a sandbox refuses.
    """
    try:
        return _open_ring([_native.perf_open_switches], _SWITCH_RING_BYTES)
    except OSError as error:
        raise UnobservableError("Switches can not be recorded.", os_error_reason(error)) from error


def switches_in(data: bytes) -> tuple[list[Switch], bool]:
    """Return the switches in a ring's records, and whether none is known to be lost."""
    found, complete = [], True
    for kind, misc, body in _records(data):
        if kind == _RECORD_SWITCH and len(body) >= 8:
            found.append(
                Switch(
                    int.from_bytes(body[:8], "little" if _LITTLE else "big"), bool(misc & _MISC_SWITCH_OUT)
                )
            )
        elif kind == _RECORD_LOST:
            complete = False
    return found, complete


def trace_this_thread(cpu: int, tracepoints: Iterable[Tracepoint], duration_ns: int) -> Ring:
    """Return the ring of the tracepoints' hits on one CPU while the calling thread is on it.

    In a PID namespace the kernel's name of the thread is another, and the ring stays empty. Raises
    UnobservableError without CAP_PERFMON or root.
    """
    condition = f"common_pid == {threading.get_native_id()}".encode() + b"\0"

    def opener(tracepoint: Tracepoint) -> Callable[[], int]:
        def open_filtered() -> int:
            fd = _native.perf_open_tracepoint(tracepoint.id, cpu)
            try:
                fcntl.ioctl(fd, _IOC_SET_FILTER, condition)
            except OSError:
                os.close(fd)
                raise
            return fd

        return open_filtered

    try:
        return _open_ring(map(opener, tracepoints), duration_ns * _RING_BYTES_A_SECOND // 1_000_000_000)
    except OSError as error:
        raise UnobservableError("Kernel tracepoints can not be opened.", os_error_reason(error)) from error


def events_in(data: bytes, tracepoints: Iterable[Tracepoint]) -> tuple[list[Event], bool]:
    """Return the events in a ring's records in order of time, and whether none is known to be lost."""
    by_id = {tracepoint.id: tracepoint for tracepoint in tracepoints}
    found, complete = [], True
    for kind, _, body in _records(data):
        if kind == _RECORD_LOST:
            complete = False
        if kind != _RECORD_SAMPLE or len(body) < _SAMPLE.size + 2:
            continue
        _, tid, ns, size = _SAMPLE.unpack_from(body)
        raw = body[_SAMPLE.size : _SAMPLE.size + size]
        tracepoint = by_id.get(int.from_bytes(raw[:2], "little" if _LITTLE else "big"))
        if tracepoint is not None:
            found.append(Event(ns, tid, tracepoint, raw))
    found.sort(key=lambda event: event.ns)
    return found, complete


def kernel_tracepoints() -> tuple[Tracepoint, ...]:
    """Return the tracepoints that tell what interrupted a CPU, from tracefs.

    Where nobody has mounted it, it is mounted for one thread of this process, seen by nobody else.
    Raises UnobservableError with the reason: not root, no tracefs in this kernel.
    """
    for directory in TRACEFS:
        if os.access(directory / "events", os.R_OK | os.X_OK):
            return _read_tracepoints(directory)
    if os.geteuid() != 0:
        raise UnobservableError("Kernel tracepoints can not be read.", "That needs root.", "Run as root.")
    found: list[Tracepoint] = []
    failure: list[OSError | UnobservableError] = []

    def mount_and_read() -> None:
        try:
            _native.tracefs_mount_privately(str(TRACEFS[0]))
            found.extend(_read_tracepoints(TRACEFS[0]))
        except (OSError, UnobservableError) as error:
            failure.append(error)

    # The mount lives in a namespace of this thread and ends with it.
    thread = threading.Thread(target=mount_and_read, name="cfctl-tracefs")
    thread.start()
    thread.join()
    if failure:
        why = os_error_reason(failure[0]) if isinstance(failure[0], OSError) else failure[0].why
        raise UnobservableError("Kernel tracepoints can not be read.", why) from failure[0]
    return tuple(found)


def _read_tracepoints(directory: Path) -> tuple[Tracepoint, ...]:
    events = directory / "events"
    found = []
    for group in sorted(
        {pattern.partition("/")[0] for pattern in ("irq_vectors/", "irq/", "sched/", "exceptions/", "nmi/")}
    ):
        try:
            names = sorted(path.name for path in (events / group).iterdir())
        except FileNotFoundError:
            # exceptions and irq_vectors are x86's.
            continue
        except OSError as error:
            raise UnobservableError("Kernel tracepoints can not be read.", os_error_reason(error)) from error
        for name in names:
            if _WANTED.fullmatch(f"{group}/{name}"):
                with contextlib.suppress(OSError, ValueError):
                    found.append(_read_tracepoint(events, f"{group}/{name}"))
    if not found:
        raise UnobservableError("Kernel tracepoints can not be read.", f"{events} has none of them.")
    return tuple(found)


def _read_tracepoint(events: Path, name: str) -> Tracepoint:
    text = (events / name / "format").read_text()
    fields = {field: (int(offset), int(size)) for field, offset, size in _FIELD.findall(text)}
    located = frozenset(re.findall(r"field:__data_loc char\[\] (\w+);", text))
    return Tracepoint(name, int((events / name / "id").read_text()), fields, located)
