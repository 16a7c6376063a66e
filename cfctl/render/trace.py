"""The recent samples of a process as a table, the newest last."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cfctl.render.table import cell, column_table
from cfctl.units import format_quantity

if TYPE_CHECKING:
    from rich.console import Console

    from cfctl.profile.trace import Trace

_ROWS: Final = 40


def render(document: Trace, console: Console, shown_unit: str | None) -> None:
    """Print the newest samples with start, duration, thread and what they ran inside of."""
    console.print(cell(f"Samples held: {len(document.spans)}, overwritten: {document.overwritten}", "bold"))
    table = column_table(
        [("start", "right"), ("duration", "right"), ("thread", "right"), ("operation", "left"), ("inside of", "left"),
         ("", "left")]
    )  # fmt: skip
    for span in document.spans[-_ROWS:]:
        table.add_row(
            cell(format_quantity(span.start_ns, "ns", shown_unit=shown_unit, digits=6)),
            cell(format_quantity(span.duration_ns, "ns", shown_unit=shown_unit)), cell(span.thread),
            cell(span.operation), cell(span.parent or "-"), cell("failed" if span.failed else "", "red"),
        )  # fmt: skip
    console.print(table)
    if len(document.spans) > _ROWS:
        console.print(cell(f"the newest {_ROWS}; --format csv or perfetto has all", "dim"))
