"""The dispatcher: the one thread of a bus through which go messages with a deadline, dependencies or a slot.

Two queues, earliest deadline first: what this bus publishes waits for its slot in the quantum and for
packets of this bus it depends on; what it received waits for what it depends on. Messages without any
of that never come here.
"""

from __future__ import annotations

import copy
import os
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from cfctl import _native
from cfctl.bus.held import HeldMessages, Joined, Received, Watermarks, received_at_once
from cfctl.bus.packet import Packet, decode, split_id, ticket_id
from cfctl.bus.scheduled import Publish, ScheduledPackets, scheduled
from cfctl.bus.temporal_metrics import DispatcherThread, TemporalMetrics
from cfctl.errors import StateError
from cfctl.temporal.coherence import DispatcherTime
from cfctl.temporal.deadlines import TemporalQueue
from cfctl.temporal.stagger import next_slot_ns

if TYPE_CHECKING:
    from cfctl.bus.config import BusConfig
    from cfctl.bus.subscription import Message

__all__ = ["Dispatcher", "TemporalMetrics"]

# A clock that is set must not leave the thread asleep.
_LONGEST_SLEEP_S: Final = 0.1
CLOSE_TIMEOUT_S: Final = 1.0


class Clock(Protocol):
    """What the dispatcher takes from the process's clock, _native.Hlc."""

    @property
    def last(self) -> int:
        """Return the last stamp given."""

    def now_ns(self) -> int:
        """Return the wall clock, Unix ns."""

    def tick(self) -> int:
        """Return the stamp of a local event."""


