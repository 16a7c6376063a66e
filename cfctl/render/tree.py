"""The tree of operations: one line for each, below what it ran inside of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from rich.text import Text

from cfctl.render.table import ascii_only, cell, column_table
from cfctl.text import safe_text
from cfctl.units import format_quantity

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from cfctl.profile.tree import TreeRow

_BY_PRIORITY: Final = ("count", "total", "self", "self share", "share", "mean")
_GAP: Final = 3
_NAME_WIDTH: Final = 36
_NAME_LENGTH: Final = 160
# A name is broken after its module rather than in a word.
_LINE_WIDTH: Final = 24
_DEEPEST: Final = 20
_ELSEWHERE: Final = "…"


def tree_table(rows: Sequence[TreeRow], console: Console, shown_unit: str | None) -> Table:
    """Return the lines with count, mean, total and its share, the time in each itself and its share."""
    plain = ascii_only(console)
    shown = [(row, _cells(row, shown_unit)) for row in rows]
    longest = max((len(line) for row in rows for line in _name(row, plain).split("\n")), default=0)
    names = _fitting([cells for _, cells in shown], console.width - min(longest, _NAME_WIDTH))
    table = column_table([("operation", "left"), *((name, "right") for name in names)])
    for column in table.columns[1:]:
        column.no_wrap = True
    for row, cells in shown:
        table.add_row(_lines(_name(row, plain)), *(cell(cells[name]) for name in names))
        if row.recursions:
            table.add_row(
                cell(f"{_indent(row.depth + 1)}in itself", "dim"),
                *(cell(row.recursions if name == "count" else "-", "dim") for name in names),
            )
    return table


def _cells(row: TreeRow, shown_unit: str | None) -> dict[str, str]:
    mean = row.total / row.count if row.total is not None and row.count else None
    return {
        "count": str(row.count),
        "mean": _time(mean, row.unit, shown_unit),
        "total": _time(row.total, row.unit, shown_unit),
        "share": _share(row.total_share),
        "self": _time(row.own, row.unit, shown_unit),
        "self share": _share(row.own_share),
    }


def _fitting(rows: Sequence[dict[str, str]], room: int) -> list[str]:
    """Return the columns that fit, by importance, in the order of the table."""
    chosen = set()
    for name in _BY_PRIORITY:
        width = max(len(name), *(len(row[name]) for row in rows)) + _GAP
        if width > room:
            break
        room -= width
        chosen.add(name)
    return [name for name in rows[0] if name in chosen]


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
    """Return the name with its marks, in lines."""
    labels = ", ".join(f"{key}={value}" for key, value in row.labels)
    name = safe_text(f"{row.name} {{{labels}}}" if labels else row.name, _NAME_LENGTH)
    mark = f" {'...' if plain else _ELSEWHERE}" if row.elsewhere else ""
    places = " (all)" if row.places else ""
    indent = _indent(row.depth)
    module, colon, function = name.partition(":")
    if colon and len(name) > _LINE_WIDTH:
        name = f"{module}:\n{indent}  {function}"
    return f"{indent}{name}{mark}{places}"


def _lines(text: str) -> Text:
    # Each line is clean already; the line end between them is ours.
    return Text("\n").join(cell(line) for line in text.split("\n"))


def _time(time: float | None, unit: str, shown_unit: str | None) -> str:
    return "-" if time is None else format_quantity(time, unit, shown_unit=shown_unit, digits=3)


def _share(share: float | None) -> str:
    return "-" if share is None else format_quantity(share, "ratio", digits=2)
