"""The calibration procedure: gate, attempts, verdict, snap, publication."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import Final

from cfctl import _native
from cfctl.clock.calibration import CLOCK_IDS, REFERENCE_NAMES, REFERENCES, Calibration, ClusterPoint
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
from cfctl.clock.median import sample_median
from cfctl.clock.sampling import Progress, Sampled, Sampler, Timeline, on_cpu, sample_line
from cfctl.clock.snap import Snap, decide
from cfctl.errors import CalibrationError, InputError

DEFAULT_DURATION_NS: Final = 100_000_000
MIN_DURATION_NS: Final = 1_000_000
MAX_DURATION_NS: Final = 600_000_000_000
# A budget is widened up to here when clusters do not lie on a line.
_WIDENED_MAX_NS: Final = 3_000_000_000
METHODS: Final = ("clustered", "median")


@dataclass(frozen=True, slots=True)
class Setting:
    """What every calibration of one call shares: the source, the reference and the kernel's facts."""

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
    def observe(cls, reference: str, method: str, snap: bool) -> Setting:
        """Return the setting of a calibration made now."""
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


def calibrate(
    duration_ns: int = DEFAULT_DURATION_NS,
    *,
    method: str = "clustered",
    reference: str = "raw",
    snap: bool = True,
    cpu: int | None = None,
    samples: int = 10,
    sample_ns: int = 100_000_000,
    publish: bool = True,
    on_progress: Progress | None = None,
) -> Calibration:
    """Return a calibration of the tick counter against a reference clock.

    `method` "clustered" takes `duration_ns` (more when the clusters do not lie on a line) and about
    3 ms of CPU time; "median" takes `samples` naive intervals of `sample_ns` and the median of
    their rates. `cpu` keeps the calling thread on one CPU meanwhile. With `publish` the calibration
    becomes the clock of now_ns(). `on_progress` is called with the share that is done.
    The interpreter lock is released while it samples and sleeps.

    Raises InputError for arguments that can not be used, CalibrationError when the clock can not be
    read or stepped in every attempt. A calibration whose verdict is "degraded" is returned.
    """
    _check_arguments(duration_ns, method, reference, samples, sample_ns)
    with on_cpu(cpu):
        setting = Setting.observe(reference, method, snap)
        if setting.source == "os" and reference == "raw":
            result = _identity(setting)
        elif _native.tick_source()[1] == "prctl":
            # Python's own sleep reads the clock in the vDSO, and would be killed.
            raise CalibrationError(
                f"{REFERENCE_NAMES[reference]} can not be sampled.",
                f"{setting.source_reason.capitalize()}, and the clock's fast path needs it.",
                "Use the reference 'raw', or do not disable the TSC.",
            )
        elif method == "median":
            median = sample_median(samples, sample_ns, reference, on_progress=on_progress)
            result = _calibration(
                setting, median.line, Snap(None, "the median method takes its own rate"), verdict="valid",
                verdict_reason=f"the median of {samples} intervals; linearity is not checked",
                uncertainty_ppb=median.spread_ppb, bound_ppb=median.spread_ppb,
                residual_ns=median.residual_ns, min_width=median.min_width,
                duration_ns=samples * sample_ns, cpu_time_ns=median.cpu_time_ns, clusters=(samples, samples),
            )  # fmt: skip
        else:
            sampled, budget_ns, attempts = sample_until_valid(duration_ns, reference, on_progress=on_progress)
            result = from_sampled(setting, sampled, budget_ns, attempts)
    if publish:
        publish_calibration(result)
    return result


# The clock that now_ns() shows belongs to the process; so does the record of what it is.
_published: list[Calibration] = []


def publish_calibration(calibration: Calibration) -> None:
    """Make a calibration the clock of now_ns() in this process."""
    _native.clock_publish(
        calibration.base_tick,
        calibration.base_ns,
        calibration.mult,
        calibration.shift,
        CLOCK_IDS[calibration.reference],
    )
    _published[:] = [calibration]


