"""The bus: publishers and subscriptions of a program, and what they can tell of themselves."""

from __future__ import annotations

import atexit
import functools
import itertools
import os
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from cfctl import _native
from cfctl.bus.config import BusConfig
from cfctl.bus.dispatcher import Dispatcher, TemporalMetrics
from cfctl.bus.packet import MAX_PRIORITY, Packet, ticket_id
from cfctl.bus.reaper import remove_closed
from cfctl.bus.subscription import Subscription
from cfctl.errors import InputError, ResourceExhausted, StateError, SubscriptionNotFound, os_error_reason
from cfctl.segment.process import open_segment
from cfctl.temporal.hlc import global_hlc

if TYPE_CHECKING:
    from cfctl._native import RingPublisher as Publisher
    from cfctl.bus.subscription import Message

TOPIC_BYTES: Final = 1024
# Closed when the interpreter ends, so that their rings are not taken for those of a killed program.
_open_buses: weakref.WeakSet[Bus] = weakref.WeakSet()
_Lane = tuple[str, int, bool]


@dataclass(frozen=True, slots=True)
class PublisherStats:
    """A ring this bus publishes on; counts since it was made. `pending`: not yet taken by the slowest reader."""

    topic: str
    ring_id: int
    number: int
    priority: int
    scheduled: bool
    published: int
    rejected: int
    orphaned: int
    pending: int
    high_water: int
    readers: int


@dataclass(frozen=True, slots=True)
class SubscriptionStats:
    """A subscription of this bus. copies = delivered + dropped + pending, over all rings it joined.

    `dropped`: overwritten before they were taken; `damaged` of them contradicted themselves.
    `high_water`: most that waited, as far as it was looked at. `rings_refused`: could not be joined.
    """

    topic: str
    id: int
    copies: int
    delivered: int
    dropped: int
    pending: int
    damaged: int
    high_water: int
    oldest_age_ticks: int | None
    rings: int
    rings_refused: int


@dataclass(frozen=True, slots=True)
class BusStats:
    """What passed through this process's bus."""

    active_subscriptions: int
    publishers: tuple[PublisherStats, ...]
    subscriptions: tuple[SubscriptionStats, ...]

    @property
    def loss_ratio(self) -> float | None:
        """Return dropped / copies over the subscriptions, 0..1; None without a copy."""
        copies = sum(each.copies for each in self.subscriptions)
        return sum(each.dropped for each in self.subscriptions) / copies if copies else None


@dataclass(frozen=True, slots=True)
class BusHealth:
    """Whether the bus is healthy, and which of the four conditions does not hold.

    The clock is calibrated (a line is published, or the OS clock is the counter); each ring is there; each
    ring with a reader has a live one; nothing was dropped or rejected since the last call.
    """

    healthy: bool
    calibrated: bool
    rings_attached: bool
    consumers_alive: bool
    overruns: int


