from __future__ import annotations

from typing import Any, cast

import pytest

from cfctl.clock import CpuOffsets
from cfctl.diagnose.measure import Instruments, measure_host
from cfctl.errors import CalibrationError, UnobservableError
from cfctl.records import Measurement


class Calibrated:
    """As much of a calibration as a diagnosis reads."""

    source = "tsc"
    source_reason = "invariant"
    verdict = "valid"
    verdict_reason = "8 of 8"
    estimate_hz = 1e9
    frequency_uncertainty_ppb = 0.1
    stated_hz = None
    stated_ppb = None


def offsets(values: list[list[float | None]], warps: int = 0, reason: str | None = None) -> CpuOffsets:
    matrix = tuple(map(tuple, values))
    bounds = tuple(tuple(None if v is None else 60.0 for v in row) for row in matrix)
    return CpuOffsets(tuple(range(len(matrix))), matrix, bounds, warps, 100, reason)


def instruments(**replaced: Any) -> Instruments:
    usual: dict[str, Any] = {
        "calibrate": lambda: cast("Any", Calibrated()),
        "saved_calibration": lambda: None,
        "cpu_offsets": lambda: offsets([[0.0, 20.0], [-20.0, 0.0]]),
        "read_costs": lambda: {"monotonic": Measurement(23.0, "ns")},
    }
    return Instruments(**{**usual, **replaced})


def test_what_is_measured_is_handed_on() -> None:
    found = measure_host(instruments)
    assert found.fit is not None
    assert found.fit.estimate_hz == 1e9
    assert found.saved_fit is None
    assert found.cost_ns("monotonic") == 23.0
    assert found.reasons == {}


def test_the_pair_furthest_beyond_its_bound_is_reported() -> None:
    matrix: list[list[float | None]] = [[0.0, 20.0, -90.0], [-20.0, 0.0, None], [90.0, None, 0.0]]
    found = measure_host(lambda: instruments(cpu_offsets=lambda: offsets(matrix, warps=3))).offsets
    assert found is not None
    assert (found.pair, found.offset_ns, found.warps) == ((0, 2), 90.0, 3)


def test_one_cpu_has_no_offset_and_a_reason() -> None:
    found = measure_host(
        lambda: instruments(cpu_offsets=lambda: offsets([[0.0]], reason="it takes two CPUs"))
    )
    assert found.offsets is None
    assert found.reasons["offsets"] == "it takes two CPUs"


def test_a_measurement_that_fails_leaves_the_others() -> None:
    def fail() -> Any:
        raise CalibrationError("The clock can not be read.", "EPERM.")

    found = measure_host(lambda: instruments(calibrate=fail))
    assert found.fit is None
    assert found.reasons["fit"] == "The clock can not be read. EPERM."
    assert found.offsets is not None


def test_without_the_core_everything_is_missing_with_the_reason() -> None:
    def find() -> Instruments:
        raise ImportError("No module named numpy")

    found = measure_host(find)
    assert found.fit is None
    assert found.offsets is None
    with pytest.raises(UnobservableError, match="numpy"):
        found.cost_ns("monotonic")
