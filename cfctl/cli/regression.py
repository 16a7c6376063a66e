"""What the commands that compare share: what counts as a regression, and the exit code for CI."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cfctl.cli.exit_codes import ExitCode
from cfctl.records import Verdict

if TYPE_CHECKING:
    from cfctl.compare.comparison import Comparison

FailAboveOption = Annotated[
    list[str] | None,
    typer.Option(
        "--fail-above",
        metavar="METRIC:RATIO[:DIFFERENCE]",
        help="What counts as a regression; repeatable.",
    ),
]
FailOnRegressionOption = Annotated[
    bool, typer.Option("--fail-on-regression", help="Exit 1 for a regression, 3 when it can not be told.")
]


def end_with(found: Comparison, fail_on_regression: bool) -> None:
    """End the command with the exit code of a comparison's verdict, if that was asked for."""
    if fail_on_regression and found.verdict is Verdict.FAIL:
        raise typer.Exit(ExitCode.FINDING)
    if fail_on_regression and found.verdict is Verdict.INCONCLUSIVE:
        raise typer.Exit(ExitCode.UNMEASURED)
