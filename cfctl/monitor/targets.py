"""Targets: a metric, an operator, a threshold, how much it matters, and when a miss becomes an alert."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

from cfctl.errors import InputError
from cfctl.records import Measurement, Verdict

if TYPE_CHECKING:
    from cfctl.monitor.metric import Labels
    from cfctl.monitor.snapshot import Series, Snapshot

BUILT_IN: Final = "built-in"
# A spike of one window is no alert, and noise around a threshold must not flap: without these two a
# thousand noisy seconds fire some hundred times, with them once.
FOR_NS: Final = 5_000_000_000
KEEP_FIRING_FOR_NS: Final = 30_000_000_000


class TargetSeverity(enum.StrEnum):
    """How much a missed target matters; info is reported and never changes the verdict of the check."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


class Operator(enum.StrEnum):
    """How a value stands to its threshold; `within` is about the value without its sign."""

    BELOW = "<"
    AT_MOST = "<="
    ABOVE = ">"
    AT_LEAST = ">="
    WITHIN = "within"


class NoData(enum.StrEnum):
    """What an alert does while its metric has no value: stay as it is, end, or fire.

    In a check such a target is inconclusive, not applicable, or missed.
    """

    KEEP = "keep"
    OK = "ok"
    ALERT = "alert"


@dataclass(frozen=True, slots=True)
class Target:
    """One target; `threshold` and `recovery` are in the metric's base unit, times in ns.

    `where` are (label, pattern) pairs that a series must match. A miss that lasts `for_ns` fires; what
    fires ends once the value is beyond `recovery` (the threshold without one) for `keep_firing_for_ns`.
    `source` is a file, "file:line" or "built-in". `under_load`: an idle program would miss it, so it is
    judged in a bench, or where it is named.
    """

    name: str
    metric: str
    operator: Operator
    threshold: float
    unit: str
    severity: TargetSeverity
    source: str = BUILT_IN
    where: Labels = ()
    for_ns: int = FOR_NS
    keep_firing_for_ns: int = KEEP_FIRING_FOR_NS
    recovery: float | None = None
    no_data: NoData = NoData.KEEP
    under_load: bool = False

    def judge(self, measurement: Measurement, threshold: float | None = None) -> Verdict:
        """Return pass or fail when the whole uncertainty interval lies on one side, else inconclusive.

        Against `threshold` where one is given, such as the recovery threshold.
        """
        if measurement.value is None or measurement.uncertainty is None:
            return Verdict.INCONCLUSIVE
        limit = self.threshold if threshold is None else threshold
        low = measurement.value - measurement.uncertainty
        high = measurement.value + measurement.uncertainty
        if self.operator is Operator.WITHIN:
            low, high = (0.0 if low <= 0 <= high else min(abs(low), abs(high))), max(abs(low), abs(high))
        answers = {self._holds(low, limit), self._holds(high, limit)}
        if len(answers) == 2:
            return Verdict.INCONCLUSIVE
        return Verdict.PASS if answers.pop() else Verdict.FAIL

    def margin(self, measurement: Measurement) -> float | None:
        """Return by how much the value is on the good side of the threshold, negative on the bad one."""
        if measurement.value is None:
            return None
        if self.operator in {Operator.ABOVE, Operator.AT_LEAST}:
            return measurement.value - self.threshold
        value = abs(measurement.value) if self.operator is Operator.WITHIN else measurement.value
        return self.threshold - value

    def matching(self, snapshot: Snapshot) -> tuple[Series, ...]:
        """Return the series of a snapshot that this target is about."""
        return tuple(series for series in snapshot.of(self.metric) if self._concerns(dict(series.labels)))

    def _concerns(self, labels: dict[str, str]) -> bool:
        return all(name in labels and fnmatchcase(labels[name], pattern) for name, pattern in self.where)

    def _holds(self, value: float, limit: float) -> bool:
        match self.operator:
            case Operator.BELOW:
                return value < limit
            case Operator.ABOVE:
                return value > limit
            case Operator.AT_LEAST:
                return value >= limit
            case Operator.AT_MOST | Operator.WITHIN:
                return value <= limit


def _guide(
    name: str, metric: str, operator: Operator, threshold: float, unit: str,
    severity: TargetSeverity = TargetSeverity.WARNING, *, under_load: bool = False,
) -> Target:  # fmt: skip
    """Return a target of the guide for an instrument that not every program has."""
    return Target(name, metric, operator, threshold, unit, severity, no_data=NoData.OK, under_load=under_load)


# The seed guide's "Performance Targets" and the thresholds of its alerts. Its latency is an average, which
# hides stalls: that one is told and not judged.
BUILT_IN_TARGETS: Final = (
    Target("temporal-accuracy", "temporal_accuracy", Operator.WITHIN, 10.0, "ns", TargetSeverity.WARNING),
    Target("cpu-utilization", "cpu_utilization", Operator.BELOW, 0.8, "ratio", TargetSeverity.WARNING),
    Target("memory", "memory_rss", Operator.BELOW, 100e6, "B", TargetSeverity.WARNING),
    _guide("latency-p99", "message_latency_p99", Operator.BELOW, 1000.0, "ns"),
    _guide("latency-mean", "message_latency_mean", Operator.BELOW, 1000.0, "ns", TargetSeverity.INFO),
    _guide("throughput", "message_rate", Operator.ABOVE, 1e6, "1/s", under_load=True),
    _guide("packet-loss", "packet_loss", Operator.BELOW, 1e-4, "ratio", TargetSeverity.CRITICAL),
    _guide("phase-coherence", "phase_coherence", Operator.AT_LEAST, 0.7, "ratio"),
)


def select(targets: tuple[Target, ...], names: Iterable[str]) -> tuple[Target, ...]:
    """Return the named targets, all of them without a name; raises InputError for an unknown one."""
    known = {target.name: target for target in targets}
    for name in names:
        if name not in known:
            raise InputError(f"There is no target '{name}'.", f"Targets: {', '.join(known)}.")
    return tuple(known[name] for name in dict.fromkeys(names)) or targets


def without_load(targets: tuple[Target, ...], names: Iterable[str] = ()) -> tuple[Target, ...]:
    """Return the targets that can be judged however little a program has to do, and the named ones."""
    named = set(names)
    return tuple(target for target in targets if not target.under_load or target.name in named)
