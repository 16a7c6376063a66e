"""A measured distribution: count, sum, extremes, the percentiles its count supports, its histogram."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from cfctl import _native
from cfctl.records import Measurement

QUANTILES: Final = (0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999, 0.999999)
# A percentile stands on the samples above it: ten of them (Gil Tene's rule of thumb).
SAMPLES_ABOVE: Final = 10
# Half a bucket: 1/256 of the value.
BUCKET_ERROR_RATIO: Final = 1 / 256
LOW_N: Final = "low n"


@dataclass(frozen=True, slots=True)
class Percentile:
    """The value at a quantile in ns with its error, or None and the reason."""

    quantile: float
    value_ns: float | None
    uncertainty_ns: float | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Histogram:
    """The filled buckets of a log-linear histogram as (bucket, count): nothing is lost but the zeros.

    Bucket b < 2^sub_bits holds the raw value b; others as native/histogram.h says. A raw value
    times `ns_per_raw` is in ns.
    """

    raw_unit: str
    ns_per_raw: float
    sub_bits: int
    out_of_range: int
    buckets: tuple[tuple[int, int], ...]

    def bounds_ns(self, bucket: int) -> tuple[float, float]:
        """Return the lowest value of a bucket and the lowest above it, in ns."""
        low, width = _native.histogram_bounds(bucket)
        return low * self.ns_per_raw, (low + width) * self.ns_per_raw

    def dense(self) -> bytearray:
        """Return all buckets as native uint64."""
        counts = [0] * _native.HISTOGRAM_BUCKETS
        for bucket, count in self.buckets:
            counts[bucket] = count
        return bytearray(struct.pack(f"={len(counts)}Q", *counts))


@dataclass(frozen=True, slots=True)
class Distribution:
    """What a probe measured, in ns; extremes and mean are None without a sample."""

    sample_count: int
    mean_ns: float | None
    min_ns: float | None
    max_ns: float | None
    percentiles: tuple[Percentile, ...]
    histogram: Histogram

    def median(self, method: str = "median") -> Measurement:
        """Return p50 as a measurement, missing when the count does not support it."""
        half = self.percentiles[0]
        if half.value_ns is None:
            return Measurement.missing("ns", half.reason or "no samples")
        return Measurement(half.value_ns, "ns", half.uncertainty_ns, self.sample_count, method)

    def at(self, quantile: float) -> Percentile:
        """Return the percentile of one of QUANTILES."""
        return next(p for p in self.percentiles if p.quantile == quantile)


def needed_samples(quantile: float) -> int:
    """Return how many samples a percentile needs: 10 / (1 - q)."""
    # The quotient of two rounded numbers may lie a hair above the whole one that is meant.
    return math.ceil(SAMPLES_ABOVE / (1 - quantile) * (1 - 1e-9))


def from_native(
    raw: Mapping[str, Any], raw_unit: str, ns_per_raw: float, step_raw: float = 0.0
) -> Distribution:
    """Return the distribution in what a native probe gave; `step_raw` is the resolution of a raw value."""
    counts = struct.unpack(f"={len(raw['histogram']) // 8}Q", raw["histogram"])
    return _distribution(
        tuple((bucket, count) for bucket, count in enumerate(counts) if count),
        (raw["count"], raw["sum"], raw["min"], raw["max"], raw["out_of_range"]),
        (raw_unit, ns_per_raw, step_raw),
    )


def merged(raws: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return several native distributions of one kind as one; ValueError for none."""
    first, *rest = raws
    histogram = bytearray(first["histogram"])
    total = dict(first)
    for raw in rest:
        _native.histogram_merge(histogram, raw["histogram"])
        for key, combine in (
            ("count", _add),
            ("sum", _add),
            ("out_of_range", _add),
            ("min", min),
            ("max", max),
        ):
            total[key] = combine(total[key], raw[key])
    total["histogram"] = bytes(histogram)
    return total


def _add(a: int, b: int) -> int:
    return a + b


def _distribution(
    buckets: tuple[tuple[int, int], ...],
    totals: tuple[int, int, int, int, int],
    scale: tuple[str, float, float],
) -> Distribution:
    count, total, low, high, out_of_range = totals
    unit, ns_per_raw, step_raw = scale
    histogram = Histogram(unit, ns_per_raw, _native.HISTOGRAM_SUB_BITS, out_of_range, buckets)
    if count == 0:
        absent = tuple(Percentile(q, None, reason="no samples") for q in QUANTILES)
        return Distribution(0, None, None, None, absent, histogram)
    return Distribution(
        count,
        total / count * ns_per_raw,
        low * ns_per_raw,
        high * ns_per_raw,
        _percentiles(histogram, count, step_raw),
        histogram,
    )


def _percentiles(histogram: Histogram, count: int, step_raw: float) -> tuple[Percentile, ...]:
    inside = count - histogram.out_of_range
    # Ranks are those among all samples, so that values beyond the histogram still count as larger.
    quantiles = [q * count / inside for q in QUANTILES if inside and q * count <= inside]
    values = (
        _native.histogram_quantiles(histogram.dense(), [min(q, 1.0) for q in quantiles]) if inside else []
    )
    found = []
    for index, quantile in enumerate(QUANTILES):
        if count < needed_samples(quantile):
            found.append(Percentile(quantile, None, reason=LOW_N))
        elif index >= len(values):
            found.append(Percentile(quantile, None, reason="beyond the histogram's range"))
        else:
            value = values[index]
            error = max(value * BUCKET_ERROR_RATIO if value >= 1 << histogram.sub_bits else 0.0, step_raw)
            found.append(Percentile(quantile, value * histogram.ns_per_raw, error * histogram.ns_per_raw))
    return tuple(found)
