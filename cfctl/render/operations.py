"""The table of operations: its columns, and which of them fit a width."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from cfctl.errors import InputError
from cfctl.profile.tally import bucket_bounds
from cfctl.render.bars import bars
from cfctl.render.table import ascii_only, cell, column_table
from cfctl.text import safe_text
from cfctl.units import format_quantity

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from cfctl.profile.statistics import OperationStatistics
    from cfctl.records import Measurement

FLOOR_MARK: Final = "*"
# In the order of the table.
COLUMNS: Final = (
    "count", "rate", "errors", "min", "mean", "stddev", "p50", "p90", "p99", "p99.9", "p99.99", "max",
    "histogram", "total", "share", "self", "self-share", "threads", "first-seen", "last-seen",
)  # fmt: skip
# The first of these that fit are shown when none are asked for.
_BY_PRIORITY: Final = (
    "count", "errors", "mean", "p50", "p99", "max", "share", "histogram", "self", "p99.9", "total", "rate", "p90", "min",
    "stddev", "p99.99", "threads",
)  # fmt: skip
_NAME_WIDTH: Final = 20
_NAME_WIDTH_MAX: Final = 40
_GAP: Final = 3
_SPARK_CELLS: Final = 10


def parse_columns(text: str) -> tuple[str, ...]:
    """Return the columns in "count,p99,max"; raises InputError that names the known ones."""
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    unknown = [name for name in names if name not in COLUMNS]
    if unknown or not names:
        what = f"There is no column '{unknown[0]}'." if unknown else "No column is named."
        raise InputError(what, f"Columns: {', '.join(COLUMNS)}.")
    return names


def operation_table(
    operations: Sequence[OperationStatistics],
    console: Console,
    shown_unit: str | None,
    columns: Sequence[str] = (),
) -> Table:
    """Return one row for each operation; without `columns` as many as fit the console's width."""
    if not columns:
        cells, columns = _fitting(operations, console, shown_unit)
    else:
        cells = {name: _cells(operations, name, console, shown_unit) for name in columns}
    table = column_table(
        [("operation", "left"), *((name, "left" if name == "histogram" else "right") for name in columns)]
    )
    for column in table.columns[1:]:
        column.no_wrap = True
    for index, operation in enumerate(operations):
        table.add_row(name_cell(operation), *(cell(cells[name][index]) for name in columns))
    return table


def _fitting(
    operations: Sequence[OperationStatistics], console: Console, shown_unit: str | None
) -> tuple[dict[str, list[str]], list[str]]:
    """Return the cells of the columns that leave the name enough room, and these in their order."""
    longest = max((len(name_cell(operation).plain) for operation in operations), default=0)
    room = console.width - min(max(longest, len("operation")), _NAME_WIDTH)
    cells: dict[str, list[str]] = {}
    for name in _BY_PRIORITY:
        found = _cells(operations, name, console, shown_unit)
        width = max(len(name), *(len(text) for text in found)) + _GAP
        # A column that is left out lets no less important one in: which are shown depends on the
        # width, not on what happens to be short.
        if width > room:
            break
        room -= width
        cells[name] = found
    return cells, [name for name in COLUMNS if name in cells]


def _cells(
    operations: Sequence[OperationStatistics], name: str, console: Console, shown_unit: str | None
) -> list[str]:
    if name == "histogram":
        plain = ascii_only(console)
        return [sparkline(operation.ticks.buckets, plain) for operation in operations]
    if name in _TIMES:
        time_of = _TIMES[name]
        return [quantity(time_of(operation), shown_unit) for operation in operations]
    return [_OTHERS[name](operation) for operation in operations]


def quantity(measured: Measurement, shown_unit: str | None) -> str:
    """Return a measurement with three digits, or fewer when its error allows no more."""
    if measured.value is None:
        return "low n" if measured.reason == "low n" else "-"
    if measured.unit == "1/s":
        return format_quantity(measured.value, measured.unit)
    # Three digits are what the histogram's 0.4 % allows.
    third_digit = 2.0 * 10.0 ** (math.floor(math.log10(abs(measured.value))) - 2) if measured.value else 0.0
    error = max(measured.uncertainty or 0.0, third_digit)
    return format_quantity(measured.value, measured.unit, uncertainty=error, shown_unit=shown_unit)


_TIMES: Final[dict[str, Callable[[OperationStatistics], Measurement]]] = {
    "rate": lambda o: o.rate,
    "min": lambda o: o.min,
    "mean": lambda o: o.mean,
    "stddev": lambda o: o.stddev,
    "p50": lambda o: o.p50,
    "p90": lambda o: o.p90,
    "p99": lambda o: o.p99,
    "p99.9": lambda o: o.p99_9,
    "p99.99": lambda o: o.p99_99,
    "max": lambda o: o.max,
    "total": lambda o: o.total,
    "self": lambda o: o.self_total,
}
_OTHERS: Final[dict[str, Callable[[OperationStatistics], str]]] = {
    "count": lambda o: str(o.count),
    "errors": lambda o: errors(o.errors, o.error_ratio),
    "share": lambda o: format_quantity(o.share, "ratio", digits=2),
    "self-share": lambda o: format_quantity(o.self_share, "ratio", digits=2),
    "threads": lambda o: "-" if o.threads is None else str(o.threads),
    "first-seen": lambda o: _moment(o.first_unix_ns),
    "last-seen": lambda o: _moment(o.last_unix_ns),
}


def errors(count: int | None, ratio: float | None) -> str:
    """Return a number of errors and their share: "10 (1.0 %)"."""
    if count is None:
        return "-"
    return (
        f"{count} ({format_quantity(ratio, 'ratio', digits=2)})"
        if count and ratio is not None
        else str(count)
    )


def _moment(unix_ns: int | None) -> str:
    if unix_ns is None:
        return "-"
    try:
        return time.strftime("%m-%d %H:%M:%S", time.localtime(unix_ns // 10**9))
    except (OverflowError, OSError, ValueError):
        return "-"


def sparkline(buckets: Sequence[tuple[int, int]], plain: bool) -> str:
    """Return a small histogram from the least to the largest sample, on a logarithmic axis.

    The height is the logarithm of the count: the few slow samples are what one looks for.
    """
    if not buckets:
        return "-"
    positions = [(math.log2(1 + sum(bucket_bounds(bucket)) / 2), samples) for bucket, samples in buckets]
    low, high = positions[0][0], positions[-1][0]
    cells = [0] * _SPARK_CELLS
    for position, samples in positions:
        index = int((position - low) / (high - low) * _SPARK_CELLS) if high > low else 0
        cells[min(index, _SPARK_CELLS - 1)] += samples
    most = math.log1p(max(cells))
    return bars([math.log1p(count) / most if count else None for count in cells], plain).rstrip()


def name_cell(operation: OperationStatistics) -> Text:
    """Return the name with labels and mark, broken where no word is torn."""
    labels = ", ".join(f"{key}={value}" for key, value in operation.labels)
    mark = f" {FLOOR_MARK}" if operation.near_timer_floor else ""
    name = f"{operation.name}{f' {{{labels}}}' if labels else ''}{mark}"
    text = cell(safe_text(name, _NAME_WIDTH_MAX * 4))
    module, colon, _ = text.plain.partition(":")
    if len(text.plain) > _NAME_WIDTH_MAX // 2 and colon:
        return text[: len(module) + 1].append("\n").append(text[len(module) + 1 :])
    return text