class Bus:
    """Publishes on topics and subscribes to them, to and from all processes of this user on this host.

    Topics are any text of 1 to 1024 bytes of UTF-8. Use it as a context manager, or `close` it. A forked
    child makes a bus of its own: its parent's endpoints refuse to work there. Publishing on one topic and
    receiving on one subscription is for one thread at a time.
    """

    def __init__(self, config: BusConfig | None = None) -> None:
        open_segment()
        self.config = config or BusConfig()
        self._clock = global_hlc()
        self._optimized = True
        self._lock = threading.Lock()
        self._publishers: dict[_Lane, Publisher] = {}
        self._subscriptions: weakref.WeakValueDictionary[int, Subscription] = weakref.WeakValueDictionary()
        # Half of a subscription's id is this bus's, the rest counts: no id ever comes again.
        self._base = int.from_bytes(os.urandom(4)) << 32
        self._ids = itertools.count(1)
        self._tickets = itertools.count(1)
        self._overruns = 0
        self._dispatcher = Dispatcher(
            self.config, self._clock, f"bus {self._base >> 32:08x}", self._watermarks
        )
        self._closed = False
        self._pid = os.getpid()
        _open_buses.add(self)

    def __enter__(self) -> Self:
        """Return the bus."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the bus."""
        self.close()

    def publisher(self, topic: str, *, priority: int = 0) -> Publisher:
        """Return the writing end of a topic: its `try_publish(data)` and `publish(data, timeout)` are the fast path.

        The same one each time. Raises StateError when the ring can not be made.
        """
        return self._lane(topic, priority, scheduled=False)

    def try_publish(self, packet: Packet) -> int:
        """Publish at once and return the message's id.

        Raises ResourceExhausted, and nothing was accepted, when the ring is full. A packet that has to wait
        for its slot or dependencies is queued.
        """
        if not packet.is_plain:
            return self._schedule(packet, None)
        return self.publisher(packet.topic, priority=packet.priority).try_publish(packet.data)

    def publish(self, packet: Packet, timeout_s: float | None = None) -> int:
        """Publish as soon as the ring has room and return the message's id.

        Raises ResourceExhausted when it had none in time.
        """
        if not packet.is_plain:
            return self._schedule(packet, None)
        return self.publisher(packet.topic, priority=packet.priority).publish(packet.data, timeout_s)

    def publish_many(self, topic: str, payloads: Sequence[bytes]) -> int:
        """Publish a list or tuple of payloads until the ring is full; return how many were accepted."""
        return self.publisher(topic).publish_many(payloads)

    def publish_with_deadline(self, packet: Packet, deadline_unix_ns: int) -> int:
        """Queue a packet that is worth nothing after a moment, earliest deadline first; return its id.

        It is published in the next slot of its publisher; what is too late by then is dropped, or published
        and received as `late`, by BusConfig.expiry. Raises TemporalViolation when the moment has passed.
        """
        return self._schedule(packet, deadline_unix_ns)

    def process_temporal_queue(self) -> int:
        """Do now what the dispatcher would do in this quantum; return how many messages it moved."""
        return self._dispatcher.process()

    def set_quantum_optimization(self, enabled: bool) -> None:
        """Stagger packets that have a QuantumOffset (the default), or dispatch all at the quantum's start."""
        self._optimized = enabled

    def subscribe(self, topic: str) -> Subscription:
        """Return a subscription to what is published from now on, by publishers that are there or come.

        It joins those that come when it is next asked for a message: a publisher that waits for its first
        reader waits for that.
        """
        name = _topic_bytes(topic)
        subscription_id = self._base | next(self._ids)
        config = self.config
        hold = functools.partial(self._dispatcher.hold, release=self._release_for(subscription_id))
        try:
            ring = _native.RingSubscription(
                str(config.directory), name, subscription_id, config.wait.number, config.spin_ns, config.ordered,
                hold, functools.partial(_not_found, subscription_id),
            )  # fmt: skip
        except OSError as error:
            raise _unusable("subscribed to", topic, error) from error
        subscription = Subscription(
            topic, subscription_id, ring, functools.partial(_end, ring, self._dispatcher.count_subscriptions)
        )
        with self._lock:
            self._require_open()
            self._subscriptions[subscription_id] = subscription
        self._dispatcher.count_subscriptions(made=1)
        weakref.finalize(subscription, _end, ring, self._dispatcher.count_subscriptions)
        return subscription

    def unsubscribe(self, subscription: Subscription | int) -> None:
        """End a subscription, given as itself or by its id; nothing for one that has ended.

        Raises SubscriptionNotFound for an id that never was this bus's.
        """
        subscription_id = subscription.id if isinstance(subscription, Subscription) else subscription
        if subscription_id >> 32 << 32 != self._base:
            raise _not_found(subscription_id)
        found = self._subscriptions.pop(subscription_id, None)
        if found is not None:
            found.unsubscribe()

    def subscription(self, subscription_id: int) -> Subscription:
        """Return the subscription of an id; raises SubscriptionNotFound when it has ended."""
        found = self._subscriptions.get(subscription_id)
        if found is None:
            raise _not_found(subscription_id)
        return found

    def stats(self) -> BusStats:
        """Return what passed through, by publisher and subscription."""
        publishers = [
            PublisherStats(topic, ring.ring_id, ring.number, priority, scheduled, **ring.counts())
            for (topic, priority, scheduled), ring in list(self._publishers.items())
        ]
        now_ticks = _native.ticks()
        subscriptions = []
        for each in list(self._subscriptions.values()):
            counts: dict[str, Any] = dict(each.counts())
            oldest = counts.pop("oldest_tick")
            counts["oldest_age_ticks"] = max(0, now_ticks - oldest) if oldest else None
            subscriptions.append(SubscriptionStats(each.topic, each.id, **counts))
        return BusStats(len(subscriptions), tuple(publishers), tuple(subscriptions))

    def temporal_metrics(self) -> TemporalMetrics:
        """Return what the dispatcher did: coherence, utilization, deadlines, dependencies, causality."""
        return self._dispatcher.metrics()

    def health(self) -> BusHealth:
        """Return whether the bus is healthy, and what is not."""
        stats = self.stats()
        calibrated = _native.tick_source()[0] == "os" or _native.clock_published() is not None
        total = sum(p.rejected for p in stats.publishers) + sum(s.dropped for s in stats.subscriptions)
        overruns, self._overruns = total - self._overruns, total
        attached = not self._closed and all(s.rings_refused == 0 for s in stats.subscriptions)
        # A dead reader is found when the ring is full; until then it is one.
        alive = all(p.readers > 0 or p.orphaned == 0 for p in stats.publishers)
        healthy = calibrated and attached and alive and overruns == 0
        return BusHealth(healthy, calibrated, attached, alive, overruns)

    def close(self) -> None:
        """End all publishers and subscriptions; idempotent. Messages on the rings can still be received."""
        if self._pid != os.getpid():
            # A forked child's copy: what it holds is its parent's, and a lock may be held for ever.
            return
        with self._lock:
            self._closed = True
        self._dispatcher.close()
        for subscription in list(self._subscriptions.values()):
            subscription.unsubscribe()
        self._subscriptions.clear()
        for ring in self._publishers.values():
            ring.close()
        self._publishers.clear()

    def _lane(self, topic: str, priority: int, *, scheduled: bool) -> Publisher:
        lane = (topic, priority, scheduled)
        found = self._publishers.get(lane)
        if found is not None:
            return found
        with self._lock:
            self._require_open()
            return self._publishers.get(lane) or self._make(lane)

    def _make(self, lane: _Lane) -> Publisher:
        topic, priority, scheduled = lane
        if not 0 <= priority <= MAX_PRIORITY:
            raise InputError(f"Priority {priority} can not be used.", "A priority is 0 to 255.")
        name, config = _topic_bytes(topic), self.config
        remove_closed(config.directory)
        try:
            ring = _native.RingPublisher(
                str(config.directory), name, config.capacity, config.slot_bytes, config.arena_pages_bytes,
                config.overwrite, priority, scheduled, config.spin_ns, functools.partial(_exhausted, topic),
            )  # fmt: skip
        except OSError as error:
            raise _unusable("published on", topic, error) from error
        self._publishers[lane] = ring
        return ring

    def _schedule(self, packet: Packet, deadline_unix_ns: int | None) -> int:
        ring = self._lane(packet.topic, packet.priority, scheduled=True)
        message_id = ticket_id(ring.number, next(self._tickets))
        offset = packet.offset if self._optimized else None
        slot_ns = 0
        if offset is not None:
            slot_ns = offset.slot_ns(ring.number, self._clock.now_ns(), self.config.quantum_ns)
        self._dispatcher.schedule(packet, message_id, slot_ns, deadline_unix_ns, ring.publish_extended)
        return message_id

    def _watermarks(self) -> dict[int, int]:
        marks: dict[int, int] = {}
        for subscription in list(self._subscriptions.values()):
            marks |= subscription.watermarks()
        return marks

    def _release_for(self, subscription_id: int) -> Any:
        def release(message: Message) -> None:
            found = self._subscriptions.get(subscription_id)
            if found is not None:
                found.deliver(message)

        return release

    def _require_open(self) -> None:
        if self._closed:
            raise StateError("The bus is closed.", "close() was called.", "Make another.")


