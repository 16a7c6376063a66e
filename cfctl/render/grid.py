"""Columns of one-line cells as one text: the look of a house table, for what is drawn anew each second.

A rich table measures and wraps each cell by itself: 30 ms for the monitor's dashboard, 3 ms this way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from rich.cells import cell_len
from rich.text import Text

if TYPE_CHECKING:
    from rich.console import JustifyMethod

_GAP: Final = 3
# A name is not cut to less than this.
_LEAST: Final = 6


def grid(
    columns: Sequence[tuple[str, JustifyMethod]], rows: Sequence[Sequence[Text]], width: int, plain: bool
) -> Text:
    """Return a header line, a rule and a line for each row, in at most `width` cells.

    Where there is not enough room the left-justified columns, the names, give way, the widest first;
    what does not fit even then is cut at the right.
    """
    heads = [Text(name, "bold") for name, _ in columns]
    widths = [max(cell_len(row[index].plain) for row in (heads, *rows)) for index in range(len(columns))]
    names = [index for index, (_, justify) in enumerate(columns) if justify == "left"][:2]
    while _total(widths) > width and max(widths[index] for index in names) > _LEAST:
        widths[max(names, key=widths.__getitem__)] -= 1
    text = Text(no_wrap=True, overflow="crop", end="")
    for number, row in enumerate((heads, *rows)):
        _append_row(text, row, columns, widths)
        if number == 0:
            text.append(("-" if plain else "─") * min(width, _total(widths)) + "\n")
    text.right_crop(1)
    return text


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + _GAP * (len(widths) - 1)


def _append_row(
    text: Text, row: Sequence[Text], columns: Sequence[tuple[str, JustifyMethod]], widths: Sequence[int]
) -> None:
    last = len(row) - 1
    for index, (found, (_, justify), width) in enumerate(zip(row, columns, widths, strict=True)):
        missing = width - cell_len(found.plain)
        if missing < 0:
            found.truncate(width, overflow="ellipsis")
            missing = width - cell_len(found.plain)
        before, after = (missing, 0) if justify == "right" else (0, missing)
        text.append(" " * before).append_text(found)
        text.append("\n" if index == last else " " * (after + _GAP))
