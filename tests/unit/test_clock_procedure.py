"""Attempts, verdicts and the published line, on a fake clock."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from cfctl import clock
from cfctl.clock.assembly import Circumstances, assemble, fitted, from_sampled, published_line, snap_of
from cfctl.clock.environment import Environment, StatedRate
from cfctl.clock.fit import SLOPE_BITS, Line, fit, slope_from
from cfctl.clock.median import median_rate
from cfctl.clock.procedure import sample_until_valid
from cfctl.errors import CalibrationError, InputError
from tests.unit.clock_worlds import (
    TRUE_HZ,
    TRUE_SLOPE,
    FakeSampler,
    FakeTimeline,
    line_points,
    spread_ticks,
)

if TYPE_CHECKING:
    from cfctl.clock.calibration import ClusterPoint


def circumstances(*, snap: bool = True, reference: str = "raw") -> Circumstances:
    return Circumstances(
        "tsc", "usable", reference, "clustered", snap, Environment("tsc", "boot", 0, 0, None), "none", "one counter",
        StatedRate(2_596_144_000, "kernel log"),
    )  # fmt: skip


def calibration_of(given: Circumstances, points: list[ClusterPoint]) -> clock.Calibration:
    line = fit(points, TRUE_SLOPE)
    outcome = fitted(line, tuple(points), 400, 104, duration_ns=1, cpu_time_ns=1)
    return assemble(given, outcome, snap_of(given, line))


def test_the_first_valid_attempt_is_taken() -> None:
    timeline = FakeTimeline()
    sampled, budget_ns, attempts = sample_until_valid(
        100_000_000, "raw", sampler=FakeSampler(timeline), timeline=timeline
    )
    assert (budget_ns, attempts) == (100_000_000, 1)
    assert sampled.fit.valid
    assert timeline.now - 1_000_000_000 == 100_000_000


def test_a_bad_attempt_is_repeated_and_then_widened() -> None:
    timeline = FakeTimeline()
    noisy = FakeSampler(timeline, noise_ns=(50.0, 50.0, 0.008))
    sampled, budget_ns, attempts = sample_until_valid(100_000_000, "raw", sampler=noisy, timeline=timeline)
    assert (budget_ns, attempts) == (200_000_000, 3)
    assert sampled.fit.valid


def test_widening_stops_at_three_seconds() -> None:
    for duration_ns, widest_ns, tried in (
        (100_000_000, 800_000_000, 5),
        (1_000_000_000, 3_000_000_000, 4),
        (2_000_000_000, 3_000_000_000, 3),
        (5_000_000_000, 5_000_000_000, 2),
    ):
        timeline = FakeTimeline()
        _, budget_ns, attempts = sample_until_valid(
            duration_ns, "raw", sampler=FakeSampler(timeline, noise_ns=(50.0,)), timeline=timeline
        )
        assert (budget_ns, attempts) == (widest_ns, tried)


def test_clusters_that_never_lie_on_a_line_are_degraded_with_the_bracket_bound() -> None:
    timeline = FakeTimeline()
    sampled, budget_ns, attempts = sample_until_valid(
        100_000_000, "raw", sampler=FakeSampler(timeline, noise_ns=(50.0,)), timeline=timeline
    )
    made = from_sampled(circumstances(), sampled, budget_ns, attempts)
    assert made.verdict == "degraded"
    assert not made.snapped
    # Two half brackets of 40 ns over 800 ms.
    assert made.frequency_uncertainty_ppb == pytest.approx(50, rel=0.01)
    assert made.frequency_uncertainty_ppb == made.frequency_bound_ppb


@pytest.mark.parametrize("seed", range(40))
def test_a_degraded_line_keeps_the_bound_of_the_brackets(seed: int) -> None:
    chance = random.Random(seed)

    class Scattered(FakeSampler):
        """Readings anywhere in their brackets of 40 ns, with errors that claim to know better."""

        def sample(self, index: int, clock_id: int, /) -> None:
            super().sample(index, clock_id)
            tick, ns = self.slots[index]
            self.slots[index] = (tick, ns + chance.uniform(-19, 19))

        def centre(
            self, index: int, ns_per_tick: float, /
        ) -> tuple[int, int, float, float, int, int, int, int]:
            tick, ns, fraction, _, *rest = super().centre(index, ns_per_tick)
            return (tick, ns, fraction, chance.choice((0.001, 10.0)), *rest)  # type: ignore[return-value]

    timeline = FakeTimeline()
    sampled, budget_ns, attempts = sample_until_valid(
        100_000_000, "raw", sampler=Scattered(timeline, noise_ns=(0.0,)), timeline=timeline
    )
    made = from_sampled(circumstances(), sampled, budget_ns, attempts)
    assert made.verdict == "degraded"
    for tick in (sampled.centres[0].point.tick, sampled.centres[-1].point.tick):
        ns = made.base_ns + (tick - made.base_tick) * clock.ns_per_tick(made)
        assert abs(ns - tick * TRUE_SLOPE) < made.bound_ns(abs(tick - made.base_tick))


def test_a_step_in_every_attempt_is_refused() -> None:
    timeline = FakeTimeline()
    stepping = FakeSampler(timeline, steps={attempt * 8 + 4: 1e6 for attempt in range(5)})
    with pytest.raises(CalibrationError, match="stepped"):
        sample_until_valid(100_000_000, "raw", sampler=stepping, timeline=timeline)


@pytest.mark.parametrize(("step_ns", "refused"), [(9.0, False), (-18.0, False), (22.0, True)])
def test_a_shift_that_reading_the_clock_can_make_is_degraded_and_no_step(
    step_ns: float, refused: bool
) -> None:
    # Half a synthetic bracket is 20 ns.
    timeline = FakeTimeline()
    stepping = FakeSampler(timeline, steps={attempt * 8 + 4: step_ns for attempt in range(5)})
    if refused:
        with pytest.raises(CalibrationError, match="stepped"):
            sample_until_valid(100_000_000, "raw", sampler=stepping, timeline=timeline)
        return
    made = from_sampled(
        circumstances(), *sample_until_valid(100_000_000, "raw", sampler=stepping, timeline=timeline)
    )
    assert made.verdict == "degraded"
    # The brackets hold no shift, their line does: by less than half of one at each end.
    assert abs(made.frequency_hz / TRUE_HZ - 1) * 1e9 < made.frequency_bound_ppb


def test_a_step_in_one_attempt_costs_a_repetition() -> None:
    timeline = FakeTimeline()
    stepping = FakeSampler(timeline, steps={4: -1e6})
    sampled, _, attempts = sample_until_valid(100_000_000, "raw", sampler=stepping, timeline=timeline)
    assert attempts == 2
    assert sampled.fit.valid


def test_a_clock_that_stands_still_can_not_be_calibrated() -> None:
    class Frozen(FakeSampler):
        def narrowest(self, index: int, /) -> tuple[int, int, int]:
            return super().narrowest(index)[0], 5, 104

    timeline = FakeTimeline()
    with pytest.raises(CalibrationError, match="did not advance"):
        sample_until_valid(100_000_000, "raw", sampler=Frozen(timeline), timeline=timeline)


def test_a_clock_that_can_not_be_read_is_named() -> None:
    class Refused(FakeSampler):
        def sample(self, index: int, clock_id: int, /) -> None:
            raise OSError(22, "Invalid argument", "clock_gettime")

    timeline = FakeTimeline()
    with pytest.raises(CalibrationError, match="can not be read"):
        sample_until_valid(100_000_000, "raw", sampler=Refused(timeline), timeline=timeline)


def test_progress_ends_at_one() -> None:
    timeline = FakeTimeline()
    seen: list[float] = []
    sample_until_valid(
        10_000_000, "raw", sampler=FakeSampler(timeline), timeline=timeline, on_progress=seen.append
    )
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


def test_snapping_turns_about_the_centroid() -> None:
    ticks = spread_ticks(259_614_382)
    points = line_points(ticks, TRUE_SLOPE * (1 + 0.4e-9), noise_ns=0.001)
    made = calibration_of(circumstances(), points)
    assert made.snapped
    assert made.frequency_hz == pytest.approx(TRUE_HZ, rel=1e-15)
    assert made.estimate_hz == pytest.approx(TRUE_HZ * (1 - 0.4e-9), rel=5e-11)
    errors = [made.error_of(point) for point in points]
    # The ends lie 0.02 ns off on opposite sides; the middle stays.
    assert abs(sum(errors)) < 0.02
    assert errors[0] < 0 < errors[-1]


def test_no_snap_keeps_the_estimate() -> None:
    points = line_points(spread_ticks(259_614_382), noise_ns=0.005)
    made = calibration_of(circumstances(snap=False), points)
    assert not made.snapped
    assert made.frequency_hz == made.estimate_hz


def test_published_line_is_within_a_hundredth_of_a_nanosecond() -> None:
    line = Line(10**12, 5 * 10**11, 0.37, slope_from(TRUE_SLOPE))
    base_tick, base_ns, mult, shift = published_line(line)
    exact = line.ns + line.fraction_ns + (base_tick - line.tick) * TRUE_SLOPE
    assert base_ns == pytest.approx(exact, abs=0.01)
    assert mult / (1 << shift) == pytest.approx(TRUE_SLOPE, rel=1e-15)
    assert (mult, shift) == (6462360 << 40, 64)


def test_ticks_that_are_nanoseconds_are_published_as_they_are() -> None:
    assert published_line(Line(777, 777, 0.0, 1 << SLOPE_BITS)) == (777, 777, 1 << 63, 63)


def test_median_rate_is_the_median_with_the_spread_of_its_samples() -> None:
    slope, spread_ppb, residual = median_rate(
        [(1000, 500), (1000, 501), (1000, 499), (1000, 700), (1000, 500)]
    )
    assert slope == 0.5
    assert spread_ppb == pytest.approx(1.4826 * 1.2533 * 0.001 / 0.5 / 5**0.5 * 1e9)
    assert residual == pytest.approx((0 + 1 + 1 + 200 + 0) / 5)


@pytest.mark.parametrize(
    "arguments",
    [
        {"duration_ns": 0},
        {"duration_ns": 10**13},
        {"method": "guess"},
        {"reference": "sundial"},
        {"samples": 0},
        {"sample_ns": 1},
        {"cpu": 100_000},
        {"cpu": -1},
    ],
)
def test_arguments_that_can_not_be_used_are_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(InputError):
        clock.calibrate(**arguments)  # type: ignore[arg-type]
