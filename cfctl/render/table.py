"""The house tables: one look, readable at 80 columns, plain ASCII where the encoding can do no more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

from cfctl.text import safe_text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import Console, JustifyMethod

_MAX_COMMAND = 100_000

STATUS_STYLE = {
    "pass": "green", "fail": "bold red", "inconclusive": "yellow", "issue": "bold red", "error": "bold red",
    "unobservable": "yellow", "not_applicable": "dim", "critical": "bold red", "high": "red", "medium": "yellow",
    "low": "cyan", "valid": "green", "degraded": "yellow",
}  # fmt: skip


def column_table(columns: Iterable[tuple[str, JustifyMethod]], title: str | None = None) -> Table:
    """Return an empty table with a header line; `columns` are (name, "left" or "right")."""
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1),
    )
    for name, justify in columns:
        table.add_column(name, justify=justify, overflow="fold", header_style="bold")
    return table


def fact_table(rows: Iterable[tuple[str, str | Text, str]], title: str | None = None) -> Table:
    """Return a table of (what, value, remark) rows."""
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE,
        show_header=False,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1),
    )
    table.add_column(style="bold", overflow="fold")
    table.add_column(overflow="fold")
    table.add_column(style="dim", overflow="fold")
    for what, value, remark in rows:
        table.add_row(cell(what), value if isinstance(value, Text) else cell(value), cell(remark))
    return table


def cell(value: object, style: str = "") -> Text:
    """Return text from anywhere as a cell that can hold no markup and no escape sequence."""
    return Text(safe_text(value), style=style)


def command_cell(command: str, style: str = "") -> Text:
    """Return a command whole: one that is cut is worse than none. A list of CPUs may take hundreds of characters."""
    return Text(safe_text(command, _MAX_COMMAND), style=style)


def status_cell(status: str) -> Text:
    """Return a status or verdict word in its colour."""
    return cell(status, STATUS_STYLE.get(status, ""))


def ascii_only(console: Console) -> bool:
    """Return whether the stream's encoding can hold no more than ASCII."""
    return not console.encoding.lower().startswith("utf")
