"""Allocations compared: calls, bytes, live and peak of the processes of two runs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Final

from cfctl.compare.comparison import Change, Comparison, Figure, Threshold, comparison, judged
from cfctl.compare.fields import Fields
from cfctl.text import safe_text

SCHEMAS: tuple[str, ...] = ("cfctl.alloc",)
# Beyond 5 %, and more than what imports and the environment's length change by themselves.
_LIMIT_RATIO: Final = 0.05
_LIMIT_BYTES: Final = 65536.0
_LIMIT_CALLS: Final = 100.0

_Key = tuple[str, str, str]


def compare(
    base: Sequence[dict[str, Any]], new: Sequence[dict[str, Any]], thresholds: Sequence[Threshold]
) -> Comparison:
    """Return the change of each figure of the processes that are in all results, by their program.

    Calls and bytes are exact, the peak is known to its batches; several runs of a side add their spread.
    """
    sides = [[dict(_figures(Fields(each, "the result"))) for each in side] for side in (base, new)]
    old, young = (_pooled(runs) for runs in sides)
    changes: list[Change] = []
    for key, figure in old.items():
        if key in young:
            name, metric, unit = key
            absolute = _LIMIT_BYTES if unit == "B" else _LIMIT_CALLS
            # No less than what can be told: an unchanged peak would else decide nothing.
            absolute = max(absolute, math.hypot(*(_resolution(runs, key) for runs in sides)))
            rules = [*thresholds, Threshold("*", _LIMIT_RATIO, absolute, unit)]
            changes.append(judged(name, metric, unit, figure, young[key], rules))
    return comparison("alloc", changes)


def _resolution(runs: Sequence[dict[_Key, Figure]], key: _Key) -> float:
    """Return to what a figure of one run is known, the worst of a side; not how the runs scatter."""
    intervals = [run[key].interval or (0.0, 0.0) for run in runs]
    return max((high - low) / 2 for low, high in intervals)


def _pooled(runs: Sequence[dict[_Key, Figure]]) -> dict[_Key, Figure]:
    shared = [key for key in runs[0] if all(key in run for run in runs)]
    return {key: Figure.pooled([run[key] for run in runs]) for key in shared}


def _figures(document: Fields) -> Iterator[tuple[_Key, Figure]]:
    seen: dict[str, int] = {}
    for process in document.tables("processes"):
        name = _program(process)
        seen[name] = seen.get(name, 0) + 1
        if seen[name] > 1:
            name = f"{name} ({seen[name]})"
        total = process.table("total")
        for metric in ("allocations", "reallocations", "failures"):
            yield (name, metric, "1"), Figure.within(total.number(metric), 0.0)
        yield (name, "bytes_allocated", "B"), Figure.within(total.number("bytes_allocated"), 0.0)
        yield (name, "live_bytes", "B"), Figure.within(process.number("live_bytes"), 0.0)
        yield (name, "peak", "B"), process.measurement("peak")


def _program(process: Fields) -> str:
    words = process.value("command_line")
    first = words[0] if isinstance(words, list) and words else "process"
    return safe_text(str(first).rpartition("/")[2] or "process", 60)
