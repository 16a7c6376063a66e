"""`cfctl diagnose`: what on this host costs latency, whose it is, and what exactly fixes it."""

from __future__ import annotations

from typing import Annotated

import typer

from cfctl import config
from cfctl.cli.cpu_list import cpu_list_option
from cfctl.cli.diagnose_commands.memory import memory
from cfctl.cli.diagnose_commands.selection import (
    FailOnOption,
    ListOption,
    ShowAllOption,
    checks_option,
    complete_checks,
    names,
    show_catalogue,
    tell,
)
from cfctl.cli.diagnose_commands.temporal import temporal
from cfctl.cli.exit_codes import ExitCode
from cfctl.cli.output import FormatOption, JsonOption, Output, OutputOption, message
from cfctl.cli.progress import step_line
from cfctl.cli.typer_app import command_group
from cfctl.diagnose.record import Subject
from cfctl.errors import InputError
from cfctl.records import Severity, Verdict
from cfctl.units import parse_time_ns

app = command_group("What on this host costs latency, whose it is, and what exactly fixes it.")


def _complete_profile(incomplete: str) -> list[str]:
    from cfctl.diagnose.profiles import PROFILES

    return [name for name in PROFILES if name.startswith(incomplete)]


app.command()(memory)
app.command()(temporal)


@app.command()
def latency(
    fail_on: FailOnOption = None,
    interval: Annotated[
        str | None,
        typer.Option("--interval", metavar="TIME", help="Time between the two counter views; 0 takes one."),
    ] = None,
    target: Annotated[
        str | None, typer.Option("--target", metavar="pQ=TIME", help="Latency to meet, such as p99.9=50us.")
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(
            "--for",
            "--profile",
            metavar="USE",
            help="What waits: timer, busy-poll, ipc, network; or where: container, ci.",
            autocompletion=_complete_profile,
        ),
    ] = None,
    duration: Annotated[
        str, typer.Option("--duration", metavar="TIME", help="How long the latency of the use is probed.")
    ] = "5s",
    cpus: Annotated[
        str | None,
        typer.Option("--cpus", metavar="LIST", help="CPUs to probe, such as 0,2-3; all usable without it."),
    ] = None,
    pm_qos: Annotated[
        int | None,
        typer.Option(
            "--pm-qos", min=0, metavar="US", help="Measure what holding this PM QoS limit gains, such as 0."
        ),
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option("--storage", metavar="DIR", help="Measure fsync below DIR (4 KiB a time, 2 s)."),
    ] = None,
    pid: Annotated[
        int | None, typer.Option("--pid", min=1, metavar="PID", help="Judge this process and its CPUs too.")
    ] = None,
    only: Annotated[str | None, checks_option("--only", "Run these checks only.", Subject.LATENCY)] = None,
    skip: Annotated[str | None, checks_option("--skip", "Leave these checks out.", Subject.LATENCY)] = None,
    require_observable: Annotated[
        str | None,
        checks_option("--require-observable", "Exit 3 when one of these can not observe.", Subject.LATENCY),
    ] = None,
    sysroot: Annotated[
        str,
        typer.Option("--sysroot", metavar="DIR|FILE", help="Diagnose a captured host; nothing is measured."),
    ] = "/",
    no_measure: Annotated[
        bool, typer.Option("--no-measure", help="Read files only, measure nothing.")
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Measure nothing and take one view of the counters.")
    ] = False,
    show_all: ShowAllOption = False,
    list_checks: ListOption = False,
    format: FormatOption = None,
    json: JsonOption = False,
    output: OutputOption = None,
) -> None:
    """Find what on this host costs latency, and what exactly fixes it.

    Reads the kernel's settings and counters, probes what the use waits for, and judges each setting
    against a rule with a named source. An issue says what was found, what it costs here, who can act
    on it (you, or the operator of the host below a guest or container), the commands to run and the
    one that verifies them. What can not be seen is unobservable, with the reason; it never counts as
    a pass. Where a message bus of this user runs (of --pid: where it takes part), it is judged too, as
    by cfctl diagnose temporal.

    With --target the first lines answer whether the latency is met: pass or fail when the whole 95 %
    interval lies on one side, else inconclusive. Probed are: timer, the wake-up of a program started
    here; busy-poll, the delay of an event in a busy loop; ipc, a futex round trip; network, a round
    trip over the loopback. container and ci are probed as a timer.

    Nothing is changed; a PM QoS limit is held only with --pm-qos and only while its effect is
    measured. Exit status: 0 fine, 1 the target is missed or an issue at or above --fail-on is yours
    to fix, 2 usage, 3 the target can not be judged or a check named by --require-observable could
    not observe.
    """
    from cfctl import paths
    from cfctl.diagnose.budget import Target
    from cfctl.diagnose.bus import BusWatch
    from cfctl.diagnose.run import Request, diagnose

    out = Output.resolve(format, json, output)
    if list_checks:
        show_catalogue(out, Subject.LATENCY)
        return
    _require_this_host(sysroot, {"--cpus": cpus, "--pm-qos": pm_qos, "--storage": storage})
    settings = config.load()
    request = Request(
        sysroot=sysroot,
        pid=pid,
        profile=profile or settings.get("diagnose.profile"),
        fail_on=fail_on or Severity(settings.get("diagnose.fail-on")),
        interval_ns=_interval_ns(interval, quick, settings.get("diagnose.interval")),
        measure=not (no_measure or quick),
        target=None if target is None else Target.parse(target),
        duration_ns=parse_time_ns(duration, "s"),
        cpus=cpu_list_option(cpus),
        pm_qos_us=pm_qos,
        storage=storage,
        only=names(only),
        skip=names(skip),
        required=names(require_observable),
    )
    if pm_qos is not None and request.measure:
        message(
            f"A PM QoS limit of {pm_qos} us is asked for (/dev/cpu_dma_latency) while its effect is measured."
        )
    bus = None
    if sysroot == "/":
        bus = BusWatch(paths.segment_directory(), None if pid is None else str(pid))
    with step_line() as show:
        diagnosis = diagnose(request, progress=show, live=bus)
    tell(out, diagnosis, show_all or only is not None)


