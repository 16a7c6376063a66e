"""Saved profiles: how the times and the errors of each operation changed from some runs to others.

A run is one saved report, which is one process with its children: samples of one process share its
memory layout and its luck, so that only whole runs are independent of each other.
"""

from __future__ import annotations

import statistics
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from cfctl.compare.bootstrap import MIN_RUNS, Difference, Run, difference, ratio_difference, runs_needed
from cfctl.compare.comparison import (
    DEFAULT_LIMIT_RATIO,
    Change,
    Figure,
    Threshold,
    comparison,
    judged,
    limit_of,
)
from cfctl.errors import InputError
from cfctl.profile.report import ProfileReport, build_report
from cfctl.profile.saved import recordings_of
from cfctl.profile.tally import bucket_bounds
from cfctl.records import Verdict

if TYPE_CHECKING:
    from cfctl.compare.comparison import Comparison
    from cfctl.profile.statistics import OperationStatistics

SCHEMAS: Final = (ProfileReport.SCHEMA,)
# Of all figures of a comparison together: a single one has to be surer (Bonferroni).
CONFIDENCE: Final = 0.95
# The quantile of each metric (None is the mean), and how many samples a run needs for it.
_QUANTILES: Final[dict[str, tuple[float | None, int]]] = {
    "mean": (None, 1), "p50": (0.5, 20), "p90": (0.9, 100), "p99": (0.99, 1_000), "p99.9": (0.999, 10_000),
}  # fmt: skip
_ERRORS: Final = "error-ratio"
METRICS: Final = (*_QUANTILES, _ERRORS)
# An error more in ten thousand is no regression unless somebody says so.
_ERROR_LIMIT: Final = 1e-4

_Key = tuple[str, tuple[tuple[str, str], ...], str]


@dataclass(frozen=True, slots=True)
class _Question:
    """One figure of one operation, with the operation's statistics in the runs of each side."""

    name: str
    metric: str
    base: tuple[OperationStatistics | None, ...]
    new: tuple[OperationStatistics | None, ...]


def compare(
    base: Sequence[Mapping[str, Any]],
    new: Sequence[Mapping[str, Any]],
    thresholds: Sequence[Threshold] = (),
    paired: bool = False,
) -> Comparison:
    """Return how each operation changed; with thresholds only the figures they are meant for.

    Without one, 5 % of the base and five readings of the timer have to be exceeded. `paired` says
    that the runs of equal index were made next to each other: what shifts the machine for a while
    then hits both, and is no noise of their difference. Below five runs a side all is inconclusive. Raises InputError for a document that is no saved profile, and
    for a threshold that no figure of an operation has.
    """
    sides = tuple([_operations(document) for document in side] for side in (base, new))
    questions = list(_questions(sides[0], sides[1], thresholds))
    if thresholds and not questions:
        raise InputError(
            "No threshold is meant for a figure of these profiles.",
            f"Their figures are {', '.join(METRICS)}.",
        )
    confidence = 1 - (1 - CONFIDENCE) / max(1, len(questions))
    floor_ns = max((_floor_ns(document) for document in (*base, *new)), default=0.0)
    return comparison(
        "profile",
        [_answer(q, confidence, thresholds or _defaults(q, floor_ns), paired) for q in questions],
    )


def _operations(document: Mapping[str, Any]) -> dict[_Key, OperationStatistics]:
    operations = build_report(recordings_of(document)).operations
    return {(operation.name, operation.labels, operation.ticks.unit): operation for operation in operations}


def _floor_ns(document: Mapping[str, Any]) -> float:
    return max((clock.get("floor_ns") or 0.0 for clock in document["clocks"]), default=0.0)


def _defaults(question: _Question, floor_ns: float) -> Sequence[Threshold]:
    if question.metric == _ERRORS:
        return (Threshold("*", DEFAULT_LIMIT_RATIO, _ERROR_LIMIT, "ratio"),)
    if _unit(question) != "ns":
        return (Threshold("*", DEFAULT_LIMIT_RATIO, 0.0, ""),)
    return (Threshold("*", DEFAULT_LIMIT_RATIO, floor_ns, "ns"),)


def _questions(
    base: Sequence[Mapping[_Key, OperationStatistics]],
    new: Sequence[Mapping[_Key, OperationStatistics]],
    thresholds: Sequence[Threshold],
) -> Iterator[_Question]:
    keys = dict.fromkeys(key for run in (*base, *new) for key in run)
    for key in keys:
        found = tuple(run.get(key) for run in base), tuple(run.get(key) for run in new)
        labels = ", ".join(f"{label}={value}" for label, value in key[1])
        name = f"{key[0]}{{{labels}}}" if labels else key[0]
        for metric in METRICS:
            asked = any(threshold.covers(name, metric) for threshold in thresholds)
            if asked or (not thresholds and _worth_asking(metric, (*found[0], *found[1]))):
                yield _Question(name, metric, *found)


