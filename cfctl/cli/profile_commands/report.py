"""Reports of segments and saved files: shown once, followed while the program runs, or saved."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cfctl.cli.exit_codes import ExitCode
from cfctl.cli.live import IntervalOption, UpdatesOption, interval_s, paced, show_live
from cfctl.cli.output import (
    TEXT,
    FormatOption,
    JsonOption,
    Output,
    OutputOption,
    UnitOption,
    message,
    write_file,
)

if TYPE_CHECKING:
    from rich.console import Console

    from cfctl.profile.report import Choice, ProfileReport

EXAMPLE = "Example: cfctl profile run --function json.decoder:JSONDecoder.decode -- python app.py"
# What a person reads; a machine's format has all operations.
_TEXT_TOP = 50


def _complete_sort(incomplete: str) -> list[str]:
    from cfctl.profile.report import SORT_KEYS

    return [key for key in SORT_KEYS if key.startswith(incomplete)]


SortOption = Annotated[
    str,
    typer.Option(
        "--sort", metavar="KEY", help="name, or a column, largest first.", autocompletion=_complete_sort
    ),
]
TopOption = Annotated[
    int | None, typer.Option("--top", min=1, help="Show the first TOP operations only; 50 in a table.")
]
FilterOption = Annotated[
    list[str] | None,
    typer.Option(
        "--filter",
        metavar="GLOB",
        help="Show operations whose name matches; * and ? are wildcards. Repeatable.",
    ),
]
ColumnsOption = Annotated[
    str | None,
    typer.Option(
        "--columns", metavar="LIST", help="Columns of the table, like count,p99,max; those that fit."
    ),
]


TreeOption = Annotated[
    bool,
    typer.Option("--tree", help="Show which operation ran inside of which, and the time in each itself."),
]


def report(
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="[SEGMENT|PID|FILE]", help="A segment, a process, or a saved report; the newest segment."
        ),
    ] = None,
    sort: SortOption = "mean",
    top: TopOption = None,
    filter: FilterOption = None,
    columns: ColumnsOption = None,
    histogram: Annotated[
        str | None,
        typer.Option("--histogram", metavar="NAME", help="Show the whole distribution of one operation."),
    ] = None,
    tree: TreeOption = False,
    live: Annotated[
        bool, typer.Option("--live", help="Read again and again while the program runs.")
    ] = False,
    interval: IntervalOption = "1s",
    updates: UpdatesOption = None,
    format: FormatOption = None,
    json: JsonOption = False,
    output: OutputOption = None,
    unit: UnitOption = None,
) -> None:
    """Show the operations of a program that runs, has ended or was killed, slowest mean first.

    Columns: count, rate, errors, min, mean, stddev, p50, p90, p99, p99.9, p99.99, max, histogram,
    total, share, self, self-share, threads, first-seen, last-seen. Without --columns a table has as many as fit.

    Percentiles that have too few samples to stand on are shown as low n: p50 needs 20 samples,
    p90 100, p99 1000, p99.9 10000, p99.99 100000. The standard deviation is that of the histogram's
    buckets. The share is of the totals of all operations, also of those that ran inside of others;
    self is the time in the operation itself, without those.

    --tree shows operations under the one they ran directly inside of. One that ran inside of several
    stands under each with the samples and the time it had there; what ran inside of it is known for
    all of them together, and stands once, at its own line.

    --live refreshes the table on a terminal; elsewhere it writes a line per reading, with --json a
    JSON object per line. It ends when the program does.
    """
    from cfctl.render.operations import parse_columns
    from cfctl.render.profile import render, render_tree

    where = Output.resolve(format, json, output, unit)
    show: Callable[[ProfileReport, Console, str | None], None]
    show = functools.partial(render, columns=parse_columns(columns) if columns else ())
    if tree:
        show = functools.partial(render_tree, patterns=filter or (), top=top)
    if histogram is not None:
        _show_histogram(load(source), histogram, where)
        return

    # A tree hangs together by all operations, and is cut when it is drawn.
    choice = None if tree and where.format == TEXT else choice_of(where, sort, top, filter or ())
    if live:
        _follow(source, where, choice, show, (interval, updates))
        return
    found = load(source, choice)
    where.emit(machine_readable(found, where), show)
    if not found.recorded_operations and not found.stacks:
        say_nothing_recorded("The segment holds no operation.")
        raise typer.Exit(ExitCode.UNMEASURED)


def save(
    output: Annotated[str, typer.Option("--output", "-o", metavar="FILE", help="Write the report to FILE.")],
    source: Annotated[
        str | None,
        typer.Argument(metavar="[SEGMENT|PID]", help="A segment or a process; the newest segment."),
    ] = None,
) -> None:
    """Save a report as JSON: all counters and histograms, so that nothing is lost.

    The file is written whole or not at all. cfctl profile report FILE shows it, and cfctl compare
    compares several of them. It names the host it was recorded on.
    """
    found = load(source)
    write_report(found, output)
    message(f"Saved {found.total_samples} samples of {len(found.operations)} operations.")


def load(source: str | None, choice: Choice | None = None) -> ProfileReport:
    """Return the report of a segment, a process's segment, or a saved report; all of it or a choice."""
    from cfctl.profile.recording import record_of_file
    from cfctl.profile.report import Choice, build_report
    from cfctl.profile.saved import load_report
    from cfctl.segment.directory import find_segment

    path = find_segment(source)
    choice = choice or Choice()
    return load_report(path, choice) or build_report([record_of_file(path)], choice)


