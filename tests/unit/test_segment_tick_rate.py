from __future__ import annotations

from typing import Any

import pytest

from cfctl.segment.reader import parse_segment
from cfctl.segment.records import ClockPair, SegmentHeader
from cfctl.segment.tick_rate import LocalClock, SavedRate, TickRate, local_clock, tick_rate
from tests.unit.segment_builder import SegmentBuilder

BOOT = "boot-of-the-test"
# The builder's clock runs at 2 ticks per ns and was read twice, 1 ms apart.
NS_PER_TICK = 0.5


def header(**changes: Any) -> SegmentHeader:
    return parse_segment(SegmentBuilder(changes).build()).header


def local(
    boot_id: str = BOOT, ns_later: int = 10**9, shift_ns: int = 0, os_clock: bool = False
) -> LocalClock:
    return LocalClock(boot_id, os_clock, ClockPair(1000 + 2 * ns_later, 10**9 + ns_later + shift_ns))


def test_ticks_of_the_os_clock_are_nanoseconds_exactly() -> None:
    assert tick_rate(header(tick_source=3)) == TickRate(1.0, 0.0, "ticks of the OS clock")


def test_a_calibration_of_the_same_boot_goes_first() -> None:
    saved = SavedRate(0.500001, 3.0, BOOT, "calibration (tsc)")
    assert tick_rate(header(), local(), saved) == TickRate(0.500001, 3.0, "calibration (tsc)")


def test_a_calibration_of_another_boot_or_that_the_clock_contradicts_is_not_used() -> None:
    for saved in (
        SavedRate(0.5, 3.0, "other", "c"),
        SavedRate(0.6, 3.0, BOOT, "c"),
        SavedRate(0.5, 1, "", "c"),
    ):
        rate = tick_rate(header(), local(), saved)
        assert rate.ns_per_tick == NS_PER_TICK
        assert "of this command" in rate.method


def test_the_readers_own_reading_extends_the_baseline_in_the_same_boot() -> None:
    rate = tick_rate(header(), local(ns_later=10**9))
    assert rate.ns_per_tick == NS_PER_TICK
    assert rate.uncertainty_ppb == pytest.approx(100)


@pytest.mark.parametrize(
    "reader",
    [None, local("another boot"), local(os_clock=True), local(shift_ns=3600 * 10**9), local("")],
    ids=["none", "boot", "source", "time namespace", "unknown boot"],
)
def test_otherwise_the_segments_own_two_readings_give_the_rate(reader: LocalClock | None) -> None:
    rate = tick_rate(header(), reader)
    assert rate.ns_per_tick == NS_PER_TICK
    assert rate.uncertainty_ppb == pytest.approx(100_000)
    assert "of the program" in rate.method


@pytest.mark.parametrize(
    "changes",
    [
        {"latest_tick": 1000, "latest_raw_ns": 10**9},
        {"latest_tick": 1000 + 2000, "latest_raw_ns": 10**9 + 1000},
        {"latest_tick": 1000 + 1, "latest_raw_ns": 10**9 + 10**9},
        {"latest_tick": 2**63, "latest_raw_ns": 10**9 + 10**6},
        {"latest_tick": 1, "latest_raw_ns": 1},
    ],
    ids=["one reading", "too short", "too slow", "too fast", "backwards"],
)
def test_without_a_baseline_there_is_no_rate_but_a_reason(changes: dict[str, int]) -> None:
    rate = tick_rate(header(**changes))
    assert rate.ns_per_tick is None
    assert rate.reason


@pytest.mark.host
def test_this_machines_rate_from_two_own_readings_is_plausible() -> None:
    first, last = local_clock(), local_clock(attempts=2000)
    assert last.boot_id == first.boot_id
    assert last.pair.tick > first.pair.tick
    elapsed_ns = last.pair.raw_ns - first.pair.raw_ns
    assert 0.1 <= elapsed_ns / (last.pair.tick - first.pair.tick) <= 1000