class Dispatcher:
    """The temporal queues of a bus and their thread. Thread-safe.

    A forked child's copy refuses to work: its queues are its parent's, and there is no thread. An error on
    one message is counted as `failed` and kept as `last_error`; the round goes on. When the thread itself
    ends by an error, `schedule` refuses, what is received no longer waits for anything, and
    TemporalMetrics.thread and the segment say so. `watermarks` and `joined`: as HeldMessages takes them.
    """

    def __init__(
        self, config: BusConfig, clock: Clock, name: str, watermarks: Watermarks, joined: Joined | None = None
    ) -> None:
        self._config = config
        self._clock = clock
        # Reentrant: a message can be received, and then held, while a round looks at the watermarks.
        self._changed = threading.Condition(threading.RLock())
        self._record = _native.DispatcherRecord(name)
        self._scheduled = ScheduledPackets(self._queue(), config.quantum_ns, self._failed)
        self._held = HeldMessages(self._queue(), watermarks, joined, self._record.late, self._failed)
        self._outgoing, self._incoming = self._scheduled.queue, self._held.queue
        self._damaged = 0
        self._last_error: str | None = None
        self._time = DispatcherTime()
        self._since_ns = clock.now_ns()
        # Without the last three, which are maxima.
        self._recorded: tuple[float, ...] = (0,) * (len(_native.DISPATCHER_FIELDS) - 3)
        self._thread: threading.Thread | None = None
        self._threads_started = self._threads_ended = 0
        self._thread_error: str | None = None
        self._in_round = False
        self._closing = self._closed = False
        self._pid = os.getpid()

    def _queue(self) -> TemporalQueue:
        timeout_ms = self._config.dependency_timeout_ms
        return TemporalQueue(
            expiry=self._config.expiry,
            dependency_timeout=self._config.dependency_timeout,
            dependency_timeout_ns=None if timeout_ms is None else round(timeout_ms * 1e6),
        )

    def schedule(
        self, packet: Packet, message_id: int, slot_ns: int, deadline_unix_ns: int | None,
        publish: Publish,
    ) -> None:  # fmt: skip
        """Queue a packet, as `packet.checked` returns it, for its slot.

        Raises TemporalViolation when its deadline has passed, StateError when it would never be sent: after
        a fork, a close, or the end of the thread.
        """
        self._require_own_process()
        entry = scheduled(packet, message_id, slot_ns, deadline_unix_ns, publish)
        with self._changed:
            self._require_thread()
            now_ns = self._clock.now_ns()
            try:
                self._scheduled.add(entry, packet, message_id, deadline_unix_ns, self._clock.tick(), now_ns)
            finally:
                self._store(now_ns)
            self._changed.notify_all()

    def count_subscriptions(self, made: int = 0, ended: int = 0) -> None:
        """Count subscriptions of the bus that were made or have ended; takes no lock, for finalizers."""
        self._record.subscriptions(made, ended)

    def hold(self, raw: _native.Message, release: Callable[[Message], object]) -> Message | None:
        """Return a received message that need not wait; None when it was queued, or is damaged.

        A damaged one is counted. Without a thread, or after close, no message waits.
        """
        self._require_own_process()
        decoded = decode(raw.payload)
        with self._changed:
            now_ns = self._clock.now_ns()
            if decoded is None:
                self._damaged += 1
                self._store(now_ns)
                return None
            message_id = ticket_id(split_id(raw.id)[0], decoded[0].ticket)
            received = Received(raw, *decoded, message_id, release)
            message = self._held.receive(received, now_ns, self._has_thread)
            self._store(now_ns)
            if message is None:
                self._changed.notify_all()
            return message

    def hand_out(self, raw: _native.Message, release: Callable[[Message], object]) -> Message | None:  # noqa: ARG002
        """Return a received message at once, whatever it depends on; None when it is damaged, which is counted."""
        self._require_own_process()
        decoded = decode(raw.payload)
        with self._changed:
            now_ns = self._clock.now_ns()
            if decoded is not None:
                return received_at_once(raw, *decoded, now_ns)
            self._damaged += 1
            self._store(now_ns)
            return None

    def process(self) -> int:
        """Publish and deliver what is due now, and let expire what is too late; return how many."""
        self._require_own_process()
        with self._changed:
            return self._round()

    def flush(self, timeout_s: float) -> int:
        """Wait until all that was scheduled has left; return how many messages have not, after the time-out.

        They leave in the order of their deadlines, after their causes and not before their slots; where the
        ring was full, as soon as it takes them, and not in the next quantum.
        """
        self._require_own_process()
        with self._changed:
            self._scheduled.hurries += 1
            try:
                return self._empty_outgoing(timeout_s)
            finally:
                self._scheduled.hurries -= 1

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> int:
        """Send what was scheduled, end the thread, and return how many messages were not sent in the time.

        Nothing more is accepted. Messages leave in the order of their deadlines and after their causes, but
        at once: slots and quanta end with the bus. What is past its deadline expires by the policy. Those
        that were not sent, and received ones that still wait for their dependencies, are dropped and counted
        as `undelivered`. In a forked child nothing is done: the messages are its parent's. Idempotent.
        """
        if os.getpid() != self._pid:
            return 0
        with self._changed:
            unsent = self._drain(timeout_s) if not self._closed else 0
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None and self._thread is not threading.current_thread():
            # Not for ever: a signal handler may have come here with the lock, which the thread needs to end.
            self._thread.join(CLOSE_TIMEOUT_S)
        return unsent

    def metrics(self) -> TemporalMetrics:
        """Return what happened since the start."""
        self._require_own_process()
        with self._changed:
            now_ns = self._clock.now_ns()
            lateness = self._held.lateness
            p50_ns, p99_ns = lateness.quantiles((0.5, 0.99)) or (None, None)
            return TemporalMetrics(
                window_ns=now_ns - self._since_ns,
                coherence=self._scheduled.phases.coherence(),
                schedule_utilization=self._time.utilization(now_ns - self._since_ns),
                scheduling_efficiency=self._time.efficiency(),
                outgoing=copy.copy(self._outgoing.counts),
                incoming=copy.copy(self._incoming.counts),
                pending_messages=len(self._outgoing) + len(self._incoming),
                oldest_age_ns=self._oldest_age_ns(now_ns),
                deadline_violations=self._outgoing.counts.expired + lateness.count,
                lateness_p50_ns=p50_ns,
                lateness_p99_ns=p99_ns,
                lateness_max_ns=lateness.max_ns,
                causality=copy.copy(self._held.causality),
                hlc_drift_ns=max(0, self._clock.last - now_ns),
                unknown_dependencies=self._held.unknown_dependencies,
                not_held=self._held.not_held,
                damaged=self._damaged,
                last_error=self._last_error,
                thread=self._thread_state(),
                thread_error=self._thread_error,
            )

    @property
    def alive(self) -> bool:
        """Return whether what is scheduled will be sent: the thread runs, or starts with the first message."""
        return self._pid == os.getpid() and self._thread_error is None and not self._closing

    def _oldest_age_ns(self, now_ns: int) -> int | None:
        ages = [queue.oldest_age_ns(now_ns) for queue in (self._outgoing, self._incoming)]
        return max((age for age in ages if age is not None), default=None)

    def _require_own_process(self) -> None:
        # First of all: a lock that another thread held at the fork is held for ever in the child.
        if os.getpid() != self._pid:
            raise StateError(
                "The bus cannot be used in this process.",
                f"Process {self._pid} made it, and this one was forked from it.",
                "Make a Bus in this process.",
            )

    def _require_thread(self) -> None:
        """Raise StateError unless the thread runs, which starts with the first message."""
        if self._closing:
            raise StateError("The packet was not accepted.", "The bus is closed.", "Make another.")
        if not self._has_thread():
            raise StateError(
                "The packet was not accepted.",
                f"The bus's dispatcher has ended: {self._thread_error}.",
                "Make another bus; packets without deadline, dependencies and offset are still published.",
            )

    def _has_thread(self) -> bool:
        """Return whether the thread runs; starts it for the first message."""
        if self._closing or self._thread_error is not None:
            return False
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="cfctl bus dispatcher", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                self._thread_error = _named(error)
                return False
            self._thread = thread
            self._threads_started = 1
        return True

    def _thread_state(self) -> DispatcherThread:
        if self._thread_error is not None:
            return DispatcherThread.FAILED
        if self._closed:
            return DispatcherThread.CLOSED
        return DispatcherThread.NOT_STARTED if self._thread is None else DispatcherThread.RUNNING

    def _empty_outgoing(self, timeout_s: float) -> int:
        """Go through rounds until nothing is left to send, or the time is over; return what is left."""
        end_s = time.monotonic() + timeout_s
        while len(self._outgoing) and not self._in_round and not self._closed:
            now_ns = self._clock.now_ns()
            due_ns = self._outgoing.next_event_ns()
            is_due = due_ns is not None and due_ns <= now_ns
            if is_due:
                self._round()
            # Also when something is always due, as with a ring that stays full.
            left_s = end_s - time.monotonic()
            if left_s <= 0:
                break
            if is_due:
                continue
            due_s = _LONGEST_SLEEP_S if due_ns is None else (due_ns - now_ns) * 1e-9
            # The thread may do the rounds meanwhile.
            self._changed.wait(min(left_s, due_s, _LONGEST_SLEEP_S))
        return len(self._outgoing)

    def _drain(self, timeout_s: float) -> int:
        """Send what is queued at once, and drop and count what cannot be sent in time; return how many."""
        self._closing = True
        self._scheduled.leave_slots(self._clock.now_ns())
        self._empty_outgoing(timeout_s)
        unsent = len(list(self._outgoing.drain()))
        # Nobody will ask for those: the subscriptions end with the bus.
        for _ in self._incoming.drain():
            pass
        self._store(self._clock.now_ns())
        return unsent

    def _round(self) -> int:
        if self._in_round:
            # Called again by a signal handler or a finalizer in the middle of a round.
            return 0
        self._in_round = True
        started_ns = sent_ns = ended_ns = self._clock.now_ns()
        done = released = 0
        try:
            done, sent_ns = self._scheduled.send(started_ns, self._clock.now_ns)
            ended_ns = sent_ns
            if len(self._incoming):
                self._held.look(sent_ns)
                released, ended_ns = self._held.release(sent_ns, self._clock.now_ns)
        finally:
            self._in_round = False
            busy_ns = max(0, sent_ns - started_ns) + max(0, ended_ns - sent_ns)
            now_ns = self._clock.now_ns()
            self._time.busy_ns += busy_ns
            self._time.overhead_ns += max(0, now_ns - started_ns - busy_ns)
            self._store(now_ns)
        self._changed.notify_all()
        return done + released

    def _failed(self, error: BaseException) -> None:
        self._last_error = _named(error)

    def _store(self, now_ns: int) -> None:
        """Bring the segment up to date; 2 us."""
        out, held, time_ = self._outgoing.counts, self._incoming.counts, self._time
        causality, age_ns = self._held.causality, self._oldest_age_ns(now_ns)
        now = (
            out.accepted, out.with_deadline, out.refused, out.delivered, self._held.lateness.count, out.expired,
            out.held_by_deps + held.held_by_deps, out.unmet_delivered + held.unmet_delivered,
            out.dropped_by_deps + held.dropped_by_deps, causality.fifo, causality.dependency,
            causality.hlc_order, time_.busy_ns, time_.overhead_ns, time_.idle_pending_ns,
            self._scheduled.phases.count, self._held.received_due, out.failed + held.failed, self._damaged,
            out.undelivered, held.undelivered, self._held.unknown_dependencies, self._held.not_held,
            self._threads_started, self._threads_ended, int(self._thread_error is not None),
            self._scheduled.phases.cosines, self._scheduled.phases.sines,
            len(self._outgoing), len(self._incoming), 0 if age_ns is None else now_ns - age_ns,
        )  # fmt: skip
        added = tuple(a - b for a, b in zip(now, self._recorded, strict=True))
        high_water = out.high_water + held.high_water
        thread_id = (self._thread and self._thread.native_id) or 0
        self._record.add((*added, thread_id, self._config.quantum_ns, high_water))
        self._recorded = now

    def _run(self) -> None:
        with self._changed:
            try:
                self._work()
            except BaseException as error:  # noqa: BLE001 - there is nobody above; state and segment say it
                self._thread_error = _named(error)
            self._threads_ended = 1
            if self._thread_error is not None:
                self._held.let_go(self._clock.now_ns())
            self._store(self._clock.now_ns())
            self._changed.notify_all()

    def _work(self) -> None:
        while not self._closed:
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
            for moment in (
                self._outgoing.next_event_ns(),
                self._incoming.next_event_ns(),
                self._held.next_look_ns(),
            )
            if moment is not None
        ]
        if len(self._incoming):
            # Only looking tells whether what came straight through a ring is a dependency.
            now_ns = self._clock.now_ns()
            moments.append(next_slot_ns(now_ns + 1, 0, self._config.quantum_ns))
        return min(moments, default=None)


def _named(error: BaseException) -> str:
    """Return an error's type and text in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
