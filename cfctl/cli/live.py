"""Results that are read again and again: a table that is redrawn, or a line for each reading."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from cfctl.cli.output import TEXT, Output, make_console, stdout_is_terminal
from cfctl.errors import InputError
from cfctl.records import to_plain
from cfctl.units import parse_time_ns

if TYPE_CHECKING:
    from rich.console import Console

    from cfctl.records import Document

IntervalOption = Annotated[str, typer.Option("--interval", metavar="TIME", help="Time between two readings.")]
UpdatesOption = Annotated[
    int | None, typer.Option("--updates", min=1, metavar="N", help="End after N readings.")
]
AllUsersOption = Annotated[bool, typer.Option("--all-users", help="Programs of all users; for root.")]
# A segment of 500 operations is read in a fifth of a second.
_LEAST_INTERVAL_NS: Final = 1_000_000
_MOST_INTERVAL_NS: Final = 3_600_000_000_000


def interval_s(text: str) -> float:
    """Return the seconds in an --interval; raises InputError unless it is 1 ms to 1 h."""
    interval_ns = parse_time_ns(text)
    if not _LEAST_INTERVAL_NS <= interval_ns <= _MOST_INTERVAL_NS:
        raise InputError(f"An interval of '{text}' can not be used.", "It should be from 1 ms to 1 h.")
    return interval_ns * 1e-9


def paced(readings: Iterable[Document], seconds: float, most: int | None) -> Iterable[Document]:
    """Yield the readings, at most `most` of them, with a pause between one and the next."""
    for number, reading in enumerate(readings, 1):
        yield reading
        if number == most:
            return
        time.sleep(seconds)


def show_live(
    readings: Iterable[Document],
    where: Output,
    render: Callable[[Any, Console, str | None], None],
    line: Callable[[Any], str],
) -> None:
    """Show each reading until there is no other: redrawn on a terminal, else as a line each.

    A line is the JSON of the reading with --json, `line(reading)` else. Raises InputError for a
    format or a file that holds one result only.
    """
    if where.path is not None or where.format not in {TEXT, "json"}:
        raise InputError("What is read again and again goes to standard output.", "As text or as JSON.")
    if where.format == TEXT and stdout_is_terminal():
        _redraw(readings, where, render)
        return
    for reading in readings:
        text = line(reading) if where.format == TEXT else json.dumps(to_plain(reading), allow_nan=False)
        where.write_text(text.replace("\x7f", "\\u007f") + "\n")


def _redraw(
    readings: Iterable[Document], where: Output, render: Callable[[Any, Console, str | None], None]
) -> None:
    import sys

    from rich.live import Live
    from rich.text import Text

    console = make_console(sys.stdout, where.color)
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        for reading in readings:
            live.update(Text.from_ansi(where.rendered(reading, render).decode()), refresh=True)
