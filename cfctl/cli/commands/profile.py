"""`cfctl profile`: how long the operations of a program take, while it runs or after."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from cfctl.cli.exit_codes import ExitCode
from cfctl.cli.output import FormatOption, JsonOption, Output, OutputOption, UnitOption, message, write_file
from cfctl.cli.typer_app import command_group
from cfctl.errors import SegmentError, StateError
from cfctl.text import safe_text

if TYPE_CHECKING:
    from cfctl.profile.report import ProfileReport

app = command_group("Operations of a program: counts, errors and latencies, live or afterwards.")

_EXAMPLE = "Example: cfctl profile run --function json.decoder:JSONDecoder.decode -- python app.py"


def _complete_sort(incomplete: str) -> list[str]:
    from cfctl.profile.report import SORT_KEYS

    return [key for key in SORT_KEYS if key.startswith(incomplete)]


SortOption = Annotated[
    str,
    typer.Option(
        "--sort",
        metavar="KEY",
        help="mean, count, rate, errors, error-ratio, min, stddev, p50, p90, p99, p99.9, max, total or name.",
        autocompletion=_complete_sort,
    ),
]
TopOption = Annotated[int | None, typer.Option("--top", min=1, help="Show the first TOP operations only.")]


@app.command()
def report(
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="[SEGMENT|PID|FILE]", help="A segment, a process, or a saved report; the newest segment."
        ),
    ] = None,
    sort: SortOption = "mean",
    top: TopOption = None,
    format: FormatOption = None,
    json: JsonOption = False,
    output: OutputOption = None,
    unit: UnitOption = None,
) -> None:
    """Show the operations of a program that runs, has ended or was killed, slowest mean first.

    Percentiles that have too few samples to stand on are shown as low n: p50 needs 20 samples,
    p90 100, p99 1000, p99.9 10000. The standard deviation is that of the histogram's buckets.
    """
    from cfctl.render.profile import render

    where = Output.resolve(format, json, output, unit)
    found = _load(source)
    where.emit(_selected(found, sort, top), render)
    if not found.operations:
        _say_nothing_recorded("The segment holds no operation.")
        raise typer.Exit(ExitCode.UNMEASURED)


@app.command()
def save(
    output: Annotated[str, typer.Option("--output", "-o", metavar="FILE", help="Write the report to FILE.")],
    source: Annotated[
        str | None,
        typer.Argument(metavar="[SEGMENT|PID]", help="A segment or a process; the newest segment."),
    ] = None,
) -> None:
    """Save a report as JSON: all counters and histograms, so that nothing is lost.

    The file is written whole or not at all. cfctl profile report FILE shows it.
    """
    found = _load(source)
    _write_report(found, output)
    message(f"Saved {found.total_samples} samples of {len(found.operations)} operations.")


@app.command(context_settings={"allow_interspersed_args": False})
def run(
    command: Annotated[
        list[str], typer.Argument(metavar="COMMAND [ARGS]...", help="The program to run, after --.")
    ],
    function: Annotated[
        list[str] | None,
        typer.Option(
            "--function",
            metavar="MODULE:NAME",
            help="Time this function, unedited; * and ? are wildcards. Repeatable.",
        ),
    ] = None,
    follow_children: Annotated[
        bool, typer.Option("--follow-children", help="Time the functions in other Pythons it starts, too.")
    ] = False,
    timeline: Annotated[
        bool, typer.Option("--timeline", help="Keep each thread's latest 8192 samples as a timeline.")
    ] = False,
    sort: SortOption = "mean",
    top: TopOption = None,
    format: FormatOption = None,
    json: JsonOption = False,
    output: OutputOption = None,
    unit: UnitOption = None,
) -> None:
    """Run a program and report what it and its child processes recorded.

    The program keeps its standard input, output and error; the report goes to standard error, or
    to the file of -o. The exit status is the program's own, 128+N when signal N ended it; 125 when
    it was not run, 126 when it can not be executed, 127 when it was not found; 3 when it succeeded
    and nothing was recorded.

    A program records by itself (cfctl.Profiler), or without being edited by --function: functions,
    methods, generators and coroutines, named by their module and qualified name. The functions of
    a script itself are __main__:NAME. A coroutine's time includes what it waits for; a generator's
    is the time in its body. cfctl profile pause and resume switch this off and on meanwhile.
    """
    from cfctl.cli.app import report_error
    from cfctl.errors import CfctlError
    from cfctl.profile.launch import FAILED, LaunchError
    from cfctl.profile.patterns import parse_pattern
    from cfctl.profile.run import run_and_record
    from cfctl.render.profile import render

    patterns = [parse_pattern(text) for text in function or []]
    where = Output.resolve(format, json, output, unit, to_stderr=True)
    _prune_by_settings()
    try:
        outcome = run_and_record(command, patterns, follow_children, timeline)
    except LaunchError as error:
        report_error(error)
        raise typer.Exit(error.status) from None
    for note in outcome.notes:
        message(f"cfctl: {safe_text(note, 600)}")
    if not outcome.report.operations:
        _say_nothing_recorded(f"{safe_text(command[0])} recorded nothing.")
        raise typer.Exit(outcome.status or ExitCode.UNMEASURED)
    try:
        where.emit(_selected(outcome.report, sort, top), render)
    except CfctlError as error:
        report_error(error)
        raise typer.Exit(outcome.status or FAILED) from None
    raise typer.Exit(outcome.status)


ProgramArgument = Annotated[
    str | None, typer.Argument(metavar="[SEGMENT|PID]", help="A segment or a process; the newest segment.")
]


@app.command()
def pause(program: ProgramArgument = None) -> None:
    """Stop timing the functions of a running program that profile run --function named.

    Calls that are under way are still recorded. What the program times by itself goes on.
    """
    _set_paused(program, True)


@app.command()
def resume(program: ProgramArgument = None) -> None:
    """Go on timing the functions of a program that was paused."""
    _set_paused(program, False)


def _set_paused(program: str | None, paused: bool) -> None:
    from cfctl.profile.control import set_paused
    from cfctl.segment.directory import find_segment

    pid = set_paused(find_segment(program), paused)
    message(f"{'Paused' if paused else 'Resumed'} process {pid}.")


def _load(source: str | None) -> ProfileReport:
    """Return the report of a segment, a process's segment, or a saved report."""
    from cfctl.profile.recording import record_of_file
    from cfctl.profile.report import build_report
    from cfctl.profile.saved import load_report
    from cfctl.segment.directory import find_segment

    path = find_segment(source)
    return load_report(path) or build_report([record_of_file(path)])


def _write_report(found: ProfileReport, output: str) -> None:
    from cfctl.records import to_json

    data = to_json(found, indent=None).encode()
    if output == "-":
        sys.stdout.buffer.write(data)
    else:
        write_file(output, data)


def _prune_by_settings() -> None:
    """Remove the ended segments that the settings say are too old or too many."""
    from cfctl import config
    from cfctl.segment.directory import list_segments, remove_segment, user_directories
    from cfctl.segment.reaper import prunable

    settings = config.load()
    try:
        files = list_segments(user_directories()).files
    except SegmentError:
        # Whether the directory can be used is the program's to say, and it will.
        return
    limits = settings.get("segments.max-age"), settings.get("segments.max-total")
    for file in prunable(files, time.time_ns(), *limits):
        with contextlib.suppress(StateError):
            remove_segment(file)


def _selected(found: ProfileReport, sort: str, top: int | None) -> ProfileReport:
    from cfctl.profile.report import selected

    return selected(found, sort, top)


def _say_nothing_recorded(what: str) -> None:
    message(
        f"cfctl: {what}\n"
        "       No function was timed: it uses no cfctl.Profiler, and no --function that was called.\n"
        f"       {_EXAMPLE}"
    )
