"""HdrHistogram's percentile distribution (.hgrm), which its plotters read: one block for each operation.

Format: AbstractHistogram.outputPercentileDistribution of HdrHistogram. Times are in microseconds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from cfctl.errors import InputError
from cfctl.profile.report import ProfileReport
from cfctl.profile.tally import NS, bucket_bounds
from cfctl.text import safe_text

if TYPE_CHECKING:
    from cfctl.profile.statistics import OperationStatistics
    from cfctl.records import Document

FORMAT: Final = "hgrm"
MEDIA_TYPE: Final = "text/plain"

_NS_PER_US: Final = 1000.0


def export(document: Document) -> str:
    """Return the distributions, each after a comment with its name; raises InputError for other documents.

    Operations without a histogram, or of a clock whose rate is not known, are named and left out.
    """
    if not isinstance(document, ProfileReport):
        raise InputError(
            f"{document.SCHEMA} has no histograms.", "hgrm holds nothing else.", "Use --format json."
        )
    blocks = [_block(document, operation) for operation in document.operations]
    return "\n".join(blocks)


def _block(report: ProfileReport, operation: OperationStatistics) -> str:
    labels = ", ".join(f"{key}={value}" for key, value in operation.labels)
    name = safe_text(f"{operation.name}{{{labels}}}" if labels else operation.name)
    if operation.total.unit != "ns" or not operation.ticks.buckets:
        return f"#[{name}: left out, it has no histogram in ns]\n"
    scale = 1.0 if operation.ticks.unit == NS else report.clocks[operation.clock].scale.per_tick
    lines = [
        f"#[{name}, us]",
        f"{'Value':>12} {'Percentile':>14} {'TotalCount':>10} {'1/(1-Percentile)':>14}",
        "",
    ]
    lines += _rows(operation, scale / _NS_PER_US)
    return "\n".join([*lines, *_footer(operation)]) + "\n"


def _rows(operation: OperationStatistics, us_per_tick: float) -> Iterator[str]:
    whole = sum(samples for _, samples in operation.ticks.buckets) + operation.out_of_range
    seen = 0
    for bucket, samples in operation.ticks.buckets:
        seen += samples
        share = seen / whole
        inverse = f"{1 / (1 - share):14.2f}" if seen < whole else " " * 14
        yield f"{bucket_bounds(bucket)[1] * us_per_tick:12.3f} {share:2.12f} {seen:10d} {inverse}".rstrip()


def _footer(operation: OperationStatistics) -> Iterator[str]:
    mean, stddev, largest = operation.mean.value, operation.stddev.value, operation.max.value

    def us(value_ns: float | None) -> str:
        return f"{math.nan if value_ns is None else value_ns / _NS_PER_US:12.3f}"

    yield f"#[Mean    = {us(mean)}, StdDeviation   = {us(stddev)}]"
    yield f"#[Max     = {us(largest)}, Total count    = {operation.count:12d}]"
    yield f"#[Buckets = {34:12d}, SubBuckets     = {128:12d}]"
