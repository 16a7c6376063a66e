"""Segments as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cfctl.render.table import cell, column_table
from cfctl.text import safe_text
from cfctl.units import NS_PER_S, format_quantity

if TYPE_CHECKING:
    from rich.console import Console


def render(document: Any, console: Console, shown_unit: str | None) -> None:  # noqa: ARG001
    """Print one row per segment, newest first, and each file that could not be read."""
    table = column_table(
        [("pid", "right"), ("state", "left"), ("age", "right"), ("size", "right"), ("operations", "right"),
         ("command line", "left")]
    )  # fmt: skip
    for row in document.segments:
        command = " ".join(row.command_line)
        table.add_row(
            cell(row.pid), cell(row.state, "green" if row.live else ""), cell(age_text(row.age_ns)),
            cell(format_quantity(row.size_bytes, "B")), cell("-" if row.operations is None else row.operations),
            cell(safe_text(command, 80)),
        )  # fmt: skip
    if document.segments:
        console.print(table)
    for unreadable in document.unreadable:
        console.print(cell(f"{unreadable.path}: {unreadable.reason}", "yellow"), soft_wrap=True)


def age_text(age_ns: int) -> str:
    """Return an age in its largest unit, rounded down: "5 s", "3 min", "2 h", "9 d"."""
    seconds = max(0, age_ns) // NS_PER_S
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
