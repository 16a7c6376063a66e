"""The dispatcher: the one thread of a bus through which go messages with a deadline, dependencies or a slot.

Two queues, earliest deadline first: what this bus publishes waits for its slot in the quantum and for
packets of this bus it depends on; what it received waits for what it depends on. Messages without any
of that never come here.
"""

from __future__ import annotations

import copy
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cfctl import _native
from cfctl.bus.packet import (
    Extension,
    Packet,
    decode,
    encode,
    is_ticket,
    join_id,
    split_id,
    ticket_id,
    ticket_of,
)
from cfctl.bus.subscription import Message, extended_message
from cfctl.errors import ResourceExhausted
from cfctl.temporal.causality import CausalityCounts
from cfctl.temporal.coherence import Coherence, DispatcherTime, PhaseSum
from cfctl.temporal.deadlines import Message as Queued
from cfctl.temporal.deadlines import MessageId, QueueCounts, TemporalQueue
from cfctl.temporal.durations import Durations
from cfctl.temporal.stagger import next_slot_ns

if TYPE_CHECKING:
    from cfctl.bus.config import BusConfig

# A clock that is set must not leave the thread asleep.
_LONGEST_SLEEP_S: Final = 0.1
# Deliveries whose stamps are kept, to know dependencies on them.
_REMEMBERED: Final = 65536


@dataclass(frozen=True, slots=True)
class TemporalMetrics:
    """What the dispatcher did in the `window_ns` since the bus was made.

    `coherence`: of the dispatches, by phase in the quantum (exported as quantum_coherence_score).
    `schedule_utilization`: busy / window; `scheduling_efficiency`: busy / (busy + overhead + idle with work
    due); None without work. `outgoing` and `incoming` count the two queues since the start.
    `hlc_drift_ns`: how far the hybrid logical clock is ahead of the wall clock now.
    """

    window_ns: int
    coherence: Coherence
    schedule_utilization: float | None
    scheduling_efficiency: float | None
    outgoing: QueueCounts
    incoming: QueueCounts
    pending_messages: int
    oldest_age_ns: int | None
    deadline_violations: int
    lateness_p50_ns: float | None
    lateness_p99_ns: float | None
    lateness_max_ns: int | None
    causality: CausalityCounts
    hlc_drift_ns: int


@dataclass(slots=True)
class _Outgoing:
    packet: Packet
    message_id: int
    slot_ns: int
    publish: Callable[[bytes], int]


@dataclass(slots=True)
class _Incoming:
    raw: _native.Message
    extension: Extension
    payload: bytes
    message_id: int
    release: Callable[[Message], object]


