"""Alerts: misses that last, with hysteresis, each change of state told once."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from cfctl.monitor.metric import Labels
from cfctl.monitor.targets import NoData, Target, TargetSeverity
from cfctl.records import Measurement, Verdict
from cfctl.units import format_quantity

if TYPE_CHECKING:
    from cfctl.monitor.snapshot import Series, Snapshot

MOST_DIAGNOSES: Final = 3


class AlertState(enum.StrEnum):
    """Pending: missed, but not for long enough. Firing: until it has recovered for long enough."""

    OK = "ok"
    PENDING = "pending"
    FIRING = "firing"


@dataclass(frozen=True, slots=True)
class Cause:
    """What a diagnosis found when an alert fired: a check's id, what it saw, and the fix."""

    check: str
    found: str
    solution: str


@dataclass(frozen=True, slots=True)
class PerformanceAlert:
    """One target that one series misses, and since when.

    `current_value` and `target_value` are in `unit`. `cause` is the top finding of a diagnosis made
    when it fired; None without one.
    """

    severity: TargetSeverity
    metric: str
    current_value: float | None
    target_value: float
    description: str
    unit: str
    target: str
    labels: Labels
    subject: str
    state: AlertState
    since_unix_ns: int
    cause: Cause | None = None


@dataclass(frozen=True, slots=True)
class Transition:
    """An alert that began to fire or ended."""

    unix_ns: int
    fired: bool
    alert: PerformanceAlert


_Key = tuple[str, Labels]
Explain = Callable[[Target, "Series"], Cause | None]


@dataclass(slots=True)
class _Watch:
    """Where one series stands with one target. Times are CLOCK_MONOTONIC of the snapshots' windows."""

    state: AlertState = AlertState.OK
    missed_since_ns: int | None = None
    good_since_ns: int | None = None
    alert: PerformanceAlert | None = None


