"""Targets from TOML tables; each error names file, line, target and the nearest valid name."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

from cfctl.errors import ConfigError, InputError
from cfctl.monitor.metric import Labels, Metric, gauges
from cfctl.monitor.targets import (
    BUILT_IN_TARGETS,
    FOR_NS,
    KEEP_FIRING_FOR_NS,
    NoData,
    Operator,
    Target,
    TargetSeverity,
)
from cfctl.units import parse_quantity, parse_time_ns

_Number = TypeVar("_Number", int, float)

_REQUIRED: Final = ("metric", "operator", "threshold")
_KEYS: Final = (*_REQUIRED, "severity", "where", "for", "keep-firing-for", "recovery", "no-data")


def read_targets(tables: Iterable[tuple[str, Any]]) -> tuple[Target, ...]:
    """Return the built-in targets with those of (file, table) pairs added or put in their place.

    A table is {name: {metric, operator, threshold, ...}}; `name = false` takes a target away. Raises
    ConfigError that names the file and the target.
    """
    targets = {target.name: target for target in BUILT_IN_TARGETS}
    for source, table in tables:
        if not isinstance(table, Mapping):
            raise ConfigError(f"{source}: 'targets' can not be used.", "It is no table.")
        for name, entry in table.items():
            if entry is False:
                if name not in targets:
                    raise ConfigError(
                        f"{_place(source, name)}: there is no target '{name}' to take away.",
                        _nearest(name, targets),
                    )
                del targets[name]
            else:
                targets[name] = _Reader(source, name, entry).target()
    return tuple(targets.values())


class _Reader:
    """Reads one target's table."""

    def __init__(self, source: str, name: str, entry: Any) -> None:
        self.source, self.name = source, name
        if not isinstance(entry, Mapping):
            raise self.error(None, "is no table", f"A target has {', '.join(_KEYS)}.")
        self.entry = entry
        for key in entry:
            if key not in _KEYS:
                raise self.error(key, f"has an unknown key '{key}'", _nearest(key, _KEYS))
        for key in _REQUIRED:
            if key not in entry:
                raise self.error(None, f"has no '{key}'", f"A target has {', '.join(_REQUIRED)}.")

    def target(self) -> Target:
        metric = gauges()[self.word("metric", gauges())]
        return Target(
            name=self.name,
            metric=metric.name,
            operator=Operator(self.word("operator", list(Operator))),
            threshold=self.quantity("threshold", metric),
            unit=metric.unit,
            severity=TargetSeverity(self.word("severity", list(TargetSeverity), TargetSeverity.WARNING)),
            source=_place(self.source, self.name),
            where=self.where(metric),
            for_ns=self.time("for", FOR_NS),
            keep_firing_for_ns=self.time("keep-firing-for", KEEP_FIRING_FOR_NS),
            recovery=self.recovery(metric),
            no_data=NoData(self.word("no-data", list(NoData), NoData.KEEP)),
        )

    def error(self, key: str | None, what: str, why: str = "", todo: str = "") -> ConfigError:
        return ConfigError(f"{_place(self.source, self.name, key)}: target '{self.name}' {what}.", why, todo)

    def word(self, key: str, choices: Iterable[str], default: str | None = None) -> str:
        words = [str(choice) for choice in choices]
        value = self.entry.get(key, default)
        if not isinstance(value, str) or value not in words:
            raise self.error(
                key, f"can not have {key} {value!r}, which is not known", _nearest(str(value), words)
            )
        return value

    def quantity(self, key: str, metric: Metric) -> float:
        value = self.entry[key]
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not isinstance(value, str) and not (is_number and metric.unit in {"ratio", "1"}):
            raise self.error(
                key, f"can not have {key} {value!r}", f"{metric.name} is a quantity in {metric.unit}.",
                f"Write a text with a unit, like {EXAMPLES[metric.unit]}.",
            )  # fmt: skip
        return self.parsed(key, lambda: parse_quantity(str(value), metric.unit))

    def recovery(self, metric: Metric) -> float | None:
        if "recovery" not in self.entry:
            return None
        recovery, threshold = self.quantity("recovery", metric), self.quantity("threshold", metric)
        upward = self.entry["operator"] in {Operator.ABOVE, Operator.AT_LEAST}
        if recovery < threshold if upward else recovery > threshold:
            raise self.error(
                "recovery", "has a recovery threshold on the wrong side",
                f"With '{self.entry['operator']}' it is at the threshold or {'above' if upward else 'below'} it.",
            )  # fmt: skip
        return recovery

    def time(self, key: str, default_ns: int) -> int:
        value = self.entry.get(key, f"{default_ns} ns")
        if not isinstance(value, str):
            raise self.error(
                key, f"can not have {key} {value!r}", "It is a time with its unit.", 'Like "30 s".'
            )
        return self.parsed(key, lambda: parse_time_ns(value))

    def where(self, metric: Metric) -> Labels:
        table = self.entry.get("where", {})
        if not isinstance(table, Mapping) or not all(isinstance(value, str) for value in table.values()):
            raise self.error("where", "can not be used", "'where' is a table of label = \"pattern\".")
        # An instrument's own labels are not known beforehand.
        if not metric.labels and table:
            raise self.error("where", f"names a label, and {metric.name} has none")
        return tuple(sorted(table.items()))

    def parsed(self, key: str, parse: Callable[[], _Number]) -> _Number:
        try:
            return parse()
        except InputError as error:
            raise self.error(key, f"can not have {key} {self.entry[key]!r}", error.why, error.todo) from error


EXAMPLES: Final = {
    "ns": '"10 ns"', "B": '"100 MB"', "ratio": '"80 %"', "1/s": '"1M/s"', "B/s": '"10 MB/s"', "1": '"1000"',
}  # fmt: skip


def _nearest(word: str, choices: Iterable[str]) -> str:
    known = list(choices)
    found = difflib.get_close_matches(word, known, 1)
    return f"Is '{found[0]}' meant?" if found else f"There are: {', '.join(known)}."


def _place(source: str, name: str, key: str | None = None) -> str:
    """Return "file:line" of a target's table or of a key in it, the file alone where it is not found.

    tomllib keeps no positions, so the file is searched as text: dotted keys and inline tables are
    found by the target's name only.
    """
    try:
        lines = Path(source).read_text("utf-8", "replace").splitlines()
    except OSError:
        return source
    header = re.compile(rf"""\s*\[\s*([\w.\-]+\.)?targets\.["']?{re.escape(name)}["']?\s*(\]|\.)""")
    inline = re.compile(rf"""\s*["']?{re.escape(name)}["']?\s*[.=]""")
    start = next((number for number, line in enumerate(lines) if header.match(line)), None)
    if start is None:
        start = next((number for number, line in enumerate(lines) if inline.match(line)), None)
    if start is None:
        return source
    if key is not None:
        for number in range(start + 1, len(lines)):
            if lines[number].lstrip().startswith("["):
                break
            if re.match(rf"""\s*["']?{re.escape(key)}["']?\s*[.=]""", lines[number]):
                return f"{source}:{number + 1}"
    return f"{source}:{start + 1}"