class Dispatcher:
    """The temporal queues of a bus and their thread. Thread-safe.

    `watermarks` returns, per publisher, how many of its messages were received straight through a ring.
    """

    def __init__(
        self, config: BusConfig, clock: _native.Hlc, name: str, watermarks: Callable[[], dict[int, int]]
    ) -> None:
        self._config = config
        self._clock = clock
        self._watermarks = watermarks
        # Reentrant: a message can be received, and then held, while a round looks at the watermarks.
        self._changed = threading.Condition(threading.RLock())
        self._outgoing = self._queue()
        self._incoming = self._queue()
        self._causality = CausalityCounts()
        # The stamps of the latest messages with tickets that were delivered here.
        self._arrived: OrderedDict[int, int] = OrderedDict()
        self._lateness = Durations()
        self._received_due = 0
        self._time = DispatcherTime()
        self._phases = PhaseSum(config.quantum_ns)
        self._since_ns = clock.now_ns()
        self._record = _native.DispatcherRecord(name)
        # Without the last two, which are maxima.
        self._recorded: tuple[float, ...] = (0,) * (len(_native.DISPATCHER_FIELDS) - 2)
        self._thread: threading.Thread | None = None
        self._closing = False

    def _queue(self) -> TemporalQueue:
        timeout_ms = self._config.dependency_timeout_ms
        return TemporalQueue(
            expiry=self._config.expiry,
            dependency_timeout=self._config.dependency_timeout,
            dependency_timeout_ns=None if timeout_ms is None else round(timeout_ms * 1e6),
        )

    def schedule(
        self, packet: Packet, message_id: int, slot_ns: int, deadline_unix_ns: int | None,
        publish: Callable[[bytes], int],
    ) -> None:  # fmt: skip
        """Queue a packet for its slot; raises TemporalViolation when its deadline has passed."""
        with self._changed:
            now_ns = self._clock.now_ns()
            # Of others and of what has left, subscribers see to the order.
            waits_for = tuple(
                key for key in map(split_id, packet.dependencies) if self._outgoing.is_queued(key)
            )
            release_ns = next_slot_ns(now_ns, slot_ns, self._config.quantum_ns)
            entry = _Outgoing(packet, message_id, slot_ns, publish)
            message = Queued(
                split_id(message_id), self._clock.tick(), entry, deadline_unix_ns, release_ns, waits_for,
                packet.priority,
            )  # fmt: skip
            try:
                self._outgoing.add(message, now_ns)
            finally:
                self._store(now_ns)
            self._wake()

    def count_subscriptions(self, made: int = 0, ended: int = 0) -> None:
        """Count subscriptions of the bus that were made or have ended; takes no lock, for finalizers."""
        self._record.subscriptions(made, ended)

    def hold(self, raw: _native.Message, release: Callable[[Message], object]) -> Message | None:
        """Return a received message that need not wait; None when it was queued, or is damaged."""
        decoded = decode(raw.payload)
        if decoded is None:
            return None
        extension, payload = decoded
        message_id = ticket_id(split_id(raw.id)[0], extension.ticket)
        entry = _Incoming(raw, extension, payload, message_id, release)
        with self._changed:
            now_ns = self._clock.now_ns()
            missing = self._missing(extension.dependencies, now_ns)
            if not missing:
                message = self._finish(entry, now_ns, frozenset())
                self._store(now_ns)
                return message
            # Without its deadline: what is late by its dependencies is delivered, and counted as late.
            self._incoming.add(
                Queued((message_id, 0), raw.hlc, entry, None, 0, missing, extension.priority), now_ns
            )
            self._store(now_ns)
            self._wake()
        return None

    def hand_out(self, raw: _native.Message, release: Callable[[Message], object]) -> Message | None:
        """Return a received message at once, whatever it depends on; None when it is damaged."""
        decoded = decode(raw.payload)
        if decoded is None:
            return None
        extension, payload = decoded
        message_id = ticket_id(split_id(raw.id)[0], extension.ticket)
        deadline_ns = extension.deadline_unix_ns
        late = deadline_ns is not None and self._clock.now_ns() > deadline_ns
        return extended_message(raw, extension, payload, message_id, late, frozenset())

    def process(self) -> int:
        """Publish and deliver what is due now, and let expire what is too late; return how many."""
        with self._changed:
            return self._round()

    def metrics(self) -> TemporalMetrics:
        """Return what happened since the start."""
        with self._changed:
            now_ns = self._clock.now_ns()
            p50_ns, p99_ns = self._lateness.quantiles((0.5, 0.99)) or (None, None)
            return TemporalMetrics(
                window_ns=now_ns - self._since_ns,
                coherence=self._phases.coherence(),
                schedule_utilization=self._time.utilization(now_ns - self._since_ns),
                scheduling_efficiency=self._time.efficiency(),
                outgoing=copy.copy(self._outgoing.counts),
                incoming=copy.copy(self._incoming.counts),
                pending_messages=len(self._outgoing) + len(self._incoming),
                oldest_age_ns=self._oldest_age_ns(now_ns),
                deadline_violations=self._outgoing.counts.expired + self._lateness.count,
                lateness_p50_ns=p50_ns,
                lateness_p99_ns=p99_ns,
                lateness_max_ns=self._lateness.max_ns,
                causality=copy.copy(self._causality),
                hlc_drift_ns=max(0, self._clock.last - now_ns),
            )

    def _oldest_age_ns(self, now_ns: int) -> int | None:
        ages = [queue.oldest_age_ns(now_ns) for queue in (self._outgoing, self._incoming)]
        return max((age for age in ages if age is not None), default=None)

    def close(self) -> None:
        """End the thread. What is still queued is forgotten."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _missing(self, dependencies: tuple[int, ...], now_ns: int) -> tuple[MessageId, ...]:
        """Return the keys, in the incoming queue, of the messages that were not delivered here yet."""
        if any(not is_ticket(each) for each in dependencies):
            self._advance(now_ns)
        return tuple(
            key
            for each in dependencies
            if each not in self._arrived and not self._incoming.is_met(key := _key(each))
        )

    def _advance(self, now_ns: int) -> None:
        for publisher, taken in self._watermarks().items():
            self._incoming.advance(publisher, taken, now_ns)

    def _finish(self, entry: _Incoming, now_ns: int, unmet: frozenset[int]) -> Message:
        """Return a received message at its turn, counted."""
        for each in entry.extension.dependencies:
            if each in unmet:
                self._causality.dependency += 1
            elif each in self._arrived:
                self._causality.hlc_order += entry.raw.hlc <= self._arrived[each]
            else:
                self._causality.unknown += 1
        self._causality.fifo += entry.message_id in self._arrived
        self._arrived[entry.message_id] = entry.raw.hlc
        if len(self._arrived) > _REMEMBERED:
            self._arrived.popitem(last=False)
        # Those that wait for it; what it had no part in is not kept.
        self._incoming.advance(entry.message_id, 0, now_ns)
        self._incoming.forget(entry.message_id)
        deadline_ns = entry.extension.deadline_unix_ns
        late = deadline_ns is not None and now_ns > deadline_ns
        self._received_due += deadline_ns is not None
        if late and deadline_ns is not None:
            self._lateness.record(now_ns - deadline_ns)
            self._record.late(now_ns - deadline_ns)
        return extended_message(entry.raw, entry.extension, entry.payload, entry.message_id, late, unmet)

    def _round(self) -> int:
        started_ns = now_ns = self._clock.now_ns()
        done = busy_ns = 0
        while (dispatch := self._outgoing.dispatch(now_ns)) is not None:
            entry: _Outgoing = dispatch.message.payload
            if not self._publish(entry, dispatch.message.deadline_ns):
                # The ring is full: once more in the next quantum, until the deadline.
                next_ns = next_slot_ns(now_ns + 1, entry.slot_ns, self._config.quantum_ns)
                self._outgoing.put_back(dispatch, next_ns, now_ns)
                continue
            self._phases.add(now_ns, entry.slot_ns)
            published_ns = self._clock.now_ns()
            busy_ns += max(0, published_ns - now_ns)
            now_ns = published_ns
            done += 1
        if len(self._incoming):
            self._advance(now_ns)
            while (dispatch := self._incoming.dispatch(now_ns)) is not None:
                held: _Incoming = dispatch.message.payload
                unmet = frozenset(_id(key) for key in dispatch.unmet)
                held.release(self._finish(held, now_ns, unmet))
                delivered_ns = self._clock.now_ns()
                busy_ns += max(0, delivered_ns - now_ns)
                now_ns = delivered_ns
                done += 1
        self._time.busy_ns += busy_ns
        ended_ns = self._clock.now_ns()
        self._time.overhead_ns += max(0, ended_ns - started_ns - busy_ns)
        self._store(ended_ns)
        return done

    def _publish(self, entry: _Outgoing, deadline_ns: int | None) -> bool:
        packet = entry.packet
        extension = Extension(deadline_ns, ticket_of(entry.message_id), packet.dependencies, packet.priority)
        try:
            entry.publish(encode(extension, packet.data))
        except ResourceExhausted:
            return False
        return True

    def _store(self, now_ns: int) -> None:
        """Bring the segment up to date; 2 us."""
        out, held, time_ = self._outgoing.counts, self._incoming.counts, self._time
        age_ns = self._oldest_age_ns(now_ns)
        now = (
            out.accepted, out.with_deadline, out.refused, out.delivered, self._lateness.count, out.expired,
            out.held_by_deps + held.held_by_deps, out.unmet_delivered + held.unmet_delivered,
            out.dropped_by_deps + held.dropped_by_deps, self._causality.fifo, self._causality.dependency,
            self._causality.hlc_order, time_.busy_ns, time_.overhead_ns, time_.idle_pending_ns,
            self._phases.count, self._received_due, self._phases.cosines, self._phases.sines,
            len(self._outgoing), len(self._incoming), 0 if age_ns is None else now_ns - age_ns,
        )  # fmt: skip
        added = tuple(a - b for a, b in zip(now, self._recorded, strict=True))
        high_water = out.high_water + held.high_water
        self._record.add((*added, self._config.quantum_ns, high_water))
        self._recorded = now

    def _wake(self) -> None:
        """Let the thread look at the queues; started with the first message that needs it."""
        if self._thread is None and not self._closing:
            self._thread = threading.Thread(target=self._run, name="cfctl bus dispatcher", daemon=True)
            self._thread.start()
        self._changed.notify_all()

    def _run(self) -> None:
        with self._changed:
            while not self._closing:
                due_ns = self._due_ns()
                now_ns = self._clock.now_ns()
                if due_ns is not None and due_ns <= now_ns:
                    self._time.idle_pending_ns += now_ns - due_ns if due_ns else 0
                    self._round()
                else:
                    wait_s = None if due_ns is None else min((due_ns - now_ns) * 1e-9, _LONGEST_SLEEP_S)
                    self._changed.wait(wait_s)

    def _due_ns(self) -> int | None:
        """Return when a round has something to do; None when there is nothing in the queues."""
        moments = [
            moment
            for queue in (self._outgoing, self._incoming)
            if (moment := queue.next_event_ns()) is not None
        ]
        if len(self._incoming):
            # Only looking tells whether what came straight through a ring is a dependency.
            now_ns = self._clock.now_ns()
            moments.append(next_slot_ns(now_ns + 1, 0, self._config.quantum_ns))
        return min(moments, default=None)


def _key(message_id: int) -> MessageId:
    """Return a message's key in the incoming queue: a ticket stands alone, others have a watermark."""
    return (message_id, 0) if is_ticket(message_id) else split_id(message_id)


def _id(key: MessageId) -> int:
    """Return the message id of a key."""
    return key[0] if is_ticket(key[0]) else join_id(*key)
