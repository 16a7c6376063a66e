"""A snapshot as Prometheus metric families: the full cfctl_* set, and the guide's chronofabric_* names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from cfctl.monitor.latency import EDGES_NS
from cfctl.monitor.ledger import Ledger
from cfctl.monitor.metric import MetricKind, all_metrics
from cfctl.monitor.text_format import Family
from cfctl.text import safe_text

if TYPE_CHECKING:
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


_Series = dict[tuple[str, ...], tuple[float, ...]]


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
        """Return all families of a snapshot that have a series."""
        self.ledger.update(snapshot)
        values = _values(snapshot)
        found = (
            *(self._family(metric, values.get(name, {})) for name, metric in all_metrics().items()),
            *self._own(alerts, config_good),
            *guide_families(snapshot, self.ledger),
        )
        return tuple(family for family in found if family.series)

    def _family(self, metric: Metric, values: _Series) -> Family:
        placed, folded = self._placed(metric, values)
        self.dropped += len(folded)
        series = {labels: values[labels] for labels in placed}
        # Counters have a sum; gauges and quantiles of many have none.
        if folded and metric.kind is MetricKind.COUNTER:
            rest = sum(values[labels][0] for labels in folded)
            series[(OTHER,) * len(label_names(metric))] = (rest,)
        edges = _EDGES if metric.kind is MetricKind.HISTOGRAM else ()
        return Family(family_name(metric), metric.kind, metric.meaning, label_names(metric), series, edges)

    def _placed(self, metric: Metric, values: _Series) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
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
        firing: _Series = {
            (alert.target, str(alert.severity), safe_text(alert.subject)): (float(alert.state == "firing"),)
            for alert in alerts
        }
        yield Family(
            "cfctl_alert_firing", MetricKind.GAUGE, "1 for an alert that fires, 0 for a pending one.",
            ("target", "severity", "subject"), firing,
        )  # fmt: skip
        yield _single(
            "cfctl_series_dropped", MetricKind.COUNTER,
            "Series beyond the cap of their metric, at each collection.", self.dropped,
        )  # fmt: skip
        yield _single(
            "cfctl_config_last_reload_successful", MetricKind.GAUGE,
            "1 when the configuration in force is the file's.", config_good,
        )  # fmt: skip


def _single(name: str, kind: MetricKind, meaning: str, value: float) -> Family:
    return Family(name, kind, meaning, (), {(): (value,)})


def _values(snapshot: Snapshot) -> dict[str, _Series]:
    """Return what the series of each metric hold, in Prometheus' units; counters of equal labels are added up."""
    metrics = all_metrics()
    found: dict[str, _Series] = {name: {} for name in metrics}
    for series in snapshot.series:
        metric, value = metrics.get(series.metric), series.measurement.value
        if metric is not None and value is not None:
            found[metric.name][_label_values(metric, series.labels)] = (value * factor(metric),)
    for total in snapshot.totals:
        metric = metrics.get(total.metric)
        if metric is not None:
            labels = _label_values(metric, total.labels)
            (before,) = found[metric.name].get(labels, (0.0,))
            found[metric.name][labels] = (before + total.value * factor(metric),)
    for each in snapshot.distributions:
        metric = metrics.get(each.metric)
        if metric is not None:
            found[metric.name][_label_values(metric, each.labels)] = _histogram(each)
    return found


@lru_cache(maxsize=1 << 14)
def _label_values(metric: Metric, labels: Labels) -> tuple[str, ...]:
    """Return the values of a series' labels in the order of its family's names, cleaned."""
    known = dict(labels)
    values = tuple(safe_text(known.get(name, "")) for name in metric.labels)
    if not _is_instrument(metric):
        return values
    return (*values, ",".join(f"{safe_text(k)}={safe_text(v)}" for k, v in labels if k not in metric.labels))


def _histogram(found: Distribution, edges_ns: tuple[int, ...] | None = None) -> tuple[float, ...]:
    below = [seen for edge, seen in found.cumulative if edges_ns is None or edge in edges_ns]
    return (*below, found.count, found.count, found.sum_ns * 1e-9)


def _le(edges_ns: tuple[int, ...]) -> tuple[str, ...]:
    return (*(repr(edge / 1e9) for edge in edges_ns), "+Inf")


_EDGES: Final = _le(EDGES_NS)
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
    for name, metric, scale, combine, meaning in GUIDE_GAUGES:
        values = [s.measurement.value for s in snapshot.of(metric) if s.measurement.value is not None]
        if values:
            yield _single(f"chronofabric_{name}", MetricKind.GAUGE, meaning, combine(values) * scale)
    for name, metric, meaning in GUIDE_COUNTERS:
        yield _single(f"chronofabric_{name}", MetricKind.COUNTER, meaning, ledger.total(metric))
    whole = ledger.distribution("message_latency")
    if whole is not None:
        yield Family(
            "chronofabric_message_latency_seconds", MetricKind.HISTOGRAM,
            "From publishing to receiving a message.", (), {(): _histogram(whole, _GUIDE_EDGES_NS)},
            _le(_GUIDE_EDGES_NS),
        )  # fmt: skip
