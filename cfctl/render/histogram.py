"""Histograms and heat maps for a terminal, plain ASCII where the encoding can do no more."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Final

from rich.text import Text

from cfctl.render.table import ascii_only, cell, column_table
from cfctl.units import format_quantity

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from cfctl.probe.distribution import Histogram

_BAR_WIDTH: Final = 36
_BLOCKS: Final = " ▏▎▍▌▋▊▉█"
# Edges in the 1-2-5 series: three rows for each power of ten.
_SERIES: Final = (1, 2, 5)
_SHADES: Final = " ░▒▓█"
_ASCII_SHADES: Final = " .:*#"
# The width of what names a row of a shaded heat map.
_ROW_LABEL: Final = 5
# From cold to hot; readable on dark and on light ground.
_HEAT: Final = ("green", "cyan", "yellow", "magenta", "red")


def histogram_table(histogram: Histogram, console: Console, shown_unit: str | None) -> Table:
    """Return a table of value range, count and bar; a bar is as long as the logarithm of its count."""
    rows = _rows(histogram)
    table = column_table([("from", "right"), ("count", "right"), ("count, log scale", "left")])
    most = max((count for _, count in rows), default=0)
    for edge_ns, count in rows:
        share = math.log1p(count) / math.log1p(most) if most else 0.0
        table.add_row(
            cell(format_quantity(edge_ns, "ns", shown_unit=shown_unit, digits=1)),
            cell(str(count)),
            Text(bar(share, _BAR_WIDTH, ascii_only(console))),
        )
    return table


def _rows(histogram: Histogram) -> list[tuple[float, int]]:
    """Return (lower edge, count) of each step of the 1-2-5 series from the first filled to the last."""
    counts: dict[int, int] = {}
    for bucket, count in histogram.buckets:
        low_ns, high_ns = histogram.bounds_ns(bucket)
        step = _step_of((low_ns + high_ns) / 2)
        counts[step] = counts.get(step, 0) + count
    if not counts:
        return []
    return [(_edge(step), counts.get(step, 0)) for step in range(min(counts), max(counts) + 1)]


def _edge(step: int) -> float:
    decade, place = divmod(step, len(_SERIES))
    return float(_SERIES[place] * 10.0**decade)


def _step_of(value_ns: float) -> int:
    step = math.floor(math.log10(max(value_ns, 1e-3))) * len(_SERIES)
    while _edge(step + 1) <= value_ns:
        step += 1
    return step


def bar(share: float, width: int, ascii_bar: bool) -> str:
    """Return a bar of `share` (0..1) of `width` characters; anything above 0 is visible."""
    eighths = round(min(max(share, 0.0), 1.0) * width * 8)
    if share > 0:
        eighths = max(eighths, 1)
    if ascii_bar:
        return "#" * max(round(eighths / 8), 1 if eighths else 0)
    full, rest = divmod(eighths, 8)
    return "█" * full + (_BLOCKS[rest] if rest else "")


def heat_style(value: float, low: float, high: float) -> str:
    """Return the colour of a value between the lowest and the highest."""
    return _HEAT[_level(value, low, high, len(_HEAT))]


def shade(value: float, low: float, high: float, ascii_shade: bool) -> str:
    """Return one character that is the darker the higher a value lies."""
    shades = _ASCII_SHADES if ascii_shade else _SHADES
    return shades[1 + _level(value, low, high, len(shades) - 1)]


def _level(value: float, low: float, high: float, levels: int) -> int:
    if high <= low:
        return 0
    return min(levels - 1, int((value - low) / (high - low) * levels))


def heat_map(
    labels: Sequence[int], values: dict[tuple[int, int], float], console: Console
) -> list[Table | Text]:
    """Return a symmetric matrix: numbers where they fit the width, one shaded character a pair else.

    What is wider still comes in blocks of columns.
    `values` holds each pair once, the smaller label first.
    """
    low, high = min(values.values(), default=0.0), max(values.values(), default=0.0)
    if 6 + 7 * len(labels) <= console.width:
        return [_numbers(labels, values, (low, high))]
    return list(_shades(labels, values, (low, high), console))


def _at(values: dict[tuple[int, int], float], row: int, column: int) -> float | None:
    return values.get((min(row, column), max(row, column)))


def _numbers(labels: Sequence[int], values: dict[tuple[int, int], float], span: tuple[float, float]) -> Table:
    table = column_table([("CPU", "right"), *((str(label), "right") for label in labels)])
    for row in labels:
        cells = [cell(str(row), "bold")]
        for column in labels:
            value = _at(values, row, column)
            cells.append(
                cell("-", "dim") if value is None else cell(f"{value:.1f}", heat_style(value, *span))
            )
        table.add_row(*cells)
    return table


def _shades(
    labels: Sequence[int],
    values: dict[tuple[int, int], float],
    span: tuple[float, float],
    console: Console,
) -> Iterable[Text]:
    ascii_shade, room = ascii_only(console), max(1, console.width - _ROW_LABEL)
    legend = " ".join(
        f"{shade(low, *span, ascii_shade)} {low:.0f}"
        for low in (span[0] + (span[1] - span[0]) * level / 4 for level in range(4))
    )
    yield Text(f"{legend} ns and more")

    def shown(row: int, column: int) -> tuple[str, str]:
        value = _at(values, row, column)
        return (" ", "") if value is None else (shade(value, *span, ascii_shade), heat_style(value, *span))

    for start in range(0, len(labels), room):
        columns = labels[start : start + room]
        if len(columns) < len(labels):
            yield Text(f"to CPU {columns[0]} to {columns[-1]}", style="bold")
        for row in labels:
            line = Text(f"{row:>{_ROW_LABEL - 1}} ")
            # In runs: a cell of its own for each of 256 x 256 pairs takes rich many seconds.
            for (char, style), run in groupby(shown(row, column) for column in columns):
                line.append(char * len(list(run)), style=style)
            yield line
