"""A histogram of durations as measurements of a window, and as a distribution since the start."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from cfctl.diagnose.order_statistics import quantile_ranks
from cfctl.monitor.snapshot import Distribution
from cfctl.profile.statistics import LOW_N
from cfctl.profile.tally import NS
from cfctl.records import Measurement

if TYPE_CHECKING:
    from cfctl.monitor.durations import Durations
    from cfctl.monitor.metric import Labels
    from cfctl.profile.statistics import TimeScale

# (suffix of the metric, quantile, samples it takes: 10 / (1 - q))
QUANTILES: Final = (("p50", 0.5, 20), ("p90", 0.9, 100), ("p99", 0.99, 1_000), ("p99_9", 0.999, 10_000))
# From 1 ns to 10 s in the 1-2-5 series: the same edges for every series and every host.
EDGES_NS: Final = (*(digit * 10**power for power in range(10) for digit in (1, 2, 5)), 10**10)
# The last one is beyond every bucket: what is below it is all that is in one.
_EDGES: Final = (*(float(edge) for edge in EDGES_NS), math.inf)
_NO_RATE: Final = "the clock's rate is not known"


def ns_per_unit(durations: Durations, scale: TimeScale) -> float | None:
    """Return how many ns the durations' unit has, None when the clock's rate is not known."""
    return 1.0 if durations.unit == NS else scale.rate.ns_per_tick


def window_quantile(window: Durations, scale: TimeScale, quantile: float, needed: int) -> Measurement:
    """Return a quantile of the samples of a window with its 95 % interval.

    The uncertainty is the farther end of the interval of binomial order statistics, and half a
    bucket. Missing below `needed` samples.
    """
    factor = ns_per_unit(window, scale)
    if factor is None:
        return Measurement.missing("ns", _NO_RATE)
    if window.count < max(needed, 2):
        return Measurement.missing("ns", LOW_N if window.count else "no samples in the window")
    seen = window.in_range + window.out_of_range
    low, high = (min(max(rank, 1), seen) for rank in quantile_ranks(seen, quantile))
    # Inverted CDF, as everywhere: the sample of rank ceil(q n), out-of-range samples being the largest.
    rank = max(1, math.ceil(quantile * seen))
    first, found, last = window.at_ranks(min(low, rank), rank, max(high, rank))
    if found is None:
        return Measurement.missing("ns", "beyond the histogram's range")
    if first is None or last is None:
        return Measurement.missing("ns", "its interval reaches beyond the histogram's range")
    value, half_bucket = sum(found) / 2, (found[1] - found[0]) / 2
    farthest = max(abs(sum(end) / 2 - value) for end in (first, last))
    return Measurement(
        value * factor, "ns", (farthest + half_bucket + 0.5) * factor, window.count,
        "histogram of the window; 95 % by binomial order statistics (Hahn and Meeker 1991, 5.2)",
    )  # fmt: skip


def window_mean(window: Durations, scale: TimeScale) -> Measurement:
    """Return the mean of the samples of a window; its uncertainty is two standard errors."""
    factor = ns_per_unit(window, scale)
    if factor is None:
        return Measurement.missing("ns", _NO_RATE)
    deviation = window.stddev if window.count else None
    if deviation is None:
        return Measurement.missing("ns", LOW_N if window.count else "no samples in the window")
    error = 2 * deviation / window.count**0.5
    return Measurement(
        window.total / window.count * factor, "ns", error * factor, window.count,
        "sum over count of the window; +- is 2 standard errors",
    )  # fmt: skip


def distribution(metric: str, durations: Durations, scale: TimeScale, labels: Labels) -> Distribution | None:
    """Return durations as counts below fixed edges, None when the clock's rate is not known.

    A sample counts below an edge when the whole of its bucket does, so an edge may count the 0.8 %
    around it too late, never too early.
    """
    factor = ns_per_unit(durations, scale)
    if factor is None:
        return None
    *below, in_range = durations.below(factor, _EDGES)
    cumulative = tuple(zip(EDGES_NS, below, strict=True))
    return Distribution(
        metric, cumulative, in_range + durations.out_of_range, durations.total * factor, labels
    )
