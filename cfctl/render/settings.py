"""Settings as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cfctl.render.table import cell, column_table

if TYPE_CHECKING:
    from rich.console import Console


def render(document: Any, console: Console, shown_unit: str | None) -> None:  # noqa: ARG001
    """Print key, value and source of every setting."""
    table = column_table([("setting", "left"), ("value", "left"), ("from", "left")])
    for row in document.settings:
        table.add_row(cell(row["key"]), cell(row["shown"]), cell(row["source"]))
    console.print(table)
