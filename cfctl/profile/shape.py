"""The whole distribution of one operation: its histogram in buckets and in percentiles."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, ClassVar

from cfctl.errors import InputError
from cfctl.profile.tally import NS, bucket_bounds
from cfctl.records import Document

if TYPE_CHECKING:
    from cfctl.profile.report import ProfileReport
    from cfctl.profile.statistics import OperationStatistics


@dataclass(frozen=True, slots=True)
class ShapeBucket:
    """A filled bucket: samples from `low` up to and without `high`; `cumulative` is 0..1 up to its end."""

    low: float
    high: float
    samples: int
    cumulative: float


@dataclass(frozen=True, slots=True)
class OperationShape(Document):
    """The filled buckets of one operation, in ns, or ticks where the clock's rate is not known.

    `out_of_range` samples lie above all of them, and `cumulative` counts them.
    """

    SCHEMA: ClassVar[str] = "cfctl.profile.histogram"
    VERSION: ClassVar[int] = 1
    ROWS: ClassVar[str | None] = "buckets"
    unit: str
    unit_per_tick: float
    operation: OperationStatistics
    out_of_range: int
    buckets: tuple[ShapeBucket, ...]


def operation_shape(report: ProfileReport, name: str) -> OperationShape:
    """Return the distribution of the operation of that name, or of the only one that matches it as a glob.

    Raises InputError when there is none, or more than one.
    """
    operation = _only(report, name)
    per_tick = 1.0 if operation.ticks.unit == NS else report.clocks[operation.clock].scale.per_tick
    whole = sum(samples for _, samples in operation.ticks.buckets) + operation.out_of_range
    buckets: list[ShapeBucket] = []
    seen = 0
    for bucket, samples in operation.ticks.buckets:
        low, high = bucket_bounds(bucket)
        seen += samples
        buckets.append(ShapeBucket(low * per_tick, (high + 1) * per_tick, samples, seen / whole))
    return OperationShape(operation.total.unit, per_tick, operation, operation.out_of_range, tuple(buckets))


def _only(report: ProfileReport, name: str) -> OperationStatistics:
    named = [o for o in report.operations if o.name == name]
    matching = named or [o for o in report.operations if fnmatchcase(o.name, name)]
    if len(matching) == 1:
        return matching[0]
    if matching:
        names = ", ".join(sorted({_full_name(o) for o in matching})[:5])
        raise InputError(f"'{name}' names {len(matching)} operations.", f"They are: {names}.", "Name one.")
    import difflib

    known = [o.name for o in report.operations]
    near = difflib.get_close_matches(name, known, 3, 0.4) or known[:3]
    raise InputError(
        f"There is no operation '{name}'.",
        f"There are: {', '.join(near)}." if near else "There is none at all.",
    )


def _full_name(operation: OperationStatistics) -> str:
    labels = ", ".join(f"{key}={value}" for key, value in operation.labels)
    return f"{operation.name}{{{labels}}}" if labels else operation.name
