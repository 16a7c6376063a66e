"""Health has one definition: what it is judged by, and what it says, whoever looks."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cfctl.bus.health import (
    ATTACHED,
    CLOCK,
    CONDITIONS,
    CONSUMERS,
    DISPATCHERS,
    NO_OVERRUN,
    HealthCounts,
    judge,
    nothing_lives,
)

GOOD = HealthCounts(
    clock_error=None, rings=2, subscriptions=3, unattached=(), gone=(), failed=(), rejected=0, dropped=0,
    window="in 1 s",
)  # fmt: skip


def test_a_bus_without_a_fault_is_healthy_and_true() -> None:
    health = judge(GOOD)
    assert health
    assert health.healthy is True
    assert str(health) == "healthy"
    assert tuple(each.name for each in health.conditions) == CONDITIONS


@pytest.mark.parametrize(
    ("change", "name", "why"),
    [
        ({"clock_error": "no rate"}, CLOCK, "no rate"),
        ({"unattached": ("a", "b", "c", "d")}, ATTACHED, "a; b; c; and 1 more"),
        ({"gone": ("process 5 on 'x'",)}, CONSUMERS, "ended without unsubscribing: process 5 on 'x'"),
        ({"failed": ("bus 1 of process 5",)}, DISPATCHERS, "the dispatcher's thread has ended: bus 1 of process 5"),
        ({"dropped": 3}, NO_OVERRUN, "3 messages dropped in 1 s"),
        ({"rejected": 1}, NO_OVERRUN, "1 message rejected by a full ring in 1 s"),
        ({"rejected": 2, "dropped": 1}, NO_OVERRUN, "1 message dropped and 2 messages rejected by a full ring in 1 s"),
    ],
)  # fmt: skip
def test_each_fault_makes_it_unhealthy_and_false_and_is_said_in_words(
    change: dict[str, object], name: str, why: str
) -> None:
    health = judge(replace(GOOD, **change))  # type: ignore[arg-type]
    assert not health
    assert health.healthy is False
    assert [each.name for each in health.conditions if not each.holds] == [name]
    assert health.holds(name) is False
    assert str(health) == f"unhealthy: {why}"
    assert "not no" not in str(health).lower()


def test_what_cannot_be_known_is_no_pass_and_no_fault() -> None:
    health = judge(replace(GOOD, failed=None))
    assert health.healthy is None
    assert not health
    assert str(health) == "not known: whether the dispatcher's thread runs is not known"
    assert judge(replace(GOOD, failed=None, dropped=1)).healthy is False
    assert nothing_lives().healthy is None
    assert not nothing_lives()


def test_a_bus_that_only_publishes_or_only_listens_is_healthy() -> None:
    assert judge(replace(GOOD, subscriptions=0))
    assert judge(replace(GOOD, rings=0))
    assert judge(replace(GOOD, rings=1, subscriptions=1))
