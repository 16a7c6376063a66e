"""The phase of the timer tick, learnt from gaps: an unprivileged way to tell a tick from other gaps.

A busy CPU is interrupted by its tick at every multiple of 1/HZ on CLOCK_MONOTONIC plus a constant
(kernel/time/tick-sched.c), so that the starts of these gaps agree modulo the period to about one
microsecond. Periods are tried; the phase is learnt on every second period and validated on the
others: nearly each must hold a gap there, and few may hold one at phases picked for comparison.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from cfctl.probe.gaps import Gap

# CONFIG_HZ offers 100, 250, 300 and 1000; the others are found in vendors' kernels.
USUAL_HZ: Final = (100, 128, 200, 250, 256, 300, 500, 512, 1000, 1024)
# No tick is handled in less, and shorter gaps would only blur the phase.
_LEAST_TICK_NS: Final = 500
_BIN_NS: Final = 500
# The window's edges are where the density falls below this share of its peak.
_EDGE_SHARE: Final = 0.02
_WIDEST_WINDOW_NS: Final = 40_000
_MARGIN_NS: Final = 500
_LEAST_PERIODS: Final = 40
# As many tell the share to 1 %; an hour at 1000 Hz has a thousand times as many.
_MOST_PERIODS: Final = 2_000
# Validation: a tick in nearly every period, and a window elsewhere is rarely hit. A period that is
# a multiple of the true one is hit as often at one of the other phases.
_LEAST_COVERAGE: Final = 0.7
_MOST_CHANCE: Final = 0.3
_MOST_ALIAS: Final = 0.5
# Phases to compare with, as shares of the period: those at which a wrong period would hit too.
_CONTROLS: Final = (
    1 / 2,
    1 / 3,
    2 / 3,
    1 / 4,
    3 / 4,
    1 / 5,
    2 / 5,
    3 / 5,
    4 / 5,
    1 / 10,
    3 / 10,
    7 / 10,
    9 / 10,
)


@dataclass(frozen=True, slots=True)
class TickPhase:
    """When the tick comes: in [phase_ns, phase_ns + width_ns] of each period on CLOCK_MONOTONIC.

    The rest is from periods that were not learnt from: `coverage` is the share with a gap in the
    window, `chance` the mean of that share at phases picked for comparison, `alias` their largest.
    """

    period_ns: int
    phase_ns: int
    width_ns: int
    coverage: float
    chance: float
    alias: float
    periods: int

    @property
    def hz(self) -> int:
        """Return the tick's frequency."""
        return round(1e9 / self.period_ns)


@dataclass(frozen=True, slots=True)
class NoTick:
    """Why no phase is applied, with the best that was found."""

    reason: str
    best: TickPhase | None = None


