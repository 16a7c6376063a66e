"""The recent samples of one process, for viewers of traces."""

from __future__ import annotations

from typing import Annotated

import typer

from cfctl.cli.output import FormatOption, JsonOption, Output, OutputOption, UnitOption


def timeline(
    source: Annotated[
        str | None,
        typer.Argument(metavar="[SEGMENT|PID]", help="A segment or a process; the newest segment."),
    ] = None,
    format: FormatOption = None,
    json: JsonOption = False,
    output: OutputOption = None,
    unit: UnitOption = None,
) -> None:
    """Show or export the recent samples of a program that records a timeline.

    --format perfetto is for ui.perfetto.dev and chrome://tracing, --format speedscope for
    speedscope.app, csv and json for anything else.

      cfctl profile timeline --format perfetto -o trace.json
    """
    from cfctl.profile.trace import trace_of_file
    from cfctl.render.trace import render
    from cfctl.segment.directory import find_segment

    where = Output.resolve(format, json, output, unit)
    where.emit(trace_of_file(find_segment(source)), render)
