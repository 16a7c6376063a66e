"""A histogram of durations as measurements of a window, and as a distribution since the start."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cfctl.diagnose.order_statistics import quantile_ranks
from cfctl.monitor.snapshot import Distribution
from cfctl.profile.statistics import LOW_N
from cfctl.profile.tally import NS, bucket_bounds
from cfctl.records import Measurement

if TYPE_CHECKING:
    from cfctl.monitor.metric import Labels
    from cfctl.profile.statistics import TimeScale
    from cfctl.profile.tally import Tally

# (suffix of the metric, quantile, samples it takes: 10 / (1 - q))
QUANTILES: Final = (("p50", 0.5, 20), ("p90", 0.9, 100), ("p99", 0.99, 1_000), ("p99_9", 0.999, 10_000))
# From 1 ns to 10 s in the 1-2-5 series: the same edges for every series and every host.
EDGES_NS: Final = (*(digit * 10**power for power in range(10) for digit in (1, 2, 5)), 10**10)
_NO_RATE: Final = "the clock's rate is not known"


def ns_per_unit(tally: Tally, scale: TimeScale) -> float | None:
    """Return how many ns the tally's unit has, None when the clock's rate is not known."""
    return 1.0 if tally.unit == NS else scale.rate.ns_per_tick


def window_quantile(tally: Tally, scale: TimeScale, quantile: float, needed: int) -> Measurement:
    """Return a quantile of the samples of a window with its 95 % interval.

    The uncertainty is the farther end of the interval of binomial order statistics, and half a
    bucket. Missing below `needed` samples.
    """
    factor = ns_per_unit(tally, scale)
    if factor is None:
        return Measurement.missing("ns", _NO_RATE)
    if tally.count < max(needed, 2):
        return Measurement.missing("ns", LOW_N if tally.count else "no samples in the window")
    found = tally.value_at(quantile)
    if found is None:
        return Measurement.missing("ns", "beyond the histogram's range")
    value, half_bucket = found
    seen = tally.in_range + tally.out_of_range
    ends = [tally.value_at(min(max(rank / seen, 0.0), 1.0)) for rank in quantile_ranks(seen, quantile)]
    if any(end is None for end in ends):
        return Measurement.missing("ns", "its interval reaches beyond the histogram's range")
    farthest = max(abs(end[0] - value) for end in ends if end is not None)
    return Measurement(
        value * factor, "ns", (farthest + half_bucket + 0.5) * factor, tally.count,
        "histogram of the window; 95 % by binomial order statistics (Hahn and Meeker 1991, 5.2)",
    )  # fmt: skip


def window_mean(tally: Tally, scale: TimeScale) -> Measurement:
    """Return the mean of the samples of a window; its uncertainty is two standard errors."""
    factor = ns_per_unit(tally, scale)
    if factor is None:
        return Measurement.missing("ns", _NO_RATE)
    deviation = tally.stddev_ticks()
    if not tally.count or deviation is None:
        return Measurement.missing("ns", LOW_N if tally.count else "no samples in the window")
    error = 2 * deviation / tally.count**0.5
    return Measurement(
        tally.sum_ticks / tally.count * factor, "ns", error * factor, tally.count,
        "sum over count of the window; +- is 2 standard errors",
    )  # fmt: skip


def distribution(metric: str, tally: Tally, scale: TimeScale, labels: Labels) -> Distribution | None:
    """Return a tally as counts below fixed edges, None when the clock's rate is not known.

    A sample counts below an edge when the whole of its bucket does, so an edge may count the 0.8 %
    around it too late, never too early.
    """
    factor = ns_per_unit(tally, scale)
    if factor is None:
        return None
    cumulative: list[tuple[int, int]] = []
    seen = index = 0
    for edge in EDGES_NS:
        while index < len(tally.buckets) and bucket_bounds(tally.buckets[index][0])[1] * factor <= edge:
            seen += tally.buckets[index][1]
            index += 1
        cumulative.append((edge, seen))
    whole = tally.in_range + tally.out_of_range
    return Distribution(metric, tuple(cumulative), whole, tally.sum_ticks * factor, labels)
