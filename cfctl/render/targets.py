"""Targets as a table, and the page of a metric."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfctl.render.table import cell, column_table, fact_table
from cfctl.units import format_quantity

if TYPE_CHECKING:
    from rich.console import Console

    from cfctl.monitor.target_list import Explanation, TargetList
    from cfctl.monitor.targets import Target


def render(document: TargetList, console: Console, shown_unit: str | None) -> None:
    """Print one row per target: what is wanted, when a miss is an alert, and where it comes from."""
    table = column_table(
        [
            ("target", "left"),
            ("wanted", "left"),
            ("severity", "left"),
            ("alert after", "right"),
            ("from", "left"),
        ]
    )
    for target in document.targets:
        table.add_row(
            cell(target.name), cell(wanted(target, shown_unit)), cell(target.severity),
            cell(format_quantity(float(target.for_ns), "ns", digits=2)), cell(target.source),
        )  # fmt: skip
    console.print(table)


def render_explanation(document: Explanation, console: Console, shown_unit: str | None) -> None:
    """Print a list of the metrics, or the page of one."""
    if len(document.metrics) > 1:
        table = column_table([("metric", "left"), ("unit", "left"), ("labels", "left"), ("meaning", "left")])
        for each in document.metrics:
            metric = each.metric
            table.add_row(
                cell(metric.name), cell(metric.unit), cell(", ".join(metric.labels)), cell(metric.meaning)
            )
        console.print(table)
        return
    for each in document.metrics:
        rows = [
            ("metric", each.metric.name, ""), ("meaning", each.metric.meaning, ""), ("unit", each.metric.unit, ""),
            ("labels", ", ".join(each.metric.labels) or "none", ""),
            *(("target", target.name, f"{wanted(target, shown_unit)}, {target.severity}, {target.source}") for target in each.targets),
            ("a miss can be", ", ".join(each.explained_by) or "nothing that a diagnosis knows", "cfctl diagnose explain ID"),
        ]  # fmt: skip
        console.print(fact_table(rows))


def wanted(target: Target, shown_unit: str | None) -> str:
    """Return what a target wants in words: "memory_rss < 100 MB where pid 12*"."""
    where = ", ".join(f"{name} {pattern}" for name, pattern in target.where)
    threshold = format_quantity(target.threshold, target.unit, shown_unit=shown_unit)
    return (
        f"{target.metric} {target.operator} {threshold}"
        + (f" where {where}" if where else "")
        + (" under load" if target.under_load else "")
    )
