"""What the report says of an operation: its statistics with unit, error and reason for each gap."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cfctl.profile.tally import NS, TICKS
from cfctl.records import Measurement
from cfctl.segment.tick_rate import TickRate

if TYPE_CHECKING:
    from cfctl.profile.tally import Tally

# A percentile q needs 10 / (1 - q) samples: with fewer, less than ten lie beyond it.
PERCENTILES: Final = {
    "p50": (0.5, 20), "p90": (0.9, 100), "p99": (0.99, 1_000), "p99_9": (0.999, 10_000), "p99_99": (0.9999, 100_000),
}  # fmt: skip
LOW_N: Final = "low n"
# Spans shorter than this many timer floors are mostly the timer.
FLOOR_MULTIPLE: Final = 5

_HISTOGRAM_METHOD: Final = "from the histogram's buckets"
_EXACT_METHOD: Final = "exact, kept beside the histogram"
_SELF_METHOD: Final = "the total less that of the samples inside of it"


@dataclass(frozen=True, slots=True)
class TickCounters:
    """The operation's counters as they were recorded, from which its statistics follow.

    `sum`, `min`, `max`, `buckets` and `child_sum` are in `unit`: "ticks", or "ns" for values that
    were given in nanoseconds. `first` and `last` are ticks.
    `buckets` are [bucket, samples] of a histogram with 128 sub-buckets per power of two.
    """

    sum: int
    min: int | None
    max: int | None
    first: int | None
    last: int | None
    buckets: tuple[tuple[int, int], ...]
    child_sum: int = 0
    unit: str = TICKS


@dataclass(frozen=True, slots=True)
class OperationStatistics:
    """One row of the report. Times are ns, or ticks where the clock's rate is not known.

    `rate` is over the time from the first sample's end to the last one's. `clock` is the index of
    the report's clock that `ticks` are of. `near_timer_floor` says that a typical sample is shorter
    than five readings of the timer; None where the floor is not known. `share` is of the totals of
    all operations of the report, also of those that ran inside of others. `self_total` is the total
    without the time in operations that ran inside of this one, and `self_share` its share of all of these. `errors` and `threads`
    are None where `gap` says that the source of the numbers does not keep them.
    """

    name: str
    labels: tuple[tuple[str, str], ...]
    count: int
    errors: int | None
    error_ratio: float | None
    rate: Measurement
    min: Measurement
    mean: Measurement
    stddev: Measurement
    p50: Measurement
    p90: Measurement
    p99: Measurement
    p99_9: Measurement
    p99_99: Measurement
    max: Measurement
    total: Measurement
    out_of_range: int
    threads: int | None
    first_unix_ns: int | None
    last_unix_ns: int | None
    near_timer_floor: bool | None
    clock: int
    ticks: TickCounters
    self_total: Measurement
    share: float | None = None
    gap: str | None = None
    self_share: float | None = None


@dataclass(frozen=True, slots=True)
class TimeScale:
    """From ticks to what is shown: a unit, its size, and the finest difference the timer can tell."""

    rate: TickRate
    anchor_tick: int
    anchor_unix_ns: int
    floor_ns: float | None

    @property
    def unit(self) -> str:
        """Return "ns", or "ticks" without a rate."""
        return "ticks" if self.rate.ns_per_tick is None else "ns"

    @property
    def per_tick(self) -> float:
        """Return how much of the unit a tick is."""
        return 1.0 if self.rate.ns_per_tick is None else self.rate.ns_per_tick

    @property
    def resolution(self) -> float:
        """Return the finest difference of two readings, in the unit; a tick where it is not known."""
        if self.floor_ns is None or self.rate.ns_per_tick is None:
            return self.per_tick
        return max(self.floor_ns, self.per_tick)

    def unix_ns(self, tick: int | None) -> int | None:
        """Return the Unix time of a tick, None without a rate."""
        if tick is None or self.rate.ns_per_tick is None:
            return None
        return self.anchor_unix_ns + round((tick - self.anchor_tick) * self.rate.ns_per_tick)


# Of values that a program measured by itself, and gave in whole nanoseconds.
_AS_GIVEN: Final = TimeScale(TickRate(1.0, 0.0, "given in nanoseconds"), 0, 0, None)


@dataclass(frozen=True, slots=True)
class Whole:
    """What shares are of, in the unit of the times; 0 where there is no whole."""

    total: float
    own: float


def per_tick_of(tally: Tally, scale: TimeScale) -> float:
    """Return how much of its unit one step of a tally's times is."""
    return (_AS_GIVEN if tally.unit == NS else scale).per_tick


def unit_of(tally: Tally, scale: TimeScale) -> str:
    """Return the unit of a tally's times on a scale."""
    return (_AS_GIVEN if tally.unit == NS else scale).unit


