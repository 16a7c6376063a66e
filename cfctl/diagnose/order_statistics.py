"""Confidence limits that assume no distribution: ranks around a quantile, and bounds on a count."""

from __future__ import annotations

import math
from typing import Final

CONFIDENCE: Final = 0.95
# The normal quantile of 1 - (1 - CONFIDENCE) / 2.
_Z: Final = 1.959963984540054
# From this variance on the normal approximation is within a rank of the exact one.
_MANY: Final = 100.0
# Beyond so many standard deviations and so many ranks a binomial distribution has less than 1e-12 of its
# mass, which moves no rank of the 95 %.
_FAR: Final = 7


def quantile_ranks(count: int, quantile: float) -> tuple[int, int]:
    """Return the ranks (low, high) whose sorted samples enclose a quantile with 95 % confidence.

    Ranks begin at 1. 0 means that no sample is surely below the quantile, `count` + 1 that none is
    surely above it. Samples are taken as independent. Source: Hahn and Meeker, Statistical
    Intervals, 1991, section 5.2 (binomial order statistics); for many samples by the normal
    approximation, widened by the rank it may be off.
    """
    variance = count * quantile * (1 - quantile)
    if variance >= _MANY:
        middle, half = count * quantile, _Z * math.sqrt(variance)
        return max(0, math.floor(middle - half) - 1), min(count + 1, math.ceil(middle + half) + 2)
    tail = (1 - CONFIDENCE) / 2
    spread = _FAR * math.sqrt(count * quantile * (1 - quantile)) + _FAR
    first = max(0, math.floor(count * quantile - spread))
    last = min(count, math.ceil(count * quantile + spread))
    low = high = None
    below, odds = 0.0, quantile / (1 - quantile)
    exactly = _binomial(count, quantile, first)
    for rank in range(first, last + 1):
        # P(B < rank) is `below` here, P(B <= rank) after the addition.
        if below <= tail:
            low = rank
        below += exactly
        if below >= 1 - tail:
            high = rank + 1
            break
        exactly *= (count - rank) / (rank + 1) * odds
    return low or 0, high or count + 1


def _binomial(count: int, probability: float, hits: int) -> float:
    """Return P(B = hits) of a binomial distribution with a probability inside (0, 1)."""
    return math.exp(
        math.lgamma(count + 1)
        - math.lgamma(hits + 1)
        - math.lgamma(count - hits + 1)
        + hits * math.log(probability)
        + (count - hits) * math.log1p(-probability)
    )


def count_bounds(count: int) -> tuple[float, float]:
    """Return the 95 % bounds of the mean of a Poisson variable of which `count` was seen.

    Source: Byar's approximation to the exact bounds (Breslow and Day, Statistical Methods in Cancer
    Research II, 1987, section 2.3), within 1 % of them from 5 on.
    """
    more = count + 1
    high = more * (1 - 1 / (9 * more) + _Z / (3 * math.sqrt(more))) ** 3
    if count == 0:
        return 0.0, high
    low = count * max(0.0, 1 - 1 / (9 * count) - _Z / (3 * math.sqrt(count))) ** 3
    return low, high
