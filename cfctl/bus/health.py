"""Whether a bus is healthy, by one definition for its own program (Bus.health) and for who looks from outside.

Healthy: the rate of the ticks is known or not needed; each subscription is attached to each ring of its topic;
each consumer lives; each dispatcher's thread runs; nothing was refused by a full ring or overwritten in the window.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

_NAMED: Final = 3


@dataclass(frozen=True, slots=True)
class HealthCounts:
    """What health is judged by. Counts of the window come from counters that only grow.

    `clock_error`: why ticks cannot be turned into time, None when they can or need not. `unattached`, `gone` and
    `failed` name each subscription that a ring of its topic is closed to, each consumer that ended without
    unsubscribing, each dispatcher whose thread has ended by an error. `failed` is None where that is not known.
    `rings` and `subscriptions` are how many were looked at. `window`: "in 1 s", "since the start".
    """

    clock_error: str | None
    rings: int
    subscriptions: int
    unattached: tuple[str, ...]
    gone: tuple[str, ...]
    failed: tuple[str, ...] | None
    rejected: int
    dropped: int
    window: str


@dataclass(frozen=True, slots=True)
class Condition:
    """One thing that health asks for: whether it holds, None where that cannot be known, and why."""

    name: str
    holds: bool | None
    why: str


@dataclass(frozen=True, slots=True)
class Health:
    """Whether a bus is healthy; true in a condition exactly when it is. `str` says why it is not."""

    conditions: tuple[Condition, ...]

    @property
    def healthy(self) -> bool | None:
        """Return whether all conditions hold; None when none fails and one cannot be known."""
        if any(each.holds is False for each in self.conditions):
            return False
        return None if any(each.holds is None for each in self.conditions) else True

    def __bool__(self) -> bool:
        return self.healthy is True

    def holds(self, name: str) -> bool | None:
        """Return whether the condition of a name holds."""
        return next(each.holds for each in self.conditions if each.name == name)

    def __str__(self) -> str:
        word = {True: "healthy", False: "unhealthy", None: "not known"}[self.healthy]
        if self.healthy:
            return word
        return f"{word}: {'; '.join(each.why for each in self.conditions if each.holds is self.healthy)}"


CLOCK: Final = "clock known"
ATTACHED: Final = "rings attached"
CONSUMERS: Final = "consumers alive"
DISPATCHERS: Final = "dispatchers alive"
NO_OVERRUN: Final = "no overrun"
CONDITIONS: Final = (CLOCK, ATTACHED, CONSUMERS, DISPATCHERS, NO_OVERRUN)


def judge(counts: HealthCounts) -> Health:
    """Return the health that counts stand for."""
    return Health(
        (
            Condition(
                CLOCK, counts.clock_error is None, counts.clock_error or "the rate of the ticks is known"
            ),
            _attached(counts),
            _consumers(counts),
            _dispatchers(counts),
            _overruns(counts),
        )
    )


def nothing_lives() -> Health:
    """Return the health of a bus of which nothing lives: it cannot be known."""
    return Health(tuple(Condition(name, None, "nothing of the bus lives") for name in CONDITIONS))


def _attached(counts: HealthCounts) -> Condition:
    if counts.unattached:
        return Condition(ATTACHED, False, listed(counts.unattached, "; "))
    why = f"{counted(counts.rings, 'ring')}, each attached to every subscription of its topic"
    return Condition(ATTACHED, True, why if counts.rings else "nothing publishes")


def _consumers(counts: HealthCounts) -> Condition:
    if counts.gone:
        ended = listed(counts.gone)
        return Condition(CONSUMERS, False, f"ended without unsubscribing: {ended}")
    if not counts.subscriptions:
        return Condition(CONSUMERS, True, "nothing subscribes")
    living = "all of living processes" if counts.subscriptions > 1 else "of a living process"
    return Condition(CONSUMERS, True, f"{counted(counts.subscriptions, 'subscription')}, {living}")


def _dispatchers(counts: HealthCounts) -> Condition:
    if counts.failed is None:
        return Condition(DISPATCHERS, None, "whether the dispatcher's thread runs is not known")
    if counts.failed:
        return Condition(DISPATCHERS, False, f"the dispatcher's thread has ended: {listed(counts.failed)}")
    return Condition(DISPATCHERS, True, "no dispatcher's thread has ended")


def _overruns(counts: HealthCounts) -> Condition:
    parts = []
    if counts.dropped > 0:
        parts.append(f"{counted(counts.dropped, 'message')} dropped")
    if counts.rejected > 0:
        parts.append(f"{counted(counts.rejected, 'message')} rejected by a full ring")
    if not parts:
        return Condition(NO_OVERRUN, True, f"nothing dropped or rejected {counts.window}")
    return Condition(NO_OVERRUN, False, f"{' and '.join(parts)} {counts.window}")


def counted(count: int, noun: str) -> str:
    """Return a number with its noun: "1 message", "2 messages"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def listed(items: Iterable[str], separator: str = ", ") -> str:
    """Return the first few of some names, and how many more there are."""
    texts = list(items)
    more = f"{separator}and {len(texts) - _NAMED} more" if len(texts) > _NAMED else ""
    return separator.join(texts[:_NAMED]) + more
