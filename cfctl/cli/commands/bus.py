"""`cfctl bus`: the message bus between programs, from outside, and measured on this machine."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from cfctl.cli.bus_commands.stats import stats
from cfctl.cli.bus_commands.topics import topics
from cfctl.cli.bus_commands.trace import record, verify
from cfctl.cli.cpu_list import cpu_list_option
from cfctl.cli.output import FormatOption, JsonOption, Output, OutputOption, UnitOption
from cfctl.cli.progress import progress
from cfctl.cli.typer_app import command_group
from cfctl.units import parse_time_ns

app = command_group("The message bus between programs, from outside, and measured on this machine.")
app.command()(stats)
app.command()(topics)
app.command()(record)
app.command()(verify)


def _complete_wait(incomplete: str) -> list[str]:
    return [name for name in ("spin", "adaptive", "park") if name.startswith(incomplete)]


@app.command()
def bench(
    threads: Annotated[
        bool, typer.Option("--threads/--processes", help="Between threads of one process; processes.")
    ] = False,
    size: Annotated[int, typer.Option("--size", metavar="BYTES", help="Payload of a message, from 16.")] = 64,
    subscribers: Annotated[
        int, typer.Option("--subscribers", metavar="N", help="Subscribers, 1 to 32, each gets all.")
    ] = 1,
    rate: Annotated[
        float | None,
        typer.Option("--rate", metavar="N", help="Messages a second; 100000, with --scheduled 1000."),
    ] = None,
    duration: Annotated[
        str, typer.Option("--duration", metavar="TIME", help="Length of the paced run.")
    ] = "2s",
    wait: Annotated[
        str,
        typer.Option(
            "--wait",
            metavar="HOW",
            help="How subscribers wait: spin, adaptive or park.",
            autocompletion=_complete_wait,
        ),
    ] = "spin",
    scheduled: Annotated[
        bool, typer.Option("--scheduled", help="Through the dispatcher, each with a deadline.")
    ] = False,
    cpus: Annotated[
        str | None,
        typer.Option("--cpus", metavar="LIST", help="The publisher's CPU and the subscribers'; all usable."),
    ] = None,
    format: FormatOption = None,
    json: JsonOption = False,
    output: OutputOption = None,
    unit: UnitOption = None,
) -> None:
    """Measure latency, loss and throughput of the bus on this machine.

    Messages are published at a fixed rate, whether or not they can be taken, and the latency of each
    counts from the moment it was due. A message that found the ring full is tried for 100 ms before it
    is lost. Then come messages as fast as they go, and round trips.

    Beside the figures stand the time of a cache line between the two CPUs, which is the least a message
    can take, and the time these CPUs lost to other things, both of the same run. Waiting by spin or
    adaptive burns a CPU, which is shown apart; park sleeps and is then woken by the kernel.
    """
    from cfctl.bench.bus import bench as measure
    from cfctl.bus import Wait
    from cfctl.errors import InputError
    from cfctl.host.fingerprint import fingerprint
    from cfctl.render.bus import render_bench

    where = Output.resolve(format, json, output, unit)
    if wait not in list(Wait):
        raise InputError(f"There is no way to wait named '{wait}'.", "There are: spin, adaptive, park.")
    duration_ns = parse_time_ns(duration, "s")
    with progress(f"bus for {duration}") as show:
        found = measure(
            threads=threads,
            size=size,
            subscribers=subscribers,
            rate_hz=rate,
            duration_ns=duration_ns,
            wait=wait,
            scheduled=scheduled,
            cpus=cpu_list_option(cpus),
            on_progress=show,
        )
    where.emit(replace(found, host=fingerprint()), render_bench)
