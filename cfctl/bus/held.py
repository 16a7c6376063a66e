"""Received messages that wait for what they depend on, and what is known of what was received."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from cfctl.bus.packet import Extension, is_ticket, join_id, split_id, ticket_id
from cfctl.bus.subscription import Message, extended_message
from cfctl.temporal.causality import CausalityCounts
from cfctl.temporal.deadlines import Message as Queued
from cfctl.temporal.deadlines import TemporalQueue
from cfctl.temporal.durations import Durations

if TYPE_CHECKING:
    from cfctl import _native
    from cfctl.temporal.awaited import MessageId

# Deliveries whose stamps are kept, to know dependencies on them.
_REMEMBERED: Final = 65536
# More than this many are not held: the next is delivered without its dependencies.
MAX_HELD: Final = 65536
# A publisher that this bus has not joined may only not be joined yet: its subscription looks for new
# rings when it is next asked. For so long a message waits for that.
JOIN_GRACE_NS: Final = 10_000_000
# For so long a publisher that did not turn up is taken for one that is not read here. Its number may
# come to another publisher, so this ends.
UNREAD_NS: Final = 1_000_000_000

Watermarks = Callable[[], dict[int, int]]
Joined = Callable[[], Collection[int]]


@dataclass(slots=True)
class Received:
    """A message that went through a dispatcher, as it came from the ring."""

    raw: _native.Message
    extension: Extension
    payload: bytes
    message_id: int
    release: Callable[[Message], object]


@dataclass(slots=True)
class _Stranger:
    """A publisher that was not joined when a message that depends on it came."""

    since_ns: int
    keys: set[MessageId] = field(default_factory=set)


def received_at_once(raw: _native.Message, extension: Extension, payload: bytes, now_ns: int) -> Message:
    """Return a message as it came, whatever it depends on."""
    deadline_ns = extension.deadline_unix_ns
    message_id = ticket_id(split_id(raw.id)[0], extension.ticket)
    late = deadline_ns is not None and now_ns > deadline_ns
    return extended_message(raw, extension, payload, message_id, late, frozenset())


class HeldMessages:
    """What a bus received and cannot deliver yet, in a queue. Not for several threads at once.

    `watermarks` returns, per publisher, how many of its messages were received straight through a ring;
    `joined` the numbers of all publishers whose rings this bus reads, scheduled rings among them. Without
    `joined` a publisher of plain messages is known by its watermark, and a ticket's always. `late` takes how
    late a message was, ns, and `failed` the error of one that could not be delivered.
    """

    def __init__(
        self,
        queue: TemporalQueue,
        watermarks: Watermarks,
        joined: Joined | None,
        late: Callable[[int], None],
        failed: Callable[[Exception], None],
    ) -> None:
        self.queue = queue
        self.causality = CausalityCounts()
        self.lateness = Durations()
        # How many of the messages received had a deadline; dependencies on what is not read here; messages
        # that were not held because too many were.
        self.received_due = 0
        self.unknown_dependencies = 0
        self.not_held = 0
        self._watermarks = watermarks
        self._joined = joined
        self._late = late
        self._failed = failed
        # The stamps of the latest messages with tickets that were delivered here.
        self._arrived: OrderedDict[int, int] = OrderedDict()
        self._strangers: dict[int, _Stranger] = {}
        self._unread: dict[int, int] = {}
        queue_timeout_ns = queue.dependency_timeout_ns
        self._grace_ns = JOIN_GRACE_NS if queue_timeout_ns is None else min(JOIN_GRACE_NS, queue_timeout_ns)

    def receive(self, received: Received, now_ns: int, may_wait: Callable[[], bool]) -> Message | None:
        """Return a message that need not wait, or may not; None when it was queued.

        `may_wait`, which starts the thread, is asked only for one that has to.
        """
        missing = self._missing(received.extension.dependencies, now_ns)
        if missing and len(self.queue) < MAX_HELD and may_wait():
            # Without its deadline: what is late by its dependencies is delivered, and counted as late.
            key, priority = (received.message_id, 0), received.extension.priority
            self.queue.add(
                Queued(key, received.raw.hlc, received, dependencies=missing, priority=priority), now_ns
            )
            return None
        self.not_held += bool(missing)
        message = self._message(received, now_ns, frozenset(map(_id, missing)))
        self._arrive(received, now_ns)
        return message

    def look(self, now_ns: int) -> None:
        """Take note of what came straight through the rings, and of publishers that did not turn up."""
        for publisher, taken in self._watermarks().items():
            self.queue.advance(publisher, taken, now_ns)
        if not self._strangers:
            return
        known = self._known()
        for publisher, stranger in list(self._strangers.items()):
            if publisher in known:
                self._strangers.pop(publisher, None)
            elif now_ns - stranger.since_ns >= self._grace_ns:
                self._strangers.pop(publisher, None)
                self._unread[publisher] = now_ns
                for key in stranger.keys:
                    self.queue.settle(key, now_ns)

    def next_look_ns(self) -> int | None:
        """Return when a publisher has had its time to turn up; None without such a one."""
        return min((each.since_ns + self._grace_ns for each in self._strangers.values()), default=None)

    def release(self, now_ns: int, clock_ns: Callable[[], int]) -> tuple[int, int]:
        """Deliver the messages whose turn it is; return how many, and the time after the last."""
        done = 0
        while (dispatch := self.queue.take(now_ns)) is not None:
            received: Received = dispatch.message.payload
            try:
                received.release(self._message(received, now_ns, frozenset(map(_id, dispatch.unmet))))
            except Exception as error:  # noqa: BLE001 - counted and named, and the others go on
                self._failed(error)
                self.queue.fail(now_ns)
                continue
            self.queue.deliver(dispatch)
            self._arrive(received, now_ns)
            now_ns = clock_ns()
            done += 1
        return done, now_ns

    def let_go(self, now_ns: int) -> None:
        """Deliver all that is held without its dependencies: nobody would release it later."""
        for queued in self.queue.drain():
            received: Received = queued.payload
            missing = [each for each in received.extension.dependencies if each not in self._arrived]
            try:
                received.release(self._message(received, now_ns, frozenset(missing)))
            except Exception as error:  # noqa: BLE001 - named; drain has counted it
                self._failed(error)
                continue
            self.queue.counts.undelivered -= 1
            self.queue.counts.delivered += 1
            self.queue.counts.unmet_delivered += 1
            self._arrive(received, now_ns)

    def _message(self, received: Received, now_ns: int, unmet: frozenset[int]) -> Message:
        """Return a received message as it is delivered now, judged."""
        extension = received.extension
        for each in extension.dependencies:
            self._judge(each, received.raw.hlc, unmet)
        self.causality.fifo += received.message_id in self._arrived
        deadline_ns = extension.deadline_unix_ns
        late = deadline_ns is not None and now_ns > deadline_ns
        self.received_due += deadline_ns is not None
        if late and deadline_ns is not None:
            self.lateness.record(now_ns - deadline_ns)
            self._late(now_ns - deadline_ns)
        return extended_message(
            received.raw, extension, received.payload, received.message_id, late, unmet
        )  # fmt: skip

    def _arrive(self, received: Received, now_ns: int) -> None:
        """Let go those that wait for a message that was delivered; what it had no part in is not kept."""
        message_id = received.message_id
        self._arrived[message_id] = received.raw.hlc
        if len(self._arrived) > _REMEMBERED:
            self._arrived.popitem(last=False)
        self.queue.advance(message_id, 0, now_ns)
        self.queue.forget(message_id)

    def _judge(self, dependency: int, hlc: int, unmet: frozenset[int]) -> None:
        if dependency in unmet:
            self.causality.dependency += 1
        elif dependency in self._arrived:
            self.causality.hlc_order += hlc <= self._arrived[dependency]
        elif split_id(dependency)[0] in self._unread and not self.queue.is_met(_key(dependency)):
            self.unknown_dependencies += 1
        else:
            self.causality.unknown += 1

    def _missing(self, dependencies: tuple[int, ...], now_ns: int) -> tuple[MessageId, ...]:
        """Return the keys, in the queue, of the messages that are to be waited for."""
        open_ones = [each for each in dependencies if each not in self._arrived]
        if not open_ones:
            return ()
        self.look(now_ns)
        keys = [(each, key) for each in open_ones if not self.queue.is_met(key := _key(each))]
        known = self._known() if keys else ()
        return tuple(key for each, key in keys if self._is_awaited(each, key, known, now_ns))

    def _is_awaited(self, dependency: int, key: MessageId, known: Collection[int], now_ns: int) -> bool:
        """Return whether a message may still come here; notes a publisher that is not joined."""
        publisher = split_id(dependency)[0]
        sure = self._joined is None and is_ticket(dependency)
        if sure or publisher in known or self.queue.is_queued(key):
            self._unread.pop(publisher, None)
            return True
        since_ns = self._unread.get(publisher)
        if since_ns is not None and 0 <= now_ns - since_ns < UNREAD_NS:
            return False
        self._unread.pop(publisher, None)
        self._strangers.setdefault(publisher, _Stranger(now_ns)).keys.add(key)
        return True

    def _known(self) -> Collection[int]:
        return self._watermarks() if self._joined is None else self._joined()


def _key(message_id: int) -> MessageId:
    """Return a message's key in the queue: a ticket stands alone, others have a watermark."""
    return (message_id, 0) if is_ticket(message_id) else split_id(message_id)


def _id(key: MessageId) -> int:
    """Return the message id of a key."""
    return key[0] if is_ticket(key[0]) else join_id(*key)
