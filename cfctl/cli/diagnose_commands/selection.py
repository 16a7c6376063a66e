"""What the commands of `cfctl diagnose` share: naming checks, listing them, showing what is being done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cfctl.cli.exit_codes import ExitCode
from cfctl.errors import InputError
from cfctl.records import Severity, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cfctl.cli.output import Output
    from cfctl.diagnose.diagnosis import Diagnosis
    from cfctl.diagnose.engine import Check
    from cfctl.diagnose.record import Subject

FailOnOption = Annotated[
    Severity | None, typer.Option("--fail-on", help="Least severity of your issues that exits 1.")
]
ShowAllOption = Annotated[bool, typer.Option("--all", help="Show every issue in full, and what passed.")]
ListOption = Annotated[bool, typer.Option("--list", help="List all checks and exit.")]


def checks_option(name: str, help_text: str, subject: Subject) -> typer.models.OptionInfo:
    """Return an option that takes the ids of a subject's checks."""

    def complete(incomplete: str) -> list[str]:
        from cfctl.diagnose.engine import catalogue

        return _completed(incomplete, catalogue(subject))

    option: typer.models.OptionInfo = typer.Option(
        name, metavar="ID,...", help=help_text, autocompletion=complete
    )
    return option


def complete_checks(incomplete: str) -> list[str]:
    """Return the lists of checks of all subjects that a list may be completed to."""
    from cfctl.diagnose.engine import every_check

    return _completed(incomplete, every_check())


def _completed(incomplete: str, checks: Iterable[Check]) -> list[str]:
    *before, last = incomplete.split(",")
    head = "".join(f"{name}," for name in before)
    return [head + check.id for check in checks if check.id.startswith(last.upper())]


def names(text: str | None) -> tuple[str, ...]:
    """Return the check ids of an option, which may be written in lower case."""
    if text is None:
        return ()
    found = tuple(name.strip().upper() for name in text.split(",") if name.strip())
    if not found:
        raise InputError(
            "No check is named.", "A list of ids was expected.", "See: cfctl diagnose latency --list"
        )
    return found


def show_catalogue(out: Output, subject: Subject) -> None:
    """Print the checks of a subject."""
    from cfctl.diagnose.run import described
    from cfctl.render.diagnosis import render_catalogue

    out.emit(described((), subject), render_catalogue)


def tell(out: Output, diagnosis: Diagnosis, in_full: bool) -> None:
    """Print a diagnosis and end with the status of its verdict."""
    from cfctl.render.diagnosis import render, render_all

    out.emit(diagnosis, render_all if in_full else render)
    if diagnosis.verdict is Verdict.FAIL:
        raise typer.Exit(ExitCode.FINDING)
    if diagnosis.verdict is Verdict.INCONCLUSIVE:
        raise typer.Exit(ExitCode.UNMEASURED)
