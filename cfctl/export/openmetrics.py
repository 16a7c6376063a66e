"""OpenMetrics text of a profile's operations: counters and a histogram, for Prometheus to scrape or load."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from cfctl.errors import InputError
from cfctl.profile.report import ProfileReport
from cfctl.profile.tally import NS, bucket_bounds
from cfctl.text import safe_text

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

    from cfctl.profile.statistics import OperationStatistics
    from cfctl.records import Document

FORMAT: Final = "openmetrics"
MEDIA_TYPE: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"

# Seconds, in the 1-2-5 series: the same edges for every operation and every run, so that sums
# over instances are sums of like with like.
_EDGES_S: Final = tuple(float(f"{digit}e{power}") for power in range(-8, 3) for digit in (1, 2, 5))
_NS_PER_S: Final = 1e9


def export(document: Document) -> str:
    """Return the exposition; raises InputError for a document that is no profile.

    A sample counts below an edge when the whole of its histogram bucket lies below it, so that an
    edge may count up to 0.8 % of the values around it too late, never too early.
    """
    if not isinstance(document, ProfileReport):
        raise InputError(f"{document.SCHEMA} has no metrics.", "", "Use --format json.")
    from prometheus_client.openmetrics.exposition import generate_latest

    report = document

    class Operations:
        """What prometheus_client collects from: anything that has collect()."""

        def collect(self) -> Iterator[Metric]:
            yield from _families(report)

    text: Any = generate_latest(Operations())  # type: ignore[no-untyped-call]
    return str(text.decode())


def _families(report: ProfileReport) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

    names = ("operation", "labels")
    calls = CounterMetricFamily("cfctl_operation_samples", "Samples of an operation.", labels=names)
    errors = CounterMetricFamily("cfctl_operation_errors", "Samples that failed.", labels=names)
    times = HistogramMetricFamily(
        "cfctl_operation_duration_seconds", "How long samples took.", labels=names, unit="seconds"
    )
    for operation, values in _told_apart(report):
        calls.add_metric(values, operation.count)
        if operation.errors is not None:
            errors.add_metric(values, operation.errors)
        if operation.total.value is not None and operation.total.unit == "ns" and operation.ticks.buckets:
            scale = 1.0 if operation.ticks.unit == NS else report.clocks[operation.clock].scale.per_tick
            times.add_metric(
                values, _buckets(operation, scale / _NS_PER_S), operation.total.value / _NS_PER_S
            )
    yield calls
    yield errors
    yield times


def _told_apart(report: ProfileReport) -> Iterator[tuple[OperationStatistics, list[str]]]:
    """Yield the operations with their label values; of two rows of one name, from two clocks, one."""
    seen: set[tuple[str, str]] = set()
    for operation in report.operations:
        labels = ",".join(f"{safe_text(key)}={safe_text(value)}" for key, value in operation.labels)
        key = (safe_text(operation.name), labels)
        if key not in seen:
            seen.add(key)
            yield operation, list(key)


def _buckets(operation: OperationStatistics, s_per_tick: float) -> Sequence[tuple[str, float]]:
    ends = [(bucket_bounds(bucket)[1] * s_per_tick, samples) for bucket, samples in operation.ticks.buckets]
    counts: list[tuple[str, float]] = []
    index = seen = 0
    for edge in _EDGES_S:
        while index < len(ends) and ends[index][0] <= edge:
            seen += ends[index][1]
            index += 1
        counts.append((str(edge), seen))
    whole = sum(samples for _, samples in ends) + operation.out_of_range
    return [*counts, ("+Inf", whole)]
