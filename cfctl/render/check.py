"""The check as a table: target, value, limit, verdict; then what each one was measured on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfctl.render.table import cell, column_table, status_cell
from cfctl.units import choose_unit, format_quantity

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from cfctl.monitor.check import CheckDocument, TargetResult
    from cfctl.records import Measurement


def render(document: CheckDocument, console: Console, shown_unit: str | None) -> None:
    """Print one row per target, what it was measured on, and the verdict over all."""
    table = column_table(
        [
            ("target", "left"),
            ("value", "right"),
            ("wanted", "left"),
            ("severity", "left"),
            ("verdict", "left"),
        ]
    )
    for result in document.results:
        table.add_row(
            cell(result.target.name),
            cell(with_error(result.measurement, shown_unit)),
            cell(_wanted(result, shown_unit)),
            cell(result.target.severity),
            status_cell(result.verdict),
        )
    console.print(table)
    console.print()
    for result in document.results:
        console.print(_line(result, shown_unit))
    console.print(cell("verdict: ") + status_cell(document.verdict))


def with_error(measurement: Measurement, shown_unit: str | None) -> str:
    """Return "value ± uncertainty unit" with the digits the uncertainty allows, "-" when not measured."""
    value, error = measurement.value, measurement.uncertainty
    if value is None or error is None:
        return format_quantity(value, measurement.unit, shown_unit=shown_unit)
    name, _ = choose_unit(max(abs(value), error), measurement.unit, shown_unit)
    text = [
        format_quantity(number, measurement.unit, uncertainty=error, shown_unit=name)
        for number in (value, error)
    ]
    return f"{text[0].removesuffix(name).rstrip()} ± {text[1]}"


def _wanted(result: TargetResult, shown_unit: str | None) -> str:
    target = result.target
    return f"{target.operator} {format_quantity(target.threshold, target.unit, shown_unit=shown_unit)}"


def _line(result: TargetResult, shown_unit: str | None) -> Text:
    line = cell(result.target.name, "bold") + cell(f": {result.subject}")
    if result.measurement.reason:
        line = line.append("\n  not measured: ").append_text(cell(result.measurement.reason))
    if result.resolution is not None and result.resolution.value is not None:
        step = format_quantity(result.resolution.value, result.resolution.unit, shown_unit=shown_unit)
        line = line.append(f"\n  a single stamp resolves {step}")
    return line
