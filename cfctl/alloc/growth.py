"""Whether live bytes grow: the slope of their troughs with its interval, and a verdict.

A program breathes: caches fill, garbage waits to be collected. What does not come back is seen in
the lowest live bytes of each stretch of time, so the slope is that of these troughs.

Sources: slope, Theil (1950) and Sen (1968), the median of all pairwise slopes; its interval, Sen
(1968) by the variance of Kendall's S, corrected for autocorrelation after Hamed and Rao (1998) so
that a slow wander is not taken for a trend.
"""

from __future__ import annotations

import enum
import math
import statistics
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

# The first quarter is warm-up: imports, caches and pools that fill once.
WARM_UP_RATIO: Final = 0.25
WINDOWS: Final = 24
# Shorter than this a window holds less than three points of the timeline, which are 10 ms apart.
MIN_OBSERVATION_NS: Final = 1_000_000_000
# A growth below this share of the live bytes over the whole observation is no growth worth a name.
_MATERIAL_RATIO: Final = 0.01
_CONFIDENCE: Final = 0.95

METHOD: Final = (
    "Theil-Sen slope of the troughs of 24 windows after the first quarter; "
    "95 % interval by Sen with the variance of Hamed and Rao"
)


class GrowthVerdict(enum.StrEnum):
    """What the live bytes do."""

    STEADY = "steady"
    GROWING = "growing"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, slots=True)
class TimelinePoint:
    """Live bytes at a moment since the counting began."""

    time_ns: int
    live_bytes: int


@dataclass(frozen=True, slots=True)
class Growth:
    """The verdict, its reason in a clause, and the slope in bytes per second with its interval.

    The slope is None where there is too little to tell. `observed_ns` is the time after warm-up.
    """

    verdict: GrowthVerdict
    reason: str
    slope: float | None
    interval: tuple[float, float] | None
    observed_ns: int
    method: str = METHOD
    unit: str = "B/s"


def growth(points: Sequence[TimelinePoint], end_ns: int, resolution_bytes: int) -> Growth:
    """Return whether live bytes grow from their course up to `end_ns`.

    Between two points the live bytes are those of the first to within `resolution_bytes`. Growing:
    they rise in the whole observation and still in its second half, by more than the resolution and
    1 % of what is live. Steady: the interval leaves no room for such a rise. Neither, or less than
    a second after warm-up: inconclusive. About 1 ms.
    """
    begin_ns = round(end_ns * WARM_UP_RATIO)
    observed_ns = end_ns - begin_ns
    if not points or observed_ns < MIN_OBSERVATION_NS:
        needed = MIN_OBSERVATION_NS / (1 - WARM_UP_RATIO) / 1e9
        return Growth(
            GrowthVerdict.INCONCLUSIVE, f"the program ran for less than {needed:.2g} s", None, None,
            max(0, observed_ns),
        )  # fmt: skip
    ordered = sorted(points, key=lambda point: point.time_ns)
    troughs = _troughs(ordered, begin_ns, end_ns)
    window_s = observed_ns / WINDOWS / 1e9
    slope, low, high = _slope(troughs, window_s)
    half = troughs[len(troughs) // 2 :]
    _, late_low, _ = _slope(half, window_s)
    material = max(resolution_bytes, _MATERIAL_RATIO * statistics.median(troughs)) / (observed_ns / 1e9)
    verdict, reason = _judge((low, high), late_low, material, slope)
    return Growth(verdict, reason, slope, (low, high), observed_ns)


def _judge(
    interval: tuple[float, float], late_low: float, material: float, slope: float
) -> tuple[GrowthVerdict, str]:
    low, high = interval
    if high <= material:
        return GrowthVerdict.STEADY, "any rise is smaller than what would matter"
    if low > 0 and slope > material:
        if late_low > 0:
            return GrowthVerdict.GROWING, "the troughs rise throughout, and still in the second half"
        return GrowthVerdict.INCONCLUSIVE, "it rose and then held; a longer run would tell"
    return GrowthVerdict.INCONCLUSIVE, "the troughs scatter too much; a longer run would tell"


def _troughs(points: Sequence[TimelinePoint], begin_ns: int, end_ns: int) -> list[int]:
    """Return the lowest live bytes of each window; one without a point holds the value before it."""
    times = [point.time_ns for point in points]
    width_ns = (end_ns - begin_ns) / WINDOWS
    troughs = []
    for number in range(WINDOWS):
        first = bisect_right(times, begin_ns + number * width_ns)
        last = bisect_right(times, begin_ns + (number + 1) * width_ns)
        held = points[max(0, first - 1)].live_bytes
        troughs.append(min([held, *(point.live_bytes for point in points[first:last])]))
    return troughs


def _slope(values: Sequence[int], step_s: float) -> tuple[float, float, float]:
    """Return the Theil-Sen slope per second and its interval."""
    count = len(values)
    slopes = sorted(
        (values[j] - values[i]) / ((j - i) * step_s) for i in range(count) for j in range(i + 1, count)
    )
    slope = statistics.median(slopes)
    deviation = math.sqrt(_variance_of_s(values, slope * step_s))
    reach = statistics.NormalDist().inv_cdf((1 + _CONFIDENCE) / 2) * deviation
    lower = math.floor((len(slopes) - reach) / 2)
    upper = math.ceil((len(slopes) + reach) / 2)
    return slope, slopes[max(0, lower)], slopes[min(len(slopes) - 1, upper)]


def _variance_of_s(values: Sequence[int], slope: float) -> float:
    """Return the variance of Kendall's S, widened for the autocorrelation of the detrended ranks."""
    count = len(values)
    plain = count * (count - 1) * (2 * count + 5) / 18
    ranks = _ranks([value - slope * index for index, value in enumerate(values)])
    mean = statistics.fmean(ranks)
    spread = sum((rank - mean) ** 2 for rank in ranks)
    if spread == 0:
        return plain
    limit = statistics.NormalDist().inv_cdf((1 + _CONFIDENCE) / 2) / math.sqrt(count)
    widened = 0.0
    for lag in range(1, count - 2):
        pairs = zip(ranks, ranks[lag:], strict=False)
        correlation = sum((a - mean) * (b - mean) for a, b in pairs) / spread
        # Insignificant lags are noise, and negative ones would make the interval narrower.
        if correlation > limit:
            widened += (count - lag) * (count - lag - 1) * (count - lag - 2) * correlation
    return plain * (1 + 2 / (count * (count - 1) * (count - 2)) * widened)


def _ranks(values: Sequence[float]) -> list[float]:
    """Return the ranks from 1; equal values share the mean of theirs."""
    ordered = sorted(values)
    return [(ordered.index(value) + bisect_right(ordered, value) + 1) / 2 for value in values]
