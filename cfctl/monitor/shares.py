"""Shares of independent trials with their uncertainty."""

from __future__ import annotations

from cfctl.records import Measurement


def share_with_error(hits: int, count: int, of_what: str = "samples") -> Measurement:
    """Return a share of independent trials; the uncertainty reaches the farther end of Wilson's 95 % interval.

    Source: Wilson, Probable inference, J. Am. Stat. Assoc. 22 (1927).
    """
    if count <= 0:
        return Measurement.missing("ratio", f"no {of_what} in the window")
    z2 = 1.959963984540054**2
    share = min(max(hits / count, 0.0), 1.0)
    centre = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = (z2 * (share * (1 - share) / count + z2 / (4 * count * count))) ** 0.5 / (1 + z2 / count)
    error = max(abs(centre + half - share), abs(share - (centre - half)))
    return Measurement(share, "ratio", error, count, f"share of the window's {of_what}; 95 % Wilson interval")
