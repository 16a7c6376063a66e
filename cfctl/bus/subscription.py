"""A subscription: receive by call, by iteration, through a descriptor, or in asyncio."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self, TypeVar

from cfctl import _native
from cfctl.errors import BusTimeout, StateError, SubscriptionNotFound, os_error_reason

if TYPE_CHECKING:
    from cfctl.bus.packet import Extension

_T = TypeVar("_T")
# How often it is looked whether publishers have come.
_LOOK_S: Final = 0.001


@dataclass(frozen=True, slots=True)
class Message:
    """A message with its stamps.

    `id` names it in Packet.add_temporal_correlation. `hlc` is the publisher's stamp, Unix ns to 16 ns;
    ticks are of the CPU's counter. Of a message that went through a dispatcher: `deadline_unix_ns`, `late`
    (received after it), `dependencies` and `unmet`, those that did not come before it. `redelivered`: another
    member of the group had it and died before it was finished.
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
    topic: str = ""
    redelivered: bool = False


def plain_message(raw: _native.Message) -> Message:
    """Return a message as it came straight through a ring."""
    return Message(
        raw.payload,
        raw.id,
        raw.hlc,
        raw.published_tick,
        raw.received_tick,
        topic=raw.topic,
        redelivered=raw.redelivered,
    )


class Subscription(_native.RingSubscription):
    """The messages of one or more topics from all their publishers; for one thread at a time.

    What is published after Bus.subscribe returned is received here, or counted as dropped where a ring
    overwrites or the subscription is lossy. It ends with `unsubscribe`, with its bus, at the end of `with`, or when
    nothing refers to it any more. `try_recv`, `recv`, `recv_many` and `recv_view` are the C core's own methods.
    """

    __slots__ = ("__weakref__", "_ended", "id", "topics")

    id: int
    topics: tuple[str, ...]
    _ended: Callable[[int], None]

    @property
    def topic(self) -> str:
        """Return the one topic, the pattern, or the first of several topics."""
        return self.topics[0]

    def __enter__(self) -> Self:
        """Return the subscription."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the subscription."""
        self.unsubscribe()

    def try_recv_message(self) -> Message | None:
        """Return the next message with its stamps, None when there is none."""
        return _whole(self._try_recv_message())

    def recv_message(self, timeout_s: float | None = None) -> Message | None:
        """Return the next message with its stamps; waits, None at the time-out."""
        return _whole(self._recv_message(timeout_s))

    def await_publishers(self, wanted: int, timeout_s: float | None) -> None:
        """Return once so many publishers are there; ends the subscription and raises BusTimeout after the time."""
        end = None if timeout_s is None else time.monotonic() + timeout_s
        while (found := self._publishers()) < wanted:
            if end is not None and time.monotonic() >= end:
                self.unsubscribe()
                raise BusTimeout(
                    f"{found} of {wanted} publishers came in time.",
                    f"They publish on another topic than {self.topic[:64]!r}, or do not run.",
                    "Look at `cfctl bus topics`.",
                )
            time.sleep(_LOOK_S)

    def try_recv_raw(self) -> _native.Message | None:
        """Return the next message as it lies on its ring, of a raw subscription; None when there is none."""
        raw = self._try_recv_message()
        assert raw is None or isinstance(raw, _native.Message)
        return raw

    def __iter__(self) -> Iterator[bytes]:
        """Yield payloads as they come, until the subscription ends."""
        while True:
            try:
                payload = self.recv()
            except SubscriptionNotFound:
                return
            assert payload is not None
            yield payload

    def fileno(self) -> int:
        """Return a descriptor that is readable while there may be something to receive: for select and poll.

        It is no longer readable once `try_recv` returned None. A thread of its own, which sleeps, serves it.
        Raises StateError when the descriptor or the thread cannot be had.
        """
        try:
            return self._fileno()
        except OSError as error:
            raise StateError(
                "The subscription has no descriptor.", os_error_reason(error), "Raise ulimit -n or -u."
            ) from error

    async def recv_async(self, timeout_s: float | None = None) -> bytes | None:
        """Return the next payload without blocking the event loop; None at the time-out.

        Cancelling loses no message: only the wait is there.
        """
        return await self._await(self.try_recv, timeout_s)

    async def recv_message_async(self, timeout_s: float | None = None) -> Message | None:
        """As recv_async, with the message's stamps."""
        return await self._await(self.try_recv_message, timeout_s)

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
        try:
            dropped = self.counts()["dropped"]
        except (SubscriptionNotFound, StateError):
            dropped = 0
        if self._close():
            self._ended(dropped)

    def watermarks(self) -> dict[int, int]:
        """Return, per publisher, how many messages of its ring are taken; {} when the subscription has ended."""
        try:
            return self._watermarks()
        except SubscriptionNotFound:
            return {}

    def publisher_numbers(self) -> list[int]:
        """Return the numbers of the publishers whose rings it reads; [] when it has ended."""
        try:
            return self._numbers()
        except SubscriptionNotFound:
            return []

    async def _await(self, take: Callable[[], _T | None], timeout_s: float | None) -> _T | None:
        end = None if timeout_s is None else time.monotonic() + timeout_s
        loop = asyncio.get_running_loop()
        while True:
            taken = take()
            left = None if end is None else end - time.monotonic()
            if taken is not None or (left is not None and left <= 0):
                return taken
            await self._readable(loop, left)

    async def _readable(self, loop: asyncio.AbstractEventLoop, timeout_s: float | None) -> None:
        # Looked at again now and then: nobody is woken who waits for a descriptor that is closed meanwhile.
        slice_s = 0.1 if timeout_s is None else min(timeout_s, 0.1)
        ready = asyncio.Event()
        descriptor = self.fileno()
        try:
            loop.add_reader(descriptor, ready.set)
        except OSError:
            # Closed meanwhile by another thread, which the next look finds.
            return
        try:
            async with asyncio.timeout(slice_s):
                await ready.wait()
        except TimeoutError:
            return
        finally:
            loop.remove_reader(descriptor)


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
        extension.dependencies, unmet, raw.topic, raw.redelivered,
    )  # fmt: skip
