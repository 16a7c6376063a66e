"""Thresholds of a recheck, ends of an epoch, drift and health, without any machine."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cfctl.clock.calibration import ClusterPoint
from cfctl.clock.condition import judge_health
from cfctl.clock.environment import Environment
from cfctl.clock.epoch import Recheck, drift, judge
from cfctl.records import Measurement, Verdict
from tests.unit.clock_worlds import calibration

NOW = Environment("tsc", "boot", 0, 0, None)
LATER = 10**12 + 10**11


@pytest.mark.parametrize(
    ("error_ns", "action", "cause"),
    [
        (0.0, "keep", None),
        (-5.0, "keep", None),
        (5.1, "refit", None),
        (-50.0, "refit", None),
        (50.1, "recalibrate", "step"),
        (-1e9, "recalibrate", "step"),
        (None, "keep", None),
        (float("nan"), "keep", None),
    ],
)
def test_the_error_decides_what_follows(error_ns: float | None, action: str, cause: str | None) -> None:
    judged = judge(calibration(), NOW, LATER, error_ns)
    assert (judged.action, judged.cause) == (action, cause)


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"boot_id": "other"}, "reboot"),
        ({"suspended_ns": 3_000_000_000}, "suspend"),
        ({"clocksource": "hpet"}, "clocksource"),
        ({"clocksource": None}, "clocksource"),
        ({"disruption_marker": 2}, "migration"),
    ],
)
def test_a_fact_ends_the_epoch_whatever_the_error(change: dict[str, object], cause: str) -> None:
    judged = judge(calibration(), replace(NOW, **change), LATER, 0.0)  # type: ignore[arg-type]
    assert (judged.action, judged.cause) == ("recalibrate", cause)


def test_a_counter_that_went_backwards_ends_the_epoch() -> None:
    made = calibration(points=(ClusterPoint(10**12 + 5, 1, 0.0, 0.01),))
    assert judge(made, NOW, 10**12 + 4, 0.0).cause == "backwards"
    assert judge(made, NOW, 10**12 + 5, 0.0).cause is None


def test_drift_is_missing_with_its_reason_when_nothing_is_independent() -> None:
    found = drift(calibration(), 0.0, 60 * 10**9)
    assert found.value is None
    assert "not independent" in (found.reason or "")


def test_drift_is_error_over_age_against_an_independent_clock() -> None:
    found = drift(calibration(reference="realtime", independence="external"), 600.0, 60 * 10**9)
    assert found.value == pytest.approx(10.0)
    assert found.uncertainty == pytest.approx(0.5)
    assert drift(calibration(independence="external"), 600.0, 10**8).value is None
    assert drift(calibration(independence="external"), None, 60 * 10**9).value is None


def recheck(action: str = "keep", error_ns: float | None = 0.0) -> Recheck:
    missing = Measurement.missing("ppb", "one counter")
    return Recheck(0, "raw", "none", 0, error_ns, 0.01, 30.0, missing, action, None, "why", None, 1, None)


def test_health_is_inconclusive_without_a_calibration_or_a_reading() -> None:
    assert judge_health(None, None)[0] is Verdict.INCONCLUSIVE
    assert judge_health(calibration(), None)[0] is Verdict.INCONCLUSIVE
    assert judge_health(calibration(), recheck(error_ns=None)) == (Verdict.INCONCLUSIVE, ["why"])


def test_health_fails_for_a_degraded_calibration_and_an_ended_epoch() -> None:
    assert judge_health(calibration(), recheck())[0] is Verdict.PASS
    assert judge_health(calibration(), recheck("refit", 7.0))[0] is Verdict.PASS
    assert judge_health(calibration(verdict="degraded"), recheck())[0] is Verdict.FAIL
    assert judge_health(calibration(), recheck("recalibrate"))[0] is Verdict.FAIL


def test_bound_grows_with_age_and_is_hard_at_the_start() -> None:
    made = calibration(frequency_uncertainty_ppb=2.0)
    assert made.bound_ns(0) == 30.0
    assert made.bound_ns(10**9) == pytest.approx(32.0)
    assert made.bound_ns(-(10**9), cpu_bound_ns=70.0) == pytest.approx(102.0)
