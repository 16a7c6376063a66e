"""Temporal accuracy: how far time derived from ticks is from its reference after a minute."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from cfctl.clock.calibration import REFERENCE_NAMES
from cfctl.errors import CfctlError
from cfctl.monitor.metric import Reading, Subject, metric
from cfctl.records import Measurement

# At least this long after the calibration; earlier, the fit would be judged by its own samples.
SETTLE_NS: Final = 60_000_000_000


class Clock(Protocol):
    """What is needed of cfctl.clock; a test puts a fake in its place."""

    def saved_calibration(self) -> Any:
        """Return the newest calibration of this boot, None when there is none."""

    def calibrate(self) -> Any:
        """Return a calibration made now."""

    def residual(self, calibration: Any) -> Measurement:
        """Return the mean residual of tick-derived time against the calibration's reference, in ns."""


@dataclass(frozen=True, slots=True)
class LibraryClock:
    """cfctl.clock, imported when it is used."""

    def saved_calibration(self) -> Any:
        """Return the newest calibration of this boot, None when there is none."""
        from cfctl.clock.history import saved_calibration

        return saved_calibration()

    def calibrate(self) -> Any:
        """Return a calibration made now."""
        from cfctl.clock.procedure import calibrate

        return calibrate()

    def residual(self, calibration: Any) -> Measurement:
        """Return the mean residual of tick-derived time against the calibration's reference, in ns."""
        from cfctl.clock.epoch import residual

        return residual(calibration)


@metric("temporal_accuracy", "ns")
def temporal_accuracy(subject: Subject) -> Reading:
    """Return the mean residual of tick-derived time, at least 60 s after calibration, against its reference."""
    return measure_accuracy(LibraryClock(), subject)


def measure_accuracy(
    clock: Clock, subject: Subject, realtime_ns: Callable[[], int] = time.time_ns
) -> Reading:
    """Return the temporal accuracy of the saved calibration, or why it can not be judged yet.

    With `subject.settle` a missing calibration is made, and the rest of the minute is waited for.
    """
    name = "tick-derived time"
    try:
        calibration = clock.saved_calibration()
        if calibration is None and subject.settle:
            calibration = clock.calibrate()
        if calibration is None:
            return Reading(
                Measurement.missing("ns", "No calibration of this boot is saved: run cfctl calibrate."), name
            )
        reference = REFERENCE_NAMES.get(calibration.reference, calibration.reference)
        name = f"{name} against {reference} (independence: {calibration.independence})"
        resolution = _resolution(calibration.tick_step_ns)
        wait_ns = SETTLE_NS - (realtime_ns() - calibration.created_realtime_ns)
        if wait_ns > SETTLE_NS:
            reason = "The saved calibration lies in the future: the wall clock was set back."
            return Reading(Measurement.missing("ns", reason), name, resolution)
        if wait_ns > 0 and not subject.settle:
            reason = (
                f"The calibration is {(SETTLE_NS - wait_ns) / 1e9:.0f} s old; accuracy is judged 60 s after it. "
                f"Run again in {wait_ns / 1e9:.0f} s, or with --settle."
            )
            return Reading(Measurement.missing("ns", reason), name, resolution)
        if wait_ns > 0:
            subject.sleep(wait_ns / 1e9)
        return Reading(clock.residual(calibration), name, resolution)
    except CfctlError as error:
        return Reading(Measurement.missing("ns", str(error)), name)


def _resolution(tick_step_ns: float | None) -> Measurement:
    if tick_step_ns is None:
        return Measurement.missing("ns", "The calibration holds no tick step.")
    return Measurement(float(tick_step_ns), "ns", method="smallest step of a single stamp")
