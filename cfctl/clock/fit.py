"""The line through cluster centres: least-median start, inliers, weighted least squares, verdict.

Pure functions of the centres. Nanoseconds and ticks of a day have more digits than a float, so a
line keeps its slope as a whole number of 2**-96 ns per tick, and floats only hold what is left
beside a nearby line.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from cfctl.clock.calibration import ClusterPoint

SLOPE_BITS: Final = 96
# An inlier lies within 4 of the least median, and never has to be better than the quantisation.
INLIER_FACTOR: Final = 4.0
INLIER_MIN_NS: Final = 0.25
INLIER_SHARE: Final = 0.75  # 6 of 8
MAX_RESIDUAL_NS: Final = 1.0
# Below this two groups of clusters can not be told from the lattice of the counter.
MIN_STEP_NS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Line:
    """ns = ns + fraction_ns + (tick' - tick) * slope / 2**SLOPE_BITS for any tick'."""

    tick: int
    ns: int
    fraction_ns: float
    slope: int

    @classmethod
    def through(cls, tick: int, ns: int, ns_per_tick: float) -> Line:
        """Return the line through a point with a slope."""
        return cls(tick, ns, 0.0, slope_from(ns_per_tick))

    @classmethod
    def between(cls, first: tuple[int, int], last: tuple[int, int]) -> Line:
        """Return the line through two (tick, ns) readings, whose ns were cut to whole ones; at the last."""
        slope = ((last[1] - first[1]) << SLOPE_BITS) // (last[0] - first[0])
        return cls(*last, 0.5, slope)

    @property
    def ns_per_tick(self) -> float:
        """Return the slope as a float: 53 bits of it."""
        return self.slope / (1 << SLOPE_BITS)

    @property
    def frequency_hz(self) -> float:
        """Return ticks per second of the reference clock."""
        return 1e9 * (1 << SLOPE_BITS) / self.slope

    def residual_ns(self, point: ClusterPoint) -> float:
        """Return how far a point lies above the line."""
        scaled = ((point.ns - self.ns) << SLOPE_BITS) - (point.tick - self.tick) * self.slope
        return scaled / (1 << SLOPE_BITS) + (point.fraction_ns - self.fraction_ns)

    def turned(self, slope: int) -> Line:
        """Return the line through the same point with another slope."""
        return Line(self.tick, self.ns, self.fraction_ns, slope)


def slope_from(ns_per_tick: float) -> int:
    """Return a slope in the fixed point of Line, without any loss."""
    numerator, denominator = ns_per_tick.as_integer_ratio()
    return (numerator << SLOPE_BITS) // denominator


@dataclass(frozen=True, slots=True)
class Fit:
    """A fitted line, anchored at the centroid of its inliers.

    `error_ppb` is the slope's standard error; `residual_ns` the root mean square of the inliers'
    residuals; `step_ns` is set when the points form two groups, one after the other.
    """

    line: Line
    error_ppb: float
    residual_ns: float
    residuals_ns: tuple[float, ...]
    inliers: tuple[bool, ...]
    step_ns: float | None

    @property
    def inlier_count(self) -> int:
        """Return how many points the line was fitted to."""
        return sum(self.inliers)

    @property
    def valid(self) -> bool:
        """Return whether enough points lie on one line, closely enough, with no step."""
        return (
            self.step_ns is None
            and self.inlier_count >= max(3, math.ceil(INLIER_SHARE * len(self.inliers)))
            and self.residual_ns <= MAX_RESIDUAL_NS
        )

    @property
    def reason(self) -> str:
        """Return why the fit is valid or not, as a clause."""
        count = f"{self.inlier_count} of {len(self.inliers)} clusters lie on one line"
        if self.step_ns is not None:
            return f"two groups of clusters lie {self.step_ns:+.0f} ns apart"
        return f"{count}, residual {self.residual_ns:.2g} ns"


def provisional_slope(points: Sequence[tuple[int, int]]) -> float:
    """Return ns per tick from rough (tick, ns) points, unharmed by one step between two of them.

    The median of the slopes over the three longest gaps decides whether the slope over the whole
    span, which is the more precise one, can be used.
    """
    gaps = sorted(itertools.pairwise(points), key=lambda gap: gap[0][0] - gap[1][0])[:3]
    gap_slopes = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in gaps if b[0] > a[0]]
    first, last = points[0], points[-1]
    if not gap_slopes or last[0] <= first[0]:
        raise ValueError("the ticks of the points do not grow")
    typical = statistics.median(gap_slopes)
    whole = (last[1] - first[1]) / (last[0] - first[0])
    return whole if typical <= 0 or abs(whole / typical - 1) < 20e-6 else typical


def fit(points: Sequence[ClusterPoint], ns_per_tick: float) -> Fit:
    """Return the line through the points, given their rough slope.

    Method: the line of least median residual through two points more than half the span apart
    (after Rousseeuw 1984, "Least median of squares regression"), then least squares of its inliers weighted by their
    standard errors; the slope's error is scaled up when the residuals say so.
    Raises ValueError for fewer than three points.
    """
    if len(points) < 3:
        raise ValueError("a line with an error takes three points")
    start = Line.through(points[0].tick, points[0].ns, ns_per_tick)
    x = [float(point.tick - start.tick) for point in points]
    y = [start.residual_ns(point) for point in points]
    offset, slope, median = _least_median_line(x, y)
    limit = max(INLIER_MIN_NS, INLIER_FACTOR * median)
    inliers = [abs(b - offset - slope * a) <= limit for a, b in zip(x, y, strict=True)]
    chosen = [i for i, inlier in enumerate(inliers) if inlier]
    centroid, mean, slope, error = _weighted_line(
        [x[i] for i in chosen], [y[i] for i in chosen], [points[i].error_ns for i in chosen]
    )
    # Anchored at a whole tick, so that the line needs no fraction of one.
    anchor = round(centroid)
    rise = start.slope * anchor
    line = Line(
        start.tick + anchor,
        start.ns + (rise >> SLOPE_BITS),
        (rise & ((1 << SLOPE_BITS) - 1)) / (1 << SLOPE_BITS) + mean + slope * (anchor - centroid),
        start.slope + slope_from(slope),
    )
    residuals = tuple(line.residual_ns(point) for point in points)
    residual = math.sqrt(sum(residuals[i] ** 2 for i in chosen) / len(chosen))
    straight = all(inliers) and residual <= MAX_RESIDUAL_NS
    return Fit(
        line,
        error / line.ns_per_tick * 1e9,
        residual,
        residuals,
        tuple(inliers),
        None if straight else _step(x, y),
    )


def _least_median_line(x: list[float], y: list[float]) -> tuple[float, float, float]:
    """Return (offset, slope, median of the absolute residuals) of the best line through two points."""
    span = max(x) - min(x)
    points = list(zip(x, y, strict=True))
    best = (0.0, 0.0, math.inf)
    for i in range(len(x)):
        for j in range(i + 1, len(x)):
            if abs(x[j] - x[i]) * 2 <= span:
                continue
            slope = (y[j] - y[i]) / (x[j] - x[i])
            offset = y[i] - slope * x[i]
            # The upper median of an even number: a line through two of four points is no majority.
            median = sorted([abs(b - offset - slope * a) for a, b in points])[len(points) // 2]
            if median < best[2]:
                best = (offset, slope, median)
    return best


def _weighted_line(x: list[float], y: list[float], errors: list[float]) -> tuple[float, float, float, float]:
    """Return (centroid, mean, slope, standard error of the slope) of weighted least squares."""
    weights = [1.0 / max(error, 1e-3) ** 2 if math.isfinite(error) else 1e-6 for error in errors]
    total = sum(weights)
    centroid = sum(w * a for w, a in zip(weights, x, strict=True)) / total
    mean = sum(w * b for w, b in zip(weights, y, strict=True)) / total
    spread = sum(w * (a - centroid) ** 2 for w, a in zip(weights, x, strict=True))
    slope = (
        sum(w * (a - centroid) * (b - mean) for w, a, b in zip(weights, x, y, strict=True)) / spread
        if spread
        else 0.0
    )
    error = math.sqrt(1 / spread) if spread else math.inf
    freedom = len(x) - 2
    if freedom > 0:
        chi_square = sum(
            w * (b - mean - slope * (a - centroid)) ** 2 for w, a, b in zip(weights, x, y, strict=True)
        )
        # Centres differ by more than their own errors say when a cluster met another mode.
        error *= math.sqrt(max(1.0, chi_square / freedom))
    return centroid, mean, slope, error


def _step(x: list[float], y: list[float]) -> float | None:
    """Return the step between two groups of points on parallel lines, None when there is none.

    Each group needs two points, the two lines must fit as well as a valid one, and the step must
    stand far above what is left.
    """
    best: tuple[float, float] | None = None
    for split in range(2, len(x) - 1):
        residual, step = _parallel_lines(x, y, split)
        if best is None or residual < best[0]:
            best = (residual, step)
    if best is None:
        return None
    residual, step = best
    return step if residual <= MAX_RESIDUAL_NS and abs(step) > max(MIN_STEP_NS, 10 * residual) else None


def _parallel_lines(x: list[float], y: list[float], split: int) -> tuple[float, float]:
    """Return (root mean square residual, step) of two lines of one slope, before and from `split`."""
    parts = [(x[:split], y[:split]), (x[split:], y[split:])]
    means = [(statistics.fmean(a), statistics.fmean(b)) for a, b in parts]
    numerator = denominator = 0.0
    for (a, b), (mean_a, mean_b) in zip(parts, means, strict=True):
        numerator += sum((p - mean_a) * (q - mean_b) for p, q in zip(a, b, strict=True))
        denominator += sum((p - mean_a) ** 2 for p in a)
    slope = numerator / denominator if denominator else 0.0
    offsets = [mean_b - slope * mean_a for mean_a, mean_b in means]
    squares = sum(
        (q - offset - slope * p) ** 2
        for (a, b), offset in zip(parts, offsets, strict=True)
        for p, q in zip(a, b, strict=True)
    )
    return math.sqrt(squares / len(x)), offsets[1] - offsets[0]
