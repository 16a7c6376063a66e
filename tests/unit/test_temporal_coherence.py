"""Phase coherence against its theory: normal jitter, random phases, constant lag; fixed seeds."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest

from cfctl.temporal import DispatcherTime, PhaseSum, coherence, planned_utilization
from cfctl.temporal.coherence import Demand, jitter_of

PERIOD_NS = 1_000_000
UNIX_NS = 1_795_000_000_000_000_000


@pytest.mark.parametrize("sigma_share", [0.02, 0.05, 0.134, 0.187])
def test_normal_jitter_gives_the_score_that_theory_says(sigma_share: float) -> None:
    rng = random.Random(7)
    sigma_ns = sigma_share * PERIOD_NS
    times = [UNIX_NS + k * PERIOD_NS + round(rng.gauss(0, sigma_ns)) for k in range(20_000)]
    found = coherence(times, PERIOD_NS)
    expected = math.exp(-((math.tau * sigma_share) ** 2) / 2)
    assert found.score == pytest.approx(expected, abs=0.01)
    assert found.jitter_ns == pytest.approx(sigma_ns, rel=0.02)
    assert found.p_value is not None
    assert found.p_value < 1e-6


@pytest.mark.parametrize(("score", "share"), [(0.7, 0.134), (0.5, 0.187)])
def test_the_alert_limits_mean_a_jitter(score: float, share: float) -> None:
    assert jitter_of(score, PERIOD_NS) == pytest.approx(share * PERIOD_NS, abs=500)


def test_random_phases_score_about_the_bias_floor_and_look_random() -> None:
    rng = random.Random(3)
    scores, p_values = [], []
    for _ in range(300):
        found = coherence([rng.randrange(10**12) for _ in range(100)], PERIOD_NS)
        assert found.score is not None
        assert found.p_value is not None
        scores.append(found.score)
        p_values.append(found.p_value)
    assert found.bias_floor is not None
    assert sum(scores) / len(scores) == pytest.approx(found.bias_floor, rel=0.05)
    # A p-value of random phases is itself uniform.
    assert sum(p < 0.1 for p in p_values) / len(p_values) == pytest.approx(0.1, abs=0.05)


def test_a_constant_lag_is_perfectly_coherent_and_shown_as_the_mean_phase() -> None:
    total = PhaseSum(PERIOD_NS)
    for k in range(50):
        total.add(UNIX_NS + k * PERIOD_NS + 70_000 + 1800, slot_ns=1800)
    found = total.coherence()
    lag_ns = (UNIX_NS + 70_000) % PERIOD_NS
    assert found.score == pytest.approx(1.0)
    assert found.mean_phase_ns == pytest.approx(lag_ns)
    assert found.jitter_ns == pytest.approx(0.0, abs=1.0)


def test_below_thirty_dispatches_there_is_no_score() -> None:
    found = coherence(range(0, 29 * PERIOD_NS, PERIOD_NS), PERIOD_NS)
    assert (found.score, found.p_value, found.mean_phase_ns) == (None, None, None)
    assert found.reason == "29 dispatches; 30 are needed"
    assert coherence(range(0, 30 * PERIOD_NS, PERIOD_NS), PERIOD_NS).reason is None


def test_opposite_phases_cancel() -> None:
    found = coherence(range(0, 100 * PERIOD_NS, PERIOD_NS // 2), PERIOD_NS)
    assert found.score == pytest.approx(0.0, abs=1e-9)


def test_a_window_is_the_difference_of_two_sums() -> None:
    rng, total = random.Random(5), PhaseSum(PERIOD_NS)
    for _ in range(500):
        total.add(rng.randrange(10**12))
    before = replace(total)
    later = [UNIX_NS + k * PERIOD_NS + rng.randrange(1000) for k in range(40)]
    for moment in later:
        total.add(moment)
    window, direct = total.since(before).coherence(), coherence(later, PERIOD_NS)
    assert window.samples == 40
    assert window.score == pytest.approx(direct.score)


def test_utilization_and_efficiency_are_shares_of_measured_time() -> None:
    spent = DispatcherTime(busy_ns=300, overhead_ns=60, idle_pending_ns=240)
    assert spent.utilization(1000) == 0.3
    assert spent.utilization(1000, dispatchers=2) == 0.15
    assert spent.efficiency() == 0.5
    assert DispatcherTime().efficiency() is None
    assert DispatcherTime().utilization(0) is None


def test_the_planned_utilization_takes_the_tighter_of_deadline_and_period() -> None:
    demands = [Demand(20, 100, 100), Demand(30, 100, 60)]
    assert planned_utilization(demands) == pytest.approx(0.2 + 0.5)


def test_a_schedule_has_a_period() -> None:
    with pytest.raises(ValueError, match="above 0"):
        PhaseSum(0)
