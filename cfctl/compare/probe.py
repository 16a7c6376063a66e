"""Probes compared: percentiles with the noise their histograms tell, rates with that of their counts."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any, Final

from cfctl import _native
from cfctl.compare.comparison import Change, Comparison, Figure, Threshold, comparison, judged
from cfctl.compare.fields import Fields
from cfctl.errors import InputError, UnobservableError
from cfctl.records import Verdict

SCHEMAS: tuple[str, ...] = (
    "cfctl.probe.jitter",
    "cfctl.probe.wakeup",
    "cfctl.probe.core-to-core",
    "cfctl.probe.cost",
    "cfctl.probe.clock",
)
# Intervals of three standard errors (99.7 %): among a hundred figures hardly one moves by chance.
_SIGMAS: Final = 3.0
_NS: Final = "ns"

# A figure of one thing: (name, metric, unit).
Key = tuple[str, str, str]
Figures = dict[Key, Figure]


def compare(
    base: Sequence[dict[str, Any]], new: Sequence[dict[str, Any]], thresholds: Sequence[Threshold]
) -> Comparison:
    """Return the change of every figure that is in all results; raises UnobservableError for other conditions.

    A single run's interval is the sampling noise within it; several runs of a side add their spread.
    """
    documents = [Fields(document, "the result") for document in (*base, *new)]
    schema = documents[0].text("schema")
    _require_equal_conditions(schema, documents)
    step_ns = max((_step_ns(document) for document in documents), default=0.0)
    # A change below the counter's step is not visible; 5 % of a few ns is.
    rules = [*thresholds, Threshold("*", 0.05, step_ns, _NS)]
    plain = [*thresholds, Threshold("*", 0.05, 0.0, "")]
    sides = [
        _pooled([_figures(schema, d) for d in side])
        for side in (documents[: len(base)], documents[len(base) :])
    ]
    changes = [
        judged(name, metric, unit, old, sides[1][name, metric, unit], rules if unit == _NS else plain)
        for (name, metric, unit), old in sides[0].items()
        if (name, metric, unit) in sides[1]
    ]
    spoilt = sum(document.value("contaminated") is True for document in documents)
    if spoilt and min(len(base), len(new)) == 1:
        changes = [doubted(change) for change in changes]
    found = comparison(schema.removeprefix("cfctl."), _measured_somewhere(changes))
    return found.with_remark(
        f"{spoilt} of {len(documents)} runs were disturbed by other programs" if spoilt else ""
    )


def doubted(change: Change) -> Change:
    """Return a failed figure as inconclusive: within one disturbed run nothing tells whose doing it is."""
    if change.verdict is not Verdict.FAIL:
        return change
    reason = f"{change.reason}, but a single run was disturbed by other programs; give several"
    return replace(change, verdict=Verdict.INCONCLUSIVE, reason=reason)


def _measured_somewhere(changes: Sequence[Change]) -> list[Change]:
    """Leave out what neither side measured, such as a percentile that both counts are too low for."""
    return [change for change in changes if change.base is not None or change.new is not None]


# What has to be equal for figures to mean the same, by schema.
_CONDITIONS: Final = {
    "cfctl.probe.jitter": ("threshold_ns",),
    "cfctl.probe.wakeup": ("interval_ns",),
    "cfctl.probe.core-to-core": ("round_trips_a_sample",),
}


def _require_equal_conditions(schema: str, documents: Sequence[Fields]) -> None:
    for name in _CONDITIONS.get(schema, ()):
        values = [document.number(name) for document in documents]
        # The threshold is rounded to whole ticks of each run's own calibration.
        if max(values) - min(values) > 0.01 * max(values):
            raise UnobservableError(
                "The results can not be compared.",
                f"They were measured with {name} {min(values):g} and {max(values):g}.",
                "Measure both with the same options.",
            )


def _step_ns(document: Fields) -> float:
    if document.has("clock"):
        return document.table("clock").optional_number("tick_step_ns") or 0.0
    return 0.0


def _pooled(runs: Sequence[Figures]) -> Figures:
    shared = [key for key in runs[0] if all(key in run for run in runs)]
    return {key: Figure.pooled([run[key] for run in runs]) for key in shared}


def _figures(schema: str, document: Fields) -> Figures:
    return dict(_READERS[schema](document))


def _jitter(document: Fields) -> Iterator[tuple[Key, Figure]]:
    for cpu in document.tables("cpus"):
        name = f"CPU {cpu.count('cpu')}"
        gaps = cpu.table("gaps")
        seconds = cpu.number("duration_ns") / 1e9
        if seconds > 0:
            yield (name, "gap_rate", "1/s"), cpu.measurement("gap_rate", _SIGMAS)
            yield (name, "lost", "ratio"), _lost(cpu, gaps, seconds)
        yield from percentiles(f"{name} gap", gaps)


def _lost(cpu: Fields, gaps: Fields, seconds: float) -> Figure:
    """Return the lost time with the error of a sum over a Poisson count of gaps: sqrt(sum of squares)."""
    lost = cpu.measurement("lost")
    if lost.value is None:
        return lost
    squares = sum(count * value * value for value, _, count in _buckets(gaps.table("histogram")))
    return Figure.within(lost.value, _SIGMAS * math.sqrt(squares) / (1e9 * seconds))


def _wakeup(document: Fields) -> Iterator[tuple[Key, Figure]]:
    for cpu in document.tables("cpus"):
        yield from percentiles(f"CPU {cpu.count('cpu')}", cpu.table("distribution"))


def _core_to_core(document: Fields) -> Iterator[tuple[Key, Figure]]:
    for pair in document.tables("pairs"):
        name = f"CPU {pair.count('cpu_a')}-{pair.count('cpu_b')} {pair.text('variant')}"
        yield from percentiles(name, pair.table("distribution"))


def _costs(document: Fields) -> Iterator[tuple[Key, Figure]]:
    for cost in document.tables("costs"):
        name = cost.text("name")
        if cost.has("distribution"):
            yield from percentiles(name, cost.table("distribution"))
        else:
            yield (name, "p50", _NS), cost.measurement("cost", _SIGMAS)


def _clock(document: Fields) -> Iterator[tuple[Key, Figure]]:
    for name, _ in document.items("read_costs"):
        yield (name, "p50", _NS), document.table("read_costs").measurement(name, _SIGMAS)


_READERS: Final[dict[str, Callable[[Fields], Iterator[tuple[Key, Figure]]]]] = {
    "cfctl.probe.jitter": _jitter,
    "cfctl.probe.wakeup": _wakeup,
    "cfctl.probe.core-to-core": _core_to_core,
    "cfctl.probe.cost": _costs,
    "cfctl.probe.clock": _clock,
}


def percentiles(name: str, distribution: Fields) -> Iterator[tuple[Key, Figure]]:
    """Yield the percentiles of a saved distribution with the noise of their ranks, ns."""
    buckets = _buckets(distribution.table("histogram"))
    counts = list(accumulate(count for _, _, count in buckets))
    for percentile in distribution.tables("percentiles"):
        quantile = percentile.number("quantile")
        metric = f"p{100 * quantile:.10g}"
        if not percentile.has("value_ns"):
            reason = percentile.optional_text("reason") or "not measured"
            yield (name, metric, _NS), Figure.missing(reason)
            continue
        value = percentile.number("value_ns")
        yield (name, metric, _NS), _rank_interval(value, quantile, buckets, counts)


def _rank_interval(
    value: float, quantile: float, buckets: Sequence[tuple[float, float, int]], counts: Sequence[int]
) -> Figure:
    """Return a percentile with the values at the ranks that bound it.

    The number of samples below a quantile is binomial, so that its rank is known to 3 sqrt(n q (1-q)).
    Source: David and Nagaraja, Order Statistics, section 7.1.
    """
    total = counts[-1] if counts else 0
    if not 0 < quantile < 1 or total == 0:
        return Figure(value, reason="no histogram is stored")
    spread = _SIGMAS * math.sqrt(total * quantile * (1 - quantile))
    first = bisect_left(counts, max(1.0, quantile * total - spread))
    last = bisect_left(counts, min(float(total), math.ceil(quantile * total + spread)))
    return Figure(value, (min(value, buckets[first][0]), max(value, buckets[last][1])))


def _buckets(histogram: Fields) -> list[tuple[float, float, int]]:
    """Return the filled buckets as (lower bound, upper bound, count), ns."""
    ns_per_raw = histogram.number("ns_per_raw")
    found = []
    for bucket, count in histogram.pairs("buckets"):
        if bucket >= _native.HISTOGRAM_BUCKETS:
            raise InputError(
                "A result can not be compared.", "Its histogram has a bucket that does not exist."
            )
        low, width = _native.histogram_bounds(bucket)
        found.append((low * ns_per_raw, (low + width) * ns_per_raw, count))
    return sorted(found)
