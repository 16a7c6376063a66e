"""Diagnoses compared: which checks changed their status, and what the measurements behind them did."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from cfctl.compare.comparison import Change, Comparison, Direction, Figure, Threshold, comparison, judged
from cfctl.compare.fields import Fields
from cfctl.compare.probe import doubted, percentiles
from cfctl.errors import InputError, UnobservableError
from cfctl.records import Severity, Verdict

SCHEMAS: tuple[str, ...] = ("cfctl.diagnosis",)
STATUS: Final = "status"
_SIGMAS: Final = 3.0
# Costs are known to a few ns from run to run on a shared machine: judgement.
_COST_LIMIT = Threshold("*", 0.05, 5.0, "ns")
# The rule of the check TSC_CPU_SKEW.
_OFFSET_LIMIT = Threshold("offset_ns", 0.0, 100.0, "ns")
_UNSEEN: Final = frozenset({"unobservable", "error"})
_RANKS: Final = {str(severity): severity.rank + 1 for severity in Severity}


def compare(
    base: Sequence[dict[str, Any]], new: Sequence[dict[str, Any]], thresholds: Sequence[Threshold]
) -> Comparison:
    """Return each check's change of status, and those of the latency, the costs and offsets measured.

    A status counts 0 for no issue and 1 to 4 for the severity of one; of several runs of a side the worst
    counts. A new or graver issue is a regression whatever the thresholds. Raises UnobservableError for
    diagnoses of two subjects or profiles: a profile changes what is grave.
    """
    old, young = ([Fields(document, "the result") for document in side] for side in (base, new))
    _require_equal_conditions([*old, *young])
    before, after = _statuses(old), _statuses(young)
    changes = [_status_change(name, before[name], after[name]) for name in before if name in after]
    changes += _measured_changes(old, young, thresholds)
    return comparison("diagnosis", changes)


def _require_equal_conditions(documents: Sequence[Fields]) -> None:
    for name, usual in (("subject", "latency"), ("profile", "")):
        values = sorted({document.optional_text(name) or usual for document in documents})
        if len(values) > 1:
            raise UnobservableError(
                "The results can not be compared.", f"They are of the {name}s {' and '.join(values)}.",
                "Diagnose both with the same options.",
            )  # fmt: skip


# A check's rank (None when it could not observe) and how its status reads.
_Seen = tuple[int | None, str]


def _statuses(documents: Sequence[Fields]) -> dict[str, _Seen]:
    found: dict[str, _Seen] = {}
    for document in documents:
        for check in document.tables("checks"):
            name, seen = check.text("id"), _seen(check)
            if name not in found or (seen[0] or 0) > (found[name][0] or 0):
                found[name] = seen
    return found


def _seen(check: Fields) -> _Seen:
    status = check.text("status")
    if status in _UNSEEN:
        return None, status
    if status != "issue":
        return 0, status
    severity = check.text("severity")
    if severity not in _RANKS:
        raise InputError("A diagnosis can not be compared.", f"'{severity}' is no severity.")
    return _RANKS[severity], f"issue ({severity})"


def _status_change(name: str, before: _Seen, after: _Seen) -> Change:
    (base, was), (new, now) = before, after
    reason = was if was == now else f"{was} -> {now}"
    if base is None and new is None:
        return Change(name, STATUS, "severity", None, None, None, None, Direction.SAME, Verdict.PASS, reason)
    if base is None or new is None:
        return Change(
            name, STATUS, "severity", base, new, None, None, Direction.SAME, Verdict.INCONCLUSIVE, reason
        )
    difference = float(new - base)
    direction = Direction.WORSE if new > base else Direction.BETTER if new < base else Direction.SAME
    verdict = Verdict.FAIL if new > base else Verdict.PASS
    return Change(
        name, STATUS, "severity", base, new, difference, (difference, difference), direction, verdict, reason
    )


def _measured_changes(
    old: Sequence[Fields], young: Sequence[Fields], thresholds: Sequence[Threshold]
) -> Iterator[Change]:
    base, new = ([_measured(document) for document in side] for side in (old, young))
    limits = {"ns": [*thresholds, _OFFSET_LIMIT, _COST_LIMIT], "ratio": thresholds}
    spoilt = min(len(old), len(young)) == 1 and any(map(_is_contaminated, [*old, *young]))
    for key in base[0]:
        runs = [[run[key] for run in side if key in run] for side in (base, new)]
        if len(runs[0]) == len(base) and len(runs[1]) == len(new):
            change = judged(*key, Figure.pooled(runs[0]), Figure.pooled(runs[1]), limits[key[2]])
            yield doubted(change) if spoilt and key in _latency(old[0]) else change


def _latency(document: Fields) -> Mapping[tuple[str, str, str], Figure]:
    """Return the percentiles of the latency that was measured for a target, by CPU."""
    return {
        key: figure
        for cpu, use in _latency_of_cpus(document)
        for key, figure in percentiles(
            f"{use} CPU {cpu.count('cpu')}" if cpu.has("cpu") else use, cpu.table("distribution")
        )
        if figure.value is not None
    }


def _is_contaminated(document: Fields) -> bool:
    return any(cpu.value("contaminated") is True for cpu, _ in _latency_of_cpus(document))


def _latency_of_cpus(document: Fields) -> list[tuple[Fields, str]]:
    measurements = document.table("measurements") if document.has("measurements") else None
    if measurements is None or not measurements.has("latency"):
        return []
    latency = measurements.table("latency")
    return [(cpu, latency.text("use")) for cpu in latency.tables("cpus")]


def _measured(document: Fields) -> Mapping[tuple[str, str, str], Figure]:
    """Return what was measured by name, metric and unit."""
    if not document.has("measurements"):
        return {}
    measurements = document.table("measurements")
    found: dict[tuple[str, str, str], Figure] = dict(_latency(document))
    for name, cost in measurements.items("costs"):
        figure = measurements.table("costs").measurement(name, _SIGMAS)
        # What is lost in a second goes by another unit than what an event costs.
        if figure.value is not None and cost.optional_text("unit") == "ns":
            found[name, "cost", "ns"] = figure
        elif figure.value is not None and cost.optional_text("unit") == "ns/s":
            found[name, "lost", "ratio"] = figure.times(1e-9)
    if measurements.has("offsets"):
        offsets = measurements.table("offsets")
        offset = Figure.within(offsets.number("offset_ns"), offsets.number("bound_ns"))
        found["CPU counters", "offset_ns", "ns"] = offset
    return found
