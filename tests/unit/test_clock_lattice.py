"""The counter's step from counted increments."""

from __future__ import annotations

import pytest

from cfctl.clock.lattice import lattice_step


def test_the_reference_guest_s_step_is_26() -> None:
    assert lattice_step({26: 2_200_000, 52: 1_800_000, 5000: 40, 61: 100}) == 26


def test_a_counter_of_single_ticks_has_step_one() -> None:
    assert lattice_step(dict.fromkeys(range(18, 200), 100)) == 1
    assert lattice_step({18: 50, 19: 50, 20: 50, 21: 40}) == 1


def test_even_increments_are_a_step_of_two() -> None:
    assert lattice_step({18: 100, 20: 300, 22: 250, 24: 20}) == 2


def test_a_scaled_counter_rounds_its_multiples() -> None:
    # 25.6 ticks a step
    assert lattice_step({25: 10, 26: 90, 51: 100, 77: 100, 102: 50}) == 25.5
    # 10.0149 ns a step, in nanoseconds rounded down
    assert lattice_step({10: 90, 11: 9, 20: 90, 21: 8, 30: 60, 31: 5, 50: 40, 51: 9}) == pytest.approx(
        10, abs=0.3
    )


def test_nothing_counted_has_no_step() -> None:
    assert lattice_step({}) is None
    assert lattice_step({0: 1000}) is None
