"""An operation's counters and histogram: lossless, and mergeable with another's of the same unit."""

from __future__ import annotations

import bisect
import itertools
import math
import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, Final

from cfctl import _native

if TYPE_CHECKING:
    from cfctl.segment.records import Entry

KIND: Final = "operation"
TICKS: Final = "ticks"
NS: Final = "ns"
UNITS: Final = frozenset({TICKS, NS})
# What the fields of an operation's shards must be for a tally.
_COUNTERS: Final = ("count", "errors", "sum", "min", "max", "out_of_range", "first_tick", "last_tick")
_HISTOGRAM: Final = "histogram"

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Tally:
    """What all threads recorded for one operation; durations in `unit`, "ticks" or "ns".

    Named ..._ticks as almost all are; those given to `record` in nanoseconds stay in them. The first
    and the last tick are ticks in any case. `child_sum_ticks` is of the samples that ended directly
    inside of this operation's, so that the sum less it is the time spent in the operation itself.
    `buckets` are (bucket, samples) ascending, without empty ones; samples of 2**40 ticks and more
    are in all fields but the buckets. The two extremes and the two ticks are None without a sample.
    What the source of the numbers does not keep at all is None too (errors, threads), and `gap` says why.
    """

    name: str
    labels: Labels
    count: int
    errors: int | None
    sum_ticks: int
    out_of_range: int
    threads: int | None
    buckets: tuple[tuple[int, int], ...]
    min_ticks: int | None
    max_ticks: int | None
    first_tick: int | None
    last_tick: int | None
    child_sum_ticks: int = 0
    unit: str = TICKS
    gap: str = ""

    @cached_property
    def in_range(self) -> int:
        """Return the number of samples in the buckets."""
        return sum(map(operator.itemgetter(1), self.buckets))

    @property
    def self_ticks(self) -> int:
        """Return the time in the operation itself; 0 where a running program's fields do not agree yet."""
        return max(0, self.sum_ticks - self.child_sum_ticks)

    @cached_property
    def _cumulative(self) -> list[int]:
        return list(itertools.accumulate(map(operator.itemgetter(1), self.buckets)))

    def value_at(self, quantile: float) -> tuple[float, float] | None:
        """Return (value, half width of its bucket) at a quantile, in ticks.

        The bucket is that of the sample of rank ceil(q n), out-of-range samples being the largest;
        None when the rank falls on one of those, or there is no sample.
        """
        rank = max(1, math.ceil(quantile * (self.in_range + self.out_of_range)))
        index = bisect.bisect_left(self._cumulative, rank)
        return _middle(self.buckets[index][0]) if index < len(self.buckets) else None

    def stddev_ticks(self) -> float | None:
        """Return the sample standard deviation of the buckets' middles, None below two samples."""
        if self.in_range < 2:
            return None
        return math.sqrt(self._moments[2] / (self.in_range - 1))

    def least_and_most(self) -> tuple[float, float]:
        """Return the (least, most) that the samples in the buckets can add up to, to 15 digits."""
        return self._moments[:2]

    @cached_property
    def _moments(self) -> tuple[float, float, float]:
        return _native.sparse_moments(self.buckets)


@cache
def _middle(bucket: int) -> tuple[float, float]:
    lowest, width = _native.histogram_bounds(bucket)
    return lowest + (width - 1) / 2, (width - 1) / 2


@cache
def bucket_bounds(bucket: int) -> tuple[int, int]:
    """Return the (lowest, highest) value of a bucket."""
    lowest, width = _native.histogram_bounds(bucket)
    return lowest, lowest + width - 1


def tally_of(entry: Entry) -> Tally | None:
    """Return the tally of an entry of kind "operation", None when its fields are not those of one."""
    values = entry.values
    histogram = values.get(_HISTOGRAM)
    numbers = {name: values.get(name) for name in _COUNTERS}
    fields = {field.name: field for field in entry.fields}
    if not isinstance(histogram, bytes) or not fields.keys() >= numbers.keys():
        return None
    unit = fields[_HISTOGRAM].unit
    if fields[_HISTOGRAM].sub_bits != _native.HISTOGRAM_SUB_BITS or unit not in UNITS:
        return None

    def number(name: str) -> int:
        value = values.get(name)
        return value if isinstance(value, int) else 0

    def seen(name: str) -> int | None:
        value = numbers[name]
        return value if count and isinstance(value, int) else None

    count = number("count")
    return Tally(
        entry.name, entry.labels, count, number("errors"), number("sum"), number("out_of_range"),
        entry.threads, _native.histogram_sparse(histogram), seen("min"), seen("max"), seen("first_tick"),
        seen("last_tick"),
        # Absent from segments of format version 1.
        number("child_sum"), unit,
    )  # fmt: skip


def merge(tallies: Iterable[Tally]) -> tuple[Tally, ...]:
    """Return one tally per name, labels and unit, in the order of their first appearance.

    All must be of the same clock.
    """
    groups: dict[tuple[str, Labels, str], list[Tally]] = {}
    for tally in tallies:
        groups.setdefault((tally.name, tally.labels, tally.unit), []).append(tally)
    return tuple(group[0] if len(group) == 1 else _merged(group) for group in groups.values())


def _merged(group: Sequence[Tally]) -> Tally:
    buckets: dict[int, int] = {}
    for tally in group:
        for bucket, samples in tally.buckets:
            buckets[bucket] = buckets.get(bucket, 0) + samples
    return Tally(
        group[0].name, group[0].labels, sum(t.count for t in group), _total(t.errors for t in group),
        sum(t.sum_ticks for t in group), sum(t.out_of_range for t in group), _total(t.threads for t in group),
        tuple(sorted(buckets.items())),
        min((t.min_ticks for t in group if t.min_ticks is not None), default=None),
        max((t.max_ticks for t in group if t.max_ticks is not None), default=None),
        min((t.first_tick for t in group if t.first_tick is not None), default=None),
        max((t.last_tick for t in group if t.last_tick is not None), default=None),
        sum(t.child_sum_ticks for t in group), group[0].unit, next((t.gap for t in group if t.gap), ""),
    )  # fmt: skip


def _total(parts: Iterable[int | None]) -> int | None:
    """Return the sum, None when a part is not known."""
    total = 0
    for part in parts:
        if part is None:
            return None
        total += part
    return total