def _worth_asking(metric: str, runs: Sequence[OperationStatistics | None]) -> bool:
    """Return whether any run has the figure: a percentile that needs more samples is nobody's question."""
    if metric == _ERRORS:
        return any(run is not None and run.errors for run in runs)
    return metric == "mean" or any(run is not None and run.count >= _QUANTILES[metric][1] for run in runs)


def _unit(question: _Question) -> str:
    if question.metric == _ERRORS:
        return "ratio"
    units = {run.total.unit for run in (*question.base, *question.new) if run is not None}
    return "ns" if units == {"ns"} else "ticks"


def _answer(question: _Question, confidence: float, thresholds: Sequence[Threshold], paired: bool) -> Change:
    unit = _unit(question)
    sides = [_figures(question.metric, runs) for runs in (question.base, question.new)]
    if any(isinstance(side, str) for side in sides):
        base, new = (_lone_figure(question.metric, side) for side in sides)
        return judged(question.name, question.metric, unit, base, new, thresholds)
    found = _difference(question, sides, confidence, paired)
    fewest = min(len(question.base), len(question.new))
    reason = None if fewest >= MIN_RUNS else f"{MIN_RUNS} runs a side are needed, there are {fewest}"
    change = judged(
        question.name, question.metric, unit, Figure(found.base, reason=reason), Figure(found.new, reason=reason),
        thresholds, interval=None if reason else found.interval,
    )  # fmt: skip
    if reason or change.verdict is not Verdict.INCONCLUSIVE:
        return change
    limit, _ = limit_of(question.name, question.metric, unit, found.base, thresholds)
    return _with_runs_needed(change, found.spread, limit, fewest, confidence)


def _with_runs_needed(change: Change, spread: float, limit: float, runs: int, confidence: float) -> Change:
    """Return an inconclusive change with the number of runs that would settle it."""
    if not limit:
        return change
    needed = runs_needed(spread, limit, confidence)
    if needed <= runs:
        return replace(change, reason=f"{change.reason}: the change is close to it")
    return replace(change, runs_needed=needed)


def _lone_figure(metric: str, side: list[Any] | str) -> Figure:
    """Return the figure of a side whose other side has none to be compared with."""
    if isinstance(side, str):
        return Figure.missing(side)
    if metric == _ERRORS:
        return Figure(statistics.fmean(part / whole for part, whole in side))
    quantile = _QUANTILES[metric][0]
    return Figure(statistics.median(run.mean if quantile is None else run.quantile(quantile) for run in side))


def _difference(question: _Question, sides: Sequence[Any], confidence: float, paired: bool) -> Difference:
    seed = zlib.crc32(f"{question.name} {question.metric}".encode("utf-8", "replace"))
    if min(len(side) for side in sides) < 2:
        # No spread between runs: the interval is not used.
        sides = [[*side, *side] for side in sides]
    if question.metric == _ERRORS:
        return ratio_difference(sides[0], sides[1], confidence, seed, paired)
    return difference(sides[0], sides[1], _QUANTILES[question.metric][0], confidence, seed, paired)


def _figures(metric: str, runs: Sequence[OperationStatistics | None]) -> list[Any] | str:
    """Return what the bootstrap takes of each run, or why a run has none."""
    figures: list[Any] = []
    for run in runs:
        if run is None or not run.count:
            return "a run does not have the operation"
        if metric == _ERRORS:
            if run.errors is None:
                return run.gap or "errors were not counted"
            figures.append((min(run.errors, run.count), run.count))
            continue
        if not run.ticks.buckets:
            return run.gap or "beyond the histogram's range"
        if run.out_of_range:
            return "samples beyond the histogram's range"
        if run.count < _QUANTILES[metric][1]:
            return "low n"
        figures.append(_run(run))
    return figures


def _run(found: OperationStatistics) -> Run:
    """Return the samples of a run, in the unit of its times."""
    ticks = found.ticks
    assert found.total.value is not None
    per_tick = found.total.value / ticks.sum if ticks.sum else 1.0
    buckets = []
    for bucket, samples in ticks.buckets:
        low, high = bucket_bounds(bucket)
        buckets.append((low * per_tick, (high + 1 - low) * per_tick, float(samples)))
    assert found.mean.value is not None
    return Run(tuple(buckets), found.mean.value, found.stddev.value or 0.0)
