"""`cfctl probe`: measure what this machine does to a program's time."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cfctl.cli.exit_codes import ExitCode
from cfctl.cli.output import FormatOption, JsonOption, Output, OutputOption, UnitOption, message
from cfctl.cli.progress import progress
from cfctl.cli.typer_app import command_group
from cfctl.errors import InputError
from cfctl.units import parse_time_ns

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from cfctl.probe.scheduling import Scheduling
    from cfctl.records import Document

app = command_group("Probes: jitter, timer wake-ups, cache lines between CPUs, costs of the kernel, clocks.")


def _complete_policy(incomplete: str) -> list[str]:
    return [name for name in ("other", "fifo") if name.startswith(incomplete)]


def _complete_variant(incomplete: str) -> list[str]:
    return [name for name in ("cas", "load-store") if name.startswith(incomplete)]


def _complete_attribution(incomplete: str) -> list[str]:
    return [name for name in ("auto", "unprivileged", "off") if name.startswith(incomplete)]


CpusOption = Annotated[
    str | None, typer.Option("--cpus", metavar="LIST", help="CPUs such as 0,2-3; all usable ones without it.")
]
DurationOption = Annotated[
    str, typer.Option("--duration", metavar="TIME", help="Length of the run, such as 5s.")
]
PolicyOption = Annotated[
    str,
    typer.Option(
        "--policy",
        metavar="POLICY",
        help="Scheduling policy: other or fifo.",
        autocompletion=_complete_policy,
    ),
]
PriorityOption = Annotated[
    int | None, typer.Option("--priority", metavar="N", help="FIFO priority, 1 to 99; 95 without it.")
]
PmQosOption = Annotated[
    int | None,
    typer.Option("--pm-qos", metavar="US", help="Hold this PM QoS latency limit while probing, such as 0."),
]


@app.command()
def jitter(
    cpus: CpusOption = None,
    duration: DurationOption = "5s",
    threshold: Annotated[
        str, typer.Option("--threshold", metavar="TIME", help="Shortest gap that is noted, such as 200ns.")
    ] = "200ns",
    policy: PolicyOption = "other",
    priority: PriorityOption = None,
    pm_qos: PmQosOption = None,
    attribution: Annotated[
        str,
        typer.Option(
            "--attribution",
            metavar="HOW",
            help="Causes of the gaps: auto (tracepoints with root), unprivileged, off.",
            autocompletion=_complete_attribution,
        ),
    ] = "auto",
    format: FormatOption = None,
    json: JsonOption = False,
    output: OutputOption = None,
    unit: UnitOption = None,
) -> None:
    """Show what interrupts a busy loop on each CPU, how much time it loses, and to what.

    Each CPU is taken whole for the run. With root the causes come from kernel tracepoints, else from
    what an ordinary user can prove; the unexplained share is always shown.
    """
    from cfctl.probe.jitter import measure_jitter
    from cfctl.render.probe import render_jitter

    target = Output.resolve(format, json, output, unit)
    named = _cpus(cpus)
    scheduling = _scheduling(policy, priority)
    wanted = (parse_time_ns(duration), parse_time_ns(threshold))
    _say_pm_qos(pm_qos)
    with progress(f"jitter for {duration}") as show:
        document = measure_jitter(
            named, *wanted, scheduling=scheduling, pm_qos_us=pm_qos, attribution=attribution, on_progress=show
        )
    _finish(target, document, render_jitter)


@app.command()
def wakeup(
    cpus: CpusOption = None,
    duration: DurationOption = "5s",
    interval: Annotated[
        str, typer.Option("--interval", metavar="TIME", help="Time between two wake-ups, such as 200us.")
    ] = "200us",
    policy: PolicyOption = "other",
    priority: PriorityOption = None,
    slack: Annotated[
        str | None,
        typer.Option("--slack", metavar="TIME", help="Timer slack, such as 1ns; the default's without it."),
    ] = None,
    pm_qos: PmQosOption = None,
    format: FormatOption = None,
    json: JsonOption = False,
    output: OutputOption = None,
    unit: UnitOption = None,
) -> None:
    """Show how late a cyclic timer wakes its thread on each CPU, counted from the intended time.

    The PM QoS limit and the timer slack are left as they are unless asked for, and stated.
    """
    from cfctl.probe.wakeup import measure_wakeup
    from cfctl.render.probe import render_wakeup

    target = Output.resolve(format, json, output, unit)
    named = _cpus(cpus)
    scheduling = _scheduling(policy, priority, slack)
    wanted = (parse_time_ns(duration), parse_time_ns(interval))
    _say_pm_qos(pm_qos)
    with progress(f"wake-ups for {duration}") as show:
        document = measure_wakeup(named, *wanted, scheduling=scheduling, pm_qos_us=pm_qos, on_progress=show)
    _finish(target, document, render_wakeup)


@app.command("core-to-core")
def core_to_core(
    cpus: CpusOption = None,
    variant: Annotated[
        str | None,
        typer.Option(
            "--variant",
            metavar="VARIANT",
            help="cas or load-store; both without it.",
            autocompletion=_complete_variant,
        ),
    ] = None,
    samples: Annotated[
        int, typer.Option("--samples", metavar="N", help="Samples of 50 round trips for each pair.")
    ] = 1000,
    policy: PolicyOption = "other",
    priority: PriorityOption = None,
    format: FormatOption = None,
    json: JsonOption = False,
    output: OutputOption = None,
    unit: UnitOption = None,
) -> None:
    """Show how long a cache line takes from one CPU to another, for every pair of CPUs.

    Each pair gets fresh pages, by turns at home on either side. Needs two CPUs.
    """
    from cfctl.probe.core_to_core import VARIANTS, measure_core_to_core
    from cfctl.render.probe import render_core_to_core

    target = Output.resolve(format, json, output, unit)
    named = _cpus(cpus)
    scheduling = _scheduling(policy, priority)
    variants = tuple(VARIANTS) if variant is None else (variant,)
    with progress("cache lines between CPUs") as show:
        document = measure_core_to_core(named, variants, samples, scheduling=scheduling, on_progress=show)
    _finish(target, document, render_core_to_core)


@app.command()
def cost(
    cpus: CpusOption = None,
    samples: Annotated[int, typer.Option("--samples", metavar="N", help="Samples of each operation.")] = 2000,
    policy: PolicyOption = "other",
    priority: PriorityOption = None,
    pm_qos: PmQosOption = None,
    format: FormatOption = None,
    json: JsonOption = False,
    output: OutputOption = None,
    unit: UnitOption = None,
) -> None:
    """Show what clock reads, system calls, page faults, futexes, pipes and switches cost.

    On the first of the CPUs, and between it and the second one.
    """
    from cfctl.probe.cost import measure_costs
    from cfctl.render.probe import render_costs

    target = Output.resolve(format, json, output, unit)
    named = _cpus(cpus)
    scheduling = _scheduling(policy, priority)
    _say_pm_qos(pm_qos)
    with progress("costs") as show:
        document = measure_costs(named, samples, scheduling=scheduling, pm_qos_us=pm_qos, on_progress=show)
    _finish(target, document, render_costs)


@app.command()
def clock(
    format: FormatOption = None,
    json: JsonOption = False,
    output: OutputOption = None,
    unit: UnitOption = None,
) -> None:
    """Show what a read of each clock costs and how finely the tick counter steps."""
    from cfctl.probe.clock import measure_clock
    from cfctl.render.probe import render_clock

    target = Output.resolve(format, json, output, unit)
    _finish(target, measure_clock(), render_clock)


def _cpus(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    from cfctl.host.cpus import parse_cpu_list

    try:
        return parse_cpu_list(text)
    except ValueError as error:
        raise InputError(
            f"The CPU list '{text}' can not be read.", f"{error}.", "Write it like 0,2-3."
        ) from error


def _scheduling(policy: str, priority: int | None, slack: str | None = None) -> Scheduling:
    from cfctl.probe.scheduling import Scheduling

    return Scheduling.named(policy, priority, None if slack is None else parse_time_ns(slack))


def _say_pm_qos(limit_us: int | None) -> None:
    if limit_us is not None:
        message(f"A PM QoS limit of {limit_us} us is asked for (/dev/cpu_dma_latency) while probing.")


def _finish(target: Output, document: Document, render: Callable[[Any, Console, str | None], None]) -> None:
    """Write the result with its host; after Ctrl-C the exit code says so."""
    from cfctl.host.fingerprint import fingerprint

    target.emit(replace(document, host=fingerprint()), render)  # type: ignore[call-arg]
    if getattr(document, "interrupted", False):
        raise typer.Exit(ExitCode.INTERRUPTED)
