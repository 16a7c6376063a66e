"""Counters that only grow, as rates over the time between two readings."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final

from cfctl.monitor.snapshot import FIRST_READING
from cfctl.records import Measurement

# A counter can be read this much before or after the moment that stands for the whole reading.
_READING_NS: Final = 1_000_000


class Rates:
    """The last reading of each counter of a source. Not thread-safe."""

    def __init__(self) -> None:
        self._last: dict[Hashable, tuple[int, float]] = {}

    def per_second(
        self, key: Hashable, now_ns: int, value: float, unit: str, step: float = 1.0
    ) -> Measurement:
        """Return the growth of a counter per second of `unit` since it was last seen.

        `step` is the counter's own granularity. The uncertainty is one step and a millisecond of the
        window. Missing at the first reading and when the counter went backwards: it began anew.
        """
        before = self._last.get(key)
        self._last[key] = (now_ns, value)
        if before is None:
            return Measurement.missing(unit, FIRST_READING)
        window_ns, grown = now_ns - before[0], value - before[1]
        if grown < 0:
            return Measurement.missing(unit, "the counter began anew")
        if window_ns <= 0:
            return Measurement.missing(unit, "no time went by between two readings")
        rate = grown * 1e9 / window_ns
        error = step * 1e9 / window_ns + rate * _READING_NS / window_ns
        return Measurement(rate, unit, error, 2, "growth of the counter over the window")

    def share(self, key: Hashable, now_ns: int, spent_ns: float, step_ns: float) -> Measurement:
        """Return the time a counter of nanoseconds grew by per time that went by, as a ratio."""
        per_second = self.per_second(key, now_ns, spent_ns, "ratio", step_ns)
        if per_second.value is None:
            return per_second
        return Measurement(
            per_second.value * 1e-9,
            "ratio",
            (per_second.uncertainty or 0.0) * 1e-9,
            2,
            "time over the window",
        )

    def forget_all_but(self, keys: set[Hashable]) -> None:
        """Drop the counters that are gone, such as those of processes that ended."""
        for key in self._last.keys() - keys:
            del self._last[key]
