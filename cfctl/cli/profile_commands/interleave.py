"""Two commands run in turns on one host and compared: what a CI job on rotating machines needs."""

from __future__ import annotations

import dataclasses
import shlex
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cfctl.cli.output import FormatOption, JsonOption, Output, OutputOption, UnitOption, message
from cfctl.cli.regression import FailAboveOption, FailOnRegressionOption, end_with
from cfctl.errors import CfctlError, InputError, UnobservableError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cfctl.profile.patterns import FunctionPattern


def compare(
    interleave: Annotated[
        tuple[str, str], typer.Option("--interleave", metavar="BASE NEW", help="The two commands, quoted.")
    ],
    rounds: Annotated[int, typer.Option("--rounds", min=1, max=1000, help="Runs of each command.")] = 10,
    function: Annotated[
        list[str] | None,
        typer.Option(
            "--function",
            metavar="MODULE:NAME",
            help="Time this function, unedited; * and ? are wildcards. Repeatable.",
        ),
    ] = None,
    fail_above: FailAboveOption = None,
    fail_on_regression: FailOnRegressionOption = False,
    format: FormatOption = None,
    json: JsonOption = False,
    output: OutputOption = None,
    unit: UnitOption = None,
) -> None:
    """Run two commands in turns on this host and compare the operations they record.

    The order changes from round to round, and the two runs of a round are compared with each other, so
    that what drifts on the host falls on both sides and out of the difference. Below five rounds
    nothing is judged; where the noise leaves a figure open, the number of rounds it would take is told. The commands keep their
    standard streams; the comparison goes to standard error, or to the file of -o.

      cfctl profile compare --interleave 'python old.py' 'python new.py' --fail-on-regression

    The same comparison of saved reports is cfctl compare.
    """
    from cfctl.compare.comparison import Threshold
    from cfctl.compare.profile import compare as compare_profiles
    from cfctl.profile.patterns import parse_pattern
    from cfctl.render.comparison import render

    where = Output.resolve(format, json, output, unit, to_stderr=True)
    thresholds = [Threshold.parse(text) for text in fail_above or []]
    patterns = [parse_pattern(text) for text in function or []]
    commands = tuple(_words(command) for command in interleave)
    runs: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
    for number, side in enumerate(_turns(rounds), 1):
        message(f"cfctl: run {number} of {2 * rounds}, {'new' if side else 'base'}")
        runs[side].append(_run(commands[side], patterns))
    found = dataclasses.replace(
        compare_profiles(runs[0], runs[1], thresholds, paired=True),
        base=(interleave[0],),
        new=(interleave[1],),
    )
    where.emit(found, render)
    end_with(found, fail_on_regression)


def _words(command: str) -> list[str]:
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise InputError(f"'{command}' is no command.", f"{error}.") from error
    if not words:
        raise InputError("A command to compare is empty.", "", "Name one: --interleave 'BASE' 'NEW'")
    return words


def _turns(rounds: int) -> Iterator[int]:
    """Yield the side (0, 1) of each run: base first in even rounds, new first in odd ones."""
    for number in range(rounds):
        yield from (0, 1) if number % 2 == 0 else (1, 0)


def _run(command: Sequence[str], patterns: Sequence[FunctionPattern]) -> dict[str, Any]:
    """Return the saved form of what one run recorded; raises a CfctlError when it failed."""
    from cfctl.launch import LaunchError
    from cfctl.profile.run import run_and_record
    from cfctl.records import to_plain

    try:
        outcome = run_and_record(command, patterns)
    except LaunchError as error:
        raise CfctlError(error.what, error.why, error.todo) from error
    shown = shlex.join(command)
    if outcome.status:
        raise UnobservableError(
            f"{shown} failed.", f"It ended with status {outcome.status}.", "Compare commands that succeed."
        )
    if not outcome.report.operations:
        raise UnobservableError(
            f"{shown} recorded nothing.", "It uses no cfctl.Profiler, and no --function that was called."
        )
    return dict(to_plain(outcome.report))
