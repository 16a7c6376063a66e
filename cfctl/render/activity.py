"""What the operations of running programs do: a table, or a line."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from cfctl.bus.statistics import BusReport
from cfctl.render.bus_state import render_topics
from cfctl.render.operations import errors, quantity
from cfctl.render.table import cell, column_table
from cfctl.text import safe_text
from cfctl.units import format_quantity

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from cfctl.profile.activity import ActiveOperation, Activity

_NAME: Final = "operation"
_NAME_WIDTH: Final = 24
# Between two columns of a table.
_GAP: Final = 3
_COLUMNS: Final[dict[str, Callable[[ActiveOperation, str | None], str]]] = {
    "pid": lambda row, _unit: str(row.pid),
    "rate": lambda row, _unit: quantity(row.rate, None),
    "errors": lambda row, _unit: errors(row.errors, row.error_ratio),
    "busy": lambda row, _unit: format_quantity(row.busy.value, "ratio", digits=2),
    "mean": lambda row, unit: quantity(row.mean, unit),
    "p50": lambda row, unit: quantity(row.p50, unit),
    "p99": lambda row, unit: quantity(row.p99, unit),
    "count": lambda row, _unit: str(row.recorded),
}
_BY_PRIORITY: Final = ("pid", "rate", "errors", "mean", "p99", "busy", "p50", "count")
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
    if rows:
        console.print(_table(rows, console, shown_unit))
    if len(rows) < len(document.operations):
        console.print(cell(f"and {len(document.operations) - len(rows)} more operations", "dim"))
    if isinstance(document.bus, BusReport):
        render_topics(document.bus, console)
    for problem in document.problems[:_PROBLEMS_SHOWN]:
        console.print(cell(f"problem: {problem}", "yellow"), soft_wrap=True)


def _table(rows: Sequence[ActiveOperation], console: Console, shown_unit: str | None) -> Table:
    """Return the table with the columns that leave the names enough room, the most important ones."""
    longest = max(len(_name(row)) for row in rows)
    room = console.width - min(longest, _NAME_WIDTH)
    shown: dict[str, list[str]] = {}
    for name in _BY_PRIORITY:
        cells = [_COLUMNS[name](row, shown_unit) for row in rows]
        width = max(len(name), *(len(text) for text in cells)) + _GAP
        if width > room:
            break
        room -= width
        shown[name] = cells
    columns = [name for name in _COLUMNS if name in shown]
    table = column_table((name, "left" if name == _NAME else "right") for name in (_NAME, *columns))
    for column in table.columns[1:]:
        column.no_wrap = True
    for index, row in enumerate(rows):
        table.add_row(cell(_name(row)), *(cell(shown[name][index]) for name in columns))
    return table


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
