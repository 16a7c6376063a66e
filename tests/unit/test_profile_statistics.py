from __future__ import annotations

import pytest

from cfctl.profile.statistics import OperationStatistics, TimeScale, operation_statistics
from cfctl.profile.tally import Tally
from cfctl.segment.tick_rate import TickRate
from tests.unit.segment_builder import bucket_of

HALF_NS = TickRate(0.5, 100.0, "test")
NO_RATE = TickRate(None, None, "none", "too short")


def tally(samples: list[int], errors: int = 0, first: int = 1000, last: int = 2_001_000) -> Tally:
    buckets: dict[int, int] = {}
    for value in samples:
        if value < 2**40:
            buckets[bucket_of(value)] = buckets.get(bucket_of(value), 0) + 1
    return Tally(
        "op", (), len(samples), errors, sum(samples), sum(v >= 2**40 for v in samples), 1,
        tuple(sorted(buckets.items())), min(samples, default=None), max(samples, default=None),
        first if samples else None, last if samples else None,
    )  # fmt: skip


def statistics(
    samples: list[int], rate: TickRate = HALF_NS, floor_ns: float | None = 20.0, **more: int
) -> OperationStatistics:
    return operation_statistics(tally(samples, **more), TimeScale(rate, 1000, 10**18, floor_ns))


def test_times_are_ticks_times_the_rate() -> None:
    found = statistics([100, 300], errors=1)
    assert (found.min.value, found.mean.value, found.max.value, found.total.value) == (50, 100, 150, 200)
    assert {found.min.unit, found.p50.unit, found.total.unit} == {"ns"}
    assert found.error_ratio == 0.5
    assert (found.first_unix_ns, found.last_unix_ns) == (10**18, 10**18 + 1_000_000)


def test_the_rate_counts_the_samples_after_the_first() -> None:
    found = statistics([100] * 11)
    assert found.rate.value == pytest.approx(10 / 1e-3)


def test_a_rate_of_one_sample_is_missing_with_a_reason() -> None:
    found = statistics([100])
    assert (found.rate.value, found.rate.reason) == (None, "low n")
    assert statistics([1, 2], first=5, last=5).rate.reason == "all samples end at one tick"


@pytest.mark.parametrize(("name", "needed"), [("p50", 20), ("p90", 100), ("p99", 1_000), ("p99_9", 10_000)])
def test_a_percentile_needs_ten_samples_beyond_it(name: str, needed: int) -> None:
    low, enough = statistics([7] * (needed - 1)), statistics([7] * needed)
    assert (getattr(low, name).value, getattr(low, name).reason) == (None, "low n")
    assert getattr(enough, name).value == 3.5


def test_without_a_clock_rate_times_stay_in_ticks() -> None:
    found = statistics([100] * 30, rate=NO_RATE)
    assert (found.mean.value, found.mean.unit) == (100, "ticks")
    assert (found.p50.value, found.p50.unit) == (100, "ticks")
    assert found.rate.reason == "the clock's rate is not known"
    assert (found.first_unix_ns, found.near_timer_floor) == (None, None)


def test_an_operation_near_the_timers_floor_is_marked() -> None:
    assert statistics([198] * 20).near_timer_floor is True
    assert statistics([200] * 20).near_timer_floor is False
    assert statistics([198] * 3).near_timer_floor is True
    assert statistics([198] * 20, floor_ns=None).near_timer_floor is None


def test_no_error_is_smaller_than_the_timer_or_the_bucket() -> None:
    found = statistics([1_000_000] * 10_000)
    assert found.min.uncertainty == pytest.approx(20, rel=0.01)
    assert found.mean.uncertainty == pytest.approx(20, rel=0.01)
    assert found.p99.uncertainty is not None
    assert found.p99.uncertainty > 500_000 / 512 / 2


def test_samples_beyond_the_range_leave_what_they_would_falsify_out() -> None:
    found = statistics([10] * 99 + [2**40])
    assert found.out_of_range == 1
    assert found.stddev.reason == "samples beyond the histogram's range"
    assert found.p50.value == 5
    assert found.max.value == 2**39
    assert statistics([10] * 10 + [2**40] * 20).p50.reason == "beyond the histogram's range"


def test_an_operation_without_a_sample_has_reasons_instead_of_zeros() -> None:
    found = statistics([])
    assert found.count == 0
    assert found.error_ratio is None
    for measured in (found.min, found.mean, found.max, found.total, found.p50, found.stddev, found.rate):
        assert measured.value is None
        assert measured.reason
