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


def lattice_step(counts: Mapping[int, int]) -> int | None:
    """Return the step in ticks of which 99 % of the increments are multiples, None without increments.

    `counts`: increment in ticks -> how often. A step of 8 and more is also found when a scaled
    counter rounds its multiples to whole ticks, if at least two different multiples were seen.
    """
    grown = {increment: count for increment, count in counts.items() if increment > 0}
    total = sum(grown.values())
    if not total:
        return None
    common = [increment for increment, count in grown.items() if count >= total * 1e-3] or list(grown)
    largest = min(common) + 1
    for step in range(largest, 1, -1):
        exact = sum(count for increment, count in grown.items() if increment % step == 0)
        if exact >= _SHARE * total:
            return step
    for step in range(largest, _MIN_ROUNDED_STEP - 1, -1):
        near = {i: c for i, c in grown.items() if min(i % step, -i % step) <= 1}
        if sum(near.values()) >= _SHARE * total and len({round(i / step) for i in near}) > 1:
            return step
    return 1


def step_ticks(reads: int = READS) -> int | None:
    """Return the measured step of the counter in ticks; about 0.1 us a read."""
    return lattice_step(_native.tick_increments(reads))
