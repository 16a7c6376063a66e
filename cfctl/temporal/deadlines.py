"""The temporal queue: earliest deadline first, dependencies, slots, expiry; on a clock that is passed in.

A message waits for three things: its dependencies, its release (slot), and its turn among those that
are ready, which is by (deadline, priority, stamp, publisher). Nothing here waits or reads a clock, so all of
it runs on a fake one. Not for several threads at once.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from heapq import heapify, heappop, heappush
from typing import Any, Final

from cfctl.errors import TemporalViolation
from cfctl.temporal.durations import Durations, Recorder

# (publisher, sequence): the name of a message on one topic.
MessageId = tuple[int, int]

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

    accepted = delivered + expired + dropped_by_deps + pending. `refused`: the deadline had passed at
    publication (TemporalViolation). `late`: delivered after the deadline.
    `held_by_deps`: had to wait for a dependency; `unmet_delivered` and `dropped_by_deps`: whose
    dependencies timed out or were lost, by policy.
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
    hold_until_ns: int
    missing: set[MessageId]
    lost: set[MessageId] = field(default_factory=set)
    ready: bool = False
    gone: bool = False


class TemporalQueue:
    """Messages that have a deadline, dependencies or a slot, delivered in their order by `dispatch`.

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
        # Who waits for a message, by acceptance number; and per publisher a heap of those sequences.
        self._dependents: dict[MessageId, dict[int, _Waiting]] = {}
        self._awaited: dict[int, list[int]] = {}
        self._watermarks: dict[int, int] = {}
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
        waiting = _Waiting(message, now_ns, self._accepted, hold_until_ns, missing)
        self._accepted += 1
        self._pending[waiting.number] = waiting
        self._queued[message.id] = self._queued.get(message.id, 0) + 1
        self.counts.high_water = max(self.counts.high_water, len(self._pending))
        self.counts.held_by_deps += bool(missing)
        for dependency in missing:
            self._await(dependency, waiting)
        for moment in self._moments(waiting, now_ns):
            heappush(self._timers, (moment, waiting.number, waiting))
        self._make_ready(waiting, now_ns)

    def advance(self, publisher: int, sequence: int, now_ns: int) -> None:
        """Note that all messages of a publisher up to `sequence` were received here, or never will be.

        One that is still in this queue counts as received only when it has had its turn.
        """
        if sequence <= self._watermarks.get(publisher, -1):
            return
        self._watermarks[publisher] = sequence
        awaited = self._awaited.get(publisher, [])
        while awaited and awaited[0] <= sequence:
            dependency = (publisher, heappop(awaited))
            if dependency not in self._queued:
                self._settle(dependency, now_ns)

    def is_met(self, dependency: MessageId) -> bool:
        """Return whether a message was received here: below the watermark and not in this queue."""
        publisher, sequence = dependency
        return self._watermarks.get(publisher, -1) >= sequence and dependency not in self._queued

    def is_queued(self, message: MessageId) -> bool:
        """Return whether a message of this id is pending."""
        return message in self._queued

    def forget(self, publisher: int) -> None:
        """Forget a publisher's watermark, and with it that its messages were received."""
        self._watermarks.pop(publisher, None)

    def dispatch(self, now_ns: int) -> Dispatch | None:
        """Return the message whose turn it is, None when there is none; drives expiry and time-outs.

        Call it until it returns None, with a new time each: handlers take some.
        """
        self._run_timers(now_ns)
        while self._ready:
            waiting = heappop(self._ready)[1]
            if not waiting.gone:
                return self._deliver(waiting, now_ns)
        return None

    def put_back(self, dispatch: Dispatch, release_ns: int, now_ns: int) -> None:
        """Take a message back that could not be delivered at its turn, for another from `release_ns` on.

        Its turn counts for nothing; when its deadline has passed it is expired, whatever the policy.
        """
        message, counts = dispatch.message, self.counts
        counts.delivered -= 1
        counts.late -= dispatch.late
        counts.unmet_delivered -= bool(dispatch.unmet)
        if message.deadline_ns is not None and message.deadline_ns < now_ns:
            counts.expired += 1
            return
        counts.accepted -= 1
        counts.with_deadline -= message.deadline_ns is not None
        self.add(replace(message, release_ns=release_ns, dependencies=()), now_ns)

    def drain(self) -> Iterator[Message]:
        """Yield the pending messages as they were accepted, and forget them: when the bus closes."""
        for waiting in list(self._pending.values()):
            self._remove(waiting)
            yield waiting.message

    def _moments(self, waiting: _Waiting, now_ns: int) -> Iterator[int]:
        """Yield when something happens to a message by itself."""
        message = waiting.message
        if message.release_ns > now_ns:
            yield message.release_ns
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
            if deadline_ns is not None and now_ns > deadline_ns and self.expiry is Expiry.DROP:
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

    def _await(self, dependency: MessageId, waiting: _Waiting) -> None:
        dependents = self._dependents.get(dependency)
        if dependents is None:
            dependents = self._dependents[dependency] = {}
            heappush(self._awaited.setdefault(dependency[0], []), dependency[1])
        dependents[waiting.number] = waiting

    def _stop_waiting(self, waiting: _Waiting) -> None:
        for dependency in waiting.missing:
            dependents = self._dependents[dependency]
            del dependents[waiting.number]
            if not dependents:
                del self._dependents[dependency]
        waiting.missing.clear()

    def _settle(self, dependency: MessageId, now_ns: int) -> None:
        """Let go those that wait for a message that has come."""
        for waiting in self._dependents.pop(dependency, {}).values():
            waiting.missing.discard(dependency)
            if not waiting.missing:
                self._released_by_deps(waiting, now_ns)

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
        if waiting.ready or waiting.missing or message.release_ns > now_ns:
            return
        waiting.ready = True
        deadline_ns = _NEVER if message.deadline_ns is None else message.deadline_ns
        key = (deadline_ns, -message.priority, message.hlc, message.id[0], waiting.number)
        heappush(self._ready, (key, waiting))

    def _deliver(self, waiting: _Waiting, now_ns: int) -> Dispatch:
        dispatch = Dispatch(waiting.message, now_ns, tuple(sorted(waiting.lost)))
        self.counts.delivered += 1
        self.counts.unmet_delivered += bool(waiting.lost)
        deadline_ns = waiting.message.deadline_ns
        if dispatch.late and deadline_ns is not None:
            self.counts.late += 1
            self.lateness.record(now_ns - deadline_ns)
        elif deadline_ns is not None:
            self.slack.record(deadline_ns - now_ns)
        self._remove(waiting)
        publisher, sequence = waiting.message.id
        if self._watermarks.get(publisher, -1) < sequence:
            self.advance(publisher, sequence, now_ns)
        else:
            self._settle(waiting.message.id, now_ns)
        return dispatch

    def _drop(self, waiting: _Waiting, now_ns: int) -> None:
        """Forget a message that will never be delivered; those that wait for it wait no longer."""
        dropped = [waiting]
        while dropped:
            gone = dropped.pop()
            self._remove(gone)
            for dependent in self._dependents.pop(gone.message.id, {}).values():
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
