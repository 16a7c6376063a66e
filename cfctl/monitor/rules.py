"""Targets as alerting rules for Prometheus."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from fnmatch import translate
from typing import TYPE_CHECKING, Final

from cfctl.monitor.families import factor, family_name
from cfctl.monitor.metric import gauges
from cfctl.monitor.targets import NoData, Operator, Target
from cfctl.units import format_quantity

if TYPE_CHECKING:
    from cfctl.monitor.metric import Labels

# What a miss of each operator looks like.
_MISSED: Final = {
    Operator.BELOW: ">=", Operator.AT_MOST: ">", Operator.ABOVE: "<=", Operator.AT_LEAST: "<", Operator.WITHIN: ">",
}  # fmt: skip


def rules(targets: Iterable[Target]) -> str:
    """Return a rule file in YAML: one alert per target, with its `for` and `keep_firing_for`.

    PromQL knows no uncertainty: a rule fires by the value alone, where `cfctl monitor` also needs
    its interval beyond the threshold. Needs Prometheus 2.42 for keep_firing_for.
    """
    lines = ["groups:", "  - name: cfctl", "    rules:"]
    for target in targets:
        lines += [
            f"      - alert: {json.dumps(alert_name(target))}",
            f"        expr: {json.dumps(expression(target))}",
            f"        for: {_duration(target.for_ns)}",
            f"        keep_firing_for: {_duration(max(target.keep_firing_for_ns, 1_000_000))}",
            "        labels:",
            f"          severity: {target.severity}",
            "        annotations:",
            f"          summary: {json.dumps(_summary(target))}",
        ]
    return "\n".join(lines) + "\n"


def alert_name(target: Target) -> str:
    """Return the alert's name in the style of Prometheus: CfctlCpuUtilization."""
    return "Cfctl" + "".join(word.capitalize() for word in re.split(r"[^A-Za-z0-9]+", target.name))


def expression(target: Target) -> str:
    """Return the PromQL expression that is true while a target is missed."""
    metric = gauges()[target.metric]
    series = family_name(metric) + _matchers(target.where, metric.labels)
    value = f"abs({series})" if target.operator is Operator.WITHIN else series
    missed = f"{value} {_MISSED[target.operator]} {target.threshold * factor(metric):.12g}"
    return f"{missed} or absent({series})" if target.no_data is NoData.ALERT else missed


def _matchers(where: Labels, names: Iterable[str]) -> str:
    """Return label matchers; a program's own labels stand in one label, "labels"."""
    known = set(names)
    matchers = []
    for name, pattern in where:
        regex = translate(pattern).removeprefix("(?s:").removesuffix(r")\Z").removesuffix(r")\z")
        if name in known:
            matchers.append(f"{name}=~{json.dumps(regex)}")
        else:
            own = f"(.*,)?{re.escape(name)}={regex}(,.*)?"
            matchers.append(f"labels=~{json.dumps(own)}")
    return "{" + ", ".join(matchers) + "}" if matchers else ""


def _duration(ns: int) -> str:
    """Return a duration as Prometheus writes it, whole milliseconds."""
    return f"{round(ns / 1e6)}ms"


def _summary(target: Target) -> str:
    return f"{target.metric} is not {target.operator} {format_quantity(target.threshold, target.unit)}"
