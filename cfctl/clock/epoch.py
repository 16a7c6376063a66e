"""Whether a calibration still holds: rechecks, residuals, and what ends an epoch.

An epoch is the span over which one calibration holds. It ends by a suspend, a migration, another
clocksource, a counter or a clock that stepped.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

from cfctl import _native
from cfctl.clock.calibration import (
    CLOCK_IDS,
    REFERENCE_NAMES,
    Calibration,
    ClusterPoint,
    ns_per_tick,
)
from cfctl.clock.environment import Environment, observe
from cfctl.clock.sampling import Centre, sample_point
from cfctl.records import Document, Measurement

# Up to half a step of the counter a calibration is as good as a new one; from five steps on
# something happened that no drift explains.
KEEP_NS: Final = 5.0
NEW_EPOCH_NS: Final = 50.0
_RESIDUAL_CLUSTERS: Final = 8


@dataclass(frozen=True, slots=True)
class Recheck(Document):
    """One look at whether a calibration still holds.

    `error_ns` is reference minus converted tick. `action` is "keep", "refit" (the rate is a little
    off: fit again over the longer baseline) or "recalibrate" (`cause` ended the epoch; times in
    `suspect_ns`, from the last good check to this one, may be wrong).
    """

    SCHEMA: ClassVar[str] = "cfctl.clock.recheck"
    VERSION: ClassVar[int] = 1

    realtime_ns: int
    reference: str
    independence: str
    age_ns: int
    error_ns: float | None
    error_uncertainty_ns: float | None
    bound_ns: float
    drift_ppb: Measurement
    action: str
    cause: str | None
    reason: str
    suspect_ns: tuple[int, int] | None
    epoch: int
    point: ClusterPoint | None


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a recheck leads to: action, cause and reason as in Recheck."""

    action: str
    cause: str | None
    reason: str


def judge(calibration: Calibration, now: Environment, tick: int, error_ns: float | None) -> Judgement:
    """Return what follows from the state of the clocks and the error of a calibration; pure.

    Facts go before the error: after a suspend the line may happen to be right for a moment.
    """
    ended = epoch_end(calibration, now, tick)
    if ended is not None:
        return Judgement("recalibrate", *ended)
    if error_ns is None or not math.isfinite(error_ns):
        return Judgement("keep", None, "no reading of the clock could be used; nothing is known")
    size = abs(error_ns)
    if size > NEW_EPOCH_NS:
        reason = f"the clock is {error_ns:+.0f} ns off, more than {NEW_EPOCH_NS:.0f} ns"
        return Judgement("recalibrate", "step", reason)
    if size > KEEP_NS:
        return Judgement("refit", None, f"the clock is {error_ns:+.1f} ns off, more than {KEEP_NS:.0f} ns")
    return Judgement("keep", None, f"within {KEEP_NS:.0f} ns")


def epoch_end(calibration: Calibration, now: Environment, tick: int) -> tuple[str, str] | None:
    """Return (cause, reason) when something that is known ended a calibration's epoch, else None."""
    if now.boot_id != calibration.boot_id:
        return "reboot", "the machine was booted again"
    if now.suspended_ns != calibration.suspended_ns:
        slept_s = (now.suspended_ns - calibration.suspended_ns) / 1e9
        return "suspend", f"the machine was suspended for {slept_s:.3f} s"
    if now.clocksource != calibration.clocksource:
        return "clocksource", f"the clocksource is '{now.clocksource}', not '{calibration.clocksource}'"
    if now.disruption_marker != calibration.disruption_marker:
        return "migration", "the hypervisor reports a disruption of the clocks"
    last = max((point.tick for point in calibration.points), default=calibration.base_tick)
    if tick < last:
        return "backwards", "the counter shows less than when it was calibrated"
    return None


