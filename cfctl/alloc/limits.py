"""Limits on allocations for CI: parsed from --fail-above, and judged."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from cfctl.alloc.report import AllocReport, LimitOutcome, ProcessAllocations
from cfctl.errors import InputError
from cfctl.records import Judgement, JudgementLevel, Measurement, Verdict
from cfctl.units import format_quantity, parse_quantity


@dataclass(frozen=True, slots=True)
class Limit:
    """The most that one process may have of something."""

    name: str
    most: float
    unit: str


def _exact(value: float) -> Measurement:
    return Measurement(value, "1")


_VALUES: Final[dict[str, tuple[str, Callable[[ProcessAllocations], Measurement]]]] = {
    "live": ("B", lambda process: _exact(process.live_bytes)),
    "peak": ("B", lambda process: process.peak),
    "rate": ("1/s", lambda process: process.allocation_rate),
    "byte-rate": ("B/s", lambda process: process.byte_rate),
    "allocations": ("1", lambda process: _exact(process.total.allocations)),
    "failures": ("1", lambda process: _exact(process.total.failures)),
    "blocks": ("1", lambda process: _exact(process.live_blocks)),
}


def parse_limits(text: str) -> tuple[Limit, ...]:
    """Return the limits in "live=100MB,rate=1e6/s"; raises InputError that names the known ones."""
    return tuple(_parse(part.strip()) for part in text.split(","))


def _parse(text: str) -> Limit:
    name, equals, value = (part.strip() for part in text.partition("="))
    if not equals or name not in _VALUES:
        raise InputError(
            f"'{text}' is no limit.", f"Limits: {', '.join(_VALUES)}.", "Write it like live=100MB,rate=1e6/s"
        )
    unit = _VALUES[name][0]
    if unit in {"B", "B/s"}:
        return Limit(name, parse_quantity(value.removesuffix("/s") if unit == "B/s" else value, "B"), unit)
    try:
        most = float(value.removesuffix("/s") if unit == "1/s" else value)
    except ValueError:
        most = math.nan
    if not (math.isfinite(most) and most >= 0):
        raise InputError(
            f"'{text}' can not be read.", f"The limit of {name} is a number from 0.", "Example: rate=1e6/s"
        )
    return Limit(name, most, unit)


def judged(report: AllocReport, limits: Sequence[Limit]) -> AllocReport:
    """Return the report with each limit held against the process that has the most."""
    return dataclasses.replace(report, limits=tuple(_judge(report.processes, limit) for limit in limits))


def _judge(processes: Sequence[ProcessAllocations], limit: Limit) -> LimitOutcome:
    measured = [_VALUES[limit.name][1](process) for process in processes]
    known = [m for m in measured if m.value is not None]
    if not known or len(known) < len(measured):
        reason = next((m.reason for m in measured if m.reason), "nothing was counted")
        return _outcome(limit, None, Verdict.INCONCLUSIVE, f"not measured: {reason}")
    worst = max(known, key=lambda m: m.value or 0.0)
    value, error = worst.value or 0.0, worst.uncertainty or 0.0
    shown = f"{_shown(value, limit.unit)} of at most {_shown(limit.most, limit.unit)}"
    if value - error > limit.most:
        return _outcome(limit, value, Verdict.FAIL, shown)
    if value + error > limit.most and error:
        return _outcome(limit, value, Verdict.INCONCLUSIVE, f"{shown}, known to {_shown(error, limit.unit)}")
    return _outcome(limit, value, Verdict.PASS, shown)


def _outcome(limit: Limit, value: float | None, verdict: Verdict, text: str) -> LimitOutcome:
    level = JudgementLevel.ERROR if verdict is Verdict.FAIL else JudgementLevel.WARNING
    judgement = Judgement(limit.name, "allocations", verdict, verdict, level, f"{limit.name}: {text}")
    return LimitOutcome(limit.name, limit.most, limit.unit, value, judgement)


def _shown(value: float, unit: str) -> str:
    if unit == "B/s":
        return f"{format_quantity(value, 'B')}/s"
    return f"{value:.0f}" if unit == "1" else format_quantity(value, unit)
