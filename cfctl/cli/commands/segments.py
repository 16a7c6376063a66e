"""`cfctl segments`: the files into which instrumented programs record."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from cfctl.cli.exit_codes import ExitCode
from cfctl.cli.output import FormatOption, JsonOption, Output, OutputOption, message
from cfctl.cli.typer_app import command_group
from cfctl.text import safe_text
from cfctl.units import format_quantity

if TYPE_CHECKING:
    from cfctl.segment.directory import Listing

app = command_group("Segments: the files into which instrumented programs record.")

AllUsersOption = Annotated[
    bool, typer.Option("--all-users", help="Those of all users in /dev/shm; for root.")
]


@app.command("list")
def list_(
    all_users: AllUsersOption = False,
    format: FormatOption = None,
    json: JsonOption = False,
    output: OutputOption = None,
) -> None:
    """Show the segments, newest first: live or ended, process, age, size and operations.

    The age is the time since the segment was last written. A segment stays after its program has
    ended, until it is pruned.
    """
    from cfctl.render.segments import render
    from cfctl.segment.directory import list_segments, user_directories
    from cfctl.segment.listing import segment_list

    where = Output.resolve(format, json, output)
    listing = list_segments(user_directories(all_users))
    where.emit(segment_list(listing, time.time_ns()), render)
    if not listing.files:
        _say_empty(listing)
        raise typer.Exit(ExitCode.UNMEASURED)


@app.command()
def prune(
    older_than: Annotated[
        str | None,
        typer.Option(
            "--older-than", metavar="TIME", help="Age from which on they go, like 2h; segments.max-age."
        ),
    ] = None,
    all_users: AllUsersOption = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show which ones would go.")] = False,
) -> None:
    """Remove ended segments by age, and the oldest of them beyond a total size; rings of the bus alike.

    Without --older-than the settings segments.max-age and segments.max-total decide. A segment of
    a running program is never removed, nor a ring whose publisher lives, or that holds messages which
    a living subscription has yet to take.
    """
    from cfctl import config
    from cfctl.bus.reaper import prunable_rings, remove_rings, remove_topics
    from cfctl.bus.rings import list_rings
    from cfctl.segment.directory import list_segments, remove_segment, user_directories
    from cfctl.segment.reaper import prunable
    from cfctl.units import parse_time_ns

    settings = config.load()
    max_age_ns = settings.get("segments.max-age") if older_than is None else parse_time_ns(older_than)
    max_total_bytes = settings.get("segments.max-total") if older_than is None else None
    listing = list_segments(user_directories(all_users))
    removed_bytes = removed = removed_rings = 0
    for file in prunable(listing.files, time.time_ns(), max_age_ns, max_total_bytes):
        if dry_run or remove_segment(file):
            typer.echo(safe_text(file.path, 4096))
            removed += 1
            removed_bytes += file.size_bytes
    for directory in listing.directories:
        rings, _ = list_rings(directory)
        for ring in prunable_rings(rings, time.time_ns(), max_age_ns, max_total_bytes):
            if dry_run or remove_rings([ring]):
                typer.echo(safe_text(ring.path, 4096))
                removed_rings += 1
        if not dry_run:
            remove_topics(directory)
    verb = "would be removed" if dry_run else "removed"
    live = sum(file.liveness.live for file in listing.files)
    kept = len(listing.files) - removed
    message(f"{removed} {verb} ({format_quantity(removed_bytes, 'B')}), {kept} kept, {live} of them live.")
    if removed_rings:
        message(f"Rings of the bus: {removed_rings} {verb}.")


def _say_empty(listing: Listing) -> None:
    where = ", ".join(safe_text(directory, 4096) for directory in listing.directories)
    message(
        f"cfctl: There are no segments in {where}.\n"
        "       No program that records with cfctl has run.\n"
        "       Run one: cfctl profile run --function MODULE:NAME -- python app.py"
    )
