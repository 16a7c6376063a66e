"""What a bus counts of its own publishers and subscriptions."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cfctl import _native
from cfctl.bus.health import Health, HealthCounts, judge
from cfctl.errors import StateError, SubscriptionNotFound

if TYPE_CHECKING:
    from cfctl.bus.dispatcher import Dispatcher
    from cfctl.bus.subscription import Subscription


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

    `dropped`: overwritten before they were taken; `damaged` of them contradicted themselves. `history`: messages
    from before it was made that it took, `skipped`: those that had given way. `high_water`: most that waited, as
    far as it was looked at. `unjoined`: rings that wait for it and could not be opened yet.
    """

    topic: str
    id: int
    copies: int
    delivered: int
    dropped: int
    pending: int
    damaged: int
    history: int
    skipped: int
    high_water: int
    oldest_age_ticks: int | None
    rings: int
    publishers: int
    unjoined: int


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


class Overruns:
    """What was rejected and dropped since it was last asked, by endpoint: what ends takes nothing back."""

    def __init__(self) -> None:
        self._seen: dict[int, int] = {}
        self._ended_dropped = 0

    def ended(self, subscription_id: int, dropped: int) -> None:
        """Take note of what a subscription had dropped when it ended."""
        self._ended_dropped += dropped - self._seen.pop(subscription_id, 0)

    def since(self, stats: BusStats) -> tuple[int, int]:
        """Return how many messages were rejected and how many dropped since the last call."""
        rejected = sum(self._rise(each.ring_id, each.rejected) for each in stats.publishers)
        dropped = sum(self._rise(each.id, each.dropped) for each in stats.subscriptions)
        ended, self._ended_dropped = self._ended_dropped, 0
        return rejected, dropped + ended

    def _rise(self, key: int, now: int) -> int:
        before, self._seen[key] = self._seen.get(key, 0), now
        return now - before


def health_of(stats: BusStats, overruns: Overruns, dispatcher: Dispatcher) -> Health:
    """Return whether a bus is healthy, of its own counts; a program always knows the rate of its own ticks."""
    rejected, dropped = overruns.since(stats)
    metrics = dispatcher.metrics()
    return judge(
        HealthCounts(
            clock_error=None,
            rings=len(stats.publishers),
            subscriptions=len(stats.subscriptions),
            unattached=tuple(
                f"{each.unjoined} rings of '{each.topic}' could not be opened yet"
                for each in stats.subscriptions
                if each.unjoined
            ),
            gone=tuple(
                f"the {each.orphaned} last of '{each.topic}'"
                for each in stats.publishers
                if each.orphaned and not each.readers
            ),
            failed=() if metrics.thread_error is None else (metrics.thread_error,),
            rejected=rejected,
            dropped=dropped,
            window="since the last call",
        )
    )


def stats_of(
    publishers: Mapping[tuple[str, int, bool], _native.Publisher], subscriptions: Iterable[Subscription]
) -> BusStats:
    """Return the counts of publishers, by topic, priority and whether the dispatcher's, and of subscriptions.

    What is closed meanwhile is left out.
    """
    lanes = []
    for (topic, priority, scheduled), ring in list(publishers.items()):
        with contextlib.suppress(StateError):
            lanes.append(
                PublisherStats(topic, ring.ring_id, ring.number, priority, scheduled, **ring.counts())
            )
    now_ticks = _native.ticks()
    taken = []
    for each in list(subscriptions):
        with contextlib.suppress(SubscriptionNotFound):
            counts: dict[str, Any] = dict(each.counts())
            oldest = counts.pop("oldest_tick")
            counts["oldest_age_ticks"] = max(0, now_ticks - oldest) if oldest else None
            taken.append(SubscriptionStats(each.topic, each.id, **counts))
    return BusStats(len(taken), tuple(lanes), tuple(taken))
