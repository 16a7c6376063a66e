"""A snapshot as Prometheus metric families: the full cfctl_* set, and the guide's chronofabric_* names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from cfctl.monitor.ledger import Ledger
from cfctl.monitor.metric import MetricKind, all_metrics
from cfctl.text import safe_text

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric as Family

    from cfctl.monitor.alerts import PerformanceAlert
    from cfctl.monitor.metric import Labels, Metric
    from cfctl.monitor.snapshot import Distribution, Snapshot

# The unit of a metric here, its name and factor there. Source: Prometheus, "Metric and label naming".
_UNITS: Final = {
    "ns": ("_seconds", 1e-9), "B": ("_bytes", 1.0), "ratio": ("_ratio", 1.0), "1": ("", 1.0),
    "1/s": ("_per_second", 1.0), "B/s": ("_bytes_per_second", 1.0),
}  # fmt: skip
# Series of one metric; more are one series whose labels are all "other".
SERIES_PER_METRIC: Final = 1000
OTHER: Final = "other"
# Labels an instrument was given by its program, joined in one: a family's label names are fixed.
_OWN: Final = "labels"
# The guide's buckets, as edges of ours.
_GUIDE_EDGES_NS: Final = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)


def family_name(metric: Metric) -> str:
    """Return a metric's name for Prometheus, without the _total of a counter."""
    return f"cfctl_{metric.name}{_UNITS[metric.unit][0]}"


def factor(metric: Metric) -> float:
    """Return what a value in the metric's unit is multiplied by for Prometheus."""
    return _UNITS[metric.unit][1]


def label_names(metric: Metric) -> tuple[str, ...]:
    """Return the label names of a metric's family."""
    return (*metric.labels, _OWN) if _is_instrument(metric) else metric.labels


def _is_instrument(metric: Metric) -> bool:
    """Return whether a program can give its series labels of their own."""
    return "process" in metric.labels


@dataclass
class Exposition:
    """Makes families of one snapshot after the other, and remembers which series have a place.

    A series keeps its place as long as it is there. Not thread-safe.
    """

    most: int = SERIES_PER_METRIC
    ledger: Ledger = field(default_factory=Ledger)
    dropped: int = 0
    _places: dict[str, dict[tuple[str, ...], None]] = field(default_factory=dict)

    def families(
        self, snapshot: Snapshot, alerts: Iterable[PerformanceAlert] = (), config_good: bool = True
    ) -> tuple[Family, ...]:
        """Return all families of a snapshot."""
        self.ledger.update(snapshot)
        return (
            *self._gauges(snapshot),
            *self._counters(snapshot),
            *self._histograms(snapshot),
            *self._own(alerts, config_good),
            *guide_families(snapshot, self.ledger),
        )

    def _gauges(self, snapshot: Snapshot) -> Iterator[Family]:
        from prometheus_client.core import GaugeMetricFamily

        for metric in _of_kind(MetricKind.GAUGE):
            family = GaugeMetricFamily(family_name(metric), metric.meaning, labels=label_names(metric))
            values = {
                _label_values(metric, s.labels): s.measurement.value * factor(metric)
                for s in snapshot.of(metric.name)
                if s.measurement.value is not None
            }
            placed, folded = self._placed(metric, values)
            # Values that are no sums have no common one.
            self.dropped += len(folded)
            for labels in placed:
                family.add_metric(labels, values[labels])
            if family.samples:
                yield family

    def _counters(self, snapshot: Snapshot) -> Iterator[Family]:
        from prometheus_client.core import CounterMetricFamily

        for metric in _of_kind(MetricKind.COUNTER):
            family = CounterMetricFamily(family_name(metric), metric.meaning, labels=label_names(metric))
            values: dict[tuple[str, ...], float] = {}
            for total in snapshot.totals:
                if total.metric == metric.name:
                    labels = _label_values(metric, total.labels)
                    values[labels] = values.get(labels, 0.0) + total.value * factor(metric)
            placed, folded = self._placed(metric, values)
            for labels in placed:
                family.add_metric(labels, values[labels])
            if folded:
                self.dropped += len(folded)
                family.add_metric(
                    [OTHER] * len(label_names(metric)), sum(values[labels] for labels in folded)
                )
            if family.samples:
                yield family

    def _histograms(self, snapshot: Snapshot) -> Iterator[Family]:
        from prometheus_client.core import HistogramMetricFamily

        for metric in _of_kind(MetricKind.HISTOGRAM):
            family = HistogramMetricFamily(family_name(metric), metric.meaning, labels=label_names(metric))
            found: dict[tuple[str, ...], Distribution] = {
                _label_values(metric, d.labels): d for d in snapshot.distributions if d.metric == metric.name
            }
            placed, folded = self._placed(metric, found)
            self.dropped += len(folded)
            for labels in placed:
                family.add_metric(labels, _buckets(found[labels]), sum_value=found[labels].sum_ns * 1e-9)
            if family.samples:
                yield family

    def _placed(
        self, metric: Metric, values: dict[tuple[str, ...], Any]
    ) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
        """Return the series that have a place and those that have none; who is gone makes room."""
        places = self._places.setdefault(metric.name, {})
        for labels in [labels for labels in places if labels not in values]:
            del places[labels]
        folded = []
        for labels in values:
            if labels in places or len(places) < self.most:
                places[labels] = None
            else:
                folded.append(labels)
        return list(places), folded

    def _own(self, alerts: Iterable[PerformanceAlert], config_good: bool) -> Iterator[Family]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        firing = GaugeMetricFamily(
            "cfctl_alert_firing", "1 for an alert that fires, 0 for a pending one.",
            labels=("target", "severity", "subject"),
        )  # fmt: skip
        states = {(a.target, str(a.severity), safe_text(a.subject)): a.state == "firing" for a in alerts}
        for labels, fires in states.items():
            firing.add_metric(labels, float(fires))
        yield firing
        yield CounterMetricFamily(
            "cfctl_series_dropped",
            "Series beyond the cap of their metric, at each collection.",
            value=self.dropped,
        )
        yield GaugeMetricFamily(
            "cfctl_config_last_reload_successful", "1 when the configuration in force is the file's.",
            value=float(config_good),
        )  # fmt: skip


