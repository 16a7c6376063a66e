"""The quick measurements of a diagnosis: a calibration, read costs, offsets between CPUs."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, TypeVar

from cfctl.diagnose.measurements import ClockFit, Measurements, TickOffsets
from cfctl.errors import CfctlError
from cfctl.text import safe_text

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
# Half of the default calibration: enough to tell 1 ppm, and a diagnosis should not wait for more.
CALIBRATION_NS: Final = 50_000_000


def measure_host(clock: Any = None) -> Measurements:
    """Return what the measured checks need; what fails is None with its reason. Takes about a second.

    `clock` is the module cfctl.clock, or what stands for it in a test. Nothing is saved.
    """
    clock = clock or import_module("cfctl.clock")
    reasons: dict[str, str] = {}
    return Measurements(
        _attempt("fit", reasons, lambda: _fit(clock.calibrate(duration_ns=CALIBRATION_NS))),
        _attempt("saved_fit", reasons, lambda: _saved_fit(clock.saved_calibration())),
        _attempt("offsets", reasons, lambda: _offsets(clock.cpu_offsets(), reasons)),
        _attempt("costs", reasons, lambda: dict(clock.read_costs())) or {},
        reasons,
    )


def _attempt(name: str, reasons: dict[str, str], measure: Callable[[], T]) -> T | None:
    try:
        return measure()
    except (CfctlError, OSError, ImportError) as error:
        # A missing permission or library is a result with a reason; the other measurements go on.
        reasons[name] = safe_text(error, 300)
        return None


def _fit(calibration: Any) -> ClockFit:
    return ClockFit(
        calibration.source,
        str(calibration.verdict),
        calibration.verdict_reason,
        calibration.estimate_hz,
        calibration.frequency_uncertainty_ppb,
        calibration.stated_hz,
        calibration.stated_ppb,
    )


def _saved_fit(calibration: Any) -> ClockFit | None:
    return None if calibration is None else _fit(calibration)


def _offsets(measured: Any, reasons: dict[str, str]) -> TickOffsets | None:
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
