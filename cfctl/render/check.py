"""The check as a table: target, value, limit, verdict; then what each one was measured on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.padding import Padding

from cfctl.records import Verdict
from cfctl.render.table import cell, column_table, status_cell
from cfctl.units import choose_unit, format_quantity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from cfctl.monitor.check import CheckDocument, TargetResult
    from cfctl.records import Measurement


def render(document: CheckDocument, console: Console, shown_unit: str | None) -> None:
    """Print one row per result, what each was measured on and what explains a miss, then the verdict over all."""
    table = column_table(
        [
            ("target", "left"),
            ("measured", "right"),
            ("wanted", "left"),
            ("margin", "right"),
            ("verdict", "left"),
        ]
    )
    for result in document.results:
        table.add_row(
            cell(result.target.name),
            cell(with_error(result.measurement, shown_unit)),
            cell(_wanted(result, shown_unit)),
            cell(format_quantity(result.margin, result.target.unit, digits=3, shown_unit=shown_unit)),
            status_cell(result.verdict),
        )
    if document.results:
        console.print(table)
        console.print()
    for result in document.results:
        target = result.target
        console.print(
            cell(target.name, "bold") + cell(f" ({target.metric}, {target.severity}): {result.subject}")
        )
        for detail in _details(result, shown_unit):
            console.print(Padding(cell(detail), (0, 0, 0, 2)))
    for apart in document.not_applicable:
        console.print(cell(apart.target.name, "bold") + cell(f": not applicable. {apart.reason}"))
    for note in document.notes:
        console.print(cell(note))
    if document.runs > 1:
        console.print(cell(f"medians of {document.runs} runs, ± covers their spread"))
    verdict = cell("verdict: ") + status_cell(document.verdict)
    console.print(verdict if document.results else verdict + cell(" (nothing was judged)"))


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


def _details(result: TargetResult, shown_unit: str | None) -> Iterator[str]:
    if result.measurement.reason:
        yield f"not measured: {result.measurement.reason}"
    if result.resolution is not None and result.resolution.value is not None:
        step = format_quantity(result.resolution.value, result.resolution.unit, shown_unit=shown_unit)
        yield f"a single stamp resolves {step}"
    if result.doubt:
        yield f"missed, but: {result.doubt}"
    if result.cause is not None:
        yield f"cause: {result.cause.check}: {result.cause.found}"
        yield f"fix: {result.cause.solution}"
    elif result.verdict is Verdict.FAIL:
        yield "cause: a quick diagnosis finds none; cfctl diagnose latency measures more"
