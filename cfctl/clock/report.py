"""What `cfctl calibrate` reports: a calibration with everything that tells how far it can be trusted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from cfctl.clock.calibration import Calibration, ns_per_tick
from cfctl.clock.costs import read_costs, tick_step
from cfctl.clock.epoch import residual
from cfctl.clock.offsets import CpuOffsets, cpu_offsets
from cfctl.clock.procedure import published_calibration
from cfctl.errors import StateError
from cfctl.records import Document, Measurement

if TYPE_CHECKING:
    from cfctl.clock.sampling import Progress


@dataclass(frozen=True, slots=True)
class MethodResult:
    """One method's calibration, and how far its own estimate lies from the kernel's exact rate."""

    calibration: Calibration
    deviation_ppb: Measurement


@dataclass(frozen=True, slots=True)
class CalibrationReport(Document):
    """A calibration, what it leaves as residual right after, and what the clocks of this host cost.

    `compared` holds both methods with --compare, else nothing. `saved_to` is None when the
    calibration could not be saved, and `saved_reason` says why.
    """

    SCHEMA: ClassVar[str] = "cfctl.calibrate"
    VERSION: ClassVar[int] = 1

    calibration: Calibration
    residual_ns: Measurement
    tick_step_ns: Measurement
    read_costs_ns: dict[str, Measurement]
    offsets: CpuOffsets
    compared: tuple[MethodResult, ...]
    saved_to: str | None
    saved_reason: str | None


@dataclass(frozen=True, slots=True)
class CalibrationHistory(Document):
    """The saved calibrations, the oldest first, and the one that holds for this boot and process."""

    SCHEMA: ClassVar[str] = "cfctl.clock.history"
    VERSION: ClassVar[int] = 1

    path: str
    calibrations: tuple[Calibration, ...]
    usable: Calibration | None


def measure_report(
    calibration: Calibration,
    compared: tuple[Calibration, ...] = (),
    *,
    on_progress: Progress | None = None,
) -> CalibrationReport:
    """Return the report of a calibration: residual, step, costs and offsets are measured now; about 0.1 s."""
    return CalibrationReport(
        calibration,
        residual(calibration),
        tick_step(),
        read_costs(),
        cpu_offsets(ns_per_tick=ns_per_tick(calibration), on_progress=on_progress),
        tuple(MethodResult(each, deviation(each, calibration)) for each in compared),
        None,
        "not saved",
    )


def deviation(calibration: Calibration, exact: Calibration) -> Measurement:
    """Return how far a calibration's own estimate lies from the kernel's exact rate, in ppb."""
    if not exact.snapped:
        return Measurement.missing("ppb", f"the kernel's exact rate is not known: {exact.snap_reason}")
    return Measurement(
        (calibration.estimate_hz / exact.frequency_hz - 1) * 1e9,
        "ppb",
        uncertainty=calibration.frequency_uncertainty_ppb,
        method="estimate against the rate of the kernel's mult and shift",
    )


def save(calibration: Calibration) -> tuple[str | None, str | None]:
    """Return (path, remark) after saving a calibration; the path is None when it could not be saved."""
    from cfctl.clock import history

    try:
        saved = history.save(calibration)
    except StateError as error:
        return None, str(error)
    return str(saved.path), saved.note


def load_history() -> CalibrationHistory:
    """Return the saved calibrations and the usable one; raises StateError for a corrupt history."""
    from cfctl.clock import history

    return CalibrationHistory(str(history.path()), tuple(history.load()), history.saved_calibration())


def calibration_at_hand() -> Calibration | None:
    """Return the calibration of this process, else the newest saved one that holds, else None."""
    from cfctl.clock import history

    return published_calibration() or history.saved_calibration()
