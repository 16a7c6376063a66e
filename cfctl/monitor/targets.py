"""Targets: a metric, an operator, a threshold and how much it matters; built in or from TOML tables."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from cfctl.errors import ConfigError, InputError
from cfctl.monitor.metric import all_metrics
from cfctl.records import Measurement, Verdict
from cfctl.units import parse_quantity

BUILT_IN: Final = "built-in"


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


@dataclass(frozen=True, slots=True)
class Target:
    """One target; `threshold` is in the metric's base unit, `source` is its file or "built-in"."""

    name: str
    metric: str
    operator: Operator
    threshold: float
    unit: str
    severity: TargetSeverity
    source: str = BUILT_IN

    def judge(self, measurement: Measurement) -> Verdict:
        """Return pass or fail when the whole uncertainty interval lies on one side, else inconclusive."""
        if measurement.value is None or measurement.uncertainty is None:
            return Verdict.INCONCLUSIVE
        low = measurement.value - measurement.uncertainty
        high = measurement.value + measurement.uncertainty
        if self.operator is Operator.WITHIN:
            low, high = (0.0 if low <= 0 <= high else min(abs(low), abs(high))), max(abs(low), abs(high))
        answers = {self._holds(low), self._holds(high)}
        if len(answers) == 2:
            return Verdict.INCONCLUSIVE
        return Verdict.PASS if answers.pop() else Verdict.FAIL

    def _holds(self, value: float) -> bool:
        match self.operator:
            case Operator.BELOW:
                return value < self.threshold
            case Operator.ABOVE:
                return value > self.threshold
            case Operator.AT_LEAST:
                return value >= self.threshold
            case Operator.AT_MOST | Operator.WITHIN:
                return value <= self.threshold


# The seed guide's "Performance Targets", as far as they can be measured without a message bus.
BUILT_IN_TARGETS: Final = (
    Target("temporal-accuracy", "temporal_accuracy", Operator.WITHIN, 10.0, "ns", TargetSeverity.WARNING),
    Target("cpu-utilization", "cpu_utilization", Operator.BELOW, 0.8, "ratio", TargetSeverity.WARNING),
    Target("memory", "memory_rss", Operator.BELOW, 100e6, "B", TargetSeverity.WARNING),
)

_KEYS: Final = ("metric", "operator", "threshold", "severity")


def read_targets(tables: Iterable[tuple[str, Any]]) -> tuple[Target, ...]:
    """Return the built-in targets with those of (file, table) pairs added or put in their place.

    A table is {name: {metric, operator, threshold, severity}}; `name = false` takes a target away.
    Raises ConfigError that names the file and the target.
    """
    targets = {target.name: target for target in BUILT_IN_TARGETS}
    for source, table in tables:
        if not isinstance(table, Mapping):
            raise ConfigError(f"{source}: 'targets' can not be used.", "It is no table.")
        for name, entry in table.items():
            if entry is False and name in targets:
                del targets[name]
            else:
                targets[name] = _read_target(source, name, entry)
    return tuple(targets.values())


def select(targets: tuple[Target, ...], names: Iterable[str]) -> tuple[Target, ...]:
    """Return the named targets, all of them without a name; raises InputError for an unknown one."""
    known = {target.name: target for target in targets}
    for name in names:
        if name not in known:
            raise InputError(f"There is no target '{name}'.", f"Targets: {', '.join(known)}.")
    return tuple(known[name] for name in dict.fromkeys(names)) or targets


def _read_target(source: str, name: str, entry: Any) -> Target:
    where = f"{source}: target '{name}'"
    if not isinstance(entry, Mapping):
        raise ConfigError(f"{where} can not be used.", f"It is no table with {', '.join(_KEYS)}.")
    unknown = [key for key in entry if key not in _KEYS]
    missing = [key for key in _KEYS[:3] if key not in entry]
    if unknown or missing:
        why = f"It has an unknown key '{unknown[0]}'." if unknown else f"It has no '{missing[0]}'."
        raise ConfigError(f"{where} can not be used.", why, f"Keys: {', '.join(_KEYS)}.")
    metric = _one_of(where, "metric", entry["metric"], all_metrics())
    unit = all_metrics()[metric].unit
    return Target(
        name=name,
        metric=metric,
        operator=Operator(_one_of(where, "operator", entry["operator"], list(Operator))),
        threshold=_threshold(where, entry["threshold"], unit),
        unit=unit,
        severity=TargetSeverity(
            _one_of(where, "severity", entry.get("severity", "warning"), list(TargetSeverity))
        ),
        source=source,
    )


def _one_of(where: str, key: str, value: Any, choices: Iterable[str]) -> str:
    words = [str(choice) for choice in choices]
    if not isinstance(value, str) or value not in words:
        raise ConfigError(
            f"{where}: {key} {value!r} is not known.", f"There are: {', '.join(words)}.", "Correct it."
        )
    return value


def _threshold(where: str, value: Any, unit: str) -> float:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not isinstance(value, str) and not (is_number and unit == "ratio"):
        raise ConfigError(
            f"{where}: threshold {value!r} can not be used.",
            "It is a text with a unit.",
            'Like "10 ns" or "80 %".',
        )
    try:
        return parse_quantity(str(value), unit)
    except InputError as error:
        raise ConfigError(f"{where}: threshold {value!r} can not be used.", error.why, error.todo) from error
