"""`cfctl bus topics`: the topics of this user's programs; and completing their names."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from cfctl.cli.exit_codes import ExitCode
from cfctl.cli.output import FormatOption, JsonOption, Output, OutputOption, message
from cfctl.text import safe_text
from cfctl.units import parse_time_ns


def complete_topics(incomplete: str) -> list[str]:
    """Return the topics of this user's programs that begin like that."""
    from cfctl import paths
    from cfctl.bus.leases import Leases
    from cfctl.bus.topic_pages import list_topics
    from cfctl.errors import SegmentError

    directory = paths.segment_directory()
    try:
        with Leases(directory) as leases:
            pages, _ = list_topics(directory, leases)
    except SegmentError:
        return []
    return [page.topic for page in pages if page.topic.isprintable() and page.topic.startswith(incomplete)]


def no_bus(which: str | None) -> str:
    """Return the message of a command that found nothing of the bus."""
    from cfctl import paths

    where = safe_text(str(paths.segment_directory()), 200)
    if which is None:
        return f"cfctl: There is no bus in {where}: no program of this user has a cfctl.bus.Bus there, or its files are gone."
    what = f"process {which}" if which.isdecimal() else f"the topic '{safe_text(which, 60)}'"
    return f"cfctl: Nothing of the bus in {where} concerns {what}. Look at cfctl bus topics."


def topics(
    which: Annotated[
        str | None,
        typer.Argument(
            metavar="[PID|TOPIC]",
            help="A process or a topic; all of this user.",
            autocompletion=complete_topics,
        ),
    ] = None,
    window: Annotated[
        str, typer.Option("--window", metavar="TIME", help="Time that rates are over; 0 shows none.")
    ] = "0",
    format: FormatOption = None,
    json: JsonOption = False,
    output: OutputOption = None,
) -> None:
    """List the topics of this user's programs: who publishes, who listens, and what waits.

    One row a topic: publishers, subscriptions and groups whose processes live, and pending, the messages that
    the slowest subscription or group has yet to take. With --window also the rate at which messages are
    published. Topics whose programs have ended are left out; cfctl bus stats shows them, and each publisher and
    subscription. Exit status: 3 when there is no topic.
    """
    from cfctl import paths
    from cfctl.bus.reading import BusReader
    from cfctl.bus.report import report_of
    from cfctl.bus.topic_list import topic_list
    from cfctl.render.bus_topics import render

    where = Output.resolve(format, json, output)
    window_ns = parse_time_ns(window, "s")
    reader = BusReader(paths.segment_directory())
    report = report_of(before := reader.read(), None, which)
    if report.topics and window_ns > 0:
        time.sleep(window_ns / 1e9)
        report = report_of(reader.read(), before, which)
    document = topic_list(report)
    where.emit(document, render)
    if not document.topics:
        message(no_bus(which))
        raise typer.Exit(ExitCode.UNMEASURED)
