"""The operations of instrumented programs: rates, errors and percentiles of the window."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import TYPE_CHECKING, ClassVar

from cfctl.monitor.durations import Durations, durations_of
from cfctl.monitor.latency import QUANTILES, distribution, window_mean, window_quantile
from cfctl.monitor.metric import Labels, Metric, MetricKind, Subject
from cfctl.monitor.rates import Rates
from cfctl.monitor.shares import share_with_error
from cfctl.monitor.snapshot import Found, Moment, Series, Total
from cfctl.profile.tally import KIND
from cfctl.records import Measurement

if TYPE_CHECKING:
    from cfctl.monitor.segments import LiveSegment
    from cfctl.segment.records import Entry

_LABELS = ("pid", "process", "operation")


class Operations:
    """Reads the operations of the live segments. Histograms of two readings subtract."""

    METRICS: ClassVar[tuple[Metric, ...]] = (
        Metric("operation_rate", "1/s", "Samples of an operation per second.", _LABELS),
        Metric("operation_errors", "ratio", "Share of the samples that failed.", _LABELS),
        Metric("operation_mean", "ns", "Mean duration of an operation.", _LABELS),
        *(
            Metric(
                f"operation_{name}",
                "ns",
                f"Duration that {quantile:.4g} of the samples do not exceed.",
                _LABELS,
            )
            for name, quantile, _ in QUANTILES
        ),
        Metric("operation_samples", "1", "Samples since the process started.", _LABELS, MetricKind.COUNTER),
        Metric("operation_failures", "1", "Samples that failed.", _LABELS, MetricKind.COUNTER),
        Metric("operation_duration", "ns", "Durations of an operation.", _LABELS, MetricKind.HISTOGRAM),
    )

    def __init__(self, subject: Subject) -> None:  # noqa: ARG002 - the segments are the subject's already
        self._before: dict[Hashable, Durations] = {}
        self._rates = Rates()

    def collect(self, moment: Moment) -> Iterable[Found]:
        """Return what the operations did since the last call."""
        seen: dict[Hashable, Durations] = {}
        for segment in moment.segments:
            for entry in segment.entries(KIND):
                whole = durations_of(entry)
                if whole is not None:
                    key = (segment.pid, segment.start_time, entry.name, entry.labels, whole.unit)
                    seen[key] = whole
                    yield from self._of(segment, entry, key, whole, moment)
        self._before = seen
        self._rates.forget_all_but(set(seen))

    def _of(
        self, segment: LiveSegment, entry: Entry, key: Hashable, whole: Durations, moment: Moment
    ) -> Iterable[Found]:
        labels: Labels = (*segment.labels, ("operation", entry.name), *entry.labels)
        who = f"operation '{entry.name}' of process {segment.pid}"
        part = whole.since(self._before.get(key))
        rate = self._rates.per_second(key, moment.monotonic_ns, whole.count, "1/s")
        yield Series("operation_rate", rate, labels, who)
        yield Series("operation_errors", error_share(part), labels, who)
        yield Series("operation_mean", window_mean(part, segment.scale), labels, who)
        for name, quantile, needed in QUANTILES:
            measured = window_quantile(part, segment.scale, quantile, needed)
            yield Series(f"operation_{name}", measured, labels, who)
        yield Total("operation_samples", whole.count, labels)
        if whole.errors is not None:
            yield Total("operation_failures", whole.errors, labels)
        found = distribution("operation_duration", whole, segment.scale, labels)
        if found is not None:
            yield found


SOURCE = Operations


def error_share(part: Durations) -> Measurement:
    """Return the share of failed samples with its 95 % interval (Wilson 1927, as half its width and shift)."""
    if part.errors is None:
        return Measurement.missing("ratio", "not counted")
    return share_with_error(part.errors, part.count)
