"""`cfctl config`: the settings, the layer each one comes from, and a file to start with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import typer

from cfctl import config, paths
from cfctl.cli.output import FormatOption, JsonOption, Output, OutputOption
from cfctl.cli.typer_app import command_group
from cfctl.records import Document

app = command_group("Settings: what they are, and which layer each one comes from.")


@dataclass(frozen=True, slots=True)
class SettingsDocument(Document):
    """Every setting with its value in base units and its source."""

    SCHEMA: ClassVar[str] = "cfctl.config"
    VERSION: ClassVar[int] = 1
    ROWS: ClassVar[str | None] = "settings"
    settings: list[dict[str, Any]]


@app.command()
def show(format: FormatOption = None, json: JsonOption = False, output: OutputOption = None) -> None:
    """Show every setting, its value and the layer that won.

    Layers: option, environment (CFCTL_*), project file (cfctl.toml, or [tool.cfctl] in pyproject.toml,
    in this directory or the nearest above), user file, default.
    """
    from cfctl.render.settings import render

    resolved = config.load().resolved.values()
    rows = [
        {"key": r.setting.key, "value": r.value, "unit": r.setting.unit, "source": r.source,
         "environment": r.setting.environment_name, "shown": config.shown(r.setting, r.value),
         "help": r.setting.help}
        for r in resolved
    ]  # fmt: skip
    Output.resolve(format, json, output).emit(SettingsDocument(rows), render)


@app.command()
def path() -> None:
    """Print the files settings are read from, one per line, the first one winning."""
    settings = config.load()
    for file in (settings.project_file, settings.user_file):
        if file is not None:
            typer.echo(str(file))


@app.command()
def init() -> None:
    """Write a user file in which every setting stands with its default, commented out."""
    file = paths.user_config_file()
    config.write_default(file)
    typer.echo(str(file))
