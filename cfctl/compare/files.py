"""Saved results read from files, bounded and without trust, and handed to the kind that compares them."""

from __future__ import annotations

import json
import pkgutil
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache
from glob import glob
from importlib import import_module
from pathlib import Path
from typing import Any, Final, Protocol

from cfctl import compare
from cfctl.compare.comparison import Comparison, Hosts, Threshold
from cfctl.errors import InputError, UnobservableError, os_error_reason
from cfctl.host.view import read_file
from cfctl.text import safe_text

_WILD: Final = frozenset("*?[")
MAX_DOCUMENT_BYTES: Final = 64 << 20
_NEXT_STEP: Final = "Name a file that a cfctl command wrote with --json -o FILE."


def load_document(path: Path) -> dict[str, Any]:
    """Return the JSON object of a saved result, which has a schema of cfctl and a version.

    Raises InputError for a file that can not be read, is larger than 64 MiB, or holds anything else.
    """
    try:
        data = read_file(str(path), MAX_DOCUMENT_BYTES)
    except (OSError, ValueError) as error:
        why = os_error_reason(error) if isinstance(error, OSError) else f"{error}."
        raise InputError(f"{path} can not be read.", why, _NEXT_STEP) from error
    try:
        document = json.loads(data, parse_constant=_no_constant)
    except RecursionError:
        raise InputError(f"{path} is no saved result.", "It is nested too deeply.", _NEXT_STEP) from None
    except ValueError as error:
        raise InputError(f"{path} is no saved result.", f"It is no JSON: {error}.", _NEXT_STEP) from None
    schema = document.get("schema") if isinstance(document, dict) else None
    if not isinstance(schema, str) or not schema.startswith("cfctl."):
        raise InputError(f"{path} is no saved result.", "It has no schema of cfctl.", _NEXT_STEP)
    return dict(document)


def saved_files(source: str) -> list[Path]:
    """Return the files that a file, a directory or a glob names, in the order of their names.

    Of a directory its *.json. Raises InputError for a directory or a glob without any.
    """
    path = Path(source)
    if path.is_dir():
        found = sorted(file for file in path.glob("*.json") if file.is_file())
        what = f"{source} holds no saved result.", "The directory has no *.json file."
    elif not path.exists() and _WILD & set(source):
        found = sorted(Path(name) for name in glob(source) if Path(name).is_file())  # noqa: PTH207
        what = f"There is no saved result {source}.", "No file matches."
    else:
        return [path]
    if not found:
        raise InputError(*what, _NEXT_STEP)
    return found


class Kind(Protocol):
    """A module of this package that compares the documents of some schemas."""

    SCHEMAS: tuple[str, ...]

    def compare(
        self, base: Sequence[dict[str, Any]], new: Sequence[dict[str, Any]], thresholds: Sequence[Threshold]
    ) -> Comparison:
        """Return what changed; raises InputError for a damaged document."""


@cache
def kinds() -> dict[str, Kind]:
    """Return the kind of each schema: the modules of this package that have SCHEMAS."""
    found: dict[str, Kind] = {}
    for name in sorted(module.name for module in pkgutil.iter_modules(compare.__path__)):
        module: Any = import_module(f"{compare.__name__}.{name}")
        found |= dict.fromkeys(getattr(module, "SCHEMAS", ()), module)
    return found


def compare_files(
    base: Sequence[Path],
    new: Sequence[Path],
    thresholds: Sequence[Threshold] = (),
    allow_different_hosts: bool = False,
) -> Comparison:
    """Return what changed between saved results of one kind, each side one or more runs.

    Raises InputError for files that are no such results or for a threshold no figure has, and
    UnobservableError for results that can not be compared: measured otherwise or on other hosts.
    """
    old, young = ([load_document(path) for path in side] for side in (base, new))
    kind = _kind(zip((*base, *new), (*old, *young), strict=True))
    hosts = _hosts(old, young)
    differences = [name for name in hosts.different if name in _IDENTITY]
    if differences and not allow_different_hosts:
        raise UnobservableError(
            "The results can not be compared.",
            f"They come from different hosts: {', '.join(differences)} differ.",
            "Compare results of one host, or allow it: --allow-different-hosts",
        )
    found = kind.compare(old, young, thresholds)
    _require_used(thresholds, found)
    remark = f"the hosts differ in {', '.join(hosts.different)}" if hosts.different else ""
    named = replace(found, base=tuple(map(str, base)), new=tuple(map(str, new)), hosts=hosts)
    return named.with_remark(remark)


def _kind(documents: Iterable[tuple[Path, dict[str, Any]]]) -> Kind:
    """Return the kind of all the documents; raises InputError when there is none or more than one."""
    first: tuple[Path, dict[str, Any]] | None = None
    for path, document in documents:
        schema = safe_text(document["schema"], 80)
        if schema not in kinds():
            known = ", ".join(name.removeprefix("cfctl.") for name in kinds())
            raise InputError(f"{path} can not be compared.", f"It holds a {schema}.", f"Kinds: {known}.")
        if type(document.get("version")) is not int or document["version"] != 1:
            raise InputError(f"{path} can not be compared.", "It is of another version; version 1 is read.")
        first = first or (path, document)
        if document["schema"] != first[1]["schema"]:
            raise InputError(
                "Results of two kinds can not be compared.",
                f"{first[0]} holds a {first[1]['schema']}, {path} a {schema}.",
            )
    if first is None:
        raise InputError("There is nothing to compare.", "No file is named.")
    return kinds()[first[1]["schema"]]


# What makes a host another one. A kernel, a clocksource or the number of CPUs may be what was changed.
_IDENTITY: Final = ("cpu_brand", "machine", "virtualisation", "container")


def _hosts(old: Sequence[dict[str, Any]], young: Sequence[dict[str, Any]]) -> Hosts:
    found = [_host(document) for document in (*old, *young)]
    known = [host for host in found if host is not None]
    names = dict.fromkeys(name for host in known for name in host)
    # What one side could not read is no difference.
    different = tuple(
        name for name in names if len({host[name] for host in known if host.get(name) is not None}) > 1
    )
    return Hosts(found[0], found[len(old)], different)


def _host(document: dict[str, Any]) -> dict[str, Any] | None:
    """Return a result's fingerprint, wherever the kind of document keeps it; only text and numbers of it."""
    inner = document.get("calibration")
    for table in (document, inner if isinstance(inner, dict) else {}):
        host = table.get("host")
        if isinstance(host, dict):
            return {
                safe_text(name): safe_text(value) if isinstance(value, str) else value
                for name, value in host.items()
                if value is None or isinstance(value, (str, int, float))
            }
    return None


def _require_used(thresholds: Sequence[Threshold], found: Comparison) -> None:
    """Raise InputError for a threshold that no figure has: a gate with a misspelt name would never close."""
    for threshold in thresholds:
        if not any(threshold.covers(change.name, change.metric) for change in found.changes):
            metrics = ", ".join(sorted({change.metric for change in found.changes})) or "none"
            raise InputError(f"No figure is called '{threshold.metric}'.", f"The metrics are: {metrics}.")


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")