def operation_statistics(
    tally: Tally, scale: TimeScale, clock: int = 0, whole: Whole | None = None
) -> OperationStatistics:
    """Return the statistics of a tally on a time scale, with its shares of a whole."""
    make = _Maker(tally, scale)
    p50, p90, p99, p99_9, p99_99 = (make.percentile(q, needed) for q, needed in PERCENTILES.values())
    mean = make.mean()
    return OperationStatistics(
        name=tally.name,
        labels=tally.labels,
        count=tally.count,
        errors=tally.errors,
        # While the program runs the errors may be read a few samples after the count.
        error_ratio=_ratio(tally.errors, tally.count),
        rate=make.rate(),
        min=make.exact(tally.min_ticks),
        mean=mean,
        stddev=make.stddev(),
        p50=p50,
        p90=p90,
        p99=p99,
        p99_9=p99_9,
        p99_99=p99_99,
        max=make.exact(tally.max_ticks),
        total=make.total(),
        out_of_range=tally.out_of_range,
        threads=tally.threads,
        first_unix_ns=scale.unix_ns(tally.first_tick),
        last_unix_ns=scale.unix_ns(tally.last_tick),
        near_timer_floor=make.near_floor(p50, mean),
        clock=clock,
        ticks=TickCounters(
            tally.sum_ticks,
            tally.min_ticks,
            tally.max_ticks,
            tally.first_tick,
            tally.last_tick,
            tally.buckets,
            tally.child_sum_ticks,
            tally.unit,
        ),
        share=make.share(tally.sum_ticks, whole.total if whole else 0.0),
        gap=tally.gap or None,
        self_total=make.self_total(),
        self_share=make.share(tally.self_ticks, whole.own if whole else 0.0),
    )


def _ratio(part: int | None, whole: int) -> float | None:
    return min(1.0, part / whole) if part is not None and whole else None


class _Maker:
    """Makes the measurements of one tally on one scale."""

    def __init__(self, tally: Tally, scale: TimeScale) -> None:
        self._tally = tally
        self._clock = scale
        self._scale = _AS_GIVEN if tally.unit == NS else scale
        self._rate_error = (self._scale.rate.uncertainty_ppb or 0.0) * 1e-9

    def _measurement(self, ticks: float, error_ticks: float, method: str) -> Measurement:
        value = ticks * self._scale.per_tick
        error = error_ticks * self._scale.per_tick + value * self._rate_error
        return Measurement(value, self._scale.unit, error, self._tally.count, method)

    def _missing(self, reason: str) -> Measurement:
        return Measurement.missing(self._scale.unit, reason)

    @property
    def _resolution_ticks(self) -> float:
        return self._scale.resolution / self._scale.per_tick

    def exact(self, ticks: int | None) -> Measurement:
        if ticks is None:
            return self._missing(self._tally.gap or "no samples")
        return self._measurement(ticks, self._resolution_ticks, _EXACT_METHOD)

    def total(self) -> Measurement:
        if not self._tally.count:
            return self._missing("no samples")
        error = self._resolution_ticks * math.sqrt(self._tally.count)
        return self._measurement(self._tally.sum_ticks, error, _EXACT_METHOD)

    def self_total(self) -> Measurement:
        total = self.total()
        if total.value is None:
            return total
        error = (total.uncertainty or 0.0) * (2.0 if self._tally.child_sum_ticks else 1.0)
        value = self._tally.self_ticks * self._scale.per_tick
        return Measurement(value, total.unit, error, total.sample_count, _SELF_METHOD)

    def share(self, ticks: int, whole: float) -> float | None:
        return ticks * self._scale.per_tick / whole if self._tally.count and whole else None

    def mean(self) -> Measurement:
        if not self._tally.count:
            return self._missing("no samples")
        mean = self._tally.sum_ticks / self._tally.count
        # Each sample is off by the same reading cost, so that more samples do not make it smaller.
        return self._measurement(mean, self._resolution_ticks, _EXACT_METHOD)

    def stddev(self) -> Measurement:
        if self._tally.gap and not self._tally.buckets:
            return self._missing(self._tally.gap)
        if self._tally.out_of_range:
            return self._missing("samples beyond the histogram's range")
        stddev = self._tally.stddev_ticks()
        if stddev is None:
            return self._missing(LOW_N)
        return self._measurement(stddev, max(self._resolution_ticks, stddev / 256), _HISTOGRAM_METHOD)

    def percentile(self, quantile: float, needed: int) -> Measurement:
        if self._tally.gap and not self._tally.buckets:
            return self._missing(self._tally.gap)
        if self._tally.count < needed:
            return self._missing(LOW_N)
        found = self._tally.value_at(quantile)
        if found is None:
            return self._missing("beyond the histogram's range")
        return self._measurement(found[0], max(self._resolution_ticks, found[1]), _HISTOGRAM_METHOD)

    def rate(self) -> Measurement:
        tally, per_tick_ns = self._tally, self._clock.rate.ns_per_tick
        if per_tick_ns is None:
            return Measurement.missing("1/s", "the clock's rate is not known")
        if tally.count < 2 or tally.first_tick is None or tally.last_tick is None:
            return Measurement.missing("1/s", tally.gap or LOW_N)
        elapsed_s = (tally.last_tick - tally.first_tick) * per_tick_ns * 1e-9
        if elapsed_s <= 0:
            return Measurement.missing("1/s", "all samples end at one tick")
        value = (tally.count - 1) / elapsed_s
        rate_error = (self._clock.rate.uncertainty_ppb or 0.0) * 1e-9
        error = value * (rate_error + self._clock.resolution * 1e-9 / elapsed_s)
        return Measurement(value, "1/s", error, tally.count, "samples after the first over first to last end")

    def near_floor(self, p50: Measurement, mean: Measurement) -> bool | None:
        typical = mean.value if p50.value is None else p50.value
        if typical is None or self._scale.floor_ns is None or self._scale.rate.ns_per_tick is None:
            return None
        return typical < FLOOR_MULTIPLE * self._scale.floor_ns
