"""A subscription: receive by call, by iteration, or in asyncio."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cfctl.errors import SubscriptionNotFound

if TYPE_CHECKING:
    from cfctl import _native
    from cfctl.bus.packet import Extension


@dataclass(frozen=True, slots=True)
class Message:
    """A message with its stamps.

    `id` names it in Packet.add_temporal_correlation. `hlc` is the publisher's stamp, Unix ns to 16 ns;
    ticks are of the CPU's counter. Of a message that went through a dispatcher: `deadline_unix_ns`, `late`
    (received after it), `dependencies` and `unmet`, those that did not come before it.
    """

    payload: bytes
    id: int
    hlc: int
    published_tick: int
    received_tick: int
    deadline_unix_ns: int | None = None
    late: bool = False
    dependencies: tuple[int, ...] = ()
    unmet: frozenset[int] = frozenset()


def plain_message(raw: _native.Message) -> Message:
    """Return a message as it came straight through a ring."""
    return Message(raw.payload, raw.id, raw.hlc, raw.published_tick, raw.received_tick)


class Subscription:
    """The messages of a topic from all its publishers, from now on; for one thread at a time.

    It ends with `unsubscribe`, with its bus, or when nothing refers to it any more. In a hot loop take
    `try_recv` or `recv` as they are: they are the C core's own methods.
    """

    __slots__ = ("__weakref__", "_end", "_ring", "id", "recv", "recv_many", "topic", "try_recv")

    def __init__(
        self, topic: str, subscription_id: int, ring: _native.RingSubscription, end: Callable[[], None]
    ) -> None:
        self.topic = topic
        self.id = subscription_id
        self._ring = ring
        self._end = end
        # Not to be wrapped: a Python frame would double their cost.
        self.try_recv: Callable[[], bytes | None] = ring.try_recv
        self.recv: Callable[..., bytes | None] = ring.recv
        self.recv_many: Callable[[int], list[bytes]] = ring.recv_many

    def try_recv_message(self) -> Message | None:
        """Return the next message with its stamps, None when there is none."""
        return _whole(self._ring.try_recv_message())

    def recv_message(self, timeout_s: float | None = None) -> Message | None:
        """Return the next message with its stamps; waits, None at the time-out."""
        return _whole(self._ring.recv_message(timeout_s))

    def __iter__(self) -> Iterator[bytes]:
        """Yield payloads as they come, until the subscription ends."""
        while True:
            try:
                payload = self.recv()
            except SubscriptionNotFound:
                return
            assert payload is not None
            yield payload

    async def recv_async(self, timeout_s: float | None = None) -> bytes | None:
        """Return the next payload without blocking the event loop; None at the time-out.

        A thread of the loop's executor waits. Cancelling loses no message: only the wait is there.
        """
        end = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            payload = self.try_recv()
            if payload is not None:
                return payload
            left = 0.1 if end is None else end - time.monotonic()
            if left <= 0:
                return None
            await asyncio.get_running_loop().run_in_executor(None, self._ring.wait, min(left, 0.1))

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield payloads as they come, in an event loop, until the subscription ends."""
        while True:
            try:
                payload = await self.recv_async()
            except SubscriptionNotFound:
                return
            assert payload is not None
            yield payload

    def unsubscribe(self) -> None:
        """End the subscription; nothing when it has ended."""
        self._end()

    def deliver(self, message: Message) -> None:
        """Give the receiver a message that was held; for the dispatcher."""
        self._ring.release(message)

    def watermarks(self) -> dict[int, int]:
        """Return, per publisher, how many messages of its ring are taken; {} when the subscription has ended."""
        try:
            return self._ring.watermarks()
        except SubscriptionNotFound:
            return {}

    def counts(self) -> dict[str, int]:
        """Return copies = delivered + dropped + pending, and more; as _native.RingSubscription.counts."""
        return self._ring.counts()


def _whole(message: _native.Message | Message | None) -> Message | None:
    if message is None or isinstance(message, Message):
        return message
    return plain_message(message)


def extended_message(
    raw: _native.Message,
    extension: Extension,
    payload: bytes,
    message_id: int,
    late: bool,
    unmet: frozenset[int],
) -> Message:
    """Return a message that went through a dispatcher."""
    return Message(
        payload, message_id, raw.hlc, raw.published_tick, raw.received_tick, extension.deadline_unix_ns, late,
        extension.dependencies, unmet,
    )  # fmt: skip
