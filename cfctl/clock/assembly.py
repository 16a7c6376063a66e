"""From a fitted line to the record of a calibration."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cfctl import _native
from cfctl.clock.calibration import CLOCK_IDS, Calibration, ClusterPoint
from cfctl.clock.environment import (
    Environment,
    StatedRate,
    discipline,
    independence,
    observe,
    stated_deviation_ppb,
    stated_rate,
)
from cfctl.clock.fit import SLOPE_BITS, Fit, Line
from cfctl.clock.lattice import step_ticks
from cfctl.clock.snap import Snap, decide

if TYPE_CHECKING:
    from cfctl.clock.median import MedianLine
    from cfctl.clock.sampling import Sampled


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What is given before anything is sampled: the source, the reference, the wishes and the kernel's facts."""

    source: str
    source_reason: str
    reference: str
    method: str
    snap: bool
    environment: Environment
    independence: str
    independence_reason: str
    stated: StatedRate

    @classmethod
    def observe(cls, reference: str, method: str, snap: bool) -> Circumstances:
        """Return the circumstances of a calibration made now."""
        source, _, reason = _native.tick_source()
        return cls(
            source,
            reason,
            reference,
            method,
            snap,
            observe(),
            *independence(reference, discipline()),
            stated_rate(source),
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a method found: a line, how good it is, and what it took; `min_width` in ticks.

    `clusters` are the used and the taken ones.
    """

    line: Line
    verdict: str
    verdict_reason: str
    uncertainty_ppb: float
    bound_ppb: float
    residual_ns: float
    min_width: int
    duration_ns: int
    cpu_time_ns: int
    clusters: tuple[int, int]
    points: tuple[ClusterPoint, ...] = ()
    attempts: int = 1
    pairs_kept: int = 0
    cpu_changes: int = 0


def from_sampled(given: Circumstances, sampled: Sampled, budget_ns: int, attempts: int) -> Calibration:
    """Return the calibration that an attempt's clusters give."""
    outcome = fitted(
        sampled.fit, tuple(centre.point for centre in sampled.centres), sampled.bound_ppb, sampled.min_width,
        duration_ns=budget_ns, cpu_time_ns=sampled.cpu_time_ns,
    )  # fmt: skip
    outcome = replace(
        outcome,
        clusters=(sampled.fit.inlier_count, sampled.taken),
        attempts=attempts,
        pairs_kept=sum(centre.kept for centre in sampled.centres),
        cpu_changes=sum(centre.cpu_changes for centre in sampled.centres),
    )
    return assemble(given, outcome, snap_of(given, sampled.fit))


def fitted(
    fit: Fit,
    points: tuple[ClusterPoint, ...],
    bound_ppb: float,
    min_width: int,
    *,
    duration_ns: int,
    cpu_time_ns: int,
) -> Outcome:
    """Return a fitted line as an outcome: its standard error counts when it is valid, else the hard bound."""
    return Outcome(
        line=fit.line,
        verdict="valid" if fit.valid else "degraded",
        verdict_reason=fit.reason,
        uncertainty_ppb=fit.error_ppb if fit.valid else bound_ppb,
        bound_ppb=bound_ppb,
        residual_ns=fit.residual_ns,
        min_width=min_width,
        duration_ns=duration_ns,
        cpu_time_ns=cpu_time_ns,
        clusters=(fit.inlier_count, len(points)),
        points=points,
    )


def snap_of(given: Circumstances, fit: Fit) -> Snap:
    """Return the decision over the kernel's rate: taken over when that is wanted and proven."""
    if not fit.valid:
        return Snap(None, "the fit is not valid")
    if not given.snap:
        return Snap(None, "not wanted")
    return decide(
        fit.line.frequency_hz,
        fit.error_ppb,
        clocksource=given.environment.clocksource,
        reference=given.reference,
        counter_hz=given.stated.stated_hz,
    )


def from_median(given: Circumstances, median: MedianLine, samples: int, sample_ns: int) -> Calibration:
    """Return the calibration of the median method; it never snaps and its linearity is not checked."""
    outcome = Outcome(
        line=median.line,
        verdict="valid",
        verdict_reason=f"the median of {samples} intervals; linearity is not checked",
        uncertainty_ppb=median.spread_ppb,
        bound_ppb=2 * median.min_width * median.line.ns_per_tick / sample_ns * 1e9,
        residual_ns=median.residual_ns,
        min_width=median.min_width,
        duration_ns=samples * sample_ns,
        cpu_time_ns=median.cpu_time_ns,
        clusters=(samples, samples),
    )
    return assemble(given, outcome, Snap(None, "the median method takes its own rate"))


def identity(given: Circumstances) -> Calibration:
    """Return the calibration of ticks that are nanoseconds of the reference already."""
    cpu_start = time.thread_time_ns()
    now = _native.ticks()
    outcome = Outcome(
        line=Line(now, now, 0.0, 1 << SLOPE_BITS),
        verdict="valid",
        verdict_reason="ticks are nanoseconds of CLOCK_MONOTONIC_RAW by definition",
        uncertainty_ppb=0.0,
        bound_ppb=0.0,
        residual_ns=0.0,
        min_width=0,
        duration_ns=0,
        cpu_time_ns=time.thread_time_ns() - cpu_start,
        clusters=(0, 0),
    )
    return assemble(given, outcome, Snap(None, "the ticks are the reference's nanoseconds"))


def assemble(given: Circumstances, outcome: Outcome, snap: Snap) -> Calibration:
    """Return the record of a calibration; measures the counter's step, 0.3 ms."""
    line = outcome.line
    if snap.rate is not None:
        # The centroid is the best known point of the line: it stays, the ends turn.
        line = line.turned(snap.rate.slope)
    base_tick, base_ns, mult, shift = published_line(line)
    step = step_ticks()
    step_ns = step * line.ns_per_tick if step else None
    estimate_hz, stated_hz = outcome.line.frequency_hz, given.stated.stated_hz
    return Calibration(
        source=given.source, source_reason=given.source_reason,
        reference=given.reference, independence=given.independence,
        independence_reason=given.independence_reason, method=given.method,
        verdict=outcome.verdict, verdict_reason=outcome.verdict_reason,
        frequency_hz=line.frequency_hz, frequency_uncertainty_ppb=outcome.uncertainty_ppb,
        frequency_bound_ppb=outcome.bound_ppb, estimate_hz=estimate_hz,
        snapped=snap.rate is not None, snap_reason=snap.reason,
        stated_hz=float(stated_hz) if stated_hz else None,
        stated_ppb=stated_deviation_ppb(estimate_hz, stated_hz, given.source) if stated_hz else None,
        stated_reason=given.stated.source,
        residual_ns=outcome.residual_ns,
        offset_bound_ns=outcome.min_width * line.ns_per_tick / 2 + (step_ns or 0.0), tick_step_ns=step_ns,
        base_tick=base_tick, base_ns=base_ns, mult=mult, shift=shift,
        boot_id=given.environment.boot_id, clocksource=given.environment.clocksource,
        time_namespace_offset_ns=given.environment.time_namespace_offset_ns,
        suspended_ns=given.environment.suspended_ns, disruption_marker=given.environment.disruption_marker,
        created_realtime_ns=_native.os_clock_ns(CLOCK_IDS["realtime"]),
        duration_ns=outcome.duration_ns, cpu_time_ns=outcome.cpu_time_ns, attempts=outcome.attempts,
        clusters_used=outcome.clusters[0], clusters_taken=outcome.clusters[1],
        pairs_kept=outcome.pairs_kept, cpu_changes=outcome.cpu_changes, points=outcome.points,
    )  # fmt: skip


def published_line(line: Line) -> tuple[int, int, int, int]:
    """Return (base_tick, base_ns, mult, shift) of a line, as precise as 64 bits allow.

    The base has whole nanoseconds, so of the next 512 ticks the one is taken at which the line
    comes closest to one: the rounding is below 0.01 ns then, and 0 where ticks are nanoseconds.
    """
    shift = max(1, min(64, 64 + SLOPE_BITS - line.slope.bit_length()))
    mult = min(line.slope >> (SLOPE_BITS - shift), (1 << 64) - 1)
    best = (math.inf, line.tick, line.ns)
    for ahead in range(512):
        rise = ahead * line.slope
        whole = rise >> SLOPE_BITS
        fraction = (rise - (whole << SLOPE_BITS)) / (1 << SLOPE_BITS) + line.fraction_ns
        nearest = round(fraction)
        distance = abs(fraction - nearest)
        if distance < best[0]:
            best = (distance, line.tick + ahead, line.ns + whole + nearest)
    return best[1], best[2], mult, shift
