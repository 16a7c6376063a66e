"""`cfctl top`: what the operations of all running programs do, now."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from cfctl.cli.live import AllUsersOption, IntervalOption, UpdatesOption, interval_s, paced, show_live
from cfctl.cli.output import FormatOption, JsonOption, Output, OutputOption, UnitOption, stdout_is_terminal
from cfctl.cli.profile_commands.report import FilterOption, TopOption  # noqa: TC001 - Typer reads them
from cfctl.cli.typer_app import command_app

if TYPE_CHECKING:
    from cfctl.profile.activity import Activity, Reading

app = command_app()


@app.command()
def top(
    interval: IntervalOption = "1s",
    updates: UpdatesOption = None,
    filter: FilterOption = None,
    top: TopOption = None,
    all_users: AllUsersOption = False,
    format: FormatOption = None,
    json: JsonOption = False,
    output: OutputOption = None,
    unit: UnitOption = None,
) -> None:
    """Show the operations of all running programs with their rates, the busiest first, and their bus.

    All numbers but the count are of the time between two readings. Busy is the time that
    samples took per time that went by: 100 % is one thread that does nothing else. A sample counts
    whole when it ends.

    On a terminal the table is redrawn until Ctrl-C; elsewhere it is written once, or --updates
    times, with --json as one object per line.
    """
    from cfctl.render.activity import render, summary_line

    where = Output.resolve(format, json, output, unit)
    seconds = interval_s(interval)
    follows = updates is not None or stdout_is_terminal()
    found = _activities(seconds, all_users, filter or [], top)
    if follows and where.path is None:
        show_live(paced(found, seconds, updates), where, render, summary_line)
    else:
        where.emit(next(found), render)


def _activities(seconds: float, all_users: bool, patterns: list[str], top: int | None) -> Iterator[Activity]:
    from cfctl import paths
    from cfctl.bus.reading import BusReader
    from cfctl.bus.report import report_of
    from cfctl.profile.activity import activity, chosen

    bus = BusReader(paths.segment_directory())
    earlier, bus_earlier = _read(all_users), bus.read()
    time.sleep(seconds)
    while True:
        later, bus_later = _read(all_users), bus.read()
        found = chosen(activity(earlier, later), patterns, top)
        report = report_of(bus_later, bus_earlier)
        yield dataclasses.replace(found, bus=report if report.live else None)
        earlier, bus_earlier = later, bus_later


def _read(all_users: bool) -> Reading:
    """Return the recordings of all processes that run; one that just ended is left out."""
    from cfctl.errors import SegmentError
    from cfctl.profile.activity import Reading
    from cfctl.profile.recording import record_of_file
    from cfctl.segment.directory import list_segments, user_directories

    recordings = []
    for file in list_segments(user_directories(all_users)).files:
        if file.liveness.live:
            try:
                recordings.append(record_of_file(file.path))
            except SegmentError:
                continue
    return Reading(time.monotonic_ns(), time.time_ns(), tuple(recordings))
