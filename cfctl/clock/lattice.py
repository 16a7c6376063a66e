"""The step in which the tick counter advances: the resolution of a single stamp."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from cfctl import _native

READS: Final = 4000
# An interrupt or two among the reads may leave an increment off the lattice.
_SHARE: Final = 0.99
# A counter that is scaled up from a slower one by a fraction is off its multiples by one tick.
_MIN_ROUNDED_STEP: Final = 8


def lattice_step(counts: Mapping[int, int]) -> float | None:
    """Return the step in ticks of which 99 % of the increments are multiples, None without increments.

    `counts`: increment in ticks -> how often. A step of 8 and more is also found when a scaled
    counter rounds its multiples to whole ticks (it is a fraction then), if at least two different
    multiples were seen.
    """
    grown = {increment: count for increment, count in counts.items() if increment > 0}
    total = sum(grown.values())
    if not total:
        return None
    common = [increment for increment, count in grown.items() if count >= total * 1e-3] or list(grown)
    for step in range(min(common), 1, -1):
        exact = sum(count for increment, count in grown.items() if increment % step == 0)
        if exact >= _SHARE * total:
            return float(step)
    largest = max(common)
    for parts in range(1, largest // _MIN_ROUNDED_STEP + 1):
        if _rounded_multiples(grown, largest / parts) >= _SHARE * total:
            return largest / parts
    return 1.0


def _rounded_multiples(counts: Mapping[int, int], step: float) -> int:
    """Return how many increments are multiples of a step, rounded to a whole tick; 0 for one multiple only."""
    near = {i: count for i, count in counts.items() if abs(i - round(i / step) * step) <= 1}
    return sum(near.values()) if len({round(i / step) for i in near}) > 1 else 0


def step_ticks(reads: int = READS) -> float | None:
    """Return the measured step of the counter in ticks; about 0.1 us a read."""
    return lattice_step(_native.tick_increments(reads))
