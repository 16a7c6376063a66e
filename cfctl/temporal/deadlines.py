"""The temporal queue: earliest deadline first, dependencies, slots, expiry; on a clock that is passed in.

A message waits for three things: its dependencies, its release (slot), and its turn among those that
are ready, which is by (deadline, priority, stamp, publisher). Nothing here waits or reads a clock, so all of
it runs on a fake one. Not for several threads at once.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from typing import Any, Final

from cfctl.errors import TemporalViolation
from cfctl.temporal.awaited import Awaited, MessageId
from cfctl.temporal.durations import Durations, Recorder

_NEVER: Final = (1 << 64) - 1


class Expiry(enum.StrEnum):
    """What becomes of a message whose deadline passes before its turn."""

    DROP = "drop"
    DELIVER = "deliver"


class DependencyTimeout(enum.StrEnum):
    """What becomes of a message whose dependencies do not come in time."""

    DELIVER = "deliver"
    DROP = "drop"


@dataclass(frozen=True, slots=True)
class Message:
    """What the queue knows of a message. Times are ns of the queue's clock.

    `deadline_ns` None: no deadline, after all that have one. `release_ns`: not before this moment.
    A higher `priority` goes first among equal deadlines.
    """

    id: MessageId
    hlc: int
    payload: Any = None
    deadline_ns: int | None = None
    release_ns: int = 0
    dependencies: tuple[MessageId, ...] = ()
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Dispatch:
    """A message at its turn. `unmet`: the dependencies that did not come before (policy "deliver")."""

    message: Message
    at_ns: int
    unmet: tuple[MessageId, ...] = ()

    @property
    def late(self) -> bool:
        """Return whether it is after the deadline."""
        return self.message.deadline_ns is not None and self.at_ns > self.message.deadline_ns


@dataclass(slots=True)
class QueueCounts:
    """What happened to the messages, since the start.

    accepted = delivered + expired + dropped_by_deps + failed + undelivered + pending. `refused`: the
    deadline had passed at publication (TemporalViolation). `late`: delivered after the deadline.
    `held_by_deps`: had to wait for a dependency; `unmet_delivered` and `dropped_by_deps`: whose
    dependencies timed out or were lost, by policy. `failed`: could not be delivered at its turn, for an
    error; `undelivered`: still there when the queue was closed.
    """

    accepted: int = 0
    with_deadline: int = 0
    refused: int = 0
    delivered: int = 0
    late: int = 0
    expired: int = 0
    held_by_deps: int = 0
    unmet_delivered: int = 0
    dropped_by_deps: int = 0
    failed: int = 0
    undelivered: int = 0
    high_water: int = 0

    @property
    def deadline_violations(self) -> int:
        """Return delivered late + expired undelivered."""
        return self.late + self.expired

    @property
    def miss_ratio(self) -> float | None:
        """Return violations / accepted messages with a deadline, 0..1; None when there was none."""
        return self.deadline_violations / self.with_deadline if self.with_deadline else None


@dataclass(slots=True, eq=False)
class _Waiting:
    """A message in the queue and what it still waits for."""

    message: Message
    accepted_ns: int
    number: int
    release_ns: int
    hold_until_ns: int
    missing: set[MessageId]
    lost: set[MessageId] = field(default_factory=set)
    ready: bool = False
    gone: bool = False


class TemporalQueue:
    """Messages that have a deadline, dependencies or a slot, delivered in their order.

    `take` gives the message whose turn it is; it stays in the queue, and its dependents wait, until it is
    `deliver`ed, is `put_back` or has `fail`ed. `dispatch` takes and delivers.

    `expiry`, `dependency_timeout`: policies. `dependency_timeout_ns`: how long a message is held for its
    dependencies; None: until its deadline. `lateness`, `slack` (deadline - dispatch, of those in time)
    and `held` (the wait for dependencies) take durations in ns; an Operation of the profiler makes them
    visible in the segment. Accepting and delivering cost O(log n).
    """

    def __init__(
        self,
        *,
        expiry: Expiry = Expiry.DROP,
        dependency_timeout: DependencyTimeout = DependencyTimeout.DELIVER,
        dependency_timeout_ns: int | None = 100_000_000,
        lateness: Recorder | None = None,
        slack: Recorder | None = None,
        held: Recorder | None = None,
    ) -> None:
        self.expiry = Expiry(expiry)
        self.dependency_timeout = DependencyTimeout(dependency_timeout)
        self.dependency_timeout_ns = dependency_timeout_ns
        self.lateness: Recorder = Durations() if lateness is None else lateness
        self.slack: Recorder = Durations() if slack is None else slack
        self.held: Recorder = Durations() if held is None else held
        self.counts = QueueCounts()
        self._pending: dict[int, _Waiting] = {}
        self._accepted = 0
        self._ready: list[tuple[tuple[int, int, int, int, int], _Waiting]] = []
        self._timers: list[tuple[int, int, _Waiting]] = []
        # By acceptance number.
        self._awaited: Awaited[_Waiting] = Awaited()
        self._taken: _Waiting | None = None
        self._queued: dict[MessageId, int] = {}

    def __len__(self) -> int:
        return len(self._pending)

    def oldest_age_ns(self, now_ns: int) -> int | None:
        """Return the age of the oldest pending message; None when there is none."""
        # Numbers ascend with the time of acceptance and dicts keep their order.
        first = next(iter(self._pending.values()), None)
        return None if first is None else now_ns - first.accepted_ns

    def next_event_ns(self) -> int | None:
        """Return when `dispatch` has something to do next, at once being 0; None when only `advance` can tell."""
        while self._ready and self._ready[0][1].gone:
            heappop(self._ready)
        while self._timers and self._timers[0][2].gone:
            heappop(self._timers)
        if self._ready:
            return 0
        return self._timers[0][0] if self._timers else None

    def add(self, message: Message, now_ns: int) -> None:
        """Accept a message. Raises TemporalViolation, counted, when its deadline has passed."""
        deadline_ns = message.deadline_ns
        if deadline_ns is not None and deadline_ns < now_ns:
            self.counts.refused += 1
            raise TemporalViolation(
                "The message was not published.",
                f"Its deadline passed {now_ns - deadline_ns} ns ago.",
                "Give it more time, or look at the clock the deadline was made with.",
            )
        self.counts.accepted += 1
        self.counts.with_deadline += deadline_ns is not None
        missing = {each for each in message.dependencies if not self.is_met(each)}
        timeout_ns = self.dependency_timeout_ns
        hold_until_ns = _NEVER if not missing or timeout_ns is None else now_ns + timeout_ns
        waiting = _Waiting(message, now_ns, self._accepted, message.release_ns, hold_until_ns, missing)
        self._accepted += 1
        self._pending[waiting.number] = waiting
        self._queued[message.id] = self._queued.get(message.id, 0) + 1
        self.counts.high_water = max(self.counts.high_water, len(self._pending))
        self.counts.held_by_deps += bool(missing)
        for dependency in missing:
            self._awaited.add(dependency, waiting.number, waiting)
        for moment in self._moments(waiting, now_ns):
            heappush(self._timers, (moment, waiting.number, waiting))
        self._make_ready(waiting, now_ns)

    def advance(self, publisher: int, sequence: int, now_ns: int) -> None:
        """Note that all messages of a publisher up to `sequence` were received here, or never will be.

        One that is still in this queue counts as received only when it has had its turn.
        """
        for dependency in self._awaited.advance(publisher, sequence):
            if dependency not in self._queued:
                self.settle(dependency, now_ns)

    def is_met(self, dependency: MessageId) -> bool:
        """Return whether a message was received here: below the watermark and not in this queue."""
        return self._awaited.is_below(dependency) and dependency not in self._queued

    def is_queued(self, message: MessageId) -> bool:
        """Return whether a message of this id is pending."""
        return message in self._queued

    def forget(self, publisher: int) -> None:
        """Forget a publisher's watermark, and with it that its messages were received."""
        self._awaited.forget(publisher)

    def settle(self, dependency: MessageId, now_ns: int) -> None:
        """Let go those that wait for a message: it has come, or is not to be waited for."""
        for waiting in self._awaited.pop(dependency):
            waiting.missing.discard(dependency)
            if not waiting.missing:
                self._released_by_deps(waiting, now_ns)

    def dispatch(self, now_ns: int) -> Dispatch | None:
        """Return the message whose turn it is, None when there is none; drives expiry and time-outs.

        Call it until it returns None, with a new time each: handlers take some.
        """
        dispatch = self.take(now_ns)
        if dispatch is not None:
            self.deliver(dispatch)
        return dispatch

    def take(self, now_ns: int) -> Dispatch | None:
        """As `dispatch`, but the message stays in the queue; one at a time.

        One that is still in hand, because an error ended its handler, has failed.
        """
        if self._taken is not None:
            self.fail(now_ns)
        self._run_timers(now_ns)
        while self._ready:
            waiting = heappop(self._ready)[1]
            if not waiting.gone:
                self._taken = waiting
                return Dispatch(waiting.message, now_ns, tuple(sorted(waiting.lost)))
        return None

    def deliver(self, dispatch: Dispatch) -> None:
        """Count the message in hand as delivered at its turn, and let go those that wait for it."""
        waiting, now_ns, deadline_ns = self._give_back(), dispatch.at_ns, dispatch.message.deadline_ns
        self.counts.delivered += 1
        self.counts.unmet_delivered += bool(dispatch.unmet)
        if dispatch.late and deadline_ns is not None:
            self.counts.late += 1
            self.lateness.record(now_ns - deadline_ns)
        elif deadline_ns is not None:
            self.slack.record(deadline_ns - now_ns)
        self._remove(waiting)
        if self._awaited.is_below(waiting.message.id):
            self.settle(waiting.message.id, now_ns)
        else:
            self.advance(*waiting.message.id, now_ns)

    def put_back(self, release_ns: int, now_ns: int) -> None:
        """Take the message in hand back, for another turn from `release_ns` on; it keeps its place and age.

        When its deadline has passed it is expired, by the policy DROP.
        """
        waiting = self._give_back()
        if self._is_expired(waiting, now_ns):
            self.counts.expired += 1
            self._drop(waiting, now_ns)
            return
        waiting.ready, waiting.release_ns = False, release_ns
        heappush(self._timers, (release_ns, waiting.number, waiting))

    def fail(self, now_ns: int) -> None:
        """Forget the message in hand, which cannot be delivered; those that wait for it wait no longer."""
        self.counts.failed += 1
        self._drop(self._give_back(), now_ns)

    def release_all(self, now_ns: int) -> list[Message]:
        """Let all go without waiting for their release, but for their causes; return those that did wait."""
        held_back = [each for each in self._pending.values() if each.release_ns > now_ns]
        for waiting in held_back:
            waiting.release_ns = now_ns
            if waiting is not self._taken:
                self._make_ready(waiting, now_ns)
        return [each.message for each in held_back]

    def drain(self) -> Iterator[Message]:
        """Yield the pending messages as they were accepted, and forget them, counted: when the bus closes.

        One that is in hand stays there.
        """
        for waiting in list(self._pending.values()):
            if waiting is not self._taken:
                self.counts.undelivered += 1
                self._remove(waiting)
                yield waiting.message

    def _give_back(self) -> _Waiting:
        waiting, self._taken = self._taken, None
        assert waiting is not None, "no message is in hand"
        return waiting

    def _is_expired(self, waiting: _Waiting, now_ns: int) -> bool:
        deadline_ns = waiting.message.deadline_ns
        return deadline_ns is not None and now_ns > deadline_ns and self.expiry is Expiry.DROP

    def _moments(self, waiting: _Waiting, now_ns: int) -> Iterator[int]:
        """Yield when something happens to a message by itself."""
        message = waiting.message
        if waiting.release_ns > now_ns:
            yield waiting.release_ns
        if waiting.hold_until_ns != _NEVER:
            yield waiting.hold_until_ns
        if message.deadline_ns is not None and (self.expiry is Expiry.DROP or waiting.missing):
            yield message.deadline_ns + 1

    def _run_timers(self, now_ns: int) -> None:
        while self._timers and self._timers[0][0] <= now_ns:
            waiting = heappop(self._timers)[2]
            if waiting.gone:
                continue
            deadline_ns = waiting.message.deadline_ns
            if self._is_expired(waiting, now_ns):
                self.counts.expired += 1
                self._drop(waiting, now_ns)
                continue
            no_timeout = self.dependency_timeout_ns is None
            overdue = no_timeout and deadline_ns is not None and now_ns > deadline_ns
            if waiting.missing and (now_ns >= waiting.hold_until_ns or overdue):
                if self._give_up(waiting, now_ns):
                    self._drop(waiting, now_ns)
            else:
                self._make_ready(waiting, now_ns)

    def _stop_waiting(self, waiting: _Waiting) -> None:
        for dependency in waiting.missing:
            self._awaited.remove(dependency, waiting.number)
        waiting.missing.clear()

    def _give_up(self, waiting: _Waiting, now_ns: int) -> bool:
        """Apply the policy to a message whose dependencies did not come; return whether to drop it."""
        waiting.lost |= waiting.missing
        self._stop_waiting(waiting)
        if self.dependency_timeout is DependencyTimeout.DROP:
            self.counts.dropped_by_deps += 1
            return True
        self._released_by_deps(waiting, now_ns)
        return False

    def _released_by_deps(self, waiting: _Waiting, now_ns: int) -> None:
        self.held.record(max(0, now_ns - waiting.accepted_ns))
        self._make_ready(waiting, now_ns)

    def _make_ready(self, waiting: _Waiting, now_ns: int) -> None:
        message = waiting.message
        if waiting.ready or waiting.missing or waiting.release_ns > now_ns:
            return
        waiting.ready = True
        deadline_ns = _NEVER if message.deadline_ns is None else message.deadline_ns
        key = (deadline_ns, -message.priority, message.hlc, message.id[0], waiting.number)
        heappush(self._ready, (key, waiting))

    def _drop(self, waiting: _Waiting, now_ns: int) -> None:
        """Forget a message that will never be delivered; those that wait for it wait no longer."""
        dropped = [waiting]
        while dropped:
            gone = dropped.pop()
            self._remove(gone)
            for dependent in self._awaited.pop(gone.message.id):
                dependent.missing.discard(gone.message.id)
                dependent.lost.add(gone.message.id)
                if self._give_up(dependent, now_ns):
                    dropped.append(dependent)

    def _remove(self, waiting: _Waiting) -> None:
        waiting.gone = True
        self._stop_waiting(waiting)
        del self._pending[waiting.number]
        left = self._queued[waiting.message.id] - 1
        if left:
            self._queued[waiting.message.id] = left
        else:
            del self._queued[waiting.message.id]
        # What is gone leaves the heaps when its moment comes; a far deadline must not keep it there.
        if len(self._timers) > 64 + 8 * len(self._pending):
            self._timers = [entry for entry in self._timers if not entry[2].gone]
            heapify(self._timers)
