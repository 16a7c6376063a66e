"""The seed guide's method, for comparison: naive intervals, and the median of their rates."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

from cfctl import _native
from cfctl.clock.calibration import CLOCK_IDS
from cfctl.clock.fit import Line
from cfctl.clock.sampling import MachineTimeline, Progress, Timeline, sample_point


@dataclass(frozen=True, slots=True)
class MedianLine:
    """The line of the median rate through a point taken last, with the spread of the rates.

    `spread_ppb` is the standard error of the median from the median absolute deviation; it does
    not contain the bias of late wake-ups, which is larger. `residual_ns` is how far the intervals'
    ends lie from the median rate, on average.
    """

    line: Line
    spread_ppb: float
    residual_ns: float
    min_width: int
    cpu_time_ns: int


def median_rate(intervals: list[tuple[int, int]]) -> tuple[float, float, float]:
    """Return (ns per tick, spread in ppb, mean absolute residual in ns) of (ticks, ns) intervals."""
    slopes = [ns / ticks for ticks, ns in intervals]
    slope = statistics.median(slopes)
    deviation = statistics.median(abs(s - slope) for s in slopes)
    # 1.4826: MAD to sigma of a normal distribution; 1.2533: sigma of a mean to that of a median.
    spread_ppb = 1.4826 * 1.2533 * deviation / slope / len(slopes) ** 0.5 * 1e9
    residual = statistics.fmean(abs(ns - ticks * slope) for ticks, ns in intervals)
    return slope, spread_ppb, residual


def sample_median(
    samples: int,
    sample_ns: int,
    reference: str,
    *,
    timeline: Timeline | None = None,
    on_progress: Progress | None = None,
) -> MedianLine:
    """Return the median line of `samples` intervals of `sample_ns` each, read without brackets."""
    timeline = timeline or MachineTimeline()
    clock_id = CLOCK_IDS[reference]
    cpu_start = time.thread_time_ns()
    intervals = []
    for index in range(samples):
        tick, ns = _native.ticks(), _native.os_clock_ns(clock_id)
        timeline.sleep_until(timeline.now_ns() + sample_ns)
        intervals.append((_native.ticks() - tick, _native.os_clock_ns(clock_id) - ns))
        if on_progress:
            on_progress((index + 1) / samples)
    slope, spread_ppb, residual = median_rate(intervals)
    centre = sample_point(reference, slope)
    line = Line.through(centre.point.tick, centre.point.ns, slope)
    line = Line(line.tick, line.ns, centre.point.fraction_ns, line.slope)
    return MedianLine(line, spread_ppb, residual, centre.min_width, time.thread_time_ns() - cpu_start)
