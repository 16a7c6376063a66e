"""Each command, exporter and metric is found by itself and carries what it has to."""

from __future__ import annotations

import pkgutil
import re
from importlib import import_module

import pytest
import typer

import cfctl.cli.commands
from cfctl.cli.app import summary
from cfctl.cli.output import exporter_names
from cfctl.monitor.metric import all_metrics
from cfctl.records import Document

COMMANDS = [module.name for module in pkgutil.iter_modules(cfctl.cli.commands.__path__)]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_module_has_a_typer_app_and_a_docstring_that_names_it(name: str) -> None:
    module = import_module(f"cfctl.cli.commands.{name}")
    assert isinstance(module.app, typer.Typer)
    assert module.__doc__ is not None
    first_line = module.__doc__.partition("\n")[0]
    assert first_line == f"`cfctl {name}`: {summary(name)}."
    # A line of the root command's help.
    assert 10 < len(summary(name)) <= 85


@pytest.mark.parametrize("name", exporter_names())
def test_an_exporter_is_named_after_its_format_and_exports(name: str) -> None:
    module = import_module(f"cfctl.export.{name}")
    assert name == module.FORMAT
    assert "/" in module.MEDIA_TYPE
    assert callable(module.export)
    assert module.__doc__


@pytest.mark.parametrize("name", all_metrics())
def test_a_metric_says_what_it_means_and_in_which_unit(name: str) -> None:
    metric = all_metrics()[name]
    assert metric.meaning.endswith(".")
    assert metric.unit in {"ns", "B", "ratio", "1/s", "B/s", "1"}
    assert re.fullmatch("[a-z][a-z0-9_]*", name)


def test_the_built_in_formats_and_metrics_are_there() -> None:
    assert {"csv", "github", "json", "junit", "markdown"} <= set(exporter_names())
    assert {"cpu_utilization", "memory_rss", "temporal_accuracy"} <= set(all_metrics())


def test_every_document_has_a_schema_of_its_own_and_a_version() -> None:
    for name in COMMANDS:
        import_module(f"cfctl.cli.commands.{name}")
    # By name: a dataclass with slots is a second class, and the first one lives until it is collected.
    documents = {d.__qualname__: d for d in Document.__subclasses__() if d.__module__.startswith("cfctl.")}
    schemas = [document.SCHEMA for document in documents.values()]
    assert len(set(schemas)) == len(schemas) > 0
    assert all(schema.startswith("cfctl.") for schema in schemas)
    assert all(document.VERSION >= 1 for document in documents.values())
