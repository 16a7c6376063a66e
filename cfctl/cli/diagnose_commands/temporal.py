"""The message bus: coherence, loss, latency, deadlines, causality, clocks."""

from __future__ import annotations

from typing import Annotated

import typer

from cfctl import config
from cfctl.cli.bus_commands.topics import complete_topics
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


def temporal(
    which: Annotated[
        str | None,
        typer.Argument(
            metavar="[PID|TOPIC]",
            help="A process or a topic; all of this user.",
            autocompletion=complete_topics,
        ),
    ] = None,
    duration: Annotated[
        str, typer.Option("--duration", metavar="TIME", help="How long to watch the bus; 0 takes one view.")
    ] = "5s",
    fail_on: FailOnOption = None,
    only: Annotated[str | None, checks_option("--only", "Run these checks only.", Subject.TEMPORAL)] = None,
    skip: Annotated[str | None, checks_option("--skip", "Leave these checks out.", Subject.TEMPORAL)] = None,
    require_observable: Annotated[
        str | None,
        checks_option("--require-observable", "Exit 3 when one of these can not observe.", Subject.TEMPORAL),
    ] = None,
    no_measure: Annotated[
        bool, typer.Option("--no-measure", help="Look at the bus only, do not measure the clock.")
    ] = False,
    show_all: ShowAllOption = False,
    list_checks: ListOption = False,
    format: FormatOption = None,
    json: JsonOption = False,
    output: OutputOption = None,
) -> None:
    """Find what is wrong with the message bus of this user's programs, and what exactly fixes it.

    Watches rings, subscriptions, dispatchers and hybrid logical clocks from outside: pending and
    rejected messages, loss, latency, throughput under load, phase coherence, deadlines, the order of
    causes, drift, subscriptions that nobody reads. The remedy is code with numbers from what was
    seen, such as the channel size of a measured burst. Then the tick counter, by which all of it is
    timed, is calibrated.

    Without a bus all of it is unobservable, which never counts as a pass. Of programs that have
    ended what they left is judged.

    Exit status: 0 fine, 1 an issue at or above --fail-on is yours to fix, 2 usage, 3 a check named
    by --require-observable could not observe, or nothing could be.
    """
    from cfctl import paths
    from cfctl.diagnose.bus import BusWatch
    from cfctl.diagnose.run import Request, diagnose
    from cfctl.host.view import HostView

    out = Output.resolve(format, json, output)
    if list_checks:
        show_catalogue(out, Subject.TEMPORAL)
        return
    settings = config.load()
    runs = which is not None and which.isdecimal() and HostView().exists(f"proc/{which}")
    request = Request(
        subject=Subject.TEMPORAL,
        pid=int(which) if which is not None and runs else None,
        fail_on=fail_on or Severity(settings.get("diagnose.fail-on")),
        interval_ns=parse_time_ns(duration, "s"),
        measure=not no_measure,
        only=names(only),
        skip=names(skip),
        required=names(require_observable),
    )
    with step_line() as show:
        diagnosis = diagnose(request, progress=show, live=BusWatch(paths.segment_directory(), which))
    tell(out, diagnosis, show_all or only is not None)
