"""`cfctl check`: the machine and a process against targets, with an exit code for CI."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer

from cfctl import config
from cfctl.cli.exit_codes import ExitCode
from cfctl.cli.output import (
    FormatOption,
    JsonOption,
    Output,
    OutputOption,
    UnitOption,
    check_writable,
    message,
    write_file,
)
from cfctl.cli.target_options import TargetOption, TargetsOption, load_targets
from cfctl.cli.typer_app import command_app
from cfctl.errors import InputError
from cfctl.units import parse_time_ns

app = command_app()


@app.command()
def check(
    targets: TargetsOption = None,
    target: TargetOption = None,
    pid: Annotated[
        int | None,
        typer.Option("--pid", min=1, metavar="PID", help="Process that is checked; cfctl itself without it."),
    ] = None,
    window: Annotated[
        str, typer.Option("--window", metavar="TIME", help="How long CPU time is observed.")
    ] = "1s",
    settle: Annotated[
        bool,
        typer.Option("--settle", help="Wait until a calibration is 60 s old; make one if none is saved."),
    ] = False,
    inconclusive: Annotated[
        str | None,
        typer.Option("--inconclusive", metavar="report|pass|fail", help="How an inconclusive target counts."),
    ] = None,
    junit: Annotated[
        str | None, typer.Option("--junit", metavar="FILE", help="Write JUnit XML to FILE as well.")
    ] = None,
    github: Annotated[
        bool, typer.Option("--github", help="Write GitHub annotations to stderr as well.")
    ] = False,
    format: FormatOption = None,
    json: JsonOption = False,
    output: OutputOption = None,
    unit: UnitOption = None,
) -> None:
    """Check this machine and a process against targets; exit 1 when one is missed.

    A verdict is pass or fail only when the whole uncertainty interval lies on one side of the
    threshold; else it is inconclusive, which exits 3 unless --inconclusive says otherwise. Targets
    of severity info are reported and never change the exit code.

    Built in are temporal-accuracy (within 10 ns), cpu-utilization (below 80 %) and memory (below
    100 MB). A [targets] table in cfctl.toml, [tool.cfctl.targets] in pyproject.toml, or the user's
    file adds to them or replaces them by name:

      [targets.memory]
      metric = "memory_rss"     # or cpu_utilization, temporal_accuracy
      operator = "<"            # or <=, >, >=, within
      threshold = "200 MB"
      severity = "critical"     # or info, warning

      [targets]
      cpu-utilization = false   # not checked
    """
    from cfctl.host.fingerprint import fingerprint
    from cfctl.monitor.check import InconclusivePolicy, run_check
    from cfctl.monitor.metric import Subject
    from cfctl.monitor.segments import LiveSegments
    from cfctl.monitor.snapshot import Collector
    from cfctl.render.check import render

    policy = inconclusive or config.load().get("check.inconclusive")
    if policy not in list(InconclusivePolicy):
        raise InputError(f"--inconclusive can not be '{policy}'.", "It is report, pass or fail.")
    window_ns = parse_time_ns(window)
    if window_ns < 10_000_000:
        raise InputError(
            "--window is too short.", "CPU time is counted in ticks of 10 ms.", "Use 1s or more."
        )
    result = Output.resolve(format, json, output, unit)
    if junit is not None:
        check_writable(junit)
    chosen = load_targets(targets, target or ())
    collector = Collector(Subject((os.getpid() if pid is None else pid,), settle=settle), LiveSegments())
    snapshot = next(collector.snapshots(window_ns / 1e9))
    document = run_check(chosen, snapshot, InconclusivePolicy(policy), fingerprint())
    result.emit(document, render)
    if junit is not None:
        from cfctl.export.junit import export as export_junit

        write_file(junit, export_junit(document))
    if github:
        from cfctl.export.github import export as export_github

        message(export_github(document).rstrip("\n"))
    codes: dict[Any, ExitCode] = {"pass": ExitCode.OK, "fail": ExitCode.FINDING}
    raise typer.Exit(codes.get(document.verdict, ExitCode.UNMEASURED))
