"""`cfctl pool`: object pools of a program, and whether a pool pays for a type."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from cfctl.cli.exit_codes import ExitCode
from cfctl.cli.live import IntervalOption, UpdatesOption, interval_s, paced, show_live
from cfctl.cli.output import FormatOption, JsonOption, Output, OutputOption, UnitOption, message
from cfctl.cli.typer_app import command_group
from cfctl.records import Verdict
from cfctl.units import parse_time_ns

if TYPE_CHECKING:
    from cfctl.pool.statistics import PoolReport

app = command_group("Object pools of a program, and whether a pool pays for a type.")


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
    format: FormatOption = None,
    json: JsonOption = False,
    output: OutputOption = None,
) -> None:
    """Show the pools of a program that runs, has ended or was killed, the busiest first.

    Pools are cfctl.Pool and cfctl.BufferPool. A hit took an idle item, a miss called the factory.
    In use and idle are of this moment, high is the most that one pool had in use at once. Lost items
    were dropped without a release, which a pool sees with debug=True only. Pools of one name share
    a row.

    --live refreshes the table on a terminal; elsewhere it writes a line per reading, with --json a
    JSON object per line. It ends when the program does. Exit status: 3 when the program has no pool.
    """
    from cfctl.pool.statistics import report_of_file
    from cfctl.render.pool import render, summary_line
    from cfctl.segment.directory import find_segment

    where = Output.resolve(format, json, output)
    # The newest segment may be another one at the next reading.
    path = find_segment(program)

    def readings() -> Iterator[PoolReport]:
        while True:
            found = report_of_file(path)
            yield found
            if found.state != "live":
                return

    if live:
        show_live(paced(readings(), interval_s(interval), updates), where, render, summary_line)
        return
    found = report_of_file(path)
    where.emit(found, render)
    if not found.pools:
        message("cfctl: The program has no pool. One is made by cfctl.Pool(factory).")
        raise typer.Exit(ExitCode.UNMEASURED)


@app.command()
def bench(
    factory: Annotated[
        str,
        typer.Option("--factory", metavar="MODULE:NAME", help="The function or class that makes an object."),
    ],
    reset: Annotated[
        str | None,
        typer.Option("--reset", metavar="MODULE:NAME", help="The function that clears one for its next use."),
    ] = None,
    duration: Annotated[str, typer.Option("--duration", metavar="TIME", help="How long to measure.")] = "1s",
    worth: Annotated[
        str,
        typer.Option("--worth", metavar="TIME", help="What a pool has to save per object to be worth it."),
    ] = "200ns",
    format: FormatOption = None,
    json: JsonOption = False,
    output: OutputOption = None,
    unit: UnitOption = None,
) -> None:
    """Measure a fresh object against a pooled one of a type, and say whether a pool pays.

    Imports the module and calls the factory here, with the working directory on the path. Fresh and
    pooled take turns; each figure is a median with its 95 % interval. Pooled is acquire, release and
    the reset; whoever needs cleared objects has to count the reset, and whoever does not name one
    gets what the last user left. A pool pays when it saves --worth or more per object and is at
    least twice as fast, with the whole interval; small objects rarely reach that.

      cfctl pool bench --factory app.messages:Message --reset app.messages:clear

    Exit status: 0 for either verdict, 3 when it is inconclusive.
    """
    from cfctl.pool.bench import bench as measure
    from cfctl.pool.bench import load_callable
    from cfctl.render.pool import render_bench

    where = Output.resolve(format, json, output, unit)
    found = measure(
        load_callable(factory),
        None if reset is None else load_callable(reset),
        name=factory,
        reset_name=reset,
        duration_ns=parse_time_ns(duration, "s"),
        worth_ns=parse_time_ns(worth, "ns"),
    )
    where.emit(found, render_bench)
    if found.verdict is Verdict.INCONCLUSIVE:
        raise typer.Exit(ExitCode.UNMEASURED)
