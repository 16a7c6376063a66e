"""A course over time as a chart of blocks, plain ASCII where the encoding can do no more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

_BLOCKS: Final = " ▁▂▃▄▅▆▇█"
_ASCII_BLOCKS: Final = " ..::||##"


def step_chart(
    points: Sequence[tuple[float, float]], end: float, width: int, height: int, plain: bool
) -> list[str]:
    """Return the lines of a chart, top first, of a value that holds from each point to the next.

    `points` are (time, value) in order of time, from 0 to `end`; a column shows the highest value of
    its time, from 0 to the highest of all.
    """
    columns = _columns(points, end, width)
    top = max(columns, default=0.0)
    blocks = _ASCII_BLOCKS if plain else _BLOCKS
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
