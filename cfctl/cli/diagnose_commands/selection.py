"""What the commands of `cfctl diagnose` share: naming checks, listing them, showing what is being done."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from cfctl.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cfctl.cli.output import Output
    from cfctl.diagnose.engine import Check
    from cfctl.diagnose.record import Subject


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
