"""The clock: how far time derived from ticks is from its reference, and the calibration's state."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Protocol

from cfctl.clock.calibration import REFERENCE_NAMES
from cfctl.errors import CfctlError
from cfctl.monitor.metric import Metric, Subject
from cfctl.monitor.snapshot import Found, Moment, Series
from cfctl.records import Measurement

# At least this long after the calibration; earlier, the fit would be judged by its own samples.
SETTLE_NS: Final = 60_000_000_000
# The residual takes 3 ms of CPU time and changes by less than its error in this time.
REFRESH_NS: Final = 10_000_000_000


class Clock(Protocol):
    """What is needed of cfctl.clock; a test puts a fake in its place."""

    def calibration(self) -> Any:
        """Return the calibration that is judged, None when there is none."""

    def calibrate(self) -> Any:
        """Return a calibration made now."""

    def residual(self, calibration: Any) -> Measurement:
        """Return the mean residual of tick-derived time against the calibration's reference, in ns."""


@dataclass(frozen=True, slots=True)
class LibraryClock:
    """cfctl.clock, imported when it is used."""

    def calibration(self) -> Any:
        """Return the calibration this process keeps, else the newest saved one of this boot."""
        from cfctl.clock.history import saved_calibration
        from cfctl.clock.procedure import published_calibration

        return published_calibration() or saved_calibration()

    def calibrate(self) -> Any:
        """Return a calibration made now."""
        from cfctl.clock.procedure import calibrate

        return calibrate()

    def residual(self, calibration: Any) -> Measurement:
        """Return the mean residual of tick-derived time against the calibration's reference, in ns."""
        from cfctl.clock.epoch import residual

        return residual(calibration)


class ClockSource:
    """Looks at this process's calibration, else at the saved one; every ten seconds, 3 ms of CPU time."""

    METRICS: ClassVar[tuple[Metric, ...]] = (
        Metric(
            "temporal_accuracy",
            "ns",
            "Mean residual of tick-derived time, at least 60 s after calibration, against its reference.",
        ),
        Metric("calibration_age", "ns", "Time since the calibration that is judged."),
    )

    def __init__(
        self, subject: Subject, clock: Clock | None = None, realtime_ns: Callable[[], int] = time.time_ns
    ) -> None:
        self._subject = subject
        self._clock = clock or LibraryClock()
        self._realtime_ns = realtime_ns
        self._found: tuple[int, Any, Series] | None = None

    def collect(self, moment: Moment) -> Iterable[Found]:
        """Return the accuracy; what was measured in the last ten seconds is not measured again."""
        if self._found is None or moment.monotonic_ns - self._found[0] >= REFRESH_NS:
            self._found = (moment.monotonic_ns, *self._measured())
        _, calibration, accuracy = self._found
        yield accuracy
        if calibration is not None:
            age_ns = max(0, self._realtime_ns() - calibration.created_realtime_ns)
            yield Series("calibration_age", Measurement(float(age_ns), "ns", 1e6, 1, "CLOCK_REALTIME"))

    def _measured(self) -> tuple[Any, Series]:
        calibration = None
        try:
            calibration = self._clock.calibration()
            if calibration is None and self._subject.settle:
                calibration = self._clock.calibrate()
            return calibration, self._accuracy(calibration)
        except CfctlError as error:
            return calibration, Series(
                "temporal_accuracy", Measurement.missing("ns", str(error)), subject=_WHO
            )

    def _accuracy(self, calibration: Any) -> Series:
        if calibration is None:
            reason = "No calibration of this boot is saved: run cfctl calibrate."
            return Series("temporal_accuracy", Measurement.missing("ns", reason), subject=_WHO)
        reference = REFERENCE_NAMES.get(calibration.reference, calibration.reference)
        who = f"{_WHO} against {reference} (independence: {calibration.independence})"
        resolution = _resolution(calibration.tick_step_ns)
        return Series("temporal_accuracy", self._settled_residual(calibration), (), who, resolution)

    def _settled_residual(self, calibration: Any) -> Measurement:
        wait_ns = SETTLE_NS - (self._realtime_ns() - calibration.created_realtime_ns)
        if wait_ns > SETTLE_NS:
            return Measurement.missing(
                "ns", "The saved calibration lies in the future: the wall clock was set back."
            )
        if wait_ns > 0 and not self._subject.settle:
            return Measurement.missing(
                "ns",
                f"The calibration is {(SETTLE_NS - wait_ns) / 1e9:.0f} s old; accuracy is judged 60 s after it. "
                f"Run again in {wait_ns / 1e9:.0f} s, or with --settle.",
            )
        if wait_ns > 0:
            self._subject.sleep(wait_ns / 1e9)
        return self._clock.residual(calibration)


SOURCE = ClockSource
_WHO: Final = "tick-derived time"


def _resolution(tick_step_ns: float | None) -> Measurement:
    if tick_step_ns is None:
        return Measurement.missing("ns", "The calibration holds no tick step.")
    return Measurement(float(tick_step_ns), "ns", method="smallest step of a single stamp")
