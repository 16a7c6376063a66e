"""`cfctl clock`: the calibration at hand, the saved ones, and the health of the clock."""

from __future__ import annotations

import typer

from cfctl.cli.exit_codes import ExitCode
from cfctl.cli.output import FormatOption, JsonOption, Output, OutputOption, UnitOption
from cfctl.cli.typer_app import command_group
from cfctl.errors import UnobservableError

app = command_group("The clock: its calibration, the saved ones, and its health.")


@app.command()
def show(
    format: FormatOption = None,
    json: JsonOption = False,
    output: OutputOption = None,
    unit: UnitOption = None,
) -> None:
    """Show the newest saved calibration that still holds for this boot.

    One from before a suspend, a migration or a change of the clocksource does not hold.
    """
    from cfctl.clock import report
    from cfctl.render.clock import render_calibration

    target = Output.resolve(format, json, output, unit)
    calibration = report.calibration_at_hand()
    if calibration is None:
        raise UnobservableError(
            "There is no calibration of this boot.",
            "None was saved, or its epoch has ended.",
            "Run: cfctl calibrate",
        )
    target.emit(calibration, render_calibration)


@app.command()
def history(
    format: FormatOption = None,
    json: JsonOption = False,
    output: OutputOption = None,
    unit: UnitOption = None,
) -> None:
    """Show the saved calibrations, the newest first."""
    from cfctl.clock import report
    from cfctl.render.clock import render_history

    target = Output.resolve(format, json, output, unit)
    target.emit(report.load_history(), render_history)


@app.command()
def health(
    format: FormatOption = None,
    json: JsonOption = False,
    output: OutputOption = None,
    unit: UnitOption = None,
) -> None:
    """Recheck the calibration at hand and show what the clock of this machine stands on.

    Exit code 0 when it holds, 1 when it does not, 3 when there is none to check.
    """
    from cfctl.clock import condition
    from cfctl.records import Verdict
    from cfctl.render.clock import render_health

    target = Output.resolve(format, json, output, unit)
    found = condition.health()
    target.emit(found, render_health)
    if found.verdict is Verdict.FAIL:
        raise typer.Exit(ExitCode.FINDING)
    if found.verdict is Verdict.INCONCLUSIVE:
        raise typer.Exit(ExitCode.UNMEASURED)
