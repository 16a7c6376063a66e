"""The records of a comparison, and the one rule by which every kind judges a change."""

from __future__ import annotations

import enum
import math
import re
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any, ClassVar, Final

from cfctl.errors import InputError
from cfctl.records import Document, Judgement, JudgementLevel, Verdict
from cfctl.units import format_quantity, parse_quantity, parse_ratio

# What counts as a regression without a --fail-above: judgement; runs in a guest differ by less.
DEFAULT_LIMIT_RATIO: Final = 0.05
# Units of figures whose text form has no parser of its own; a number in them is taken as it is.
_PLAIN_UNITS: Final = ("", "ppb", "ppm", "Hz", "1/s")
_PARSED_UNITS: Final = ("ns", "B", "ratio")


class Direction(enum.StrEnum):
    """Whether a figure moved beyond its noise, and to which side."""

    BETTER = "better"
    WORSE = "worse"
    SAME = "same"


class Good(enum.Enum):
    """Which way a figure should move: down, up, or not at all (any move is worse)."""

    LOWER = "lower"
    HIGHER = "higher"
    STEADY = "steady"


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of one side: its value and the interval it lies in, each None with a reason.

    `interval` is None when nothing says how far the value is to be trusted.
    """

    value: float | None
    interval: tuple[float, float] | None = None
    reason: str | None = None

    @classmethod
    def within(cls, value: float, uncertainty: float | None) -> Figure:
        """Return a value with a symmetric uncertainty, which may be unknown."""
        if uncertainty is None:
            return cls(value, reason="its error is not known")
        return cls(value, (value - uncertainty, value + uncertainty))

    def times(self, factor: float) -> Figure:
        """Return the figure in another unit; `factor` is above 0."""
        interval = None if self.interval is None else (self.interval[0] * factor, self.interval[1] * factor)
        return replace(self, value=None if self.value is None else self.value * factor, interval=interval)

    @classmethod
    def missing(cls, reason: str) -> Figure:
        """Return the figure that was not measured."""
        return cls(None, reason=reason)

    @classmethod
    def pooled(cls, runs: Sequence[Figure]) -> Figure:
        """Return the median of several runs with the interval that covers all of theirs.

        Two or more runs show their spread by themselves, so that a run without an interval stands
        for its value alone; a run without the figure makes it missing.
        """
        if len(runs) == 1:
            return runs[0]
        values: list[float] = []
        ends: list[float] = []
        for run in runs:
            if run.value is None:
                return run
            values.append(run.value)
            ends += run.interval or (run.value,)
        return cls(statistics.median(values), (min(ends), max(ends)))


@dataclass(frozen=True, slots=True)
class Threshold:
    """The growth of a figure that is a regression: beyond `ratio` of the base and beyond `absolute`.

    `metric` is a shell pattern for a change's metric, or for "NAME METRIC". `unit` is the base unit of
    `absolute`, "" for a bare number.
    """

    metric: str
    ratio: float
    absolute: float
    unit: str

    @classmethod
    def parse(cls, text: str) -> Threshold:
        """Return the threshold in "METRIC:10%:200ns" or "METRIC:10%"; raises InputError."""
        metric, *parts = (part.strip() for part in text.split(":"))
        if not metric or not 1 <= len(parts) <= 2:
            raise InputError(
                f"'{text}' is no threshold.",
                "It is METRIC:RATIO or METRIC:RATIO:DIFFERENCE; both must be exceeded.",
                "Write it like 'p99:10%:200ns'.",
            )
        ratio = parse_ratio(parts[0])
        absolute, unit = _absolute(parts[1]) if len(parts) == 2 else (0.0, "")
        return cls(metric, ratio, absolute, unit)

    def covers(self, name: str, metric: str) -> bool:
        """Return whether this threshold is meant for a figure."""
        return fnmatchcase(metric, self.metric) or fnmatchcase(f"{name} {metric}", self.metric)


_NUMBER_AND_UNIT = re.compile(r"([-+.\deE]*\d)\s*(.*)")


def _absolute(text: str) -> tuple[float, str]:
    match = _NUMBER_AND_UNIT.fullmatch(text)
    if match is not None and match[2] in _PLAIN_UNITS:
        try:
            value = float(match[1])
        except ValueError:
            value = math.nan
        if math.isfinite(value) and value >= 0:
            return value, match[2]
    for unit in _PARSED_UNITS:
        try:
            return parse_quantity(text, unit), unit
        except InputError:
            continue
    raise InputError(
        f"'{text}' can not be read.", "It should be a difference with its unit.", "Write it like '200ns'."
    )


@dataclass(frozen=True, slots=True)
class Change:
    """How one figure of one thing changed.

    `name` says what it belongs to (a check, an operation, a CPU), `metric` which figure of it. `base` and `new` are in
    `unit`, None when not measured; `difference` is new - base, `interval` where it may lie.
    `direction` says whether it moved beyond its noise, `verdict` whether beyond the threshold for a regression; `reason`
    explains the verdict. `runs_needed` is how many runs a side would settle an inconclusive one, where the
    runs' spread says so.
    """

    name: str
    metric: str
    unit: str
    base: float | None
    new: float | None
    difference: float | None
    interval: tuple[float, float] | None
    direction: Direction
    verdict: Verdict
    reason: str
    runs_needed: int | None = None


@dataclass(frozen=True, slots=True)
class Hosts:
    """The fingerprints of both sides, and the names of their fields that differ."""

    base: dict[str, Any] | None
    new: dict[str, Any] | None
    different: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Comparison(Document):
    """What changed between saved results of one kind, regressions first.

    `base` and `new` name the files, which `cfctl.compare` fills in together with `hosts`.
    """

    SCHEMA: ClassVar[str] = "cfctl.comparison"
    VERSION: ClassVar[int] = 1
    ROWS: ClassVar[str | None] = "changes"
    kind: str
    base: tuple[str, ...]
    new: tuple[str, ...]
    changes: tuple[Change, ...]
    verdict: Verdict
    reason: str
    hosts: Hosts | None

    def with_remark(self, remark: str) -> Comparison:
        """Return the same with a remark after its reason; "" adds none."""
        return replace(self, reason=f"{self.reason}; {remark}") if remark else self

    def judgements(self) -> tuple[Judgement, ...]:
        """Return each change as a judgement; an inconclusive one counts as inconclusive."""
        return tuple(_judgement(self.kind, change) for change in self.changes)


_LEVELS: Final = {Verdict.FAIL: JudgementLevel.ERROR, Verdict.INCONCLUSIVE: JudgementLevel.WARNING}


def _judgement(kind: str, change: Change) -> Judgement:
    level = _LEVELS.get(change.verdict, JudgementLevel.NOTICE)
    name = f"{change.name} {change.metric}"
    return Judgement(name, kind, change.verdict, change.verdict, level, change.reason)


def judged(
    name: str,
    metric: str,
    unit: str,
    base: Figure,
    new: Figure,
    thresholds: Sequence[Threshold] = (),
    good: Good = Good.LOWER,
    interval: tuple[float, float] | None = None,
) -> Change:
    """Return the change of one figure and its verdict; raises InputError for a threshold in another unit.

    `interval` is that of the difference, where it is known better than both sides' give it.

    fail and pass need the whole interval of the worsening on one side of the limit, which is the
    larger of the threshold's ratio of the base and its absolute difference (5 % without a threshold).
    """
    if base.value is None or new.value is None:
        side = base if base.value is None else new
        which = "base" if base.value is None else "new result"
        reason = f"not in the {which}: {side.reason or 'not measured'}"
        return Change(
            name, metric, unit, base.value, new.value, None, None,
            Direction.SAME, Verdict.INCONCLUSIVE, reason,
        )  # fmt: skip
    difference = new.value - base.value
    limit, rule = limit_of(name, metric, unit, base.value, thresholds)
    if interval is None and base.interval is not None and new.interval is not None:
        # Independent errors of both sides add in quadrature.
        down = math.hypot(new.value - new.interval[0], base.interval[1] - base.value)
        up = math.hypot(new.interval[1] - new.value, base.value - base.interval[0])
        interval = (difference - down, difference + up)
    if interval is None:
        reason = f"the noise is not known: {base.reason or new.reason or 'no spread is stored'}"
        return Change(
            name, metric, unit, base.value, new.value, difference, None,
            Direction.SAME, Verdict.INCONCLUSIVE, reason,
        )  # fmt: skip
    worse = _worsening(interval, good)
    verdict, reason = _verdict(worse, limit, rule)
    return Change(
        name, metric, unit, base.value, new.value, difference, interval,
        _direction(worse, good), verdict, reason,
    )  # fmt: skip


def limit_of(
    name: str, metric: str, unit: str, base: float, thresholds: Sequence[Threshold]
) -> tuple[float, str]:
    """Return the worsening of a figure that is a regression, in its unit, and the rule in words.

    Raises InputError for a threshold in another unit.
    """
    for threshold in thresholds:
        if not threshold.covers(name, metric):
            continue
        if threshold.unit not in {"", unit}:
            raise InputError(
                f"The threshold for '{threshold.metric}' is in {threshold.unit}.",
                f"{name} {metric} is in {unit or 'plain numbers'}.",
            )
        limit = max(threshold.ratio * abs(base), threshold.absolute)
        both = f" and {format_quantity(threshold.absolute, unit, digits=2)}" if threshold.absolute else ""
        return limit, f"{format_quantity(threshold.ratio, 'ratio', digits=2)} of the base{both}"
    return DEFAULT_LIMIT_RATIO * abs(base), f"{DEFAULT_LIMIT_RATIO:.0%} of the base"


def _worsening(interval: tuple[float, float], good: Good) -> tuple[float, float]:
    low, high = interval
    if good is Good.LOWER:
        return low, high
    if good is Good.HIGHER:
        return -high, -low
    return (0.0 if low <= 0 <= high else min(abs(low), abs(high))), max(abs(low), abs(high))


def _direction(worse: tuple[float, float], good: Good) -> Direction:
    if worse[0] > 0:
        return Direction.WORSE
    return Direction.BETTER if worse[1] < 0 and good is not Good.STEADY else Direction.SAME


def _verdict(worse: tuple[float, float], limit: float, rule: str) -> tuple[Verdict, str]:
    low, high = worse
    if low > limit:
        return Verdict.FAIL, f"worse by more than {rule}"
    if high <= limit:
        return Verdict.PASS, f"not worse by more than {rule}"
    return Verdict.INCONCLUSIVE, f"the noise reaches across the limit, {rule}"


_VERDICT_ORDER: Final = (Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.PASS)
_DIRECTION_ORDER: Final = (Direction.WORSE, Direction.BETTER, Direction.SAME)


def comparison(kind: str, changes: Iterable[Change]) -> Comparison:
    """Return the comparison made of changes: regressions first, and the verdict over all of them."""
    ordered = tuple(
        sorted(changes, key=lambda c: (_VERDICT_ORDER.index(c.verdict), _DIRECTION_ORDER.index(c.direction)))
    )
    failed = sum(change.verdict is Verdict.FAIL for change in ordered)
    unknown = sum(change.verdict is Verdict.INCONCLUSIVE for change in ordered)
    if failed:
        verdict, reason = Verdict.FAIL, f"{failed} of {len(ordered)} figures are worse beyond their limit"
    elif unknown:
        verdict, reason = Verdict.INCONCLUSIVE, f"{unknown} of {len(ordered)} figures can not be judged"
    elif not ordered:
        verdict, reason = Verdict.INCONCLUSIVE, "the results have no figure in common"
    else:
        verdict, reason = Verdict.PASS, f"none of {len(ordered)} figures is worse beyond its limit"
    return Comparison(kind, (), (), ordered, verdict, reason, None)
