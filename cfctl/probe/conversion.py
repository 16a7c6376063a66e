"""Ticks as nanoseconds: the rate for durations, and a run's own line for moments."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cfctl import _native
from cfctl.errors import StateError

if TYPE_CHECKING:
    from cfctl.clock.calibration import Calibration

_BRACKETS: Final = 200


@dataclass(frozen=True, slots=True)
class Conversion:
    """The rate that turns ticks into ns, what it comes from, and how fine a single stamp is."""

    frequency_hz: float
    frequency_uncertainty_ppb: float
    tick_step_ns: float | None
    tick_source: str
    calibration: str

    @property
    def ns_per_tick(self) -> float:
        """Return the nanoseconds of one tick."""
        return 1e9 / self.frequency_hz

    def to_ticks(self, ns: float) -> int:
        """Return a duration in ns as whole ticks."""
        return round(ns * self.frequency_hz / 1e9)

    @classmethod
    def of(cls, calibration: Calibration, where_from: str) -> Conversion:
        """Return the conversion by a calibration."""
        return cls(
            calibration.frequency_hz,
            calibration.frequency_uncertainty_ppb,
            calibration.tick_step_ns,
            calibration.source,
            where_from,
        )


def conversion_at_hand() -> Conversion:
    """Return the conversion by the saved calibration of this boot, else by one made now in 100 ms.

    Raises CalibrationError when the clock can not be calibrated.
    """
    from cfctl.clock import calibrate
    from cfctl.clock.history import saved_calibration

    try:
        saved = saved_calibration()
    except StateError:
        # A corrupt history is no reason not to measure: it was set aside, and a new one is made.
        saved = None
    if saved is not None:
        return Conversion.of(saved, "saved, of this boot")
    return Conversion.of(calibrate(publish=False), "made for this run")


@dataclass(frozen=True, slots=True)
class Stamp:
    """One moment as a tick and as ns of an OS clock, known to the bracket of its reading."""

    tick: int
    ns: int

    @classmethod
    def now(cls, clock_id: int) -> Stamp:
        """Return the present: the narrowest of 200 bracketed readings, about 0.1 ms."""
        best = (0, 0, 1 << 62)
        for _ in range(_BRACKETS):
            before = _native.ticks()
            ns = time.clock_gettime_ns(clock_id)
            width = _native.ticks() - before
            if width < best[2]:
                best = (before + width // 2, ns, width)
        return cls(best[0], best[1])


@dataclass(frozen=True, slots=True)
class Line:
    """Ticks as ns of an OS clock: the line through a stamp before a run and one after it."""

    first: Stamp
    last: Stamp

    def __post_init__(self) -> None:
        if self.last.tick <= self.first.tick or self.last.ns <= self.first.ns:
            raise ValueError("a line's second stamp is later than its first")

    def ns_of(self, tick: int) -> int:
        """Return a tick as ns of the OS clock."""
        elapsed_ns, elapsed_ticks = self.last.ns - self.first.ns, self.last.tick - self.first.tick
        return self.first.ns + (tick - self.first.tick) * elapsed_ns // elapsed_ticks

    def tick_of(self, ns: int) -> int:
        """Return a moment on the OS clock as a tick."""
        elapsed_ns, elapsed_ticks = self.last.ns - self.first.ns, self.last.tick - self.first.tick
        return self.first.tick + (ns - self.first.ns) * elapsed_ticks // elapsed_ns
