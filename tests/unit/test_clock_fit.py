"""The line through cluster centres, on lines that are known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cfctl.clock.calibration import ClusterPoint
from cfctl.clock.fit import SLOPE_BITS, Line, fit, provisional_slope, slope_from
from tests.unit.clock_worlds import TRUE_HZ, TRUE_SLOPE, line_points, spread_ticks

SECOND = 2_596_143_824


def deviation_ppb(hz: float) -> float:
    return (hz / TRUE_HZ - 1) * 1e9


def test_slope_in_fixed_point_loses_nothing() -> None:
    assert slope_from(TRUE_SLOPE) == 6462360 << (SLOPE_BITS - 24)
    assert slope_from(0.1) / (1 << SLOPE_BITS) == 0.1


def test_exact_points_give_the_exact_rate() -> None:
    found = fit(line_points(spread_ticks(SECOND)), TRUE_SLOPE * (1 + 3e-6))
    assert abs(deviation_ppb(found.line.frequency_hz)) < 0.002
    assert found.valid
    assert found.inlier_count == 8
    assert found.step_ns is None


@pytest.mark.parametrize(("span_s", "goal_ppb"), [(0.01, 5.0), (0.1, 0.5), (1.0, 0.05)])
def test_noise_of_a_cluster_s_centre_keeps_the_goals(span_s: float, goal_ppb: float) -> None:
    worst = 0.0
    for seed in range(50):
        points = line_points(spread_ticks(round(span_s * SECOND)), noise_ns=0.01, seed=seed)
        found = fit(points, TRUE_SLOPE * (1 + 1e-6))
        worst = max(worst, abs(deviation_ppb(found.line.frequency_hz)))
        assert abs(deviation_ppb(found.line.frequency_hz)) < 6 * found.error_ppb
    assert worst < goal_ppb


def test_fit_equals_weighted_least_squares_of_numpy() -> None:
    ticks = spread_ticks(SECOND)
    points = line_points(ticks, noise_ns=0.05, seed=7)
    errors = np.array([0.01, 0.02, 0.05, 0.01, 0.03, 0.02, 0.01, 0.04])
    points = [
        ClusterPoint(p.tick, p.ns, p.fraction_ns, float(e)) for p, e in zip(points, errors, strict=True)
    ]
    found = fit(points, TRUE_SLOPE)
    assert found.inlier_count == 8
    x = np.array([p.tick - ticks[0] for p in points], dtype=np.float64)
    y = np.array([float(p.ns - points[0].ns) for p in points]) - x * TRUE_SLOPE
    y += np.array([p.fraction_ns for p in points])
    (slope, _), covariance = np.polyfit(x, y, 1, w=1 / errors, cov="unscaled")
    assert found.line.ns_per_tick == pytest.approx(TRUE_SLOPE + slope, rel=1e-14)
    chi_square = float(np.sum(((y - np.polyval(np.polyfit(x, y, 1, w=1 / errors), x)) / errors) ** 2))
    expected_ppb = math.sqrt(covariance[0, 0] * max(1, chi_square / 6)) / TRUE_SLOPE * 1e9
    assert found.error_ppb == pytest.approx(expected_ppb, rel=1e-3)


@pytest.mark.parametrize("bad", [(0,), (7,), (3,), (0, 7), (2, 5)])
def test_two_bad_clusters_do_not_turn_the_line(bad: tuple[int, ...]) -> None:
    points = line_points(spread_ticks(SECOND), noise_ns=0.005)
    for index in bad:
        point = points[index]
        points[index] = ClusterPoint(
            point.tick, point.ns + (10 if index % 2 else -20), point.fraction_ns, 0.008
        )
    found = fit(points, TRUE_SLOPE)
    assert found.valid
    assert [i for i, inlier in enumerate(found.inliers) if not inlier] == list(bad)
    assert abs(deviation_ppb(found.line.frequency_hz)) < 0.05


@pytest.mark.parametrize("step_at", [2, 3, 4, 5, 6])
@pytest.mark.parametrize("step_ns", [-8.0, 60.0, 1e6, -3e9])
def test_a_step_is_refused_wherever_it_lies(step_at: int, step_ns: float) -> None:
    points = line_points(spread_ticks(SECOND), noise_ns=0.01, step_at=step_at, step_ns=step_ns)
    slope = provisional_slope([(p.tick, p.ns) for p in points])
    found = fit(points, slope)
    assert not found.valid
    assert found.step_ns == pytest.approx(step_ns, rel=0.01)
    assert "two groups" in found.reason


def test_scattered_clusters_are_not_valid_and_no_step() -> None:
    found = fit(line_points(spread_ticks(SECOND), noise_ns=40.0, seed=3), TRUE_SLOPE)
    assert not found.valid
    assert found.step_ns is None


def test_provisional_slope_survives_one_step() -> None:
    ticks = spread_ticks(SECOND)
    for step_at in range(1, 8):
        points = line_points(ticks, step_at=step_at, step_ns=5e8)
        slope = provisional_slope([(p.tick, p.ns) for p in points])
        assert abs(slope / TRUE_SLOPE - 1) < 5e-6


def test_ticks_that_do_not_grow_have_no_slope() -> None:
    with pytest.raises(ValueError, match="do not grow"):
        provisional_slope([(5, 1), (5, 2), (5, 3)])


def test_two_points_are_no_line_with_an_error() -> None:
    with pytest.raises(ValueError, match="three points"):
        fit(line_points([0, 10**9]), TRUE_SLOPE)


def test_residual_is_exact_far_from_the_base() -> None:
    line = Line.through(0, 0, TRUE_SLOPE)
    year_ticks = 365 * 86400 * SECOND
    exact_ns = year_ticks * 6462360 >> 24
    remainder = (year_ticks * 6462360 & ((1 << 24) - 1)) / (1 << 24)
    point = ClusterPoint(year_ticks, exact_ns, remainder, 0.01)
    assert line.residual_ns(point) == pytest.approx(0.0, abs=1e-6)
