"""The kernel's own rate: how it turns a stated frequency into mult and shift, and when to take it over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cfctl.clock.fit import SLOPE_BITS

# Two nearby rates are told apart when they differ by 5 standard errors, and 2 ppb is the most the
# method was ever off at 10 ms.
_MAX_ERRORS: Final = 5.0
_MIN_TOLERANCE_PPB: Final = 2.0
_MAX_SHARE_OF_SPACING: Final = 1 / 8


@dataclass(frozen=True, slots=True)
class KernelRate:
    """The kernel's conversion of a clocksource: ns = ticks * mult >> shift, from `stated_hz`."""

    stated_hz: int
    mult: int
    shift: int

    @property
    def slope(self) -> int:
        """Return ns per tick in the fixed point of fit.Line, exactly."""
        return self.mult << (SLOPE_BITS - self.shift)

    @property
    def frequency_hz(self) -> float:
        """Return the rate at which the kernel's nanoseconds count the ticks: not quite `stated_hz`."""
        return 1e9 * (1 << self.shift) / self.mult

    @property
    def spacing_ppb(self) -> float:
        """Return how far apart two neighbouring values of mult are."""
        return 1e9 / self.mult


@dataclass(frozen=True, slots=True)
class Snap:
    """The decision whether the kernel's rate is taken over: `rate` is None when it is not."""

    rate: KernelRate | None
    reason: str


def kernel_rate(stated_hz: int, scale: int) -> KernelRate:
    """Return what the kernel computes for a clocksource of `stated_hz`, registered in units of `scale` Hz.

    Source: __clocksource_update_freq_scale() and clocks_calc_mult_shift() of
    kernel/time/clocksource.c; the TSC is registered in kHz (scale 1000), the generic timer in Hz.
    Raises ValueError for a rate that no such counter has.
    """
    frequency = stated_hz // scale
    if not 1 <= frequency < 1 << 32:
        raise ValueError(f"{stated_hz} Hz is no rate of a counter")
    # A 56-bit or wider counter takes more than 600 s to wrap, and the kernel stops there.
    accumulated_bits = 32 - ((600 * scale * frequency) >> 32).bit_length()
    to = 1_000_000_000 // scale
    mult = shift = 0
    for shift in range(32, 0, -1):
        mult = ((to << shift) + frequency // 2) // frequency
        if mult >> accumulated_bits == 0:
            break
    # Room for the 11 % by which NTP may adjust it.
    while mult + mult * 11 // 100 >= 1 << 32:
        mult >>= 1
        shift -= 1
    return KernelRate(frequency * scale, mult, shift)


def decide(
    estimate_hz: float,
    error_ppb: float,
    *,
    clocksource: str | None,
    reference: str,
    counter_hz: int | None = None,
) -> Snap:
    """Return whether the estimated rate provably is the kernel's own.

    All three must hold: the mult of the nearest whole kHz (or of `counter_hz`, the rate a generic
    timer states) is the whole mult nearest to the estimate; the two rates differ by no more than
    5 standard errors or 2 ppb; and by no more than an eighth of the distance between two mults.
    """
    if reference != "raw":
        return Snap(None, f"the kernel steers CLOCK_{reference.upper()}, so it has no fixed rate")
    if clocksource == "tsc":
        stated_hz, scale = round(estimate_hz / 1000) * 1000, 1000
    elif clocksource == "arch_sys_counter" and counter_hz:
        stated_hz, scale = counter_hz, 1
    else:
        return Snap(None, f"the rounding of clocksource '{clocksource or 'unknown'}' is not known")
    try:
        rate = kernel_rate(stated_hz, scale)
    except ValueError as error:
        return Snap(None, str(error))
    deviation_ppb = (estimate_hz / rate.frequency_hz - 1) * 1e9
    tolerance_ppb = max(_MAX_ERRORS * error_ppb, _MIN_TOLERANCE_PPB)
    where = f"{deviation_ppb:+.3g} ppb from the kernel's rate for {stated_hz / 1000:.12g} kHz"
    if round(1e9 * (1 << rate.shift) / estimate_hz) != rate.mult:
        return Snap(None, f"{where}: another mult is nearer")
    if abs(deviation_ppb) > tolerance_ppb:
        return Snap(None, f"{where}: more than {tolerance_ppb:.2g} ppb")
    if abs(deviation_ppb) > rate.spacing_ppb * _MAX_SHARE_OF_SPACING:
        return Snap(None, f"{where}: too near to the middle between two mults")
    return Snap(rate, f"{where} (mult {rate.mult}, shift {rate.shift})")
