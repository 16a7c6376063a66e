"""`cfctl calibrate`: measure the rate of the tick counter, and how far it can be trusted."""

from __future__ import annotations

import contextlib
import signal
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cfctl import config
from cfctl.cli.exit_codes import ExitCode
from cfctl.cli.output import TEXT, FormatOption, JsonOption, Output, OutputOption, UnitOption, message
from cfctl.cli.progress import progress
from cfctl.cli.typer_app import command_app
from cfctl.errors import CalibrationError, InputError
from cfctl.text import safe_text
from cfctl.units import parse_time_ns

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cfctl.clock.calibration import Calibration
    from cfctl.clock.epoch import Recheck

app = command_app()


def _complete_reference(incomplete: str) -> list[str]:
    return [name for name in ("raw", "monotonic", "realtime") if name.startswith(incomplete)]


def _complete_method(incomplete: str) -> list[str]:
    return [name for name in ("clustered", "median") if name.startswith(incomplete)]


DurationOption = Annotated[
    str | None, typer.Option("--duration", metavar="TIME", help="Length of the calibration, such as 100ms.")
]
MethodOption = Annotated[
    str,
    typer.Option(
        "--method",
        metavar="METHOD",
        help="clustered, or median of intervals.",
        autocompletion=_complete_method,
    ),
]
ReferenceOption = Annotated[
    str | None,
    typer.Option(
        "--reference", metavar="CLOCK", help="raw, monotonic or realtime.", autocompletion=_complete_reference
    ),
]
SnapOption = Annotated[
    bool | None, typer.Option("--snap/--no-snap", help="Take over the kernel's own rate when both agree.")
]


@app.command()
def calibrate(
    duration: DurationOption = None,
    method: MethodOption = "clustered",
    samples: Annotated[int, typer.Option("--samples", help="Intervals of the median method.")] = 10,
    sample_ms: Annotated[int, typer.Option("--sample-ms", help="Length of one interval in ms.")] = 100,
    reference: ReferenceOption = None,
    snap: SnapOption = None,
    cpu: Annotated[int | None, typer.Option("--cpu", help="CPU to calibrate on; any without it.")] = None,
    compare: Annotated[bool, typer.Option("--compare", help="Run both methods side by side.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Keep rechecking until interrupted.")] = False,
    interval: Annotated[
        str | None, typer.Option("--interval", metavar="TIME", help="Time between rechecks of --watch.")
    ] = None,
    format: FormatOption = None,
    json: JsonOption = False,
    output: OutputOption = None,
    unit: UnitOption = None,
) -> None:
    """Measure the rate of the CPU's tick counter against a clock of the kernel.

    Prints the frequency with its uncertainty, the residual, the step of the counter, what reading
    each clock costs, the offsets between CPUs, and what the comparison is worth: against a clock
    that the kernel derives from the same counter, it says nothing about true time. The calibration
    is saved for later commands; when it can not be saved, stderr says why and the exit code is
    still 0. It is 3 when the verdict is degraded.

    With --watch it goes on rechecking, one line each (one JSON object each with --json), until
    Ctrl-C (exit code 130) or SIGTERM (143).
    """
    settings = config.load()
    target = Output.resolve(format, json, output, unit)
    wanted: dict[str, Any] = {
        "duration_ns": settings.get("calibrate.duration") if duration is None else parse_time_ns(duration),
        "reference": reference or settings.get("calibrate.reference"),
        "snap": settings.get("calibrate.snap") if snap is None else snap,
        "cpu": cpu,
    }
    samples_wanted: dict[str, Any] = {"samples": samples, "sample_ns": sample_ms * 1_000_000}
    if watch:
        interval_ns = (
            settings.get("calibrate.watch-interval") if interval is None else parse_time_ns(interval, "s")
        )
        _watch(target, wanted, method, compare, interval_ns)
        return
    if interval is not None:
        raise InputError("--interval can not be used.", "It belongs to --watch.", "Add --watch.")
    calibration = _report(target, wanted, samples_wanted, method, compare)
    if calibration.verdict != "valid":
        raise typer.Exit(ExitCode.UNMEASURED)


