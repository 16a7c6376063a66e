"""The latency a kind of program meets on this host, and any quantile of it with its interval."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from cfctl.diagnose.order_statistics import count_bounds, quantile_ranks

if TYPE_CHECKING:
    from collections.abc import Callable

    from cfctl.probe.distribution import Distribution

RANKS: Final = "binomial order statistics, 95 % (Hahn and Meeker 1991, 5.2)"
ARRIVALS: Final = "gaps weighted by their length, Poisson bounds on their number, 95 % (Breslow and Day 1987)"
# A percentile stands on at least ten samples above it, as in the probes.
_SAMPLES_ABOVE: Final = 10
_BISECTIONS: Final = 60


@dataclass(frozen=True, slots=True)
class CpuLatency:
    """What was measured on one CPU (None: between two).

    With `looked_ns` the samples are the gaps of a busy loop that looked for so long: the latency is
    then that of an event at a random moment, which waits for the rest of the gap it falls into.
    """

    cpu: int | None
    distribution: Distribution
    contaminated: bool
    contamination: str
    looked_ns: float | None = None


@dataclass(frozen=True, slots=True)
class UseLatency:
    """The latency that decides for a use; `what` says of what, under which policy and limits."""

    use: str
    what: str
    cpus: tuple[CpuLatency, ...]
    interrupted: bool


@dataclass(frozen=True, slots=True)
class Estimate:
    """A quantile in ns with its interval; `high_ns` None: nothing was seen that is surely above it.

    `value_ns` is None when the count does not support the quantile; `reason` says what would.
    """

    value_ns: float | None
    low_ns: float
    high_ns: float | None
    sample_count: int
    method: str
    reason: str | None = None


def estimate(latency: CpuLatency, quantile: float) -> Estimate:
    """Return a quantile (inside 0 and 1) of what was measured, as far as its count supports it."""
    if latency.looked_ns is None:
        return _of_samples(latency.distribution, quantile)
    return _of_arrivals(latency.distribution, latency.looked_ns, quantile)


def _of_samples(distribution: Distribution, quantile: float) -> Estimate:
    count = distribution.sample_count
    # The quotient of two rounded numbers may lie a hair above the whole one that is meant.
    needed = math.ceil(_SAMPLES_ABOVE / (1 - quantile) * (1 - 1e-9))
    if count < needed:
        return Estimate(None, 0.0, None, count, RANKS, f"{count} samples, the percentile needs {needed}")
    low, high = quantile_ranks(count, quantile)
    value_at = _ranked(distribution)
    value = value_at(min(count, max(1, math.ceil(quantile * count))))
    if value is None:
        return Estimate(None, 0.0, None, count, RANKS, "the value is beyond the histogram's range")
    # A bucket's own bounds belong to the interval.
    below = value_at(low) if low else None
    above = value_at(high) if high <= count else None
    return Estimate(sum(value) / 2, below[0] if below else 0.0, above[1] if above else None, count, RANKS)


def _ranked(distribution: Distribution) -> Callable[[int], tuple[float, float] | None]:
    """Return a function that gives the bounds of the bucket with the sample of a rank; None beyond all."""
    histogram = distribution.histogram
    last_ranks = list(accumulate(count for _, count in histogram.buckets))

    def value_at(rank: int) -> tuple[float, float] | None:
        for (bucket, _), last in zip(histogram.buckets, last_ranks, strict=True):
            if rank <= last:
                low, high = histogram.bounds_ns(bucket)
                return low, min(high, distribution.max_ns or high)
        return None

    return value_at


def _of_arrivals(distribution: Distribution, looked_ns: float, quantile: float) -> Estimate:
    gaps = [
        (sum(distribution.histogram.bounds_ns(b)) / 2, count) for b, count in distribution.histogram.buckets
    ]
    longest = distribution.max_ns or 0.0

    def solve(weight: Callable[[int], float]) -> float:
        """Return the shortest delay that a share 1 - quantile of the arrivals exceeds at most."""

        def exceeded(delay_ns: float) -> float:
            late = sum(count * (gap - delay_ns) for gap, count in gaps if gap > delay_ns)
            return late * weight(sum(count for gap, count in gaps if gap > delay_ns)) / looked_ns

        low, high = 0.0, longest
        if exceeded(0.0) <= 1 - quantile:
            return 0.0
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            low, high = (middle, high) if exceeded(middle) > 1 - quantile else (low, middle)
        return high

    value = solve(lambda _: 1.0)
    longer = sum(count for gap, count in gaps if gap > value)
    if value > 0 and longer < _SAMPLES_ABOVE:
        reason = f"only {longer} gaps are longer, the percentile needs {_SAMPLES_ABOVE}"
        return Estimate(None, 0.0, None, distribution.sample_count, ARRIVALS, reason)
    return Estimate(
        value,
        solve(lambda n: count_bounds(n)[0] / n if n else 0.0),
        solve(lambda n: count_bounds(n)[1] / n if n else 0.0),
        distribution.sample_count,
        ARRIVALS,
    )