def withdraw_calibration() -> None:
    """Let now_ns() read the reference clock itself, as it did before any calibration."""
    _native.clock_withdraw()
    _published.clear()


def published_calibration() -> Calibration | None:
    """Return the calibration behind now_ns() in this process, None when there is none."""
    return next(iter(_published), None)


def process_ns_per_tick() -> float:
    """Return the nanoseconds of one tick: of the published calibration, else of one made in 10 ms."""
    line = _native.clock_published()
    if line is not None:
        return line[2] / (1 << line[3])
    quick = calibrate(10_000_000, publish=False)
    return quick.mult / (1 << quick.shift)


def _check_arguments(duration_ns: int, method: str, reference: str, samples: int, sample_ns: int) -> None:
    if method not in METHODS:
        raise InputError(f"There is no method '{method}'.", f"Methods: {', '.join(METHODS)}.")
    if reference not in REFERENCES:
        raise InputError(f"There is no reference '{reference}'.", f"References: {', '.join(REFERENCES)}.")
    if not MIN_DURATION_NS <= duration_ns <= MAX_DURATION_NS:
        raise InputError("The duration can not be used.", "It must be 1 ms to 10 min.", "100 ms is enough.")
    if not (1 <= samples <= 10_000 and MIN_DURATION_NS <= sample_ns <= MAX_DURATION_NS):
        raise InputError("The samples can not be used.", "1 to 10000 samples of 1 ms to 10 min are possible.")


def sample_until_valid(
    duration_ns: int,
    reference: str,
    *,
    sampler: Sampler | None = None,
    timeline: Timeline | None = None,
    on_progress: Progress | None = None,
) -> tuple[Sampled, int, int]:
    """Return the first attempt whose clusters lie on one line, its budget, and how many there were.

    A failed attempt is repeated once, then once more with twice the time (at most 3 s); the last
    one is returned even when it is not valid. Raises CalibrationError when the last one shows a
    step: an average over two groups would be a rate that never was.
    """
    wider_ns = max(duration_ns, min(2 * duration_ns, _WIDENED_MAX_NS))
    attempts = 0
    for budget_ns in (duration_ns, duration_ns, wider_ns):
        attempts += 1
        sampled = sample_line(
            budget_ns, reference, sampler=sampler, timeline=timeline, on_progress=on_progress
        )
        if sampled.fit.valid:
            break
    if sampled.fit.step_ns is not None:
        raise CalibrationError(
            "The clock could not be calibrated.",
            f"In each of {attempts} attempts {sampled.fit.reason}.",
            "Look for a suspend, a migration or something that sets the clock, and try again.",
        )
    return sampled, budget_ns, attempts


def from_sampled(setting: Setting, sampled: Sampled, budget_ns: int, attempts: int) -> Calibration:
    """Return the calibration that an attempt's clusters give."""
    result = from_fit(
        setting, sampled.fit, tuple(centre.point for centre in sampled.centres),
        bound_ppb=sampled.bound_ppb, min_width=sampled.min_width, duration_ns=budget_ns,
        cpu_time_ns=sampled.cpu_time_ns,
    )  # fmt: skip
    return replace(
        result,
        attempts=attempts,
        clusters_taken=sampled.taken,
        pairs_kept=sum(centre.kept for centre in sampled.centres),
        cpu_changes=sum(centre.cpu_changes for centre in sampled.centres),
    )


