"""The object pools of instrumented programs: how often they helped, and what they hold."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import TYPE_CHECKING, ClassVar

from cfctl.monitor.metric import Labels, Metric, MetricKind, Subject
from cfctl.monitor.rates import Rates
from cfctl.monitor.shares import share_with_error
from cfctl.monitor.snapshot import Found, Moment, Series, Total
from cfctl.pool.statistics import KIND, PoolStatistics, pools_of_segment
from cfctl.records import Measurement

if TYPE_CHECKING:
    from cfctl.monitor.segments import LiveSegment

_LABELS = ("pid", "process", "pool")


class Pools:
    """Reads the pools of the live segments; some microseconds each."""

    METRICS: ClassVar[tuple[Metric, ...]] = (
        Metric("pool_acquires", "1/s", "Items asked of a pool per second.", _LABELS),
        Metric("pool_hit_ratio", "ratio", "Share of the acquires that found an idle item.", _LABELS),
        Metric("pool_in_use", "1", "Items that are in use.", _LABELS),
        Metric("pool_idle", "1", "Items that wait to be used again.", _LABELS),
        Metric("pool_hits", "1", "Acquires that found an idle item.", _LABELS, MetricKind.COUNTER),
        Metric("pool_misses", "1", "Acquires that called the factory.", _LABELS, MetricKind.COUNTER),
        Metric("pool_discards", "1", "Items dropped instead of kept.", _LABELS, MetricKind.COUNTER),
        Metric("pool_losses", "1", "Items destroyed without a release.", _LABELS, MetricKind.COUNTER),
        Metric("pool_misuses", "1", "Releases that were refused.", _LABELS, MetricKind.COUNTER),
    )

    def __init__(self, subject: Subject) -> None:  # noqa: ARG002 - the segments are the subject's already
        self._before: dict[Hashable, PoolStatistics] = {}
        self._rates = Rates()

    def collect(self, moment: Moment) -> Iterable[Found]:
        """Return what the pools hold now and did since the last call."""
        seen: dict[Hashable, PoolStatistics] = {}
        for segment in moment.segments:
            if segment.entries(KIND):
                for pool in pools_of_segment(segment.segment):
                    key = (segment.pid, segment.start_time, pool.name)
                    seen[key] = pool
                    yield from self._of(segment, key, pool, moment)
        self._before = seen
        self._rates.forget_all_but(set(seen))

    def _of(
        self, segment: LiveSegment, key: Hashable, pool: PoolStatistics, moment: Moment
    ) -> Iterable[Found]:
        labels: Labels = (*segment.labels, ("pool", pool.name))
        who = f"pool '{pool.name}' of process {segment.pid}"
        before = self._before.get(key)
        hits = pool.hits - (before.hits if before else 0)
        acquired = pool.acquired - (before.acquired if before else 0)
        rate = self._rates.per_second(key, moment.monotonic_ns, pool.acquired, "1/s")
        yield Series("pool_acquires", rate, labels, who)
        yield Series("pool_hit_ratio", share_with_error(hits, acquired, "acquires"), labels, who)
        yield Series("pool_in_use", _now(pool.in_use), labels, who)
        yield Series("pool_idle", _now(pool.idle), labels, who)
        yield Total("pool_hits", pool.hits, labels)
        yield Total("pool_misses", pool.misses, labels)
        yield Total("pool_discards", pool.discarded, labels)
        yield Total("pool_misuses", pool.misuses, labels)
        if pool.lost is not None:
            yield Total("pool_losses", pool.lost, labels)


SOURCE = Pools


def _now(items: int) -> Measurement:
    return Measurement(float(items), "1", 0.0, 1, "counted by the pool")
