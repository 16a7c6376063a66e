"""A benchmark's figure: what was measured beside its goal, as a ratio and with its spread."""

from __future__ import annotations

import statistics
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """Repeated values of one quantity and the goal they are held against.

    `reference` is something measured in the same run that the value is shown as a ratio of;
    `statistic` names which one of the values the goal speaks of.
    """

    name: str
    values: tuple[float, ...]
    unit: str
    goal: float
    statistic: str = "median"
    reference: float | None = None
    reference_name: str = ""

    @property
    def value(self) -> float:
        """Return the statistic the goal speaks of: "median", "min" or "max"."""
        if self.statistic == "median":
            return statistics.median(self.values)
        return min(self.values) if self.statistic == "min" else max(self.values)

    @property
    def interval(self) -> tuple[float, float] | None:
        """Return the interval of at least 95 % of the median, None of another statistic or too few values."""
        if self.statistic != "median" or len(self.values) < 9:
            return None
        from cfctl.pool.bench import median_interval

        return median_interval(self.values)[1:]

    def line(self) -> str:
        """Return the figure as one line of the report; a goal within the interval is not decided by the run."""
        ratio = f"  {self.value / self.reference:.2f}x {self.reference_name}" if self.reference else ""
        spread = f"[{min(self.values):.3g} .. {max(self.values):.3g}, n={len(self.values)}]"
        met = "met" if self.value <= self.goal else "MISSED"
        if self.interval is not None:
            low, high = self.interval
            spread = f"(95 % {low:.3g} .. {high:.3g}) {spread}"
            met += "" if not low <= self.goal < high else ", within the spread"
        return f"{self.name:<58} {self.statistic} {self.value:.3g} {self.unit} {spread}  goal <= {self.goal:g}  {met}{ratio}"
