"""Distributions: percentiles only where the count supports them, and a histogram that loses nothing."""

from __future__ import annotations

import struct
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfctl import _native
from cfctl.probe.distribution import QUANTILES, from_native, merged, needed_samples
from cfctl.records import to_plain


def native(values: list[int]) -> dict[str, Any]:
    """Return what a native probe gives for these values, counted independently of it."""
    counts = [0] * _native.HISTOGRAM_BUCKETS
    for value in values:
        if value < 1 << 40:
            counts[bucket_of(value)] += 1
    return {
        "count": len(values),
        "sum": sum(values),
        "min": min(values, default=(1 << 64) - 1),
        "max": max(values, default=0),
        "out_of_range": sum(value >= 1 << 40 for value in values),
        "histogram": struct.pack(f"={len(counts)}Q", *counts),
    }


def bucket_of(value: int) -> int:
    if value < 128:
        return value
    shift = value.bit_length() - 8
    return (shift + 1) * 128 + (value >> shift) % 128


def test_ten_samples_stand_above_a_percentile() -> None:
    assert [needed_samples(q) for q in QUANTILES] == [20, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000]


def test_a_percentile_the_count_does_not_support_is_null_with_its_reason() -> None:
    found = from_native(native(list(range(1, 100))), "ns", 1.0)
    assert found.at(0.5).value_ns == 50
    assert (found.at(0.9).value_ns, found.at(0.9).reason) == (None, "low n")
    assert found.at(0.999999).reason == "low n"
    one_more = from_native(native(list(range(1, 101))), "ns", 1.0)
    assert one_more.at(0.9).value_ns == 90
    assert one_more.at(0.9).reason is None


def test_no_sample_gives_nulls_and_no_zero() -> None:
    found = from_native(native([]), "tick", 0.4)
    assert (found.sample_count, found.mean_ns, found.min_ns, found.max_ns) == (0, None, None, None)
    assert {p.reason for p in found.percentiles} == {"no samples"}
    assert found.median().value is None
    assert to_plain(found)["histogram"]["buckets"] == []


def test_values_are_scaled_to_ns_with_the_error_of_their_bucket_or_step() -> None:
    found = from_native(native([100_000] * 30), "tick", 0.5, 26)
    half = found.at(0.5)
    assert half.value_ns == pytest.approx(50_000, rel=1 / 256)
    assert half.uncertainty_ns == pytest.approx(50_000 / 256, rel=1 / 256)
    assert (found.min_ns, found.max_ns, found.mean_ns) == (50_000, 50_000, 50_000)
    small = from_native(native([100] * 30), "tick", 0.5, 26).at(0.5)
    assert (small.value_ns, small.uncertainty_ns) == (50, 13)


def test_values_beyond_the_histogram_count_in_the_ranks() -> None:
    found = from_native(native([10] * 15 + [1 << 41] * 85), "ns", 1.0)
    assert found.histogram.out_of_range == 85
    assert found.at(0.5).value_ns is None
    assert found.at(0.5).reason == "beyond the histogram's range"
    mostly_inside = from_native(native([10] * 85 + [1 << 41] * 15), "ns", 1.0)
    assert mostly_inside.at(0.5).value_ns == 10
    assert mostly_inside.at(0.9).reason == "beyond the histogram's range"


@given(st.lists(st.integers(0, (1 << 41)), max_size=200))
def test_the_sparse_histogram_loses_nothing(values: list[int]) -> None:
    found = from_native(native(values), "ns", 1.0)
    inside = [value for value in values if value < 1 << 40]
    assert dict(found.histogram.buckets) == Counter(bucket_of(value) for value in inside)
    assert bytes(found.histogram.dense()) == native(inside)["histogram"]
    for bucket, _ in found.histogram.buckets:
        low, high = found.histogram.bounds_ns(bucket)
        assert any(low <= value < high for value in inside)


@given(st.lists(st.lists(st.integers(0, 1 << 41), max_size=30), min_size=1, max_size=5))
def test_merging_is_as_if_all_had_been_one(parts: list[list[int]]) -> None:
    assert merged(native(part) for part in parts) == native([value for part in parts for value in part])
