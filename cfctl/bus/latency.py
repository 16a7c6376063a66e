"""A histogram of the bus as percentiles with their error, and the part of it that a window added."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cfctl import _native
from cfctl.records import Measurement

if TYPE_CHECKING:
    from cfctl.segment.records import Entry

LOW_N: Final = "low n"
# Name, quantile and the samples it takes: 10 / (1 - q).
QUANTILES: Final = (("p50", 0.5, 20), ("p90", 0.9, 100), ("p99", 0.99, 1_000), ("p99_9", 0.999, 10_000))
_NO_RATE: Final = "the clock's rate is not known"


@dataclass(frozen=True, slots=True)
class Latency:
    """Percentiles in ns of `count` durations; a percentile q is missing below 10 / (1 - q) of them.

    The error is half a bucket (0.4 %), or one step of the clock. `max` is of the whole run. `buckets` are
    (bucket, samples) of a histogram with 128 sub-buckets per power of two, in units of `ns_per_unit`.
    """

    count: int
    mean: Measurement
    p50: Measurement
    p90: Measurement
    p99: Measurement
    p99_9: Measurement
    max: Measurement
    buckets: tuple[tuple[int, int], ...]
    out_of_range: int
    ns_per_unit: float | None


def latency_of(
    entry: Entry | None, count_field: str, ns_per_unit: float | None, before: Entry | None = None
) -> Latency:
    """Return the latencies of an entry with a histogram, since `before` when that is given."""
    values: Mapping[str, object] = {} if entry is None else entry.values
    earlier: Mapping[str, object] = {} if before is None else before.values
    histogram = _part(values.get("histogram"), earlier.get("histogram"))
    count, total, beyond = (
        max(0, integer(values, name) - integer(earlier, name))
        for name in (count_field, "sum", "out_of_range")
    )
    make = _Maker(histogram, count, beyond, ns_per_unit)
    mean = make.missing() or make.measured(total / count, "sum over count")
    whole_count = integer(values, count_field)
    most = make.missing(whole_count) or make.measured(integer(values, "max"), "kept beside the histogram")
    quantiles = [make.quantile(quantile, needed) for _, quantile, needed in QUANTILES]
    p50, p90, p99, p99_9 = quantiles
    sparse = _native.histogram_sparse(histogram) if histogram else ()
    return Latency(count, mean, p50, p90, p99, p99_9, most, sparse, beyond, ns_per_unit)


def integer(values: Mapping[str, object], field: str) -> int:
    """Return a count of an entry's values, 0 where it has none."""
    value = values.get(field)
    return value if isinstance(value, int) else 0


def _part(now: object, before: object) -> bytes:
    """Return the samples of a histogram that an earlier one of it has not; b"" for other buckets than ours."""
    if not isinstance(now, bytes) or len(now) != 8 * _native.HISTOGRAM_BUCKETS:
        return b""
    if not isinstance(before, bytes) or len(before) != len(now):
        return now
    pairs = zip(array("Q", now), array("Q", before), strict=True)
    return array("Q", [max(0, later - earlier) for later, earlier in pairs]).tobytes()


@dataclass(frozen=True, slots=True)
class _Maker:
    histogram: bytes
    count: int
    beyond: int
    ns_per_unit: float | None

    def missing(self, count: int | None = None) -> Measurement | None:
        if (self.count if count is None else count) == 0:
            return Measurement.missing("ns", "no messages")
        return Measurement.missing("ns", _NO_RATE) if self.ns_per_unit is None else None

    def measured(self, units: float, method: str) -> Measurement:
        assert self.ns_per_unit is not None
        # Half a bucket of 1/128, or a step of the clock that made both stamps.
        error = max(units / 256, 1.0) * self.ns_per_unit
        return Measurement(units * self.ns_per_unit, "ns", error, self.count, method)

    def quantile(self, quantile: float, needed: int) -> Measurement:
        if (missing := self.missing()) is not None:
            return missing
        if self.count < needed or not self.histogram:
            return Measurement.missing("ns", LOW_N)
        # Samples beyond the histogram are the largest.
        inside = max(0, self.count - self.beyond)
        share = quantile * self.count / inside if inside else 2.0
        found = _native.histogram_quantiles(self.histogram, [share]) if share <= 1 else []
        if not found:
            return Measurement.missing("ns", "beyond the histogram's range")
        return self.measured(found[0], "histogram")
