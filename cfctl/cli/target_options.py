"""Which targets a command is about: a file, or those of the project and the user; all, or some by name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cfctl import config
from cfctl.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cfctl.monitor.targets import Target

TargetsOption = Annotated[
    str | None,
    typer.Option(
        "--targets", metavar="FILE", help="TOML file with [targets], instead of the project's and user's."
    ),
]


def _complete_target(incomplete: str) -> list[str]:
    return [target.name for target in load_targets(None) if target.name.startswith(incomplete)]


TargetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--target", metavar="NAME", help="This target only; repeatable.", autocompletion=_complete_target
    ),
]


def load_targets(file: str | None, names: Sequence[str] = ()) -> tuple[Target, ...]:
    """Return the built-in targets with those of a file, or of the project and the user; or the named ones.

    Raises ConfigError for a file that can not be used, InputError for an unknown name.
    """
    from cfctl.monitor.target_file import read_targets
    from cfctl.monitor.targets import select

    if file is None:
        tables = [(source, found["targets"]) for source, found in config.load().foreign if "targets" in found]
    else:
        table = config.project_table(Path(file))
        if "targets" not in table:
            raise ConfigError(
                f"{file} holds no targets.", "It has no table [targets].", "See: cfctl targets --help"
            )
        tables = [(file, table["targets"])]
    return select(read_targets(tables), names)
