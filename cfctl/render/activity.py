"""What the operations of running programs do: a table, or a line."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from cfctl.bus.statistics import BusReport
from cfctl.render.bus_state import render_topics
from cfctl.render.operations import errors, quantity
from cfctl.render.table import cell, column_table
from cfctl.text import safe_text
from cfctl.units import format_quantity

if TYPE_CHECKING:
    from rich.console import Console

    from cfctl.profile.activity import ActiveOperation, Activity

# Beside the rows stand the heading, the table's head, and the prompt.
_OTHER_LINES: Final = 6
_PROBLEMS_SHOWN: Final = 3


def render(document: Activity, console: Console, shown_unit: str | None) -> None:
    """Print one row per operation and process, as many as the window has lines for."""
    console.print(cell(summary_line(document), "bold"), soft_wrap=True)
    rows = document.operations
    if console.is_terminal:
        topics = len(document.bus.topics) + 4 if isinstance(document.bus, BusReport) else 0
        rows = rows[: max(1, console.height - _OTHER_LINES - topics)]
    if not document.processes:
        console.print(cell("No program that records operations runs.", "dim"))
    table = column_table(
        [("pid", "right"), ("operation", "left"), ("rate", "right"), ("errors", "right"), ("busy", "right"),
         ("mean", "right"), ("p50", "right"), ("p99", "right"), ("count", "right")]
    )  # fmt: skip
    for column in table.columns:
        column.no_wrap = column.header != "operation"
    for row in rows:
        table.add_row(
            cell(row.pid), cell(_name(row)), cell(quantity(row.rate, None)),
            cell(errors(row.errors, row.error_ratio)), cell(format_quantity(row.busy.value, "ratio", digits=2)),
            cell(quantity(row.mean, shown_unit)), cell(quantity(row.p50, shown_unit)),
            cell(quantity(row.p99, shown_unit)), cell(row.recorded),
        )  # fmt: skip
    if rows:
        console.print(table)
    if len(rows) < len(document.operations):
        console.print(cell(f"and {len(document.operations) - len(rows)} more operations", "dim"))
    if isinstance(document.bus, BusReport):
        render_topics(document.bus, console)
    for problem in document.problems[:_PROBLEMS_SHOWN]:
        console.print(cell(f"problem: {problem}", "yellow"), soft_wrap=True)


def _name(row: ActiveOperation) -> str:
    labels = ", ".join(f"{key}={value}" for key, value in row.labels)
    return safe_text(f"{row.name}{{{labels}}}" if labels else row.name, 60)


def summary_line(document: Activity) -> str:
    """Return the window in a line: how many processes and operations, their rate, the busiest one."""
    clock = time.strftime("%H:%M:%S", time.localtime(document.unix_ns // 10**9))
    count = sum(operation.count for operation in document.operations)
    failed = sum(operation.errors or 0 for operation in document.operations)
    rate = format_quantity(count * 1e9 / document.window_ns, "1/s")
    line = f"{clock}  processes {document.processes}  operations {rate}  errors {failed}"
    busiest = document.operations[0] if document.operations else None
    return f"{line}  busiest {_name(busiest)}" if busiest and busiest.count else line
