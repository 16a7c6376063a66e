from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cfctl import _native
from cfctl.profile.tally import Tally, bucket_bounds, merge, tally_of
from cfctl.segment.reader import parse_segment
from tests.unit.segment_builder import SUM, U64, SegmentBuilder, bucket_of, operation_payload

DURATIONS = st.lists(st.integers(0, 2**40 - 1), min_size=1, max_size=200)


def tally(*shards: list[int], name: bytes = b"op", errors: int = 0) -> Tally:
    builder = SegmentBuilder()
    builder.entry(name, [operation_payload(samples, errors) for samples in shards])
    found = tally_of(parse_segment(builder.build()).entries[0])
    assert found is not None
    return found


def test_counters_and_buckets_are_those_of_the_shards() -> None:
    found = tally([5, 5, 300], [7, 2**40], errors=1)
    assert (found.count, found.errors, found.sum_ticks) == (5, 2, 5 + 5 + 300 + 7 + 2**40)
    assert (found.min_ticks, found.max_ticks, found.out_of_range) == (5, 2**40, 1)
    assert found.buckets == ((5, 2), (7, 1), (bucket_of(300), 1))


def test_an_operation_that_never_ran_has_no_extremes() -> None:
    found = tally([])
    assert (found.count, found.min_ticks, found.max_ticks, found.first_tick) == (0, None, None, None)
    assert found.value_at(0.5) is None
    assert found.stddev_ticks() is None


def test_an_entry_with_other_fields_is_no_operation() -> None:
    builder = SegmentBuilder()
    builder.entry(b"x", [bytes(8)], fields=[("count", "1", U64, SUM, 0, 1, 0)])
    assert tally_of(parse_segment(builder.build()).entries[0]) is None


@settings(deadline=None)
@given(DURATIONS, st.sampled_from([0.0, 0.5, 0.9, 0.99, 0.999, 1.0]))
def test_a_quantile_is_within_its_bucket_of_the_exact_rank(durations: list[int], quantile: float) -> None:
    found = tally(durations).value_at(quantile)
    assert found is not None
    value, half_width = found
    rank = max(1, -int(-quantile * len(durations) // 1))
    exact = sorted(durations)[rank - 1]
    assert abs(value - exact) <= half_width
    assert half_width <= max(0.0, exact / 256)


@settings(deadline=None)
@given(DURATIONS)
def test_quantiles_are_those_of_the_c_core(durations: list[int]) -> None:
    found = tally(durations)
    dense = bytearray(8 * _native.HISTOGRAM_BUCKETS)
    view = memoryview(dense).cast("Q")
    for bucket, samples in found.buckets:
        view[bucket] = samples
    quantiles = [0.0, 0.25, 0.5, 0.9, 1.0]
    assert _native.histogram_quantiles(bytes(dense), quantiles) == [
        pair[0] for pair in map(found.value_at, quantiles) if pair is not None
    ]


def test_a_quantile_beyond_the_histograms_range_is_none() -> None:
    found = tally([10] * 9 + [2**41])
    assert found.value_at(0.9) == (10, 0)
    assert found.value_at(0.99) is None


@settings(deadline=None)
@given(DURATIONS)
def test_the_standard_deviation_is_numpys_within_the_buckets_error(durations: list[int]) -> None:
    found = tally(durations).stddev_ticks()
    if len(durations) < 2:
        assert found is None
        return
    assert found is not None
    # Moving each sample by at most 1/256 of its size moves the deviation by at most this.
    slack = 2 * max(durations) / 256 + 1e-6 * max(durations) + 1e-9
    assert found == pytest.approx(float(np.std(np.array(durations, dtype=float), ddof=1)), abs=slack)


@settings(deadline=None)
@given(st.lists(DURATIONS, min_size=1, max_size=5))
def test_merging_is_as_if_one_thread_had_recorded_all(parts: list[list[int]]) -> None:
    (merged,) = merge(tally(part) for part in parts)
    together = tally([value for part in parts for value in part])
    assert merged.buckets == together.buckets
    assert (merged.count, merged.sum_ticks) == (together.count, together.sum_ticks)
    assert (merged.min_ticks, merged.max_ticks) == (together.min_ticks, together.max_ticks)
    assert merged.threads == len(parts)


def test_operations_of_other_names_stay_apart_in_their_order() -> None:
    names = [t.name for t in merge([tally([1], name=b"b"), tally([1], name=b"a"), tally([2], name=b"b")])]
    assert names == ["b", "a"]


@settings(deadline=None)
@given(st.integers(0, 2**40 - 1))
def test_a_value_lies_within_the_bounds_of_its_bucket(value: int) -> None:
    lowest, highest = bucket_bounds(bucket_of(value))
    assert lowest <= value <= highest