def recheck(
    calibration: Calibration, *, last_good_ns: int | None = None, epoch: int = 1, sysroot: Path = Path("/")
) -> Recheck:
    """Return whether a calibration still holds; one cluster, about 0.4 ms of CPU time.

    `last_good_ns` (of the reference) is where the suspect span begins when the epoch has ended:
    the calibration's own time without it. Raises CalibrationError when the clock can not be read.
    """
    environment = observe(sysroot)
    tick = _native.ticks()
    centre = _centre(calibration)
    error_ns = calibration.error_of(centre.point) if centre else None
    judgement = judge(calibration, environment, tick, error_ns)
    now_ns = _native.os_clock_ns(CLOCK_IDS[calibration.reference])
    age_ns = max(0, now_ns - _made_ns(calibration))
    ended = judgement.action == "recalibrate"
    since_ns = _made_ns(calibration) if last_good_ns is None else last_good_ns
    bound_ns = calibration.bound_ns(age_ns)
    return Recheck(
        realtime_ns=_native.os_clock_ns(CLOCK_IDS["realtime"]),
        reference=calibration.reference,
        independence=calibration.independence,
        age_ns=age_ns,
        error_ns=error_ns,
        error_uncertainty_ns=_finite(centre.point.error_ns) if centre else None,
        bound_ns=bound_ns,
        drift_ppb=drift(calibration, error_ns, age_ns),
        action=judgement.action,
        cause=judgement.cause,
        reason=judgement.reason,
        suspect_ns=(since_ns, now_ns) if ended else None,
        epoch=epoch,
        point=centre.point if centre else None,
    )


def drift(calibration: Calibration, error_ns: float | None, age_ns: int) -> Measurement:
    """Return the drift against the reference since the calibration, in ppb.

    Missing when the reference is derived from the same counter: the two can not drift apart, and 0
    would say that something had been measured.
    """
    if calibration.independence == "none":
        name = REFERENCE_NAMES[calibration.reference]
        return Measurement.missing("ppb", f"{name} is not independent: {calibration.independence_reason}")
    if error_ns is None or not math.isfinite(error_ns):
        return Measurement.missing("ppb", "no reading of the clock could be used")
    if age_ns < 1_000_000_000:
        return Measurement.missing("ppb", "the calibration is younger than a second")
    return Measurement(
        error_ns / age_ns * 1e9,
        "ppb",
        uncertainty=calibration.offset_bound_ns / age_ns * 1e9,
        sample_count=1,
        method=f"error against {REFERENCE_NAMES[calibration.reference]} over {age_ns / 1e9:.0f} s",
    )


def residual(calibration: Calibration, clusters: int = _RESIDUAL_CLUSTERS) -> Measurement:
    """Return the mean residual of tick-derived time against the calibration's reference, in ns.

    From the centres of `clusters` clusters of bracketed pairs taken now, about 0.4 ms of CPU time
    each. The uncertainty is the standard error of their mean; all of them share the bracket, so the
    hard bound of any of them remains `offset_bound_ns`.
    """
    errors = []
    for _ in range(clusters):
        centre = _centre(calibration)
        if centre is not None and math.isfinite(centre.point.error_ns):
            errors.append((calibration.error_of(centre.point), centre.point.error_ns))
    if not errors:
        return Measurement.missing("ns", "no reading of the clock could be used")
    values = [error for error, _ in errors]
    scatter = statistics.stdev(values) if len(values) > 1 else 0.0
    own = math.sqrt(statistics.fmean(error**2 for _, error in errors))
    return Measurement(
        statistics.fmean(values),
        "ns",
        uncertainty=max(scatter, own) / math.sqrt(len(values)),
        sample_count=len(values),
        method=f"mean over clusters of bracketed pairs against {REFERENCE_NAMES[calibration.reference]}",
    )


def _centre(calibration: Calibration) -> Centre | None:
    if calibration.source == "os" and calibration.reference == "raw":
        # The ticks are the reference: one reading is as good as a cluster.
        tick = _native.ticks()
        return Centre(ClusterPoint(tick, tick, 0.0, 0.0), 1, 0, 0, -1)
    centre = sample_point(calibration.reference, ns_per_tick(calibration))
    return centre if math.isfinite(centre.point.error_ns) else None


def _made_ns(calibration: Calibration) -> int:
    last = max((point.tick for point in calibration.points), default=calibration.base_tick)
    return calibration.to_ns(last)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