def period_of(hz: int) -> int:
    """Return TICK_NSEC of a CONFIG_HZ, in ns (include/linux/jiffies.h)."""
    return (1_000_000_000 + hz // 2) // hz


def learn(
    gaps: Sequence[Gap], start_ns: int, end_ns: int, frequencies: Iterable[int] = USUAL_HZ
) -> TickPhase | NoTick:
    """Return the tick's phase in gaps (sorted, CLOCK_MONOTONIC) of a run, or why there is none.

    Periods whose window lies in a time the thread was switched out say nothing. Where several
    frequencies hold, the highest is the tick: the hypervisor's own may interrupt as regularly.
    """
    long_enough = [gap for gap in gaps if gap.duration_ns >= _LEAST_TICK_NS]
    fits = []
    for hz in sorted(frequencies, reverse=True):
        period_ns = period_of(hz)
        if (end_ns - start_ns) // period_ns < _LEAST_PERIODS:
            continue
        found = _fit(long_enough, start_ns, end_ns, period_ns)
        if found is not None and _holds(found):
            return found
        fits += [found] if found is not None else []
    if not fits:
        return NoTick("too few periods or gaps to learn a phase from")
    best = max(fits, key=lambda fit: fit.coverage - max(fit.chance, fit.alias))
    return NoTick(
        f"no period fits; at best, at {best.hz} Hz, {best.coverage:.0%} of {best.periods} periods have a gap "
        f"at the learnt phase, {best.chance:.0%} elsewhere",
        best,
    )


def _holds(phase: TickPhase) -> bool:
    return phase.coverage >= _LEAST_COVERAGE and phase.chance <= _MOST_CHANCE and phase.alias <= _MOST_ALIAS


def ticks_among(gaps: Sequence[Gap], phase: TickPhase) -> set[int]:
    """Return the indices of the gaps that hold a tick: at most one a period, the longest."""
    chosen: dict[int, int] = {}
    for index, gap in enumerate(gaps):
        if gap.duration_ns < _LEAST_TICK_NS:
            continue
        for period in _periods_hit(gap, phase.period_ns, phase.phase_ns, phase.width_ns):
            other = chosen.get(period)
            if other is None or gap.duration_ns > gaps[other].duration_ns:
                chosen[period] = index
    return set(chosen.values())


def _periods_hit(gap: Gap, period_ns: int, phase_ns: int, width_ns: int) -> range:
    """Return the numbers of the periods whose window the gap overlaps."""
    first = -((phase_ns + width_ns - gap.start_ns) // period_ns)
    last = (gap.end_ns - phase_ns) // period_ns
    return range(first, last + 1)


def _fit(gaps: Sequence[Gap], start_ns: int, end_ns: int, period_ns: int) -> TickPhase | None:
    even = [gap for gap in gaps if not gap.involuntary_switches and gap.start_ns // period_ns % 2 == 0]
    window = _densest_window((gap.start_ns % period_ns for gap in even), period_ns)
    if window is None:
        return None
    phase_ns, width_ns = window
    first, last = start_ns // period_ns + 1, (end_ns - period_ns) // period_ns
    odd_periods = range(first | 1, last, 2)
    odd_periods = odd_periods[:: 1 + len(odd_periods) // _MOST_PERIODS]
    starts = [gap.start_ns for gap in gaps]

    def coverage(offset_ns: int) -> tuple[float, int]:
        hits = looked = 0
        for period in odd_periods:
            gap = _gap_at(gaps, starts, period * period_ns + phase_ns + offset_ns, width_ns)
            if gap is None or not gap.involuntary_switches:
                looked += 1
                hits += gap is not None
        return (hits / looked if looked else 0.0), looked

    hit, looked = coverage(0)
    if looked < _LEAST_PERIODS // 2:
        return None
    elsewhere = [coverage(round(share * period_ns))[0] for share in _CONTROLS]
    mean = sum(elsewhere) / len(elsewhere)
    return TickPhase(period_ns, phase_ns, width_ns, hit, mean, max(elsewhere), looked)


def _gap_at(gaps: Sequence[Gap], starts: Sequence[int], window_ns: int, width_ns: int) -> Gap | None:
    """Return the last gap that overlaps [window_ns, window_ns + width_ns]; gaps do not overlap each other."""
    index = bisect_right(starts, window_ns + width_ns)
    return gaps[index - 1] if index > 0 and gaps[index - 1].end_ns >= window_ns else None


def _densest_window(phases: Iterable[int], period_ns: int) -> tuple[int, int] | None:
    """Return (phase, width) of the densest stretch on the circle of one period, None when empty.

    It grows from the fullest bin to where two neighbouring bins are nearly empty.
    """
    bins = -(-period_ns // _BIN_NS)
    counts = Counter(phase // _BIN_NS for phase in phases)
    if not counts:
        return None
    # The fullest pair of bins: one alone may be cut by a bin's edge.
    peak = max(counts, key=lambda b: counts[b] + max(counts[(b - 1) % bins], counts[(b + 1) % bins]))
    floor = max(1.0, counts[peak] * _EDGE_SHARE, 4 * sum(counts.values()) / bins)
    low = high = peak
    while (high - low + 1) * _BIN_NS < _WIDEST_WINDOW_NS:
        if any(counts[(low - step) % bins] > floor for step in (1, 2)):
            low -= 1
        elif any(counts[(high + step) % bins] > floor for step in (1, 2)):
            high += 1
        else:
            break
    phase_ns = (low * _BIN_NS - _MARGIN_NS) % period_ns
    return phase_ns, (high - low + 1) * _BIN_NS + 2 * _MARGIN_NS