def _require_this_host(sysroot: str, options: dict[str, str | int | None]) -> None:
    """Raise InputError for an option that says what to measure, where a captured host is diagnosed."""
    for name, value in options.items():
        if value is not None and sysroot != "/":
            raise InputError(f"{name} measures this host.", "--sysroot names another one.")


def _interval_ns(text: str | None, quick: bool, usual_ns: int) -> int:
    """Return the time between the two views: what was asked for, none for a quick run, else the usual."""
    if text is not None:
        return parse_time_ns(text, "s")
    return 0 if quick else usual_ns


@app.command()
def explain(
    checks: Annotated[
        list[str], typer.Argument(metavar="ID...", help="Checks to explain.", autocompletion=complete_checks)
    ],
    format: FormatOption = None,
    json: JsonOption = False,
    output: OutputOption = None,
) -> None:
    """Explain checks: what each looks for, why, and what it reads and finds on this host.

    The page names the rule with its source, the profiles that change its severity, the files it read
    here, and, where there is an issue, its solution and the command that verifies it. Counters and
    measurements need a run of `cfctl diagnose latency`.
    """
    from cfctl.diagnose.explain import explained
    from cfctl.render.check_page import render

    out = Output.resolve(format, json, output)
    out.emit(explained(names(",".join(checks))), render)


@app.command()
def fix(
    only: Annotated[str | None, checks_option("--only", "Fix these issues only.", Subject.LATENCY)] = None,
    skip: Annotated[str | None, checks_option("--skip", "Leave these issues out.", Subject.LATENCY)] = None,
    profile: Annotated[
        str | None,
        typer.Option(
            "--profile", metavar="PROFILE", help="Workload, as in latency.", autocompletion=_complete_profile
        ),
    ] = None,
    pid: Annotated[
        int | None, typer.Option("--pid", min=1, metavar="PID", help="Fix what concerns this process too.")
    ] = None,
    sysroot: Annotated[
        str, typer.Option("--sysroot", metavar="DIR|FILE", help="Write the script for a captured host.")
    ] = "/",
    output: OutputOption = None,
) -> None:
    """Print a shell script that fixes the issues, to be read before it is run; nothing is applied.

      cfctl diagnose fix -o fix.sh
      sh fix.sh now

    The script has three actions: now changes the running system, persist makes the changes survive
    a reboot, undo puts back the values read when the script was made. Each issue is one section with
    what was found and why it matters; what is no command, is for the host operator or has no way
    back stands there as a comment.
    """
    from cfctl import __version__
    from cfctl.cli.output import write_file
    from cfctl.diagnose.offline import open_captured
    from cfctl.diagnose.run import Request, diagnose
    from cfctl.diagnose.script import fix_script
    from cfctl.host.view import HostView

    out = Output.resolve(None, False, output)
    settings = config.load()
    request = Request(
        sysroot=sysroot,
        pid=pid,
        profile=profile or settings.get("diagnose.profile"),
        interval_ns=settings.get("diagnose.interval"),
        only=names(only),
        skip=names(skip),
    )
    with step_line() as show:
        diagnosis = diagnose(request, progress=show)
    view = HostView() if sysroot == "/" else open_captured(sysroot).now
    script = fix_script(diagnosis, view, __version__)
    if out.path is None:
        typer.echo(script, nl=False)
    else:
        write_file(out.path, script.encode())


@app.command()
def host(
    storage: Annotated[
        str | None,
        typer.Option(
            "--storage", metavar="DIR", help="Measure random reads of the disk below DIR (64 MiB, 1 s)."
        ),
    ] = None,
    sysroot: Annotated[
        str, typer.Option("--sysroot", metavar="DIR|FILE", help="Judge a captured host; nothing is measured.")
    ] = "/",
    format: FormatOption = None,
    json: JsonOption = False,
    output: OutputOption = None,
) -> None:
    """Compare this host with the minimum and optimal hardware requirements.

    Each requirement (CPU, TSC, cores, clock, RAM, ECC, storage, network, SR-IOV) is met, not met or
    unobservable, with what was found or why it can not be seen; nothing counts as met for want of a
    file. The rate of the storage is measured only with --storage, from a file without a name that is
    gone afterwards.

    Exit status: 1 when a minimum requirement is not met.
    """
    from cfctl.diagnose.offline import open_captured
    from cfctl.diagnose.requirements import NOT_ASKED, hardware
    from cfctl.diagnose.storage_probe import measure_storage
    from cfctl.host.view import HostView
    from cfctl.render.hardware import render

    out = Output.resolve(format, json, output)
    _require_this_host(sysroot, {"--storage": storage})
    rate = NOT_ASKED if storage is None else measure_storage(storage)
    view = HostView() if sysroot == "/" else open_captured(sysroot).now
    report = hardware(view, rate)
    out.emit(report, render)
    if report.verdict is Verdict.FAIL:
        raise typer.Exit(ExitCode.FINDING)
