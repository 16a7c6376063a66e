"""The bus: publishers and subscriptions of a program, and what they can tell of themselves."""

from __future__ import annotations

import atexit
import functools
import itertools
import os
import threading
import weakref
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from cfctl import _native
from cfctl.bus import names
from cfctl.bus.config import BusConfig, checked_config
from cfctl.bus.dispatcher import CLOSE_TIMEOUT_S, Dispatcher, TemporalMetrics
from cfctl.bus.endpoints import BusStats, Overruns, health_of, stats_of
from cfctl.bus.failures import endpoint_error, publisher_error, subscription_error
from cfctl.bus.packet import MAX_PRIORITY, Packet, checked, checked_deadline, require_packet, ticket_id
from cfctl.bus.presence import Presence, topic_names
from cfctl.bus.reaper import sweep
from cfctl.bus.requests import Requester, Server
from cfctl.bus.subscription import Subscription
from cfctl.errors import InputError, StateError, SubscriptionNotFound
from cfctl.segment.process import open_segment
from cfctl.temporal.hlc import global_hlc

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from cfctl.bus.health import Health
    from cfctl.bus.subscription import Message

Publisher = _native.Publisher
_LOSSY, _REDELIVER, _OWN = 1, 4, 16  # enum cf_seat_flag
# Closed when the interpreter ends, so that their rings are not taken for those of a killed program.
_open_buses: weakref.WeakSet[Bus] = weakref.WeakSet()
_Lane = tuple[str, int, bool]