def from_fit(
    setting: Setting,
    fit: Fit,
    points: tuple[ClusterPoint, ...],
    *,
    bound_ppb: float,
    min_width: int,
    duration_ns: int,
    cpu_time_ns: int,
) -> Calibration:
    """Return the calibration that a fitted line gives: snapped when that is wanted and proven."""
    if not fit.valid:
        snap = Snap(None, "the fit is not valid")
    elif not setting.snap:
        snap = Snap(None, "not wanted")
    else:
        snap = decide(
            fit.line.frequency_hz, fit.error_ppb, clocksource=setting.environment.clocksource,
            reference=setting.reference, counter_hz=setting.stated.stated_hz,
        )  # fmt: skip
    calibration = _calibration(
        setting, fit.line, snap, verdict="valid" if fit.valid else "degraded", verdict_reason=fit.reason,
        uncertainty_ppb=fit.error_ppb if fit.valid else bound_ppb, bound_ppb=bound_ppb,
        residual_ns=fit.residual_ns, min_width=min_width, duration_ns=duration_ns, cpu_time_ns=cpu_time_ns,
        clusters=(fit.inlier_count, len(points)),
    )  # fmt: skip
    return replace(calibration, points=points)


def _calibration(
    setting: Setting,
    line: Line,
    snap: Snap,
    *,
    verdict: str,
    verdict_reason: str,
    uncertainty_ppb: float,
    bound_ppb: float,
    residual_ns: float,
    min_width: int,
    duration_ns: int,
    cpu_time_ns: int,
    clusters: tuple[int, int],
) -> Calibration:
    estimate_hz = line.frequency_hz
    if snap.rate is not None:
        # The centroid is the best known point of the line: it stays, the ends turn.
        line = line.turned(snap.rate.slope)
    base_tick, base_ns, mult, shift = published_line(line)
    step = step_ticks()
    step_ns = step * line.ns_per_tick if step else None
    stated_ppb = (
        stated_deviation_ppb(estimate_hz, setting.stated.stated_hz, setting.source)
        if setting.stated.stated_hz
        else None
    )
    return Calibration(
        source=setting.source,
        source_reason=setting.source_reason,
        reference=setting.reference,
        independence=setting.independence,
        independence_reason=setting.independence_reason,
        method=setting.method,
        verdict=verdict,
        verdict_reason=verdict_reason,
        frequency_hz=line.frequency_hz,
        frequency_uncertainty_ppb=uncertainty_ppb,
        frequency_bound_ppb=bound_ppb,
        estimate_hz=estimate_hz,
        snapped=snap.rate is not None,
        snap_reason=snap.reason,
        stated_hz=float(setting.stated.stated_hz) if setting.stated.stated_hz else None,
        stated_ppb=stated_ppb,
        stated_reason=setting.stated.source,
        residual_ns=residual_ns,
        offset_bound_ns=min_width * line.ns_per_tick / 2 + (step_ns or 0.0),
        tick_step_ns=step_ns,
        base_tick=base_tick,
        base_ns=base_ns,
        mult=mult,
        shift=shift,
        boot_id=setting.environment.boot_id,
        clocksource=setting.environment.clocksource,
        time_namespace_offset_ns=setting.environment.time_namespace_offset_ns,
        suspended_ns=setting.environment.suspended_ns,
        disruption_marker=setting.environment.disruption_marker,
        created_realtime_ns=_native.os_clock_ns(CLOCK_IDS["realtime"]),
        duration_ns=duration_ns,
        cpu_time_ns=cpu_time_ns,
        attempts=1,
        clusters_used=clusters[0],
        clusters_taken=clusters[1],
        pairs_kept=0,
        cpu_changes=0,
    )


def _identity(setting: Setting) -> Calibration:
    """Return the calibration of ticks that are nanoseconds of the reference already."""
    cpu_start = time.thread_time_ns()
    now = _native.ticks()
    calibration = _calibration(
        setting, Line(now, now, 0.0, 1 << SLOPE_BITS), Snap(None, "the ticks are the reference's nanoseconds"),
        verdict="valid", verdict_reason="ticks are nanoseconds of CLOCK_MONOTONIC_RAW by definition",
        uncertainty_ppb=0.0, bound_ppb=0.0, residual_ns=0.0, min_width=0, duration_ns=0, cpu_time_ns=0,
        clusters=(0, 0),
    )  # fmt: skip
    return replace(calibration, cpu_time_ns=time.thread_time_ns() - cpu_start)


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
