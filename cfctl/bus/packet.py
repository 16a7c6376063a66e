"""What is published: a payload, where to, and what it has to wait for; and its form on the ring."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from cfctl.bus import names
from cfctl.errors import InputError
from cfctl.temporal.stagger import QuantumOffset

if TYPE_CHECKING:
    from typing_extensions import Buffer

# The extension before the payload of a message that went through a dispatcher: deadline (Unix ns, 0 =
# none), ticket, dependencies (count), priority, padding; then the dependencies' ids.
_EXTENSION: Final = struct.Struct("<QQHB5x")
_ID_BYTES: Final = 8
MAX_DEPENDENCIES: Final = 1000
MAX_PRIORITY: Final = 255
_HIGHEST: Final = (1 << 64) - 1
# How many ns a unit has that a moment may have been given in by mistake.
_UNITS: Final = (("seconds", 10**9), ("milliseconds", 10**6), ("microseconds", 10**3))
# A message id is publisher << 48 | number. Of a packet that went through a dispatcher the number is a
# ticket, marked by its highest bit: packets leave by deadline, so tickets arrive in any order.
_SEQUENCE_BITS: Final = 48
_TICKET: Final = 1 << (_SEQUENCE_BITS - 1)


@dataclass(slots=True)
class Packet:
    """A payload (bytes-like) for the subscribers of a topic; checked and copied when it is published.

    A higher `priority`, 0 to 255, overtakes lower ones in the subscriber and in the dispatcher: each takes
    a ring of its own. A packet with dependencies or an offset goes through the bus's dispatcher.
    """

    topic: str
    data: Buffer
    priority: int = 0
    dependencies: tuple[int, ...] = ()
    offset: QuantumOffset | None = field(default=None, kw_only=True)

    @classmethod
    def with_quantum_optimization(
        cls, topic: str, data: Buffer, offset: QuantumOffset, *, priority: int = 0
    ) -> Self:
        """Return a packet that is dispatched in a slot of its publisher's own, by `offset`."""
        return cls(topic, data, priority, offset=offset)

    def add_temporal_correlation(self, message_ids: Iterable[int]) -> None:
        """Let subscribers receive this packet after the messages of these ids (of publish, of Message.id).

        A subscriber that does not receive them in time does as its bus's dependency_timeout says.
        Raises InputError beyond 1000 of them, or for what is not a message id.
        """
        self.dependencies = _checked_dependencies((*self.dependencies, *message_ids))

    @property
    def is_plain(self) -> bool:
        """Return whether it goes straight through the ring."""
        return not self.dependencies and self.offset is None


def require_packet(packet: object) -> None:
    """Raise InputError for what is not a Packet."""
    if not isinstance(packet, Packet):
        raise InputError(
            "Nothing was published.",
            f"{packet!r:.60} is of type {type(packet).__name__}, not a Packet.",
            "Call bus.publisher(topic).publish(data), or pass a Packet(topic, data).",
        )


def checked(packet: Packet, max_payload_bytes: int) -> Packet:
    """Return a copy of a packet that can be sent, its payload as bytes: later changes do not reach it.

    `max_payload_bytes`: of the ring, which the extension of a packet for the dispatcher shares. Bytes are
    not copied. Raises InputError for a topic, payload, priority, dependency or offset that cannot be sent.
    """
    names.public(packet.topic)
    data = _payload(packet.data)
    _require_int("Priority", packet.priority, MAX_PRIORITY)
    dependencies = _checked_dependencies(packet.dependencies)
    if packet.offset is not None and not isinstance(packet.offset, QuantumOffset):
        raise InputError(
            f"The offset {packet.offset!r:.60} cannot be used.",
            f"It is of type {type(packet.offset).__name__}.",
            "Pass a QuantumOffset, or None.",
        )
    require_size(len(data) + _EXTENSION.size + _ID_BYTES * len(dependencies), len(data), max_payload_bytes)
    return Packet(packet.topic, data, packet.priority, dependencies, offset=packet.offset)


def require_size(size_bytes: int, payload_bytes: int, max_bytes: int) -> None:
    """Raise InputError when a message of `size_bytes` in all does not fit into a ring."""
    if size_bytes > max_bytes:
        arena_bytes = 2 * size_bytes
        larger = (
            f"Set BusConfig.arena_bytes to {arena_bytes} or more, or s" if arena_bytes <= 1 << 30 else "S"
        )
        raise InputError(
            f"A payload of {payload_bytes} bytes cannot be sent.",
            f"It takes {size_bytes} bytes of the ring, which accepts {max_bytes} for one message.",
            f"{larger}end it in parts.",
        )