class Bus:
    """Publishes on topics and subscribes to them, to and from all processes of this user on this host.

    Topics are any text of 1 to 1024 bytes of UTF-8 without control characters. Use it as a context manager, or `close`
    it. A forked child makes a bus of its own: all of its parent's refuses to work there. Publishing on one topic and
    receiving on one subscription is for one thread at a time. `own`: for cfctl's own commands.
    """

    def __init__(self, config: BusConfig | None = None, *, own: bool = False) -> None:
        open_segment()
        self.config = checked_config(config)
        self._participant = self._take_part()
        sweep(self.config.directory)
        self._own = own
        self._clock = global_hlc()
        self._optimized = True
        # Reentrant: a signal handler may open an endpoint while one is opened.
        self._lock = threading.RLock()
        self._publishers: dict[_Lane, Publisher] = {}
        self._subscriptions: weakref.WeakValueDictionary[int, Subscription] = weakref.WeakValueDictionary()
        # Half of a subscription's id is this bus's, the rest counts: no id ever comes again.
        self._base = int.from_bytes(os.urandom(4)) << 32
        self._ids = itertools.count(1)
        self._tickets = itertools.count(1)
        self._requesters: dict[str, Requester] = {}
        self._overruns = Overruns()
        self._dispatcher = Dispatcher(
            self.config, self._clock, f"bus {self._base >> 32:08x}", self._watermarks, self._joined
        )
        # Of packets that were accepted for later, those that were not sent when the bus was closed.
        self.unsent = 0
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
        """Return the writing end of a topic: its `try_publish(data)` and `publish(data, timeout_s)` are the fast path.

        The same one each time. Raises StateError when the ring cannot be made, LimitError beyond 256 rings.
        """
        return self._lane(names.public(topic), priority, scheduled=False)

    def try_publish(self, packet: Packet) -> int:
        """Publish at once and return the message's id.

        Raises ResourceExhausted, and nothing was accepted, when the ring is full. A packet that has to wait
        for its slot or dependencies is queued.
        """
        require_packet(packet)
        if not packet.is_plain:
            return self._schedule(packet, None)
        return self.publisher(packet.topic, priority=packet.priority).try_publish(packet.data)

    def publish(self, packet: Packet, timeout_s: float | None = None) -> int:
        """Publish as soon as the ring has room and return the message's id.

        Raises ResourceExhausted when it had none in time.
        """
        require_packet(packet)
        if not packet.is_plain:
            return self._schedule(packet, None)
        return self.publisher(packet.topic, priority=packet.priority).publish(packet.data, timeout_s)

    def publish_many(self, topic: str, payloads: Sequence[Buffer]) -> int:
        """Publish a list or tuple of payloads until the ring is full; return how many were accepted."""
        return self.publisher(topic).publish_many(payloads)

    def publish_with_deadline(self, packet: Packet, deadline_unix_ns: int) -> int:
        """Queue a packet that is worth nothing after a moment, earliest deadline first; return its id.

        It is published in the next slot of its publisher; what is too late by then is dropped, or published
        and received as `late`, by BusConfig.expiry. Raises TemporalViolation when the moment has passed.
        """
        require_packet(packet)
        return self._schedule(packet, deadline_unix_ns)

    def process_temporal_queue(self) -> int:
        """Do now what the dispatcher would do in this quantum; return how many messages it moved."""
        return self._dispatcher.process()

    def set_quantum_optimization(self, enabled: bool) -> None:
        """Stagger packets that have a QuantumOffset (the default), or dispatch all at the quantum's start."""
        self._optimized = enabled

    def subscribe(
        self,
        *topics: str,
        pattern: str | None = None,
        history: int = 0,
        group: str | None = None,
        redeliver: bool = False,
        lossy: bool = False,
        held: bool = True,
        wait_for: int = 0,
        timeout_s: float | None = None,
    ) -> Subscription:
        """Return a subscription to what is published on topics from now on, by publishers that are there or come.

        `pattern` instead of topics: all whose names it matches, those that come too; * stands for any run of
        characters, ? for one. `history`: each publisher's last n messages come first, as far as its ring still
        holds them. `group`: its members share the messages, each goes to one of them; with `redeliver` what a member
        had not finished when it died goes to another one, else it is counted only. `lossy`: publishers never
        wait for it, and it counts what it lost. `held` False: messages come in their rings' order, not
        after their dependencies. `wait_for`: return once so many publishers are there, BusTimeout after `timeout_s`.
        Raises InputError, StateError, and LimitError beyond 256 subscriptions of a topic.
        """
        plan = names.plan(topics, pattern, history, group, lossy=lossy)
        flags = _LOSSY * lossy | _REDELIVER * redeliver
        subscription = self._open(plan, flags, held=held)
        if wait_for > 0:
            subscription.await_publishers(wait_for, timeout_s)
        return subscription

    def unsubscribe(self, subscription: Subscription | int) -> None:
        """End a subscription, given as itself or by its id; nothing for one that has ended.

        Raises SubscriptionNotFound for an id that never was this bus's.
        """
        subscription_id = subscription.id if isinstance(subscription, Subscription) else subscription
        if subscription_id >> 32 << 32 != self._base:
            raise _not_found(subscription_id)
        found = self._subscriptions.get(subscription_id)
        if found is not None:
            found.unsubscribe()

    def subscription(self, subscription_id: int) -> Subscription:
        """Return the subscription of an id; raises SubscriptionNotFound when it has ended."""
        found = self._subscriptions.get(subscription_id)
        if found is None:
            raise _not_found(subscription_id)
        return found

    def requester(self, topic: str) -> Requester:
        """Return who asks the servers of a topic: its `request(data, timeout_s)` returns the reply."""
        return Requester(self, topic, self._base | next(self._ids))

    def request(self, topic: str, data: Buffer, timeout_s: float | None = 1.0) -> bytes:
        """Return the reply of a topic's servers; by a requester that is made with the first request on the topic."""
        found = self._requesters.get(topic)
        if found is None:
            found = self._requesters.setdefault(topic, self.requester(topic))
        return found.request(data, timeout_s)

    def serve(self, topic: str, *, redeliver: bool = False) -> Server:
        """Return the requests on a topic, to iterate over and reply to; each comes to one of its servers.

        With `redeliver` one that a server had not finished when it died comes to another server.
        """
        return Server(self, topic, redeliver=redeliver)

    def presence(self, topic: str | None = None) -> Presence:
        """Return who publishes on a topic and who subscribes to it, of all topics without one: now, and as it changes.

        Raises InputError for a topic that cannot be used, SegmentError for a directory that cannot be read.
        """
        self._require_open()
        name = None if topic is None else names.public(topic)
        return Presence(self.config.directory, name, require_open=self._require_open)

    def topics(self) -> tuple[str, ...]:
        """Return the topics that anybody publishes on or subscribes to now, by name; 0.1 ms for each."""
        self._require_open()
        return topic_names(self.config.directory)

    def stats(self) -> BusStats:
        """Return what passed through, by publisher and subscription."""
        return stats_of(self._publishers, self._living())

    def temporal_metrics(self) -> TemporalMetrics:
        """Return what the dispatcher did: coherence, utilization, deadlines, dependencies, causality."""
        return self._dispatcher.metrics()

    def health(self) -> Health:
        """Return whether the bus is healthy, true or false, and why not; overruns are those since the last call."""
        self._require_open()
        return health_of(self.stats(), self._overruns, self._dispatcher)

    def flush(self, timeout_s: float = CLOSE_TIMEOUT_S) -> int:
        """Wait until all packets that were accepted for later have left; return how many have not in time."""
        return self._dispatcher.flush(timeout_s)

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> int:
        """Send what was accepted for later, then end all publishers and subscriptions; idempotent.

        Returns how many packets could not be sent in the time, which `unsent` keeps: their rings were full, or
        their deadlines passed. Messages on the rings can still be received.
        """
        if self._pid != os.getpid():
            # A forked child's copy: what it holds is its parent's, and a lock may be held for ever.
            return 0
        self.unsent += self._dispatcher.close(timeout_s)
        with self._lock:
            self._closed = True
        subscriptions, publishers = self._living(), list(self._publishers.values())
        for subscription in subscriptions:
            subscription.unsubscribe()
        for publisher in publishers:
            publisher.close()
        self._publishers.clear()
        # What another thread is using at this moment ends by itself, and the lease with the last of it.
        if all(each._is_shut for each in subscriptions) and all(each.closed for each in publishers):
            self._participant.close()
        return self.unsent

    def _take_part(self) -> _native.BusParticipant:
        try:
            return _native.BusParticipant(str(self.config.directory))
        except OSError as error:
            raise endpoint_error(error, "No bus can be made.", self.config) from error

    def _lane(self, topic: str, priority: int, *, scheduled: bool) -> Publisher:
        lane = (topic, priority, scheduled)
        found = self._publishers.get(lane)
        if found is not None and not found.closed:
            return found
        self._require_open()
        with self._lock:
            self._require_open()
            found = self._publishers.get(lane)
            return found if found is not None and not found.closed else self._make(lane)

    def _make(self, lane: _Lane) -> Publisher:
        topic, priority, scheduled = lane
        if not isinstance(priority, int) or not 0 <= priority <= MAX_PRIORITY:
            raise InputError(f"Priority {priority!r} cannot be used.", "A priority is 0 to 255.")
        config = self.config
        try:
            ring = Publisher(
                self._participant, topic, config.capacity, config.slot_bytes, config.arena_pages_bytes,
                config.overwrite, priority, scheduled, config.spin_ns, self._own,
            )  # fmt: skip
        except OSError as error:
            raise publisher_error(error, topic, config) from error
        self._publishers[lane] = ring
        return ring

    def raw_subscription(self, topic: str, *, lossy: bool) -> Subscription:
        """Return a subscription to any topic whose messages are as they lie on the rings: for a recorder."""
        return self._open(names.Plan((topic,)), _LOSSY * lossy, is_raw=True)

    def private_publisher(self, topic: str) -> Publisher:
        """Return the publisher of a private topic: for requests and replies."""
        return self._lane(topic, 0, scheduled=False)

    def private_subscription(self, topic: str, group: str | None, *, redeliver: bool = False) -> Subscription:
        """Return a subscription to a private topic: for requests and replies."""
        return self._open(names.Plan((topic,), group=group), _REDELIVER * redeliver)

    def _open(self, plan: names.Plan, flags: int, *, held: bool = True, is_raw: bool = False) -> Subscription:
        # Before the lock: in a forked child it may be held for ever.
        self._require_open()
        subscription_id = self._base | next(self._ids)
        config = self.config
        hold = self._dispatcher.hold if held else self._dispatcher.hand_out
        release = functools.partial(hold, release=self._release_for(subscription_id))
        with self._lock:
            self._require_open()
            try:
                subscription = Subscription(
                    self._participant, plan.topics, plan.pattern, subscription_id, config.wait.number,
                    config.spin_ns, config.ordered, flags | _OWN * self._own, plan.history, plan.group,
                    None if is_raw else release,
                )  # fmt: skip
            except OSError as error:
                name, is_pattern = plan.pattern or str(error.filename), plan.pattern is not None
                raise subscription_error(error, name, config, is_pattern=is_pattern) from error
            subscription.id = subscription_id
            subscription.topics = plan.topics or (plan.pattern or "",)
            self._dispatcher.count_subscriptions(made=1)
            # Called by whichever comes first: its end, or nothing referring to it any more.
            count_end = weakref.finalize(subscription, self._dispatcher.count_subscriptions, ended=1)
            subscription._ended = functools.partial(self._forget, subscription_id, count_end)
            self._subscriptions[subscription_id] = subscription
        return subscription

    def _forget(self, subscription_id: int, count_end: Callable[[], object], dropped: int) -> None:
        self._subscriptions.pop(subscription_id, None)
        self._overruns.ended(subscription_id, dropped)
        count_end()

    def _schedule(self, packet: Packet, deadline_unix_ns: int | None) -> int:
        self._require_open()
        ring = self._lane(names.public(packet.topic), packet.priority, scheduled=True)
        packet = checked(packet, ring.max_payload)
        if deadline_unix_ns is not None:
            deadline_unix_ns = checked_deadline(deadline_unix_ns, self._clock.now_ns())
        message_id = ticket_id(ring.number, next(self._tickets))
        offset = packet.offset if self._optimized else None
        slot_ns = 0
        if offset is not None:
            slot_ns = offset.slot_ns(ring.number, self._clock.now_ns(), self.config.quantum_ns)
        self._dispatcher.schedule(packet, message_id, slot_ns, deadline_unix_ns, ring.publish_extended)
        return message_id

    def _living(self) -> list[Subscription]:
        """Return the subscriptions that are there; others may come and go meanwhile, in any thread."""
        return [each for ref in self._subscriptions.valuerefs() if (each := ref()) is not None]

    def _watermarks(self) -> dict[int, int]:
        marks: dict[int, int] = {}
        for subscription in self._living():
            marks |= subscription.watermarks()
        return marks

    def _joined(self) -> set[int]:
        return {number for each in self._living() for number in each.publisher_numbers()}

    def _release_for(self, subscription_id: int) -> Any:
        def release(message: Message) -> None:
            found = self._subscriptions.get(subscription_id)
            if found is not None:
                found._release(message)

        return release

    def _require_open(self) -> None:
        if self._pid != os.getpid():
            raise StateError(
                "The bus cannot be used.",
                "It is the parent's of this forked child.",
                "Make a Bus of its own.",
            )
        if self._closed:
            raise StateError("The bus is closed.", "close() was called.", "Make another.")


@atexit.register
def _close_all() -> None:
    for bus in list(_open_buses):
        bus.close()


def _not_found(subscription_id: int) -> SubscriptionNotFound:
    return SubscriptionNotFound(
        f"There is no subscription {subscription_id:#x}.",
        "It has ended, or is another bus's.",
        "Subscribe again.",
    )
