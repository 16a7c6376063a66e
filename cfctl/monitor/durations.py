"""An instrument's durations as a monitor reads them again and again: counters and a dense histogram.

A report keeps the filled buckets (cfctl.profile.tally); a monitor subtracts two readings each second,
which takes microseconds on the buffers as they are, and a tenth of a millisecond on pairs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from typing import TYPE_CHECKING

from cfctl import _native
from cfctl.profile.tally import UNITS
from cfctl.segment.format import U64_MAX
from cfctl.segment.merge import merge_histograms

if TYPE_CHECKING:
    from cfctl.segment.records import Entry


@dataclass(frozen=True)
class Durations:
    """What an instrument counted: durations in `unit`, "ticks" or "ns", and how many failed.

    `histogram` is a buffer of native uint64 buckets. `count` and `total` are of all samples, also of the
    `out_of_range` ones that are in no bucket. `errors` is None where they are not counted.
    """

    unit: str
    count: int
    errors: int | None
    total: int
    out_of_range: int
    histogram: bytes

    def since(self, earlier: Durations | None) -> Durations:
        """Return what came after an earlier reading of the same instrument, None being the beginning."""
        # A program that writes other buckets under the same name tells nothing that can be subtracted.
        if earlier is None or len(earlier.histogram) != len(self.histogram):
            return self
        errors = None if self.errors is None else max(0, self.errors - (earlier.errors or 0))
        return Durations(
            self.unit, max(0, self.count - earlier.count), errors, max(0, self.total - earlier.total),
            max(0, self.out_of_range - earlier.out_of_range),
            _native.histogram_since(self.histogram, earlier.histogram),
        )  # fmt: skip

    @property
    def in_range(self) -> int:
        """Return the number of samples in the buckets."""
        return self._moments[0]

    @property
    def stddev(self) -> float | None:
        """Return the sample standard deviation of the buckets' middles, None below two samples."""
        samples, squares = self._moments
        return (squares / (samples - 1)) ** 0.5 if samples > 1 else None

    def at_ranks(self, *ranks: int) -> tuple[tuple[int, int] | None, ...]:
        """Return the (lowest, highest) value of the buckets of ascending ranks from 1; None out of range."""
        found = _native.histogram_at_ranks(self.histogram, tuple(min(rank, U64_MAX) for rank in ranks))
        return tuple(None if bucket is None else _bounds(bucket) for bucket in found)

    def below(self, scale: float, edges: tuple[float, ...]) -> tuple[int, ...]:
        """Return the samples in buckets whose highest value times `scale` is at or below ascending edges."""
        return _native.histogram_below(self.histogram, scale, edges)

    @cached_property
    def _moments(self) -> tuple[int, float]:
        return _native.histogram_moments(self.histogram)


def _bounds(bucket: int) -> tuple[int, int]:
    lowest, width = _native.histogram_bounds(bucket)
    return lowest, lowest + width - 1


def durations_of(entry: Entry, histogram: str = "histogram", count: str = "count") -> Durations | None:
    """Return an entry's durations, None when it has no such histogram; `count` names its counter.

    Errors, sum and out-of-range samples are those of the fields of these names, where there are any.
    """
    field = next((field for field in entry.fields if field.name == histogram), None)
    buckets = entry.values.get(histogram)
    if field is None or not isinstance(buckets, bytes) or field.unit not in UNITS:
        return None
    if field.sub_bits != _native.HISTOGRAM_SUB_BITS:
        return None

    def number(name: str) -> int:
        value = entry.values.get(name)
        return value if isinstance(value, int) else 0

    errors = number("errors") if any(field.name == "errors" for field in entry.fields) else None
    return Durations(field.unit, number(count), errors, number("sum"), number("out_of_range"), buckets)


def added(parts: Iterable[Durations]) -> Durations | None:
    """Return the sum of durations of one clock and one unit, None of nothing; those of another unit are left out."""
    found = list(parts)
    alike = [part for part in found if part.unit == found[0].unit]
    return reduce(_sum, alike) if alike else None


def _sum(one: Durations, other: Durations) -> Durations:
    if len(one.histogram) != len(other.histogram):
        return one
    return replace(
        one,
        count=one.count + other.count,
        total=one.total + other.total,
        out_of_range=one.out_of_range + other.out_of_range,
        histogram=merge_histograms([one.histogram, other.histogram]),
    )
