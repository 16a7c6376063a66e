"""`cfctl alloc`: what a program allocates and frees, live or afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from cfctl.cli.exit_codes import ExitCode
from cfctl.cli.live import IntervalOption, UpdatesOption, interval_s, paced, show_live
from cfctl.cli.output import FormatOption, JsonOption, Output, OutputOption, UnitOption
from cfctl.cli.segment_limits import prune_by_settings
from cfctl.cli.typer_app import command_group
from cfctl.records import Verdict

if TYPE_CHECKING:
    from cfctl.alloc.report import AllocReport

app = command_group(
    "Allocations of a program: calls, bytes, live and peak, sizes, growth; live or afterwards."
)

FailAboveOption = Annotated[
    str | None,
    typer.Option(
        "--fail-above",
        metavar="LIMITS",
        help="End with 1 above a limit, like live=100MB,peak=1GB,rate=1e6/s; others: byte-rate, allocations, "
        "blocks, failures.",
    ),
]


@app.command(context_settings={"allow_interspersed_args": False})
def run(
    command: Annotated[
        list[str], typer.Argument(metavar="COMMAND [ARGS]...", help="The program to run, after --.")
    ],
    follow_children: Annotated[
        bool, typer.Option("--follow-children", help="Count in the programs it starts, too.")
    ] = False,
    with_tool: Annotated[
        str | None,
        typer.Option("--with", metavar="memray", help="Run memray along and show its sites of allocation."),
    ] = None,
    cycles: Annotated[
        bool, typer.Option("--cycles", help="Find the reference cycles that a Python program makes.")
    ] = False,
    fail_above: FailAboveOption = None,
    format: FormatOption = None,
    json: JsonOption = False,
    output: OutputOption = None,
    unit: UnitOption = None,
) -> None:
    """Run a program and report what it allocated.

    A library that the dynamic loader puts before the allocator counts each call of malloc and its
    like at a few nanoseconds; no stacks are recorded. The program sees the environment it would
    have seen. A program that replaces itself (env, a wrapper script's exec) is counted on; programs
    that it starts are counted with --follow-children only.

    With --cycles the garbage that Python's collector finds is looked into, at most a twentieth of the
    time: the report shows who holds whom in a circle, and how to break it.

    It keeps its standard input, output and error; the report goes to standard error, or to the file
    of -o. The exit status is the program's own, 128+N when signal N ended it; 125 when it was not
    run, because it is statically linked or setuid for example, 126 when it can not be executed, 127
    when it was not found. When it succeeded: 1 above a limit of --fail-above, 3 when nothing was
    counted.
    """
    from cfctl.alloc.limits import judged, parse_limits
    from cfctl.alloc.run import run_and_count
    from cfctl.cli.app import report_error
    from cfctl.errors import CfctlError, InputError
    from cfctl.launch import FAILED, LaunchError
    from cfctl.render.alloc import render

    limits = parse_limits(fail_above) if fail_above else ()
    if with_tool not in {None, "memray"}:
        raise InputError(f"There is no tool '{with_tool}'.", "Tools: memray.")
    where = Output.resolve(format, json, output, unit, to_stderr=True)
    prune_by_settings()
    try:
        outcome = run_and_count(command, follow_children, with_tool is not None, cycles)
    except LaunchError as error:
        report_error(error)
        raise typer.Exit(error.status) from None
    report = judged(outcome.report, limits)
    try:
        where.emit(_with_host(report), render)
    except CfctlError as error:
        report_error(error)
        raise typer.Exit(outcome.status or FAILED) from None
    raise typer.Exit(outcome.status or _status(report))


@app.command()
def stats(
    program: Annotated[
        str | None,
        typer.Argument(metavar="[SEGMENT|PID]", help="A segment or a process; the newest segment."),
    ] = None,
    live: Annotated[
        bool, typer.Option("--live", help="Read again and again while the program runs.")
    ] = False,
    interval: IntervalOption = "1s",
    updates: UpdatesOption = None,
    fail_above: FailAboveOption = None,
    format: FormatOption = None,
    json: JsonOption = False,
    output: OutputOption = None,
    unit: UnitOption = None,
) -> None:
    """Show the allocations of a program that runs under cfctl alloc run, has ended or was killed.

    Calls and bytes are exact, whatever the moment. The peak is known to within 64 KiB for each
    thread. Bytes are those the allocator gave, which are a few more than were asked for. Live bytes
    over time have a point every 10 ms at the finest, the older the coarser.

    Growth: the slope of the troughs of live bytes, the first quarter of the run left out, by the
    median of pairwise slopes (Theil, Sen) with its 95 % interval. Growing: they rise throughout and
    still in the second half. Steady: there is no room for a rise of 1 %. Inconclusive otherwise, and
    for a run below 1.3 s.

    --live refreshes the report on a terminal, with rates since the reading before; elsewhere it
    writes a line per reading, with --json a JSON object per line. It ends when the program does.
    """
    from cfctl.alloc.limits import judged, parse_limits
    from cfctl.render.alloc import render, summary_line

    limits = parse_limits(fail_above) if fail_above else ()
    where = Output.resolve(format, json, output, unit)
    if live:
        readings = (judged(report, limits) for report in _readings(program))
        show_live(paced(readings, interval_s(interval), updates), where, render, summary_line)
        return
    report = judged(_load(program), limits)
    where.emit(_with_host(report), render)
    raise typer.Exit(_status(report))


def _load(program: str | None) -> AllocReport:
    from cfctl.alloc.recording import nothing_counted, process_of_file
    from cfctl.alloc.report import build_report
    from cfctl.segment.directory import find_segment

    path = find_segment(program)
    process, problems = process_of_file(path)
    if process is None:
        raise nothing_counted(path)
    return build_report([process], problems)


def _readings(program: str | None) -> Iterator[AllocReport]:
    """Yield one report after the other, with rates since the one before, until the program has ended."""
    from cfctl.alloc.report import since
    from cfctl.segment.directory import find_segment

    # The newest segment may be another one at the next reading.
    path = str(find_segment(program))
    earlier: AllocReport | None = None
    while True:
        found = _load(path)
        yield found if earlier is None else since(found, earlier)
        earlier = found
        if not any(process.state == "live" for process in found.processes):
            return


def _with_host(report: AllocReport) -> AllocReport:
    from cfctl.alloc.report import with_host
    from cfctl.host.fingerprint import fingerprint
    from cfctl.records import to_plain

    return with_host(report, to_plain(fingerprint()))


def _status(report: AllocReport) -> ExitCode:
    verdicts = {outcome.judgement.verdict for outcome in report.limits}
    if Verdict.FAIL in verdicts:
        return ExitCode.FINDING
    if Verdict.INCONCLUSIVE in verdicts or not report.processes:
        return ExitCode.UNMEASURED
    return ExitCode.OK
