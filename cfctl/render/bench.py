"""The bench by section: what was measured, with its uncertainty, and what disturbed it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfctl.render.check import with_error
from cfctl.render.table import cell, fact_table

if TYPE_CHECKING:
    from rich.console import Console

    from cfctl.monitor.bench import BenchDocument, Section


def render(document: BenchDocument, console: Console, shown_unit: str | None) -> None:
    """Print one table per section, and the notes."""
    for section in document.sections:
        console.print(cell(section.name, "bold") + cell(f": {section.what}"))
        if section.problem:
            console.print(cell(f"  not measured. {section.problem}"))
        else:
            console.print(fact_table(_rows(section, shown_unit)))
        console.print()
    for note in document.notes():
        console.print(cell(note))
    if document.runs > 1:
        console.print(cell(f"medians of {document.runs} runs, ± covers their spread"))


def _rows(section: Section, shown_unit: str | None) -> list[tuple[str, str, str]]:
    return [
        (s.metric, with_error(s.measurement, shown_unit), s.measurement.reason or "") for s in section.series
    ]