def checked_deadline(deadline_unix_ns: int, now_ns: int) -> int:
    """Return a deadline, Unix ns; raises InputError unless it is an int of 64 bits in nanoseconds.

    One that passed lately is not an error here: the dispatcher counts it as refused.
    """
    if not isinstance(deadline_unix_ns, int):
        raise InputError(
            f"The deadline {deadline_unix_ns!r:.60} cannot be used.",
            f"It is of type {type(deadline_unix_ns).__name__}; a deadline is an int of Unix nanoseconds.",
            "Write time.time_ns() + the nanoseconds that are left.",
        )
    for unit, ns in _UNITS:
        if now_ns // 2 < deadline_unix_ns * ns < now_ns * 2:
            raise InputError(
                f"The deadline {deadline_unix_ns} cannot be used.",
                f"It looks like {unit} since 1970; a deadline is in nanoseconds.",
                f"Multiply it by {ns}.",
            )
    _require_int("Deadline", deadline_unix_ns, _HIGHEST)
    if deadline_unix_ns < now_ns // 2:
        raise InputError(
            f"The deadline {deadline_unix_ns} cannot be used.",
            "It is a moment long ago; a deadline is a moment in Unix nanoseconds, not a duration.",
            "Write time.time_ns() + the nanoseconds that are left.",
        )
    return deadline_unix_ns


def _payload(data: Buffer) -> bytes:
    """Return a payload's bytes; raises InputError for what is not bytes-like."""
    if type(data) is bytes:
        return data
    try:
        view = memoryview(data)
    except TypeError as error:
        raise InputError(
            "The payload cannot be sent.",
            f"It is of type {type(data).__name__}, which is not bytes-like.",
            "Encode text with str.encode(); other objects with struct, json or pickle.",
        ) from error
    with view:
        if not view.c_contiguous:
            raise InputError(
                "The payload cannot be sent.",
                "Its bytes do not follow each other in memory.",
                "Copy it first, for example with bytes(data).",
            )
        return view.tobytes()


def _checked_dependencies(dependencies: Iterable[int]) -> tuple[int, ...]:
    found = tuple(dependencies)
    if len(found) > MAX_DEPENDENCIES:
        raise InputError(
            "The packet has too many dependencies.",
            f"There are {len(found)}; {MAX_DEPENDENCIES} fit.",
            "Of plain messages name the last one of each publisher: they arrive in order.",
        )
    for each in found:
        _require_int("Dependency", each, _HIGHEST)
    return found


def _require_int(name: str, value: int, highest: int) -> None:
    if not isinstance(value, int):
        raise InputError(
            f"{name} {value!r:.60} cannot be used.", f"It is of type {type(value).__name__}, not int."
        )
    if not 0 <= value <= highest:
        raise InputError(f"{name} {value} cannot be used.", f"It is an int of 0 to {highest}.")


class Extension(NamedTuple):
    """What a message that went through a dispatcher says of itself before its payload."""

    deadline_unix_ns: int | None
    ticket: int
    dependencies: tuple[int, ...]
    priority: int


def split_id(message_id: int) -> tuple[int, int]:
    """Return a message id's publisher and its number there."""
    return message_id >> _SEQUENCE_BITS, message_id & ((1 << _SEQUENCE_BITS) - 1)


def ticket_id(publisher: int, ticket: int) -> int:
    """Return the message id of a publisher's ticket."""
    return publisher << _SEQUENCE_BITS | _TICKET | ticket


def join_id(publisher: int, sequence: int) -> int:
    """Return the message id of a publisher's number."""
    return publisher << _SEQUENCE_BITS | sequence


def ticket_of(message_id: int) -> int:
    """Return the ticket in a message id."""
    return message_id & (_TICKET - 1)


def is_ticket(message_id: int) -> bool:
    """Return whether a message id is one of a packet that goes through a dispatcher."""
    return bool(message_id & _TICKET)


def encode(extension: Extension, data: Buffer) -> bytes:
    """Return the extension and the payload as they stand on the ring."""
    head = _EXTENSION.pack(
        extension.deadline_unix_ns or 0,
        extension.ticket,
        len(extension.dependencies),
        extension.priority,
    )
    ids = struct.pack(f"<{len(extension.dependencies)}Q", *extension.dependencies)
    return b"".join((head, ids, data))


def decode(raw: bytes) -> tuple[Extension, bytes] | None:
    """Return the extension and the payload; None for bytes that are no such message."""
    if len(raw) < _EXTENSION.size:
        return None
    deadline, ticket, count, priority = _EXTENSION.unpack_from(raw)
    start = _EXTENSION.size + count * _ID_BYTES
    if count > MAX_DEPENDENCIES or len(raw) < start:
        return None
    ids = struct.unpack_from(f"<{count}Q", raw, _EXTENSION.size)
    return Extension(deadline or None, ticket, ids, priority), raw[start:]
