"""A statement timed by pyperf, its result kept as a report."""

from __future__ import annotations

import functools
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from cfctl.cli.output import FormatOption, JsonOption, Output, OutputOption, UnitOption
from cfctl.errors import UnobservableError


def bench(
    statement: Annotated[str, typer.Argument(metavar="STATEMENT", help="The Python statement to time.")],
    setup: Annotated[
        list[str] | None,
        typer.Option("--setup", "-s", metavar="SETUP", help="A statement to run before; repeatable."),
    ] = None,
    name: Annotated[str | None, typer.Option("--name", metavar="NAME", help="The operation's name.")] = None,
    fast: Annotated[bool, typer.Option("--fast", help="Fewer values, sooner done.")] = False,
    rigorous: Annotated[bool, typer.Option("--rigorous", help="More values, later done.")] = False,
    format: FormatOption = None,
    json: JsonOption = False,
    output: OutputOption = None,
    unit: UnitOption = None,
) -> None:
    """Time a Python statement with pyperf: calibrated loops in several processes.

    Each sample is the mean of a loop, so that percentiles are those of loops. With --json the
    report is what cfctl profile report and cfctl compare read.

      cfctl profile bench -s 'd = {str(i): i for i in range(100)}' 'sorted(d)' --json -o before.json
    """
    from cfctl.cli.profile_commands.report import with_host
    from cfctl.profile.sources import import_report
    from cfctl.render.profile import render

    where = Output.resolve(format, json, output, unit)
    with tempfile.TemporaryDirectory(prefix="cfctl-bench-") as directory:
        result = Path(directory) / "result.json"
        options = [f"--setup={line}" for line in setup or []]
        options += ["--fast"] * fast + ["--rigorous"] * rigorous + [f"--name={name or statement}"]
        command = [
            sys.executable,
            "-m",
            "pyperf",
            "timeit",
            "--quiet",
            "--output",
            str(result),
            *options,
            "--",
        ]
        try:
            # Its progress and its warnings are for people; standard output is the report's.
            ended = subprocess.run([*command, statement], stdout=sys.stderr.fileno(), check=False)
        except OSError as error:
            raise UnobservableError("pyperf could not be run.", f"{error}.") from error
        if ended.returncode or not result.exists():
            raise UnobservableError(
                "pyperf did not time the statement.", f"It ended with status {ended.returncode}.",
                "It says why above; try the statement in Python.",
            )  # fmt: skip
        found = with_host(import_report(result, "pyperf", f"pyperf timeit {statement}"), here=True)
    columns = ("count", "mean", "stddev", "min", "p50", "max")
    where.emit(found, functools.partial(render, columns=columns))
