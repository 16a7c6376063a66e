"""The tree of operations: one line for each, below what it ran inside of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from cfctl.render.table import ascii_only, cell, column_table
from cfctl.text import safe_text
from cfctl.units import format_quantity

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from cfctl.profile.tree import TreeRow

_NAME_WIDTH: Final = 160
_DEEPEST: Final = 20
_ELSEWHERE: Final = "…"


def tree_table(rows: Sequence[TreeRow], console: Console, shown_unit: str | None) -> Table:
    """Return the lines with count, mean, total and its share, the time in each itself and its share."""
    names = ("count", "mean", "total", "share", "self", "self share")
    table = column_table([("operation", "left"), *((name, "right") for name in names)])
    for column in table.columns[1:]:
        column.no_wrap = True
    for row in rows:
        mean = row.total / row.count if row.total is not None and row.count else None
        times = [_time(time, row.unit, shown_unit) for time in (mean, row.total, row.own)]
        shares = [_share(share) for share in (row.total_share, row.own_share)]
        table.add_row(
            cell(_name(row, ascii_only(console))), cell(row.count), cell(times[0]), cell(times[1]),
            cell(shares[0]), cell(times[2]), cell(shares[1]),
        )  # fmt: skip
        if row.recursions:
            table.add_row(
                cell(f"{_indent(row.depth + 1)}in itself", "dim"), cell(row.recursions, "dim"),
                *(cell("-", "dim") for _ in names[1:]),
            )  # fmt: skip
    return table


def tree_footnotes(rows: Sequence[TreeRow], plain: bool) -> list[str]:
    """Return what the marks of the lines mean, as far as there are any."""
    notes = ["share and self share are of the time in all operations themselves"] if rows else []
    if any(row.elsewhere for row in rows):
        mark = "..." if plain else _ELSEWHERE
        notes.append(f"{mark} what ran inside of it stands once, where all its samples do")
    if any(row.places for row in rows):
        notes.append("(all): its samples in all places, also those shown under other operations")
    if any(row.total is None for row in rows):
        notes.append("without a total: it had not ended when this was read")
    return notes


def _indent(depth: int) -> str:
    return "  " * min(depth, _DEEPEST)


def _name(row: TreeRow, plain: bool) -> str:
    labels = ", ".join(f"{key}={value}" for key, value in row.labels)
    name = safe_text(f"{row.name} {{{labels}}}" if labels else row.name, _NAME_WIDTH)
    mark = f" {'...' if plain else _ELSEWHERE}" if row.elsewhere else ""
    places = " (all)" if row.places else ""
    return f"{_indent(row.depth)}{name}{mark}{places}"


def _time(time: float | None, unit: str, shown_unit: str | None) -> str:
    return "-" if time is None else format_quantity(time, unit, shown_unit=shown_unit, digits=3)


def _share(share: float | None) -> str:
    return "-" if share is None else format_quantity(share, "ratio", digits=2)
