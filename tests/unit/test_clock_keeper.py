"""The keeper: what it does after each kind of recheck, with scripted work instead of a machine."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pytest

from cfctl import clock
from cfctl.clock.epoch import Recheck
from cfctl.clock.keeper import AutoRecalibration, Keeper, extended, thinned
from cfctl.errors import CalibrationError
from cfctl.records import Measurement
from tests.unit.clock_worlds import TRUE_HZ, TRUE_SLOPE, calibration, line_points, spread_ticks

if TYPE_CHECKING:
    from cfctl.clock.calibration import Calibration

HOUR = 3600 * 10**9


def found(action: str = "keep", *, age_ns: int = 0, cause: str | None = None) -> Recheck:
    missing = Measurement.missing("ppb", "one counter")
    suspect = (5, 9) if action == "recalibrate" else None
    return Recheck(7, "raw", "none", age_ns, 0.5, 0.01, 30.0, missing, action, cause, "why", suspect, 1, None)


@dataclass
class Script:
    rechecks: list[Recheck]
    fresh: Calibration = field(default_factory=lambda: calibration(created_realtime_ns=2))
    joined: Calibration | None = None
    published: list[Calibration | None] = field(default_factory=list)
    calibrations: int = 0

    def recheck(self, calibration: Calibration, last_good_ns: int | None, epoch: int) -> Recheck:
        return replace(self.rechecks.pop(0), epoch=epoch)

    def calibrate(self, previous: Calibration) -> Calibration:
        self.calibrations += 1
        return self.fresh

    def extend(self, old: Calibration, fresh: Calibration) -> Calibration | None:
        return self.joined

    def publish(self, calibration: Calibration | None) -> None:
        self.published.append(calibration)


def test_a_good_recheck_changes_nothing() -> None:
    script = Script([found(), found(age_ns=HOUR)])
    keeper = Keeper(calibration(), script, HOUR)
    keeper.step()
    keeper.step()
    assert script.calibrations == 0
    assert script.published == []


def test_age_takes_a_new_calibration_only_when_it_is_better() -> None:
    better = calibration(frequency_uncertainty_ppb=0.01)
    worse = calibration(frequency_uncertainty_ppb=0.5)
    for joined, taken in ((better, True), (worse, False), (None, False)):
        script = Script([found(age_ns=HOUR + 1)], joined=joined)
        keeper = Keeper(calibration(), script, HOUR)
        keeper.step()
        assert (keeper.calibration is joined) == taken
        assert script.published == ([joined] if taken else [])


def test_an_error_takes_the_longer_baseline_or_else_the_fresh_one() -> None:
    joined = calibration(frequency_uncertainty_ppb=5.0)
    script = Script([found("refit")], joined=joined)
    keeper = Keeper(calibration(), script, HOUR)
    keeper.step()
    assert keeper.calibration is joined
    script = Script([found("refit")], joined=None)
    keeper = Keeper(calibration(), script, HOUR)
    keeper.step()
    assert keeper.calibration is script.fresh


def test_a_degraded_calibration_never_replaces_a_valid_one() -> None:
    script = Script([found("refit")], fresh=calibration(verdict="degraded"))
    start = calibration()
    keeper = Keeper(start, script, HOUR)
    keeper.step()
    assert keeper.calibration is start


def test_a_new_epoch_takes_the_old_line_back_first_and_names_its_cause() -> None:
    script = Script([found("recalibrate", cause="suspend"), found()])
    keeper = Keeper(calibration(), script, HOUR)
    shown = keeper.step()
    assert script.published == [None, script.fresh]
    assert shown.epoch == 2
    assert [(e.number, e.cause, e.suspect_ns) for e in keeper.epochs] == [
        (1, "start", None),
        (2, "suspend", (5, 9)),
    ]
    assert keeper.step().epoch == 2


def test_a_failed_recalibration_leaves_the_old_line_taken_back() -> None:
    class Failing(Script):
        def calibrate(self, previous: Calibration) -> Calibration:
            raise CalibrationError("no")

    script = Failing([found("recalibrate", cause="step")])
    keeper = Keeper(calibration(), script, HOUR)
    with pytest.raises(CalibrationError):
        keeper.step()
    assert script.published == [None]


def test_points_are_thinned_from_the_middle() -> None:
    points = tuple(line_points([10**12 + i * 10**9 for i in range(100)]))
    kept = thinned(points)
    assert len(kept) == 32
    assert kept[0] == points[0]
    assert kept[-1] == points[-1]
    assert thinned(points[:20][::-1]) == points[:20]


def test_two_baselines_join_into_a_better_one() -> None:
    first = line_points(spread_ticks(259_614_382), noise_ns=0.01)
    second = line_points(spread_ticks(259_614_382, 10**12 + 60 * 2_596_143_823), noise_ns=0.01, seed=2)
    apart = (second[0].tick - first[0].tick) * TRUE_SLOPE
    second = [
        replace(p, ns=p.ns + int(apart), fraction_ns=p.fraction_ns + apart - int(apart)) for p in second
    ]
    old = calibration(points=tuple(first), mult=6462360 << 40, shift=64, estimate_hz=TRUE_HZ)
    joined = extended(old, replace(old, points=tuple(second)), snap=False)
    assert joined is not None
    assert len(joined.points) == 16
    assert joined.frequency_uncertainty_ppb < 0.001
    assert joined.frequency_hz == pytest.approx(1e9 / TRUE_SLOPE, rel=1e-11)


@pytest.mark.parametrize("step_ns", [40.0, 400.0, -1e6])
def test_two_baselines_with_a_step_between_them_do_not_join(step_ns: float) -> None:
    ticks = spread_ticks(259_614_382) + spread_ticks(259_614_382, 10**12 + 60 * 2_596_143_823)
    points = line_points(ticks, noise_ns=0.01, step_at=8, step_ns=step_ns)
    old = calibration(points=tuple(points[:8]), mult=6462360 << 40, shift=64, estimate_hz=TRUE_HZ)
    assert extended(old, replace(old, points=tuple(points[8:])), snap=False) is None
    assert extended(replace(old, points=()), old, snap=False) is None


def test_the_thread_rechecks_reports_and_stops() -> None:
    seen = threading.Event()
    script = Script([found() for _ in range(1000)])
    auto = AutoRecalibration(0.001, lambda: Keeper(calibration(), script, HOUR), lambda _: seen.set())
    auto.start()
    assert seen.wait(30)
    auto.stop()
    assert not auto.running
    assert auto.error is None


def test_the_thread_keeps_trying_after_a_failure() -> None:
    attempts: list[int] = []
    succeeded = threading.Event()

    def make() -> Keeper:
        attempts.append(1)
        if len(attempts) == 1:
            raise CalibrationError("not yet")
        succeeded.set()
        return Keeper(calibration(), Script([found() for _ in range(1000)]), HOUR)

    auto = AutoRecalibration(0.001, make)
    auto.start()
    assert succeeded.wait(30)
    auto.stop()
    assert len(attempts) >= 2


def test_intervals_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="above 0"):
        clock.start_auto_recalibration(0)
