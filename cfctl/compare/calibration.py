"""Calibrations compared: whether the rate moved beyond both uncertainties, and the residual."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

from cfctl.compare.comparison import Comparison, Figure, Good, Threshold, comparison, judged
from cfctl.compare.fields import Fields
from cfctl.errors import UnobservableError

SCHEMAS: tuple[str, ...] = ("cfctl.calibrate", "cfctl.calibration")
_SIGMAS: Final = 3.0
# Beyond 1 ppm a rate is another one: the rule of the check TSC_CALIBRATION.
_RATE_LIMIT_RATIO: Final = 1e-6
# Below one nanosecond a residual is that of the clock it is read against, which counts in whole ones.
_RESIDUAL_LIMIT_NS: Final = 1.0


def compare(
    base: Sequence[dict[str, Any]], new: Sequence[dict[str, Any]], thresholds: Sequence[Threshold]
) -> Comparison:
    """Return the change of the measured rate and of the residual; raises UnobservableError for other clocks."""
    sides = [[_calibration(document) for document in side] for side in (base, new)]
    _require_equal_clocks([each for side in sides for each in side])
    old, young = ([_rate(each) for each in side] for side in sides)
    rate = judged(
        "clock", "estimate_hz", "Hz", Figure.pooled(old), Figure.pooled(young),
        [*thresholds, Threshold("*", _RATE_LIMIT_RATIO, 0.0, "")], Good.STEADY,
    )  # fmt: skip
    old, young = ([_residual(each) for each in side] for side in sides)
    residual = judged(
        "clock", "residual_ns", "ns", Figure.pooled(old), Figure.pooled(young),
        [*thresholds, Threshold("*", 0.05, _RESIDUAL_LIMIT_NS, "ns")],
    )  # fmt: skip
    return comparison("calibration", (rate, residual))


def _calibration(document: dict[str, Any]) -> Fields:
    result = Fields(document, "the result")
    return result.table("calibration") if result.text("schema") == "cfctl.calibrate" else result


def _require_equal_clocks(calibrations: Sequence[Fields]) -> None:
    for name in ("source", "reference"):
        values = sorted({each.text(name) for each in calibrations})
        if len(values) > 1:
            raise UnobservableError(
                "The calibrations can not be compared.", f"Their {name} is {' and '.join(values)}.",
                "Calibrate both against the same clock.",
            )  # fmt: skip


def _rate(calibration: Fields) -> Figure:
    rate_hz = calibration.number("estimate_hz")
    valid = calibration.text("verdict") == "valid"
    # A degraded one states no standard error but a bound, which needs no factor.
    ppb = calibration.number("frequency_uncertainty_ppb") * (_SIGMAS if valid else 1.0)
    return Figure.within(rate_hz, abs(rate_hz) * ppb * 1e-9)


def _residual(calibration: Fields) -> Figure:
    """Return the root mean square residual; that of n normal errors is itself known to 1/sqrt(2n)."""
    clusters = calibration.count("clusters_used")
    residual_ns = calibration.number("residual_ns")
    if clusters == 0:
        return Figure(residual_ns, reason="it does not say how many clusters it stands on")
    error = min(1.0, _SIGMAS / math.sqrt(2 * clusters))
    return Figure.within(residual_ns, residual_ns * error)
