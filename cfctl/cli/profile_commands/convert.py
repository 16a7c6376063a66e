"""Results of other profilers, read so that report and compare work on them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cfctl.cli.output import check_writable, message
from cfctl.cli.profile_commands.report import write_report


def import_(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A file of another profiler.")],
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="Write the report to FILE; - is stdout.")
    ] = "-",
    source: Annotated[
        str | None,
        typer.Option("--from", metavar="FORMAT", help="pstats, pyperf or hdr_log; recognised without it."),
    ] = None,
) -> None:
    """Read the result of another profiler and save it as a report.

    pstats is what cProfile writes: calls and cumulative times. Its format, marshal, is not made for
    hostile files; it is decoded in a process of its own with bounded memory, but import only files
    that you trust. pyperf is its JSON, each sample the mean of a loop. hdr_log is a HdrHistogram
    log of version 2 with values in nanoseconds.

    What a source does not keep, such as errors or percentiles, is null in the report with the
    reason. cfctl profile report and cfctl compare take the report as any other.
    """
    from cfctl.profile.sources import import_report

    if output != "-":
        check_writable(output)
    found = import_report(Path(file), source)
    write_report(found, output)
    message(f"Imported {found.total_samples} samples of {len(found.operations)} operations.")
