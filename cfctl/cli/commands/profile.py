"""`cfctl profile`: how long the operations of a program take, while it runs or after."""

from __future__ import annotations

import functools
from typing import Annotated

import typer

from cfctl.cli.exit_codes import ExitCode
from cfctl.cli.output import TEXT, FormatOption, JsonOption, Output, OutputOption, UnitOption, message
from cfctl.cli.profile_commands.bench import bench
from cfctl.cli.profile_commands.convert import import_
from cfctl.cli.profile_commands.interleave import compare
from cfctl.cli.profile_commands.report import (
    SortOption,
    TopOption,
    TreeOption,
    machine_readable,
    report,
    save,
    say_nothing_recorded,
    select,
)
from cfctl.cli.profile_commands.system import system
from cfctl.cli.profile_commands.timeline import timeline
from cfctl.cli.segment_limits import prune_by_settings
from cfctl.cli.typer_app import command_group
from cfctl.text import safe_text

app = command_group("Operations of a program: counts, errors and latencies, live or afterwards.")

app.command()(report)
app.command()(save)
app.command()(timeline)
app.command()(compare)
app.command()(bench)
app.command()(system)
app.command("import")(import_)


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
            help="Time this function, unedited; * and ? are wildcards, PACKAGE.* is all in a package. Repeatable.",
        ),
    ] = None,
    follow_children: Annotated[
        bool, typer.Option("--follow-children", help="Time the functions in other Pythons it starts, too.")
    ] = False,
    timeline: Annotated[
        bool, typer.Option("--timeline", help="Keep each thread's latest 8192 samples as a timeline.")
    ] = False,
    stacks: Annotated[
        bool, typer.Option("--stacks", help="Sample its Python stacks with py-spy, too.")
    ] = False,
    stacks_rate: Annotated[
        int,
        typer.Option("--stacks-rate", metavar="HZ", min=1, max=1000, help="Samples per second of --stacks."),
    ] = 100,
    stacks_no_pause: Annotated[
        bool,
        typer.Option(
            "--stacks-no-pause",
            help="Sample without pausing the program: times stay true, stacks may be torn.",
        ),
    ] = False,
    tree: TreeOption = False,
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

    --stacks attaches py-spy to the program, and with --follow-children to those it starts. It pauses
    them for each sample, which is in the slowest of the recorded times, unless --stacks-no-pause is
    given. The functions are shown with their shares of the samples and these shares' errors; --format json
    keeps all stacks, speedscope and collapsed are for flame graphs.

      cfctl profile run --stacks --format speedscope -o stacks.json -- python app.py
    """
    from cfctl.cli.app import report_error
    from cfctl.errors import CfctlError
    from cfctl.launch import FAILED, LaunchError
    from cfctl.profile.patterns import parse_pattern
    from cfctl.profile.run import run_and_record
    from cfctl.profile.sampler import Sampler
    from cfctl.render.profile import render, render_tree

    patterns = [parse_pattern(text) for text in function or []]
    where = Output.resolve(format, json, output, unit, to_stderr=True)
    prune_by_settings()
    try:
        sampler = Sampler(stacks_rate, follow_children, not stacks_no_pause) if stacks else None
        outcome = run_and_record(command, patterns, follow_children, timeline, sampler)
    except LaunchError as error:
        report_error(error)
        raise typer.Exit(error.status) from None
    for note in outcome.notes:
        message(f"cfctl: {safe_text(note, 600)}")
    if not outcome.report.operations and not outcome.report.stacks:
        say_nothing_recorded(f"{safe_text(command[0])} recorded nothing.")
        raise typer.Exit(outcome.status or ExitCode.UNMEASURED)
    try:
        found = machine_readable(outcome.report, where)
        if tree and where.format == TEXT:
            where.emit(found, functools.partial(render_tree, top=top))
        else:
            where.emit(select(found, where, sort, top), render)
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
