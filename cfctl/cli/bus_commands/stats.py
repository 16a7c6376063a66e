"""`cfctl bus stats`: the bus from outside."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from cfctl.cli.bus_commands.topics import complete_topics, no_bus
from cfctl.cli.exit_codes import ExitCode
from cfctl.cli.live import IntervalOption, UpdatesOption, interval_s, paced, show_live
from cfctl.cli.output import FormatOption, JsonOption, Output, OutputOption, UnitOption, message
from cfctl.units import parse_time_ns

if TYPE_CHECKING:
    from cfctl.bus.statistics import BusReport


def stats(
    which: Annotated[
        str | None,
        typer.Argument(
            metavar="[PID|TOPIC]",
            help="A process or a topic; all of this user.",
            autocompletion=complete_topics,
        ),
    ] = None,
    live: Annotated[bool, typer.Option("--live", help="Read again and again while anything lives.")] = False,
    window: Annotated[
        str, typer.Option("--window", metavar="TIME", help="Time that rates are over; 0 reads once.")
    ] = "1s",
    interval: IntervalOption = "1s",
    updates: UpdatesOption = None,
    format: FormatOption = None,
    json: JsonOption = False,
    output: OutputOption = None,
    unit: UnitOption = None,
) -> None:
    """Show the message bus of this user's programs: what passes, what waits, what is lost or late.

    Rings and the counters of both ends are joined by topic, from outside, while the programs run and
    after they ended or were killed, as long as their files are there. Rates are over --window,
    counters and latencies since the start.

    Rejected messages found the ring full: nothing was accepted. Dropped ones were accepted and
    overwritten before a subscription took them. A subscription that joins late was never meant to get
    what was published before: that counts as neither. Pending is what the slowest subscription has
    yet to take, right to 32 messages while it receives. Percentiles that have too few samples to stand
    on are shown as low n: p50 needs 20, p99 1000, p99.9 10000.

    The members of a group share a topic's messages. Unfinished ones were taken by a member that works
    on them; abandoned ones by members that died, of which redelivered ones went to another member.

    Healthy: the rate of the ticks is known, each subscription is attached to each ring of its topic, no
    consumer has ended without unsubscribing, no dispatcher's thread has ended, and nothing was rejected
    or dropped in the window. Commands of cfctl itself are marked and do not count.

    --live refreshes the tables on a terminal; elsewhere it writes a line per reading, with --json a
    JSON object per line. It ends when nothing lives any more. Exit status: 3 when there is no bus.
    """
    from cfctl import paths
    from cfctl.bus.reading import BusReader
    from cfctl.bus.report import report_of
    from cfctl.render.bus_state import render, summary_line

    where = Output.resolve(format, json, output, unit)
    reader = BusReader(paths.segment_directory())

    def readings() -> Iterator[BusReport]:
        before = None
        while True:
            now = reader.read()
            found = report_of(now, before, which)
            yield found
            if not found.live:
                return
            before = now

    if live:
        show_live(paced(readings(), interval_s(interval), updates), where, render, summary_line)
        return
    window_ns = parse_time_ns(window, "s")
    found = report_of(before := reader.read(), None, which)
    if found.live and window_ns > 0:
        time.sleep(window_ns / 1e9)
        found = report_of(reader.read(), before, which)
    where.emit(found, render)
    if found.empty:
        message(no_bus(which))
        raise typer.Exit(ExitCode.UNMEASURED)
