"""What is published: a payload, where to, and what it has to wait for; and its form on the ring."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from cfctl.errors import InputError

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from cfctl.temporal.stagger import QuantumOffset

# The extension before the payload of a message that went through a dispatcher: deadline (Unix ns, 0 =
# none), ticket, dependencies (count), priority, padding; then the dependencies' ids.
_EXTENSION: Final = struct.Struct("<QQHB5x")
_ID_BYTES: Final = 8
MAX_DEPENDENCIES: Final = 1000
MAX_PRIORITY: Final = 255
# A message id is publisher << 48 | number. Of a packet that went through a dispatcher the number is a
# ticket, marked by its highest bit: packets leave by deadline, so tickets arrive in any order.
_SEQUENCE_BITS: Final = 48
_TICKET: Final = 1 << (_SEQUENCE_BITS - 1)


@dataclass(slots=True)
class Packet:
    """A payload (bytes-like, passed as it is) for the subscribers of a topic.

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
        Raises InputError beyond 1000 of them.
        """
        dependencies = (*self.dependencies, *message_ids)
        if len(dependencies) > MAX_DEPENDENCIES:
            raise InputError(
                "The packet has too many dependencies.", f"There are {len(dependencies)}; 1000 fit."
            )
        self.dependencies = dependencies

    @property
    def is_plain(self) -> bool:
        """Return whether it goes straight through the ring."""
        return not self.dependencies and self.offset is None


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