def _report(
    target: Output, wanted: dict[str, Any], samples: dict[str, Any], method: str, compare: bool
) -> Calibration:
    from cfctl.clock import report
    from cfctl.clock.procedure import calibrate as run
    from cfctl.render.calibration import render

    methods = ["clustered", "median"] if compare else [method]
    made = []
    for each in methods:
        with progress(f"calibrating ({each})") as show:
            made.append(
                _with_host(
                    run(method=each, publish=each == methods[0], on_progress=show, **wanted, **samples)
                )
            )
    calibration = made[0]
    with progress("measuring the clocks") as show:
        document = report.measure_report(calibration, tuple(made) if compare else (), on_progress=show)
    saved_to, remark = report.save(calibration)
    if remark:
        message(f"cfctl: {'' if saved_to else 'the calibration was not saved: '}{remark}")
    target.emit(replace(document, saved_to=saved_to, saved_reason=remark), render)
    return calibration


def _with_host(calibration: Calibration) -> Calibration:
    """Return the calibration with the fingerprint of this host."""
    from cfctl.host.fingerprint import fingerprint
    from cfctl.records import to_plain

    return replace(calibration, host=to_plain(fingerprint()))


def _watch(target: Output, wanted: dict[str, Any], method: str, compare: bool, interval_ns: int) -> None:
    """Recheck until interrupted; every line is flushed, so that a pipe sees it at once."""
    from cfctl.clock import report
    from cfctl.clock.keeper import Keeper, MachineWork
    from cfctl.clock.procedure import calibrate as run

    if target.format not in {TEXT, "json"}:
        raise InputError(f"--watch has no format '{target.format}'.", "Formats: text, json.")
    if compare or method != "clustered":
        raise InputError("--watch can not be combined with --compare or --method median.")
    if interval_ns < 1_000_000:
        raise InputError("The interval can not be used.", "It must be 1 ms or more.")
    with _ended_by_sigterm(), _lines(target) as stream:
        with progress("calibrating") as show:
            calibration = run(on_progress=show, **wanted)
        saved = calibration
        _save(report.save(_with_host(calibration)))
        if calibration.independence == "none" and target.format == TEXT:
            # Said once: every line shows "drift -" for this reason.
            message(f"cfctl: no drift can be seen: {safe_text(calibration.independence_reason, 600)}.")
        # Beyond an hour a longer baseline is taken, when it is better; before that only by error.
        keeper = Keeper(calibration, MachineWork(wanted["duration_ns"], wanted["snap"]), 3600 * 10**9)
        while True:
            _sleep(interval_ns)
            try:
                _print_recheck(target, stream, keeper.step())
            except CalibrationError as error:
                # Whatever disturbs the clock may end; the next recheck tries again.
                message(f"cfctl: {safe_text(error, 600)}")
            if keeper.calibration is not saved:
                saved = keeper.calibration
                _save(report.save(_with_host(saved)))


def _save(result: tuple[str | None, str | None]) -> None:
    saved_to, remark = result
    if remark:
        message(f"cfctl: {'' if saved_to else 'the calibration was not saved: '}{remark}")


def _sleep(duration_ns: int) -> None:
    import time

    time.sleep(duration_ns / 1e9)


def _print_recheck(target: Output, stream: Any, found: Recheck) -> None:
    from cfctl.records import to_json
    from cfctl.render.calibration import recheck_line

    line = to_json(found, indent=None) if target.format == "json" else recheck_line(found, target.unit) + "\n"
    stream.write(line)
    stream.flush()


@contextlib.contextmanager
def _lines(target: Output) -> Iterator[Any]:
    """Give the stream of the lines: stdout, or the file of --output; a reader that goes away ends it."""
    if target.path is not None:
        with open(target.path, "w", encoding="utf-8") as file:
            yield file
        return
    with contextlib.suppress(BrokenPipeError):
        yield sys.stdout


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end the command as Ctrl-C does, with 128 + 15 as a shell would report it."""

    def leave(number: int, frame: object) -> None:  # noqa: ARG001
        raise typer.Exit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
