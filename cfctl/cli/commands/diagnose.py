"""`cfctl diagnose`: what on this host costs latency, whose it is, and what exactly fixes it."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from cfctl import config
from cfctl.cli.exit_codes import ExitCode
from cfctl.cli.output import FormatOption, JsonOption, Output, OutputOption
from cfctl.cli.typer_app import command_group
from cfctl.errors import InputError
from cfctl.records import Severity, Verdict
from cfctl.units import parse_time_ns

if TYPE_CHECKING:
    from collections.abc import Callable

app = command_group("What on this host costs latency, whose it is, and what exactly fixes it.")


def _complete_check(incomplete: str) -> list[str]:
    from cfctl.diagnose.engine import catalogue

    *before, last = incomplete.split(",")
    head = "".join(f"{name}," for name in before)
    return [head + check.id for check in catalogue() if check.id.startswith(last.upper())]


def _complete_profile(incomplete: str) -> list[str]:
    from cfctl.diagnose.profiles import PROFILES

    return [name for name in PROFILES if name.startswith(incomplete)]


def _checks_option(name: str, help_text: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(
        name, metavar="ID,...", help=help_text, autocompletion=_complete_check
    )
    return option


@app.command()
def latency(
    fail_on: Annotated[
        Severity | None, typer.Option("--fail-on", help="Least severity of your issues that exits 1.")
    ] = None,
    interval: Annotated[
        str | None,
        typer.Option("--interval", metavar="TIME", help="Time between the two counter views; 0 takes one."),
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(
            "--profile",
            metavar="PROFILE",
            help="Workload: busy-poll, timer, network, container, ci.",
            autocompletion=_complete_profile,
        ),
    ] = None,
    pid: Annotated[
        int | None, typer.Option("--pid", min=1, metavar="PID", help="Judge this process and its CPUs too.")
    ] = None,
    only: Annotated[str | None, _checks_option("--only", "Run these checks only.")] = None,
    skip: Annotated[str | None, _checks_option("--skip", "Leave these checks out.")] = None,
    require_observable: Annotated[
        str | None, _checks_option("--require-observable", "Exit 3 when one of these can not observe.")
    ] = None,
    sysroot: Annotated[
        str,
        typer.Option("--sysroot", metavar="DIR|FILE", help="Diagnose a captured host; nothing is measured."),
    ] = "/",
    no_measure: Annotated[
        bool, typer.Option("--no-measure", help="Read files only, measure nothing.")
    ] = False,
    show_all: Annotated[bool, typer.Option("--all", help="Show checks that passed too.")] = False,
    list_checks: Annotated[bool, typer.Option("--list", help="List all checks and exit.")] = False,
    explain: Annotated[
        str | None, _checks_option("--explain", "Say what these checks look for and exit.")
    ] = None,
    format: FormatOption = None,
    json: JsonOption = False,
    output: OutputOption = None,
) -> None:
    """Find what on this host costs latency, and what exactly fixes it.

    Reads the kernel's settings and counters, measures the clock, and judges each against a rule
    with a named source. An issue says what was found, why it costs latency, who can act on it (you,
    or the operator of the host below a guest or container) and the commands to run. What can not be
    seen is unobservable, with the reason; it never counts as a pass.

    Nothing is changed. Exit status: 0 fine, 1 an issue at or above --fail-on that you can fix, 2
    usage, 3 a check named by --require-observable could not observe.
    """
    from cfctl.diagnose.run import Request, diagnose
    from cfctl.render.diagnosis import render, render_all

    out = Output.resolve(format, json, output)
    if list_checks or explain is not None:
        _show_catalogue(out, _names(explain))
        return
    settings = config.load()
    request = Request(
        sysroot=sysroot,
        pid=pid,
        profile=profile or settings.get("diagnose.profile"),
        fail_on=fail_on or Severity(settings.get("diagnose.fail-on")),
        interval_ns=settings.get("diagnose.interval") if interval is None else parse_time_ns(interval, "s"),
        measure=not no_measure,
        only=_names(only),
        skip=_names(skip),
        required=_names(require_observable),
    )
    progress = _progress()
    try:
        diagnosis = diagnose(request, progress=progress)
    finally:
        progress("")
    out.emit(diagnosis, render_all if show_all else render)
    if diagnosis.verdict is Verdict.FAIL:
        raise typer.Exit(ExitCode.FINDING)
    if diagnosis.verdict is Verdict.INCONCLUSIVE:
        raise typer.Exit(ExitCode.UNMEASURED)


def _names(text: str | None) -> tuple[str, ...]:
    """Return the check ids of an option, which may be written in lower case."""
    if text is None:
        return ()
    names = tuple(name.strip().upper() for name in text.split(",") if name.strip())
    if not names:
        raise InputError(
            "No check is named.", "A list of ids was expected.", "See: cfctl diagnose latency --list"
        )
    return names


def _show_catalogue(out: Output, names: tuple[str, ...]) -> None:
    from cfctl.diagnose.run import described
    from cfctl.render.diagnosis import render_catalogue, render_explanation

    out.emit(described(names), render_explanation if names else render_catalogue)


def _progress() -> Callable[[str], None]:
    """Return a function that shows what is being done on one line of a terminal; nothing elsewhere."""
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        return lambda _: None

    def show(text: str) -> None:
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()

    return show
