"""`cfctl bench`: what this machine does under a workload of cfctl's own: bus, schedule, clock, pool."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from cfctl.cli.bench_options import RepeatOption, SettleOption, run_bench
from cfctl.cli.exit_codes import ExitCode
from cfctl.cli.output import FormatOption, JsonOption, Output, OutputOption, UnitOption
from cfctl.cli.typer_app import command_app

app = command_app()


def _complete_section(incomplete: str) -> list[str]:
    from cfctl.monitor.bench import PLANS

    return [plan.name for plan in PLANS if plan.name.startswith(incomplete)]


@app.command()
def bench(
    section: Annotated[
        list[str] | None,
        typer.Option(
            "--section",
            metavar="NAME",
            help="This section only; repeatable.",
            autocompletion=_complete_section,
        ),
    ] = None,
    repeat: RepeatOption = 1,
    settle: SettleOption = False,
    format: FormatOption = None,
    json: JsonOption = False,
    output: OutputOption = None,
    unit: UnitOption = None,
) -> None:
    """Measure what this machine does under a workload of cfctl's own.

    One section after the other: throughput and latency of the message bus between two processes, the
    phase of scheduled messages, what timing an operation costs, an object pool, and the clock. All take
    about 12 s. cfctl check --bench measures the same and judges it; cfctl bus bench looks closer at the bus.

    Beside each section stands the CPU time that other programs and the hypervisor took from it
    meanwhile: from 1 % of a CPU on its percentiles may be made of that. --repeat 5 shows the medians of
    the runs that nothing disturbed, where there are any.
    """
    from cfctl.host.fingerprint import fingerprint
    from cfctl.monitor.bench import chosen
    from cfctl.render.bench import render

    where = Output.resolve(format, json, output, unit)
    found = run_bench(chosen(section or ()), repeat, settle)
    where.emit(replace(found, host=fingerprint()), render)
    if all(each.problem for each in found.sections):
        raise typer.Exit(ExitCode.UNMEASURED)
