"""`cfctl compare`: what changed between saved results of one kind, with an exit code for CI."""

from __future__ import annotations

from typing import Annotated

import typer

from cfctl.cli.output import FormatOption, JsonOption, Output, OutputOption, UnitOption
from cfctl.cli.regression import FailAboveOption, FailOnRegressionOption, end_with
from cfctl.cli.typer_app import command_app

app = command_app()


@app.command()
def compare(
    base: Annotated[
        str,
        typer.Argument(
            metavar="BASE", help="What to compare with: a result saved as JSON, a directory, a glob."
        ),
    ],
    new: Annotated[str, typer.Argument(metavar="NEW", help="What is judged: the same.")],
    more_base: Annotated[
        list[str] | None,
        typer.Option("--base", metavar="FILE", help="A further run of the base; repeatable."),
    ] = None,
    more_new: Annotated[
        list[str] | None,
        typer.Option("--new", metavar="FILE", help="A further run of what is judged; repeatable."),
    ] = None,
    fail_above: FailAboveOption = None,
    fail_on_regression: FailOnRegressionOption = False,
    allow_different_hosts: Annotated[
        bool, typer.Option("--allow-different-hosts", help="Compare results of different hosts too.")
    ] = False,
    show_all: Annotated[bool, typer.Option("--all", help="Show figures that stayed the same too.")] = False,
    format: FormatOption = None,
    json: JsonOption = False,
    output: OutputOption = None,
    unit: UnitOption = None,
) -> None:
    """Compare two saved results of one kind: diagnosis, calibration, probe, profile, allocations.

    A figure is better or worse when it moved beyond its noise: the sampling error within a run, and
    the spread between runs when several are given: by a directory of them, a quoted glob, or with
    --base and --new. It fails when the whole
    interval of the change is beyond the threshold, 5 % of the base unless --fail-above says
    otherwise; when the interval reaches across it, the verdict is inconclusive.

      cfctl probe wakeup --json -o before.json
      cfctl probe wakeup --json -o after.json --slack 1ns
      cfctl compare before.json after.json --fail-on-regression --fail-above 'p99:10%:200ns'
      cfctl compare runs/before 'runs/after-*.json'

    METRIC is a metric of the table (p99), or name and metric ('CPU 0 p99'); * stands for any text.
    With RATIO and DIFFERENCE both must be exceeded. Results of hosts with another CPU, hypervisor
    or container are refused unless --allow-different-hosts is given.
    """
    from cfctl.compare.comparison import Threshold
    from cfctl.compare.files import compare_files, saved_files
    from cfctl.render.comparison import render, render_all

    out = Output.resolve(format, json, output, unit)
    found = compare_files(
        [file for source in (base, *(more_base or ())) for file in saved_files(source)],
        [file for source in (new, *(more_new or ())) for file in saved_files(source)],
        [Threshold.parse(text) for text in fail_above or []],
        allow_different_hosts,
    )
    out.emit(found, render_all if show_all else render)
    end_with(found, fail_on_regression)
