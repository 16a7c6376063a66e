"""`cfctl check`: the machine and a process against targets, with an exit code for CI."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cfctl import config
from cfctl.cli.bench_options import RepeatOption, SettleOption, run_bench
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

if TYPE_CHECKING:
    from cfctl.monitor.check import CheckDocument, InconclusivePolicy
    from cfctl.monitor.targets import Target

app = command_app()


@app.command()
def check(
    targets: TargetsOption = None,
    target: TargetOption = None,
    bench: Annotated[
        bool, typer.Option("--bench", help="Check what cfctl bench measures: the machine under a workload.")
    ] = False,
    pid: Annotated[
        int | None,
        typer.Option("--pid", min=1, metavar="PID", help="Process that is checked; cfctl itself without it."),
    ] = None,
    segment: Annotated[
        str | None,
        typer.Option("--segment", metavar="FILE", help="Segment whose process is checked, live or ended."),
    ] = None,
    repeat: RepeatOption = 1,
    window: Annotated[
        str | None, typer.Option("--window", metavar="TIME", help="How long is measured; 1s without it.")
    ] = None,
    settle: SettleOption = False,
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
    of severity info are reported and never change the exit code. With a miss stands what a quick
    diagnosis says of its cause, and the fix.

    --bench checks the machine under a workload of cfctl's own, for which no program is needed. On a
    machine that others use too, a miss while they took more than 1 % of a CPU from the workload is
    inconclusive: it says nothing of the machine. --repeat 5 then takes the medians of the undisturbed
    runs, and their spread as the uncertainty.

    Built in is the guide's table, see cfctl targets list; what nobody's program has is not applicable,
    unless --target names it. A [targets] table in cfctl.toml, [tool.cfctl.targets] in pyproject.toml, or
    the user's file adds to them or replaces them by name:

      [targets.memory]
      metric = "memory_rss"     # see cfctl targets explain
      operator = "<"            # or <=, >, >=, within
      threshold = "200 MB"
      severity = "critical"     # or info, warning

      [targets]
      cpu-utilization = false   # not checked
    """
    from cfctl.render.check import render

    policy = _policy(inconclusive)
    given = {"--bench": bench, "--pid": pid is not None, "--segment": segment is not None}
    _require_one([name for name, is_given in given.items() if is_given])
    if bench and window is not None:
        raise InputError("--window is not for --bench.", "Its sections have lengths of their own.")
    window_ns = parse_time_ns(window or "1s")
    if window_ns < 10_000_000:
        raise InputError(
            "--window is too short.", "CPU time is counted in ticks of 10 ms.", "Use 1s or more."
        )
    result = Output.resolve(format, json, output, unit)
    if junit is not None:
        check_writable(junit)
    chosen = load_targets(targets, target or ())
    if bench:
        document = _of_bench(chosen, policy, repeat, settle, bool(target))
    else:
        document = _of_process(
            chosen, policy, (pid, segment), (window_ns / 1e9, repeat, settle), bool(target)
        )
    result.emit(document, render)
    _tell_ci(document, junit, github)
    codes: dict[Any, ExitCode] = {"pass": ExitCode.OK, "fail": ExitCode.FINDING}
    raise typer.Exit(codes.get(document.verdict, ExitCode.UNMEASURED))


def _policy(inconclusive: str | None) -> InconclusivePolicy:
    from cfctl.monitor.check import InconclusivePolicy

    policy = inconclusive or config.load().get("check.inconclusive")
    if policy not in list(InconclusivePolicy):
        raise InputError(f"--inconclusive can not be '{policy}'.", "It is report, pass or fail.")
    return InconclusivePolicy(policy)


def _require_one(given: list[str]) -> None:
    if len(given) > 1:
        raise InputError(
            f"{' and '.join(given)} can not be combined.", "Each says what is checked.", "Name one of them."
        )


def _of_bench(
    targets: tuple[Target, ...], policy: InconclusivePolicy, repeat: int, settle: bool, named: bool
) -> CheckDocument:
    from cfctl.host.fingerprint import fingerprint
    from cfctl.monitor.bench import judged, plans_for
    from cfctl.monitor.explain import explained

    measured = run_bench(plans_for(each.metric for each in targets), repeat, settle)
    return explained(judged(targets, measured, policy, fingerprint(), named))


def _of_process(
    targets: tuple[Target, ...],
    policy: InconclusivePolicy,
    subject: tuple[int | None, str | None],
    how: tuple[float, int, bool],
    named: bool,
) -> CheckDocument:
    from cfctl.host.fingerprint import fingerprint
    from cfctl.monitor.check import asked, run_check
    from cfctl.monitor.explain import explained
    from cfctl.monitor.measuring import live_pid, of_its_segment, of_process, of_segment

    pid, segment = subject
    if segment is None:
        snapshot = of_process(os.getpid() if pid is None else pid, *how)
    else:
        snapshot = of_segment(Path(segment), *how)
    if named:
        targets = asked(targets)
    elif snapshot.window_ns == 0:
        targets = of_its_segment(targets)
    found = run_check(targets, snapshot, policy, fingerprint())
    # Without a process that was named, the machine is diagnosed and not cfctl itself.
    return explained(replace(found, runs=how[1]), pid if segment is None else live_pid(snapshot))


def _tell_ci(document: CheckDocument, junit: str | None, github: bool) -> None:
    if junit is not None:
        from cfctl.export.junit import export as export_junit

        write_file(junit, export_junit(document))
    if github:
        from cfctl.export.github import export as export_github

        message(export_github(document).rstrip("\n"))