@atexit.register
def _close_all() -> None:
    for bus in list(_open_buses):
        bus.close()


def _end(ring: _native.RingSubscription, count: Callable[[int, int], None]) -> None:
    """Leave the rings; counted the first time."""
    if ring.close():
        count(0, 1)


def _topic_bytes(topic: str) -> bytes:
    try:
        name = topic.encode()
    except UnicodeEncodeError as error:
        raise InputError("The topic can not be used.", f"It is no Unicode text: {error.reason}.") from error
    if not 1 <= len(name) <= TOPIC_BYTES:
        raise InputError("The topic can not be used.", "A topic is 1 to 1024 bytes of UTF-8.")
    return name


def _exhausted(topic: str) -> ResourceExhausted:
    return ResourceExhausted(
        f"A message on {topic!r} was not accepted.",
        "The ring is full: a subscriber is slower than its publisher.",
        "Publish later, enlarge BusConfig.channel_buffer_size for bursts, or set overwrite.",
    )


def _not_found(subscription_id: int) -> SubscriptionNotFound:
    return SubscriptionNotFound(
        f"There is no subscription {subscription_id:#x}.",
        "It has ended, or is another bus's.",
        "Subscribe again.",
    )


def _unusable(what: str, topic: str, error: OSError) -> StateError:
    return StateError(
        f"{topic[:64]!r} can not be {what}.",
        os_error_reason(error),
        "Free space, or name another directory with CFCTL_SEGMENT_DIR.",
    )
