from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfctl import _native
from cfctl.diagnose.budget import Budget, Target, judge_budget
from cfctl.diagnose.latency import CpuLatency, UseLatency, estimate
from cfctl.diagnose.loopback import _as_native, _bucket
from cfctl.diagnose.measurements import Measurements
from cfctl.diagnose.order_statistics import count_bounds, quantile_ranks
from cfctl.diagnose.record import Actor
from cfctl.errors import InputError
from cfctl.probe.distribution import from_native
from cfctl.records import Measurement, Verdict
from tests.unit.test_diagnose_run import result

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cfctl.diagnose.record import CheckResult

P99 = Target(0.99, 50_000)


def latency(
    samples: Iterable[int], *, contaminated: bool = False, looked_ns: float | None = None
) -> CpuLatency:
    distribution = from_native(_as_native(samples), "ns", 1.0, 1.0)
    return CpuLatency(1, distribution, contaminated, "waited 3 % of the time", looked_ns)


def judge(*cpus: CpuLatency, interrupted: bool = False, results: Iterable[CheckResult] = ()) -> Budget:
    measured = Measurements(latency=UseLatency("timer", "wake-up", cpus, interrupted))
    return judge_budget(P99, "timer", measured, "", results)


def ramp(low: int, high: int, count: int = 5000) -> list[int]:
    return [low + (high - low) * i // count for i in range(count)]


def brute_ranks(count: int, quantile: float) -> tuple[int, int]:
    masses = [math.comb(count, k) * quantile**k * (1 - quantile) ** (count - k) for k in range(count + 1)]
    below = [math.fsum(masses[:k]) for k in range(count + 2)]
    low = max((rank for rank in range(count + 1) if below[rank] <= 0.025), default=0)
    high = min((rank for rank in range(1, count + 1) if below[rank] >= 0.975), default=count + 1)
    return low, high


@given(st.integers(1, 120), st.sampled_from([0.5, 0.9, 0.99, 0.123]))
def test_ranks_are_those_of_the_exact_binomial_distribution(count: int, quantile: float) -> None:
    assert quantile_ranks(count, quantile) == brute_ranks(count, quantile)


def test_ranks_of_a_median_are_the_published_ones() -> None:
    # Hahn and Meeker, table A.15: n = 100, median, 95 %: ranks 40 and 61.
    assert quantile_ranks(100, 0.5) == (40, 61)
    low, high = quantile_ranks(1_000_000, 0.999)
    assert 999_000 - low == pytest.approx(62, abs=2)
    assert high - 999_000 == pytest.approx(62, abs=2)


@pytest.mark.parametrize(
    ("count", "low", "high"), [(0, 0.0, 3.689), (10, 4.795, 18.39), (100, 81.36, 121.6), (5, 1.623, 11.67)]
)
def test_bounds_of_a_count_are_the_exact_ones_within_2_percent(count: int, low: float, high: float) -> None:
    found = count_bounds(count)
    assert found[0] == pytest.approx(low, rel=0.02)
    assert found[1] == pytest.approx(high, rel=0.02)


@given(st.integers(0, 2**39))
def test_the_bucket_of_a_value_holds_it(value: int) -> None:
    low, width = _native.histogram_bounds(_bucket(value))
    assert low <= value < low + width


@pytest.mark.parametrize(
    ("text", "quantile", "limit_ns"),
    [
        ("p99.9=50us", 0.999, 50_000),
        ("P50<=1ms", 0.5, 1_000_000),
        (" p99.9999 < 2 s", 0.999999, 2_000_000_000),
    ],
)
def test_a_target_is_a_percentile_and_a_time(text: str, quantile: float, limit_ns: int) -> None:
    target = Target.parse(text)
    assert target.quantile == pytest.approx(quantile)
    assert target.limit_ns == limit_ns


@pytest.mark.parametrize(
    "text", ["", "50us", "p100=1us", "p99.9=50", "p0=1us", "p99=0ns", "p-1=1us", "max=1us", "p99=1 lightyear"]
)
def test_what_is_no_target_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        Target.parse(text)


def test_an_interval_within_the_target_passes_and_one_beyond_fails() -> None:
    assert judge(latency(ramp(10_000, 40_000))).verdict is Verdict.PASS
    assert judge(latency(ramp(60_000, 90_000))).verdict is Verdict.FAIL


def test_an_interval_that_holds_the_target_is_inconclusive() -> None:
    found = judge(latency(ramp(0, 50_500)))
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.estimate is not None
    assert found.estimate.high_ns is not None
    assert found.estimate.low_ns < 50_000 < found.estimate.high_ns


def test_too_few_samples_are_inconclusive_and_say_how_many_it_takes() -> None:
    found = judge(latency(ramp(10, 20, 999)))
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "999 samples, the percentile needs 1000" in found.reason


def test_a_disturbed_run_is_inconclusive_whatever_it_measured() -> None:
    for samples in (ramp(10, 20), ramp(60_000, 90_000)):
        found = judge(latency(samples, contaminated=True))
        assert found.verdict is Verdict.INCONCLUSIVE
        assert "waited 3 %" in found.reason


def test_the_worst_cpu_decides() -> None:
    fast, slow = latency(ramp(10, 20)), latency(ramp(60_000, 90_000))
    assert judge(fast, replace(slow, cpu=7)).cpu == 7
    assert judge(fast, replace(fast, contaminated=True)).verdict is Verdict.INCONCLUSIVE


def test_the_latency_of_another_use_is_not_judged() -> None:
    measured = Measurements(latency=UseLatency("timer", "wake-up", (latency(ramp(10, 20)),), False))
    found = judge_budget(P99, "ipc", measured, "", ())
    assert (found.verdict, found.estimate, found.what) == (Verdict.INCONCLUSIVE, None, None)
    assert "holds the latency of timer, not of ipc" in found.reason


def test_an_interrupted_run_does_not_pass() -> None:
    assert judge(latency(ramp(10, 20)), interrupted=True).verdict is Verdict.INCONCLUSIVE


def test_nothing_measured_is_inconclusive_with_the_reason() -> None:
    found = judge_budget(P99, "timer", None, "offline", ())
    assert (found.verdict, found.reason) == (Verdict.INCONCLUSIVE, "nothing was measured: offline")
    failed = Measurements(reasons={"latency": "EPERM"})
    assert "EPERM" in judge_budget(P99, "timer", failed, "", ()).reason


def issue(
    id: str, gain: float, uncertainty: float = 100.0, unit: str = "ns/wake-up", actor: Actor = Actor.YOU
) -> CheckResult:
    return replace(result(id), impact=Measurement(gain, unit, uncertainty), solution="Do it.", actor=actor)


def test_the_largest_measured_part_that_is_yours_is_named() -> None:
    results = [
        issue("SMALL", 5_000), issue("LARGE", 20_000), issue("NOISE", 900_000, 1e6),
        issue("OTHER_UNIT", 1e9, unit="ns/s"), issue("HOST", 60_000, actor=Actor.HOST_OPERATOR),
        replace(issue("BOUND", 80_000), impact_is_bound=True),
    ]  # fmt: skip
    found = judge(latency([90_000] * 5000), results=results)
    assert found.remedy is not None
    assert (found.remedy.check_id, found.remedy.saving_ns) == ("LARGE", 20_000)
    assert found.remedy.share_ratio == pytest.approx(0.5, rel=0.02)


def test_without_a_measured_part_no_share_is_claimed() -> None:
    found = judge(latency([90_000] * 5000), results=[result("A")])
    assert found.remedy is None
    assert found.remedy_reason == "no issue that you can fix has a measured part in it"
    assert "does not exceed" in str(judge(latency([9_000] * 5000)).remedy_reason)


def test_an_event_in_a_busy_loop_waits_for_the_rest_of_its_gap() -> None:
    # 1000 gaps of 10 us in 1 s: 1 % of the events fall into one; half of those wait over 5 us.
    found = estimate(latency([10_000] * 1000, looked_ns=1e9), 0.995)
    assert found.value_ns == pytest.approx(5_000, rel=0.02)
    assert found.high_ns is not None
    assert found.low_ns < 5_000 < found.high_ns


def test_an_event_mostly_falls_into_no_gap() -> None:
    assert estimate(latency([10_000] * 1000, looked_ns=1e9), 0.98).value_ns == 0.0
    assert estimate(latency([], looked_ns=1e9), 0.999).value_ns == 0.0


def test_few_long_gaps_support_no_extreme_percentile() -> None:
    found = estimate(latency([100] * 1000 + [1_000_000] * 3, looked_ns=1e9), 0.999)
    assert found.value_ns is None
    assert found.reason == "only 3 gaps are longer, the percentile needs 10"


def test_a_sample_beyond_the_histogram_moves_no_lower_percentile() -> None:
    raw = _as_native([1000] * 5000)
    raw["count"] += 1
    raw["out_of_range"] = 1
    found = estimate(CpuLatency(0, from_native(raw, "ns", 1.0), False, ""), 0.99)
    assert found.value_ns == pytest.approx(1000, rel=0.01)
    assert found.high_ns == 1000
