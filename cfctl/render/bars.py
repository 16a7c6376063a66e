"""Small bars of block characters, plain ASCII where the encoding can do no more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

_BARS: Final = "▁▂▃▄▅▆▇█"
_ASCII_BARS: Final = "_.:-=+*#"
_STACKED: Final = f" {_BARS}"
# Of a chart that is more than a line high: a full cell goes on in the one above.
_ASCII_STACKED: Final = " ..::||##"
# What was not measured, or did not occur: a gap, which no bar is.
_GAP: Final = " "


def bars(shares: Sequence[float | None], plain: bool) -> str:
    """Return one bar for each share of 0 to 1, the least of them a low bar too; None is a gap."""
    blocks = _ASCII_BARS if plain else _BARS
    return "".join(_GAP if share is None else blocks[round(share * (len(blocks) - 1))] for share in shares)


def trend(values: Sequence[float | None], width: int, plain: bool) -> str:
    """Return the latest `width` values as bars between the least and the largest of them.

    Values that do not differ are all drawn lowest.
    """
    latest = values[-width:]
    known = [value for value in latest if value is not None]
    if not known:
        return ""
    low, span = min(known), max(known) - min(known)
    return bars([None if value is None else (value - low) / span if span else 0.0 for value in latest], plain)


def step_chart(
    points: Sequence[tuple[float, float]], end: float, width: int, height: int, plain: bool
) -> list[str]:
    """Return the lines of a chart, top first, of a value that holds from each point to the next.

    `points` are (time, value) in order of time, from 0 to `end`; a column shows the highest value of
    its time, from 0 to the highest of all.
    """
    columns = _columns(points, end, width)
    top = max(columns, default=0.0)
    blocks = _ASCII_STACKED if plain else _STACKED
    steps = len(blocks) - 1
    levels = [round(max(0.0, value) / top * height * steps) if top > 0 else 0 for value in columns]
    # What is there is seen, however little.
    levels = [max(level, 1) if value > 0 else level for level, value in zip(levels, columns, strict=True)]
    return [
        "".join(blocks[min(max(level - row * steps, 0), steps)] for level in levels).rstrip()
        for row in reversed(range(height))
    ]


def _columns(points: Sequence[tuple[float, float]], end: float, width: int) -> list[float]:
    columns = [0.0] * width
    held, column = 0.0, 0
    for time, value in points:
        place = min(width - 1, int(time / end * width)) if end > 0 else width - 1
        for between in range(column, place + 1):
            columns[between] = max(columns[between], held)
        columns[place] = max(columns[place], value)
        held, column = value, place + 1
    for rest in range(column, width):
        columns[rest] = held
    return columns