@dataclass
class AlertBook:
    """Follows targets over snapshots. Not thread-safe.

    `explain` is asked for an alert that begins to fire. Those of one metric and process that do so with
    one snapshot share the answer, and beyond MOST_DIAGNOSES of them there is none: a diagnosis takes
    half a second, and the next snapshot waits for it.
    """

    targets: tuple[Target, ...]
    explain: Explain = lambda _target, _series: None
    _watches: dict[_Key, _Watch] = field(default_factory=dict, init=False)
    _now_ns: int = field(default=0, init=False)
    _causes: dict[tuple[str, str], Cause | None] = field(default_factory=dict, init=False)

    def update(self, snapshot: Snapshot) -> tuple[Transition, ...]:
        """Return which alerts began to fire or ended with a snapshot.

        Time is the sum of the windows, so that a wall clock that is set does nothing here.
        """
        self._now_ns += snapshot.window_ns
        self._causes.clear()
        transitions: list[Transition] = []
        seen: set[_Key] = set()
        for target in self.targets:
            for series in target.matching(snapshot) or (absent(target),):
                key = (target.name, series.labels)
                seen.add(key)
                transitions += self._step(key, target, series, snapshot.unix_ns)
        for key in self._watches.keys() - seen:
            # A process that ended takes its alerts along.
            transitions += self._gone(self._watches.pop(key), snapshot.unix_ns)
        return tuple(transitions)

    def alerts(self) -> tuple[PerformanceAlert, ...]:
        """Return the alerts that fire or are pending, the gravest and oldest first."""
        order = list(reversed(TargetSeverity))
        found = [watch.alert for watch in self._watches.values() if watch.alert is not None]
        return tuple(
            sorted(
                found,
                key=lambda a: (a.state is not AlertState.FIRING, order.index(a.severity), a.since_unix_ns),
            )
        )

    def adopt(self, targets: tuple[Target, ...]) -> None:
        """Take other targets; what fires for a target that is still there as it was goes on firing."""
        same = {target.name for target in targets} & {
            target.name for target in self.targets if target in targets
        }
        self.targets = targets
        self._watches = {key: watch for key, watch in self._watches.items() if key[0] in same}

    def _step(self, key: _Key, target: Target, series: Series, unix_ns: int) -> Iterable[Transition]:
        watch = self._watches.setdefault(key, _Watch())
        missed, good = _answers(target, series.measurement)
        if watch.state is AlertState.FIRING:
            yield from self._while_firing(watch, target, series, good, unix_ns)
        elif missed:
            if watch.missed_since_ns is None:
                watch.missed_since_ns = self._now_ns
                watch.state = AlertState.PENDING
                watch.alert = _alert(target, series, AlertState.PENDING, unix_ns)
            watch.alert = _refreshed(watch.alert, target, series)
            if self._now_ns - watch.missed_since_ns >= target.for_ns:
                watch.state, watch.good_since_ns = AlertState.FIRING, None
                alert = _alert(target, series, AlertState.FIRING, unix_ns)
                watch.alert = replace(alert, cause=self._cause(target, series))
                yield Transition(unix_ns, True, watch.alert)
        elif good:
            self._watches[key] = _Watch()

    def _cause(self, target: Target, series: Series) -> Cause | None:
        key = (target.metric, dict(series.labels).get("pid", ""))
        if key not in self._causes and len(self._causes) < MOST_DIAGNOSES:
            self._causes[key] = self.explain(target, series)
        return self._causes.get(key)

    def _while_firing(
        self, watch: _Watch, target: Target, series: Series, good: bool, unix_ns: int
    ) -> Iterable[Transition]:
        watch.alert = _refreshed(watch.alert, target, series)
        if not good:
            watch.good_since_ns = None
            return
        if watch.good_since_ns is None:
            watch.good_since_ns = self._now_ns
        if self._now_ns - watch.good_since_ns >= target.keep_firing_for_ns:
            alert, watch.alert = watch.alert, None
            watch.state, watch.missed_since_ns = AlertState.OK, None
            yield Transition(unix_ns, False, replace(alert, state=AlertState.OK))

    def _gone(self, watch: _Watch, unix_ns: int) -> Iterable[Transition]:
        if watch.state is AlertState.FIRING and watch.alert is not None:
            yield Transition(unix_ns, False, replace(watch.alert, state=AlertState.OK))


def _answers(target: Target, measured: Measurement) -> tuple[bool, bool]:
    """Return (missed, recovered); neither when the interval decides nothing."""
    if measured.value is None:
        return target.no_data is NoData.ALERT, target.no_data is NoData.OK
    missed = target.judge(measured) is Verdict.FAIL
    return missed, target.judge(measured, target.recovery) is Verdict.PASS


def _refreshed(alert: PerformanceAlert | None, target: Target, series: Series) -> PerformanceAlert:
    """Return an alert with the value of now; the one it had stays while there is none."""
    assert alert is not None
    if series.measurement.value is None:
        return alert
    return replace(alert, current_value=series.measurement.value, description=_described(target, series))


def absent(target: Target) -> Series:
    """Return what a target is about when no series matches it."""
    from cfctl.monitor.snapshot import Series

    return Series(target.metric, Measurement.missing(target.unit, "no such series"), subject="nothing")


def _alert(target: Target, series: Series, state: AlertState, unix_ns: int) -> PerformanceAlert:
    return PerformanceAlert(
        target.severity, target.metric, series.measurement.value, target.threshold,
        _described(target, series), target.unit, target.name, series.labels, series.subject, state, unix_ns,
    )  # fmt: skip


def _described(target: Target, series: Series) -> str:
    measured = series.measurement
    wanted = f"wanted {target.operator} {format_quantity(target.threshold, target.unit)}"
    if measured.value is None:
        return f"{target.metric} of {series.subject} has no value ({measured.reason}), {wanted}"
    found = format_quantity(measured.value, target.unit, uncertainty=measured.uncertainty)
    return f"{target.metric} of {series.subject} is {found}, {wanted}"
