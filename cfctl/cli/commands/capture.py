"""`cfctl capture`: what the checks read of this host, as one archive to diagnose anywhere."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from cfctl import config
from cfctl.cli.output import check_writable, message, write_file
from cfctl.cli.progress import step_line
from cfctl.cli.typer_app import command_app
from cfctl.errors import InputError
from cfctl.units import format_quantity, parse_time_ns

app = command_app()


@app.command()
def capture(
    output: Annotated[
        str,
        typer.Option("--output", "-o", metavar="FILE", help="The archive to write (.tar.gz); - is stdout."),
    ],
    pid: Annotated[
        int | None, typer.Option("--pid", min=1, metavar="PID", help="Capture this process too.")
    ] = None,
    interval: Annotated[
        str | None,
        typer.Option("--interval", metavar="TIME", help="Time between the two counter views; 0 takes one."),
    ] = None,
    profile: Annotated[
        str,
        typer.Option("--for", metavar="USE", help="What waits: timer, busy-poll, ipc, network."),
    ] = "timer",
    duration: Annotated[
        str, typer.Option("--duration", metavar="TIME", help="How long the latency of the use is probed.")
    ] = "5s",
    no_measure: Annotated[
        bool, typer.Option("--no-measure", help="Store files only, measure nothing.")
    ] = False,
) -> None:
    """Capture what the checks read of this host, to diagnose it anywhere.

      cfctl capture -o host.tar.gz
      cfctl diagnose latency --sysroot host.tar.gz

    The archive holds the files of /proc and /sys that the checks and `cfctl diagnose host` read, at
    the two ends of the interval, with the reason for each that could not be read; the answers of
    the syscalls they made; the names found in the directories they listed, among them those of
    processes and network links; and what the probes measured: the latency of the use, for
    `cfctl diagnose latency --target`, where a busy loop's time goes, costs, and the clock.

    It holds no environment variables but the one that names a container, and the names of those for
    the allocator, no user names or command
    lines of programs, of the mount table only the kernel's own file systems, and of the kernel's log only
    lines about clocks, CPUs and memory errors. The same host state gives the same bytes. To look:
    tar -tzf FILE.
    """
    from cfctl.diagnose.capture import CaptureRequest
    from cfctl.diagnose.capture import capture as capture_host
    from cfctl.diagnose.profiles import PROFILES

    if output == "-" and sys.stdout.isatty():
        raise InputError("An archive is nothing for a terminal.", "", "Name a file: -o host.tar.gz")
    if output != "-":
        check_writable(output)
    settings = config.load()
    interval_ns = settings.get("diagnose.interval") if interval is None else parse_time_ns(interval, "s")
    if profile not in PROFILES:
        raise InputError(f"There is no profile '{profile}'.", f"Profiles: {', '.join(PROFILES)}.")
    request = CaptureRequest("/", pid, interval_ns, not no_measure, profile, parse_time_ns(duration, "s"))
    with step_line() as show:
        found = capture_host(request, progress=show)
    write_file("/dev/stdout" if output == "-" else output, found.archive)
    size = format_quantity(len(found.archive), "B")
    message(f"{output}: {found.host_files} files of this host, {size}")