def _of_kind(kind: MetricKind) -> list[Metric]:
    return [metric for metric in all_metrics().values() if metric.kind is kind]


def _label_values(metric: Metric, labels: Labels) -> tuple[str, ...]:
    """Return the values of a series' labels in the order of its family's names, cleaned."""
    known = dict(labels)
    values = tuple(safe_text(known.get(name, "")) for name in metric.labels)
    if not _is_instrument(metric):
        return values
    return (*values, ",".join(f"{safe_text(k)}={safe_text(v)}" for k, v in labels if k not in metric.labels))


def _buckets(found: Distribution, edges_ns: tuple[int, ...] | None = None) -> list[tuple[str, float]]:
    chosen = [(edge, seen) for edge, seen in found.cumulative if edges_ns is None or edge in edges_ns]
    return [*((repr(edge / 1e9), float(seen)) for edge, seen in chosen), ("+Inf", float(found.count))]


GUIDE_GAUGES: Final = (
    ("throughput_messages_per_second", "message_rate", 1.0, sum, "Messages delivered per second."),
    ("active_subscriptions", "active_subscriptions", 1.0, sum, "Subscriptions that are open."),
    ("cpu_usage_percent", "cpu_utilization", 100.0, max, "CPU time of the machine that was not idle."),
    ("memory_usage_bytes", "memory_used", 1.0, max, "Memory of the machine that is in use."),
    (
        "quantum_coherence_score",
        "phase_coherence",
        1.0,
        min,
        "Phase coherence of the dispatchers, the least.",
    ),
    ("hlc_drift_nanoseconds", "hlc_drift", 1.0, max, "How far a hybrid logical clock runs ahead, the most."),
)
GUIDE_COUNTERS: Final = (
    ("messages_published", "messages_published", "Messages accepted."),
    ("messages_delivered", "messages_delivered", "Messages received, once for each subscription."),
    ("messages_dropped", "messages_dropped", "Messages lost after they were accepted."),
    ("causality_violations", "causality_violations", "Messages against the order of their causes."),
)


def guide_families(snapshot: Snapshot, ledger: Ledger) -> Iterator[Family]:
    """Yield the guide's families: one series each, over all processes, also those that ended.

    A gauge without any value is left out; it is never 0 for want of one.
    """
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

    for name, metric, scale, combine, meaning in GUIDE_GAUGES:
        values = [s.measurement.value for s in snapshot.of(metric) if s.measurement.value is not None]
        if values:
            yield GaugeMetricFamily(f"chronofabric_{name}", meaning, value=combine(values) * scale)
    for name, metric, meaning in GUIDE_COUNTERS:
        yield CounterMetricFamily(f"chronofabric_{name}", meaning, value=ledger.total(metric))
    whole = ledger.distribution("message_latency")
    if whole is not None:
        yield HistogramMetricFamily(
            "chronofabric_message_latency_seconds", "From publishing to receiving a message.",
            buckets=_buckets(whole, _GUIDE_EDGES_NS), sum_value=whole.sum_ns * 1e-9,
        )  # fmt: skip
