"""`cfctl targets`: what the machine and its programs have to meet, and where each target comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cfctl.cli.output import FormatOption, JsonOption, Output, OutputOption, UnitOption, message
from cfctl.cli.target_options import TargetsOption, load_targets
from cfctl.cli.typer_app import command_group

app = command_group("What the machine and its programs have to meet, and where each target comes from.")


@app.command("list")
def list_(
    targets: TargetsOption = None,
    format: FormatOption = None,
    json: JsonOption = False,
    output: OutputOption = None,
    unit: UnitOption = None,
) -> None:
    """List the targets in force, built in or from a file."""
    from cfctl.monitor.target_list import target_list
    from cfctl.render.targets import render

    Output.resolve(format, json, output, unit).emit(target_list(load_targets(targets)), render)


@app.command()
def explain(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[TARGET|METRIC]", help="A target or a metric; all metrics without it."),
    ] = None,
    targets: TargetsOption = None,
    format: FormatOption = None,
    json: JsonOption = False,
    output: OutputOption = None,
    unit: UnitOption = None,
) -> None:
    """Explain a target or a metric: what it means, its unit and labels, what can cause a miss."""
    from cfctl.monitor.target_list import explanation
    from cfctl.render.targets import render_explanation

    document = explanation(load_targets(targets), name)
    Output.resolve(format, json, output, unit).emit(document, render_explanation)


@app.command()
def validate(
    file: Annotated[str, typer.Argument(metavar="FILE", help="TOML file with [targets].")],
) -> None:
    """Check a file of targets: exit 0 when it can be used, 2 with file, line and the nearest name."""
    found = load_targets(str(Path(file)))
    message(
        f"{file}: {sum(t.source.startswith(file) for t in found)} targets, {len(found)} with the built-in ones."
    )
