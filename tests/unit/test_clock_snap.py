"""The kernel's mult and shift, and the three conditions of taking them over."""

from __future__ import annotations

import pytest

from cfctl.clock.snap import decide, kernel_rate


@pytest.mark.parametrize(
    ("khz", "mult", "shift"),
    # Read from running kernels: the reference guest's two boots, and rates whose dmesg is public.
    [(2_596_144, 6462360, 24), (2_596_132, 6462389, 24)],
)
def test_kernel_rate_is_the_one_of_a_running_kernel(khz: int, mult: int, shift: int) -> None:
    rate = kernel_rate(khz * 1000, 1000)
    assert (rate.mult, rate.shift) == (mult, shift)


def test_rounding_of_mult_is_68_ppb_on_the_reference_guest() -> None:
    rate = kernel_rate(2_596_144_000, 1000)
    assert (rate.frequency_hz / rate.stated_hz - 1) * 1e9 == pytest.approx(-67.94, abs=0.01)
    assert rate.spacing_ppb == pytest.approx(155, abs=1)


@pytest.mark.parametrize("hz", [19_200_000, 24_000_000, 62_500_000, 1_000_000_000])
def test_generic_timers_fit_32_bits_with_room_for_ntp(hz: int) -> None:
    rate = kernel_rate(hz, 1)
    assert rate.mult + rate.mult * 11 // 100 < 1 << 32
    assert rate.frequency_hz == pytest.approx(hz, rel=1e-8)


@pytest.mark.parametrize("hz", [0, -5, 10**14])
def test_rates_of_no_counter_are_refused(hz: int) -> None:
    with pytest.raises(ValueError, match="no rate"):
        kernel_rate(hz, 1000)


EXACT = kernel_rate(2_596_144_000, 1000).frequency_hz


def test_a_rate_within_its_error_snaps() -> None:
    snap = decide(EXACT * (1 + 0.3e-9), 0.1, clocksource="tsc", reference="raw")
    assert snap.rate is not None
    assert snap.rate.frequency_hz == EXACT


@pytest.mark.parametrize(
    ("off_ppb", "error_ppb", "why"),
    [
        (3.0, 0.1, "more than 2 ppb"),
        (30.0, 7.0, "too near to the middle"),
        (30.0, 4.0, "more than 20 ppb"),
        (100.0, 100.0, "another mult is nearer"),
    ],
)
def test_a_rate_off_by_more_than_its_error_does_not_snap(off_ppb: float, error_ppb: float, why: str) -> None:
    snap = decide(EXACT * (1 + off_ppb * 1e-9), error_ppb, clocksource="tsc", reference="raw")
    assert snap.rate is None
    assert why in snap.reason


@pytest.mark.parametrize("reference", ["monotonic", "realtime"])
def test_a_steered_clock_has_no_rate_to_snap_to(reference: str) -> None:
    assert decide(EXACT, 0.1, clocksource="tsc", reference=reference).rate is None


@pytest.mark.parametrize("clocksource", ["kvm-clock", "hpet", None])
def test_an_unknown_clocksource_has_no_rate_to_snap_to(clocksource: str | None) -> None:
    assert decide(EXACT, 0.1, clocksource=clocksource, reference="raw").rate is None


def test_a_generic_timer_snaps_to_what_it_states() -> None:
    exact = kernel_rate(24_000_000, 1)
    snap = decide(
        exact.frequency_hz, 0.1, clocksource="arch_sys_counter", reference="raw", counter_hz=24_000_000
    )
    assert snap.rate == exact
    wrong = decide(
        exact.frequency_hz * 1.001,
        0.1,
        clocksource="arch_sys_counter",
        reference="raw",
        counter_hz=24_000_000,
    )
    assert wrong.rate is None
