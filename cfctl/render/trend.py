"""A value over time as a row of small bars."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

_BLOCKS: Final = "▁▂▃▄▅▆▇█"
_ASCII_BLOCKS: Final = "_.:-=+*#"
# What was not measured: a gap, which no bar is.
_GAP: Final = " "


def trend(values: Sequence[float | None], width: int, plain: bool) -> str:
    """Return the latest `width` values as bars between the least and the largest of them.

    Values that do not differ are all drawn lowest.
    """
    latest = values[-width:]
    known = [value for value in latest if value is not None]
    if not known:
        return ""
    low, span = min(known), max(known) - min(known)
    blocks = _ASCII_BLOCKS if plain else _BLOCKS
    return "".join(
        _GAP if value is None else blocks[round((value - low) / span * (len(blocks) - 1)) if span else 0]
        for value in latest
    )
