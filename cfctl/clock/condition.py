"""The health of the clock: what it stands on, and whether the calibration at hand still holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from cfctl import _native
from cfctl.clock import environment, procedure
from cfctl.clock.epoch import NEW_EPOCH_NS, Recheck, recheck
from cfctl.errors import CfctlError
from cfctl.records import Document, Measurement, Verdict

if TYPE_CHECKING:
    from cfctl.clock.calibration import Calibration


@dataclass(frozen=True, slots=True)
class ClockHealth(Document):
    """Whether this process's clock can be trusted, and the facts that this rests on.

    `verdict` is inconclusive without a calibration. `calibration_from` is "process" (published
    here), "history" or None.
    """

    SCHEMA: ClassVar[str] = "cfctl.clock.health"
    VERSION: ClassVar[int] = 1

    verdict: Verdict
    reasons: tuple[str, ...]
    source: str
    source_reason: str
    clocksource: str | None
    clocksources_available: tuple[str, ...]
    calibration_from: str | None
    calibration_verdict: str | None
    age_ns: int | None
    error_ns: Measurement
    drift_ppb: Measurement
    reference: str | None
    independence: str | None
    synchronized: bool | None
    synchronized_reason: str
    frequency_correction_ppm: float | None
    max_error_ns: int | None
    suspended_ns: int
    time_namespace_offset_ns: int
    disruption_marker: int | None
    kernel_log: tuple[str, ...]
    kernel_log_reason: str | None


def health(calibration: Calibration | None = None) -> ClockHealth:
    """Return the health of the clock; about 2 ms, most of it for reading the kernel log.

    Looks at `calibration`, else at the one published in this process, else at the newest saved one
    that holds for this boot.
    """
    calibration, origin, missing = _calibration_at_hand(calibration)
    checked: Recheck | None = None
    reasons: list[str] = []
    if calibration is None:
        reasons.append(missing)
    else:
        try:
            checked = recheck(calibration)
        except CfctlError as error:
            reasons.append(str(error))
    verdict, judged = judge_health(calibration, checked)
    reasons.extend(judged)
    now = environment.observe()
    clock = environment.discipline()
    lines, log_reason = environment.kernel_log_clock_lines()
    source, _, source_reason = _native.tick_source()
    return ClockHealth(
        verdict=verdict,
        reasons=tuple(reasons),
        source=source,
        source_reason=source_reason,
        clocksource=now.clocksource,
        clocksources_available=environment.available_clocksources(),
        calibration_from=origin,
        calibration_verdict=calibration.verdict if calibration else None,
        age_ns=checked.age_ns if checked else None,
        error_ns=_error(checked),
        drift_ppb=checked.drift_ppb if checked else Measurement.missing("ppb", "there is no calibration"),
        reference=calibration.reference if calibration else None,
        independence=calibration.independence if calibration else None,
        synchronized=clock.synchronized,
        synchronized_reason=clock.reason,
        frequency_correction_ppm=clock.frequency_ppm,
        max_error_ns=clock.max_error_ns,
        suspended_ns=now.suspended_ns,
        time_namespace_offset_ns=now.time_namespace_offset_ns,
        disruption_marker=now.disruption_marker,
        kernel_log=tuple(lines),
        kernel_log_reason=log_reason or None,
    )


def _calibration_at_hand(given: Calibration | None) -> tuple[Calibration | None, str | None, str]:
    if given is not None:
        return given, "process", ""
    published = procedure.published_calibration()
    if published is not None:
        return published, "process", ""
    # Only here: reading a history is nothing that an application's hot start should load.
    from cfctl.clock import history

    try:
        saved = history.saved_calibration()
    except CfctlError as error:
        return None, None, str(error)
    if saved is None:
        return None, None, "No calibration of this boot is at hand. Make one: cfctl calibrate"
    return saved, "history", ""


def judge_health(calibration: Calibration | None, checked: Recheck | None) -> tuple[Verdict, list[str]]:
    """Return the verdict over a calibration and its recheck, with the reasons that speak against it."""
    if calibration is None or checked is None:
        return Verdict.INCONCLUSIVE, []
    reasons = []
    if calibration.verdict != "valid":
        reasons.append(f"the calibration is {calibration.verdict}: {calibration.verdict_reason}")
    if checked.action == "recalibrate":
        reasons.append(checked.reason)
    if reasons:
        return Verdict.FAIL, reasons
    if checked.error_ns is None:
        return Verdict.INCONCLUSIVE, [checked.reason]
    return Verdict.PASS, []


def _error(checked: Recheck | None) -> Measurement:
    if checked is None or checked.error_ns is None:
        return Measurement.missing("ns", checked.reason if checked else "there is no calibration")
    return Measurement(
        checked.error_ns,
        "ns",
        uncertainty=checked.error_uncertainty_ns,
        sample_count=1,
        method=f"one cluster of bracketed pairs; an epoch ends beyond {NEW_EPOCH_NS:.0f} ns",
    )
