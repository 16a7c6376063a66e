"""Properties of conversion, fit and step that hold for any input."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cfctl import _native
from cfctl.clock.calibration import from_plain
from cfctl.clock.fit import fit
from cfctl.clock.lattice import lattice_step
from cfctl.clock.snap import kernel_rate
from cfctl.errors import InputError
from cfctl.records import to_plain
from tests.unit.clock_worlds import calibration, line_points, spread_ticks

slopes = st.floats(0.01, 1000.0)


@given(slope=slopes, span=st.integers(10**7, 10**12), start=st.integers(0, 1 << 62), off_ppm=st.floats(-3, 3))
def test_an_exact_line_is_found_again(slope: float, span: int, start: int, off_ppm: float) -> None:
    points = line_points(spread_ticks(span, start), slope)
    found = fit(points, slope * (1 + off_ppm * 1e-6))
    # line_points rounds in floats of the whole span
    rounding = (5e9 + span * slope) * 2e-16 / (span * slope)
    assert abs(found.line.ns_per_tick / slope - 1) < 8 * rounding + 1e-12


@given(
    base_tick=st.integers(0, 1 << 62), base_ns=st.integers(1 << 40, 1 << 60), mult=st.integers(1 << 40, (1 << 64) - 1),
    shift=st.integers(60, 64), ahead=st.integers(-(1 << 38), 1 << 50),
)  # fmt: skip
def test_conversion_follows_the_published_line_exactly(
    base_tick: int, base_ns: int, mult: int, shift: int, ahead: int
) -> None:
    made = calibration(base_tick=base_tick, base_ns=base_ns, mult=mult, shift=shift)
    exact = base_ns + ahead * mult / 2**shift
    assert abs(made.to_ns(base_tick + ahead) - exact) <= 1 + abs(exact) * 2e-16
    assert made.to_ns(base_tick + ahead + 1) >= made.to_ns(base_tick + ahead)


@given(khz=st.integers(1_000_000, 4_294_967))
def test_a_kernel_rate_is_within_half_a_mult_of_what_was_stated(khz: int) -> None:
    rate = kernel_rate(khz * 1000, 1000)
    assert abs(rate.frequency_hz / rate.stated_hz - 1) * 1e9 <= rate.spacing_ppb * 1.01
    assert rate.mult < 1 << 32


@given(counts=st.dictionaries(st.integers(-5, 70_000), st.integers(0, 10**9), max_size=60))
def test_a_step_divides_what_was_seen(counts: dict[int, int]) -> None:
    step = lattice_step(counts)
    seen = [increment for increment, count in counts.items() if increment > 0 and count > 0]
    assert (step is None) == (not seen)
    if step is not None:
        assert 1 <= step <= max(seen) + 1


@given(step=st.integers(8, 60), seed=st.integers(0, 2**32))
def test_the_step_of_a_lattice_is_found(step: int, seed: int) -> None:
    chance = np.random.default_rng(seed)
    increments, counts = np.unique(chance.integers(1, 9, 4000) * step, return_counts=True)
    assert lattice_step(dict(zip(increments.tolist(), counts.tolist(), strict=True))) == step


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@settings(max_examples=300)
@given(field=st.sampled_from(sorted(to_plain(calibration()))), value=plain)
def test_a_calibration_with_any_field_replaced_is_read_or_refused(field: str, value: object) -> None:
    try:
        read = from_plain(to_plain(calibration()) | {field: value})
    except InputError:
        return
    assert 1 <= read.shift <= 64
    assert 0 < read.mult < 1 << 64
    assert isinstance(read.to_ns(read.base_tick), int)


@given(capacity=st.integers(1, 300), ids=st.lists(st.integers(0, 2**64 - 1), max_size=700))
def test_a_stamp_ring_holds_the_newest_and_counts_the_rest(capacity: int, ids: list[int]) -> None:
    ring = _native.StampRing(capacity)
    for each in ids:
        ring.stamp(each)
    held = [stamp for stamp, _ in ring.read()]
    assert held == ids[max(0, len(ids) - ring.capacity) :]
    assert ring.overwritten == len(ids) - len(held)
    assert len(ring) == len(held)
    ticks = [tick for _, tick in ring.read()]
    assert ticks == sorted(ticks)
