"""The memory of one process: growth, size, faults, heap, collector and pools."""

from __future__ import annotations

from typing import Annotated

import typer

from cfctl import config
from cfctl.cli.diagnose_commands.selection import (
    FailOnOption,
    ListOption,
    ShowAllOption,
    checks_option,
    names,
    show_catalogue,
    tell,
)
from cfctl.cli.output import FormatOption, JsonOption, Output, OutputOption
from cfctl.cli.progress import step_line
from cfctl.diagnose.record import Subject
from cfctl.records import Severity
from cfctl.units import parse_time_ns


def memory(
    program: Annotated[
        str | None,
        typer.Argument(metavar="[PID|SEGMENT]", help="A process or a segment; the newest segment."),
    ] = None,
    duration: Annotated[
        str,
        typer.Option("--duration", metavar="TIME", help="How long to watch the process; 0 takes one view."),
    ] = "10s",
    fail_on: FailOnOption = None,
    only: Annotated[str | None, checks_option("--only", "Run these checks only.", Subject.MEMORY)] = None,
    skip: Annotated[str | None, checks_option("--skip", "Leave these checks out.", Subject.MEMORY)] = None,
    require_observable: Annotated[
        str | None,
        checks_option("--require-observable", "Exit 3 when one of these can not observe.", Subject.MEMORY),
    ] = None,
    show_all: ShowAllOption = False,
    list_checks: ListOption = False,
    format: FormatOption = None,
    json: JsonOption = False,
    output: OutputOption = None,
) -> None:
    """Find what is wrong with the memory of a process, and what exactly fixes it.

    Of any process: whether its resident memory grows (slope with its 95 % interval), its size
    against the target of 100 MB, swap, page faults, huge pages and the arenas of malloc. Of one
    that calls cfctl.alloc.share_facts() also fragmentation and the garbage collector, of one that
    has pools their misses and leaks, of one under cfctl alloc run its live bytes. What it does not
    tell is unobservable, and never counts as a pass. An inconclusive slope is unobservable too: a
    longer --duration tells.

    Of a program that has ended its segment is judged. The cycles a Python program makes are shown by
    cfctl alloc run --cycles -- python app.py.

    Exit status: 0 fine, 1 an issue at or above --fail-on is yours to fix, 2 usage, 3 a check named
    by --require-observable could not observe.
    """
    from cfctl.diagnose.live import LiveWatch, find_program
    from cfctl.diagnose.run import Request, diagnose

    out = Output.resolve(format, json, output)
    if list_checks:
        show_catalogue(out, Subject.MEMORY)
        return
    settings = config.load()
    found = find_program(program)
    request = Request(
        subject=Subject.MEMORY,
        pid=found.pid,
        fail_on=fail_on or Severity(settings.get("diagnose.fail-on")),
        interval_ns=parse_time_ns(duration, "s"),
        only=names(only),
        skip=names(skip),
        required=names(require_observable),
    )
    with step_line() as show:
        diagnosis = diagnose(request, progress=show, live=LiveWatch(found.paths, found.pid, found.reason))
    tell(out, diagnosis, show_all or only is not None)
