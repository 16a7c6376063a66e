"""The distribution of one operation: a bar for each step of its values, and its percentiles."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfctl.probe.distribution import LOW_N, Histogram
from cfctl.render.histogram import histogram_table
from cfctl.render.operations import errors, name_cell, quantity
from cfctl.render.table import cell, fact_table
from cfctl.units import format_quantity

if TYPE_CHECKING:
    from rich.console import Console

    from cfctl.profile.shape import OperationShape
    from cfctl.records import Measurement


def _remark(measured: Measurement) -> str:
    """Return why there is no value, where the value's place does not say it already."""
    return "" if measured.reason in {None, LOW_N} else str(measured.reason)


def render(document: OperationShape, console: Console, shown_unit: str | None) -> None:
    """Print the histogram and the percentiles of one operation."""
    operation = document.operation
    console.print(name_cell(operation), style="bold")
    rows = [
        ("count", str(operation.count), ""),
        ("errors", errors(operation.errors, operation.error_ratio), ""),
    ]
    times = (
        ("min", operation.min), ("mean", operation.mean), ("stddev", operation.stddev), ("p50", operation.p50),
        ("p90", operation.p90), ("p99", operation.p99), ("p99.9", operation.p99_9), ("p99.99", operation.p99_99),
        ("max", operation.max),
    )  # fmt: skip
    rows += [(name, quantity(measured, shown_unit), _remark(measured)) for name, measured in times]
    console.print(fact_table(rows))
    if document.unit != "ns":
        console.print(cell("Times are in ticks: the clock's rate is not known", "dim"))
    if not document.buckets:
        console.print(cell(operation.gap or "no samples within the histogram's range", "dim"))
        return
    histogram = Histogram("ticks", document.unit_per_tick, 7, document.out_of_range, operation.ticks.buckets)
    console.print(histogram_table(histogram, console, shown_unit))
    if document.out_of_range:
        beyond = format_quantity(2.0**40 * document.unit_per_tick, document.unit)
        console.print(cell(f"{document.out_of_range} samples of {beyond} and more are not shown", "yellow"))