def with_host(found: ProfileReport, here: bool = False) -> ProfileReport:
    """Return the report with this host's fingerprint, if it was recorded `here` or in this boot."""
    import dataclasses

    from cfctl.host.fingerprint import fingerprint
    from cfctl.records import to_plain
    from cfctl.segment.tick_rate import boot_id

    in_this_boot = {clock.boot_id for clock in found.clocks} == {boot_id()}
    if found.host is not None or not (here or in_this_boot):
        return found
    return dataclasses.replace(found, host=to_plain(fingerprint()))


def machine_readable(found: ProfileReport, where: Output) -> ProfileReport:
    """Return the report as it is saved: with its host, where what is written is not for people only."""
    return with_host(found) if where.format == "json" else found


def write_report(found: ProfileReport, output: str) -> None:
    """Write a report with its host as JSON to a file, - is stdout."""
    from cfctl.records import to_json

    data = to_json(with_host(found), indent=None).encode()
    if output == "-":
        sys.stdout.buffer.write(data)
    else:
        write_file(output, data)


def select(found: ProfileReport, where: Output, sort: str, top: int | None) -> ProfileReport:
    """Return the report with the operations that the options choose."""
    from cfctl.profile.report import selected

    return selected(found, choice_of(where, sort, top))


def choice_of(where: Output, sort: str, top: int | None, patterns: Sequence[str] = ()) -> Choice:
    """Return what the options choose; a person gets the first 50 operations."""
    from cfctl.profile.report import Choice

    return Choice(sort, top or (_TEXT_TOP if where.format == TEXT else None), tuple(patterns))


def say_nothing_recorded(what: str) -> None:
    """Say on stderr that there is nothing to report, and how there would be."""
    message(
        f"cfctl: {what}\n"
        "       No function was timed: it uses no cfctl.Profiler, and no --function that was called.\n"
        f"       {EXAMPLE}"
    )


def _show_histogram(found: ProfileReport, name: str, where: Output) -> None:
    from cfctl.profile.shape import operation_shape
    from cfctl.render.shape import render

    where.emit(operation_shape(found, name), render)


def _follow(
    source: str | None,
    where: Output,
    choice: Choice | None,
    render: Callable[[Any, Console, str | None], None],
    pace: tuple[str, int | None],
) -> None:
    from cfctl.render.profile import summary_line
    from cfctl.segment.directory import find_segment

    # The newest segment may be another one at the next reading.
    path = str(find_segment(source))

    def readings() -> Iterator[ProfileReport]:
        while True:
            found = load(path, choice)
            yield found
            if not any(process.state == "live" for process in found.processes):
                return

    seconds, updates = interval_s(pace[0]), pace[1]
    show_live(paced(readings(), seconds, updates), where, render, summary_line)
