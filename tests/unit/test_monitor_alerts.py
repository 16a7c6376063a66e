"""Alerts: when they fire, when they end, and that noise does not make them flap. The clock is the windows' sum."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from cfctl.monitor.alerts import MOST_DIAGNOSES, AlertBook, AlertState, Cause, Transition
from cfctl.monitor.snapshot import Series, Snapshot
from cfctl.monitor.targets import NoData, Operator, Target, TargetSeverity
from cfctl.records import Measurement

if TYPE_CHECKING:
    from cfctl.monitor.metric import Labels

TARGET = Target(
    "latency",
    "m",
    Operator.BELOW,
    100.0,
    "ns",
    TargetSeverity.WARNING,
    for_ns=3 * 10**9,
    keep_firing_for_ns=5 * 10**9,
)


class World:
    """Feeds one snapshot a second to a book and notes what changed when, in seconds."""

    def __init__(self, *targets: Target) -> None:
        self.asked: list[str] = []
        self.book = AlertBook(targets or (TARGET,), self.explain)
        self.second = 0
        self.log: list[tuple[int, bool]] = []

    def explain(self, target: Target, series: Series) -> Cause | None:
        self.asked.append(target.name)
        return Cause("CPU_STEAL", "steal 9 %", "Ask the host's operator.")

    def see(self, *values: float | None, error: float = 1.0, labels: Labels = ()) -> tuple[Transition, ...]:
        changed: tuple[Transition, ...] = ()
        for value in values:
            self.second += 1
            measured = Measurement.missing("ns", "why") if value is None else Measurement(value, "ns", error)
            changed = self.book.update(
                Snapshot(self.second * 10**9, 10**9, (Series("m", measured, labels, "a test"),))
            )
            self.log += [(self.second, change.fired) for change in changed]
        return changed


def test_a_miss_fires_when_it_has_lasted_and_ends_when_it_was_good_for_long_enough() -> None:
    world = World()
    world.see(50, 150, 150, 150, 150, *[50] * 8)
    # Missed from second 2 on; three seconds later it fires. Good from second 6 on; ends five later.
    assert world.log == [(5, True), (11, False)]


def test_alerts_that_fire_together_share_their_diagnoses_and_those_are_few() -> None:
    world = World(replace(TARGET, for_ns=0))
    found = [
        Series("m", Measurement(150.0, "ns", 1.0), (("operation", operation), ("pid", pid)))
        for pid in "abcdefghij"
        for operation in "xyz"
    ]
    fired = world.book.update(Snapshot(10**9, 10**9, tuple(found)))
    assert len(fired) == 30
    assert len(world.asked) == MOST_DIAGNOSES
    assert sum(change.alert.cause is not None for change in fired) == 3 * MOST_DIAGNOSES


def test_a_short_miss_is_pending_and_never_fires() -> None:
    world = World()
    world.see(150, 150, 150)
    assert [alert.state for alert in world.book.alerts()] == [AlertState.PENDING]
    world.see(50)
    assert world.book.alerts() == ()
    world.see(150, 150, 150)
    assert world.log == []


def test_a_value_whose_interval_spans_the_threshold_neither_fires_nor_ends_an_alert() -> None:
    world = World()
    world.see(*[101] * 20, error=5.0)
    assert world.log == []
    world.see(*[150] * 4)
    world.see(*[99] * 50, error=5.0)
    assert [fired for _, fired in world.log] == [True]


def test_between_recovery_and_threshold_an_alert_goes_on() -> None:
    world = World(replace(TARGET, recovery=80.0))
    world.see(*[150] * 4, *[90] * 50)
    assert [fired for _, fired in world.log] == [True]
    world.see(*[70] * 6)
    assert [fired for _, fired in world.log] == [True, False]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("spread", [2.0, 20.0, 60.0])
def test_a_thousand_noisy_seconds_around_the_threshold_give_at_most_one_transition(
    seed: int, spread: float
) -> None:
    noise = random.Random(seed)
    world = World(Target("latency", "m", Operator.BELOW, 100.0, "ns", TargetSeverity.WARNING))
    world.see(*(noise.gauss(100.0, spread) for _ in range(1000)))
    assert len(world.log) <= 1


def test_the_alert_carries_the_guides_fields_the_cause_and_since_when() -> None:
    world = World()
    (change,) = world.see(*[150] * 4)
    alert = change.alert
    assert (alert.severity, alert.metric, alert.current_value, alert.target_value) == (
        "warning",
        "m",
        150,
        100,
    )
    assert alert.description == "m of a test is 150.0 ns, wanted < 100 ns"
    assert (alert.since_unix_ns, alert.state) == (4 * 10**9, AlertState.FIRING)
    assert alert.cause == Cause("CPU_STEAL", "steal 9 %", "Ask the host's operator.")
    world.see(*[170] * 5)
    assert world.asked == ["latency"]
    assert world.book.alerts()[0].current_value == 170
    assert world.book.alerts()[0].since_unix_ns == 4 * 10**9


@pytest.mark.parametrize(
    ("policy", "before", "expected"),
    [
        (NoData.KEEP, [150] * 4, [True]),
        (NoData.KEEP, [50], []),
        (NoData.OK, [150] * 4, [True, False]),
        (NoData.ALERT, [50], [True]),
        (NoData.ALERT, [150] * 4, [True]),
    ],
)
def test_without_a_value_an_alert_follows_its_policy(
    policy: NoData, before: list[float], expected: list[bool]
) -> None:
    world = World(replace(TARGET, no_data=policy))
    world.see(*before, *[None] * 10)
    assert [fired for _, fired in world.log] == expected


def test_a_target_without_any_series_can_alert_on_the_lack() -> None:
    book = AlertBook((replace(TARGET, no_data=NoData.ALERT),))
    changes = [book.update(Snapshot(second, 10**9, ())) for second in range(5)]
    assert [len(change) for change in changes] == [0, 0, 0, 1, 0]
    assert "no such series" in changes[3][0].alert.description


def test_each_series_has_an_alert_of_its_own_and_one_that_is_gone_ends() -> None:
    world = World()
    world.see(*[150] * 4, labels=(("pid", "1"),))
    assert world.log == [(4, True)]
    world.see(50, labels=(("pid", "2"),))
    assert world.log == [(4, True), (5, False)]
    assert world.book.alerts() == ()


def test_other_targets_leave_alerts_of_unchanged_ones_firing() -> None:
    world = World()
    world.see(*[150] * 4)
    world.book.adopt((TARGET, replace(TARGET, name="other")))
    assert [alert.target for alert in world.book.alerts()] == ["latency"]
    world.see(150)
    assert world.log == [(4, True)]
    world.book.adopt((replace(TARGET, threshold=500.0),))
    assert world.book.alerts() == ()


def test_alerts_are_ordered_by_state_severity_and_age() -> None:
    grave = replace(TARGET, name="grave", severity=TargetSeverity.CRITICAL)
    slow = replace(grave, name="slow", for_ns=10**12)
    world = World(TARGET, slow, grave)
    world.see(*[150] * 5)
    assert [alert.target for alert in world.book.alerts()] == ["grave", "latency", "slow"]
