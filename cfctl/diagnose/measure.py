"""The quick measurements of a diagnosis: a calibration, read costs, offsets between CPUs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from cfctl.diagnose.measurements import ClockFit, Measurements, TickOffsets
from cfctl.errors import CfctlError
from cfctl.text import safe_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from cfctl.clock import Calibration, CpuOffsets
    from cfctl.records import Measurement

T = TypeVar("T")
# Half of the default calibration: enough to tell 1 ppm, and a diagnosis should not wait for more.
CALIBRATION_NS: Final = 50_000_000


@dataclass(frozen=True, slots=True)
class Instruments:
    """The measurements of `cfctl.clock` that a diagnosis makes; replaced in tests."""

    calibrate: Callable[[], Calibration]
    saved_calibration: Callable[[], Calibration | None]
    cpu_offsets: Callable[[], CpuOffsets]
    read_costs: Callable[[], dict[str, Measurement]]


def real_instruments() -> Instruments:
    """Return the instruments of this machine; raises ImportError without the C core or numpy."""
    from cfctl import clock
    from cfctl.clock import history

    return Instruments(
        lambda: clock.calibrate(duration_ns=CALIBRATION_NS, publish=False),
        history.saved_calibration,
        clock.cpu_offsets,
        clock.read_costs,
    )


def measure_host(find: Callable[[], Instruments] = real_instruments) -> Measurements:
    """Return what the measured checks need; what fails is None with its reason. Nothing is saved.

    Takes about a second, most of it for the offsets between CPUs.
    """
    reasons: dict[str, str] = {}
    instruments = _attempt("instruments", reasons, find)
    if instruments is None:
        return Measurements(reasons=dict.fromkeys(("fit", "offsets", "costs"), reasons["instruments"]))
    return Measurements(
        _attempt("fit", reasons, lambda: _fit(instruments.calibrate())),
        _attempt("saved_fit", reasons, lambda: _saved_fit(instruments.saved_calibration())),
        _attempt("offsets", reasons, lambda: _offsets(instruments.cpu_offsets(), reasons)),
        _attempt("costs", reasons, instruments.read_costs) or {},
        reasons,
    )


def _attempt(name: str, reasons: dict[str, str], measure: Callable[[], T]) -> T | None:
    try:
        return measure()
    except (CfctlError, OSError, ImportError) as error:
        # A missing permission or library is a result with a reason; the other measurements go on.
        reasons[name] = safe_text(error, 300)
        return None


def _fit(calibration: Calibration) -> ClockFit:
    return ClockFit(
        calibration.source,
        calibration.source_reason,
        str(calibration.verdict),
        calibration.verdict_reason,
        calibration.estimate_hz,
        calibration.frequency_uncertainty_ppb,
        calibration.stated_hz,
        calibration.stated_ppb,
    )


def _saved_fit(calibration: Calibration | None) -> ClockFit | None:
    return None if calibration is None else _fit(calibration)


def _offsets(measured: CpuOffsets, reasons: dict[str, str]) -> TickOffsets | None:
    pairs = [
        (abs(offset), bound, (measured.cpus[i], measured.cpus[j]))
        for i, (offsets, bounds) in enumerate(zip(measured.offset_ns, measured.bound_ns, strict=True))
        for j, (offset, bound) in enumerate(zip(offsets, bounds, strict=True))
        if i < j and offset is not None and bound is not None
    ]
    if not pairs:
        reasons["offsets"] = safe_text(measured.reason or "no pair of CPUs could be measured")
        return None
    offset, bound, pair = max(pairs, key=lambda found: found[0] - found[1])
    return TickOffsets(tuple(measured.cpus), pair, offset, bound, measured.warps)
