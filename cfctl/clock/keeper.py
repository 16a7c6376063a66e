"""Keeping a process's calibration good: rechecks, longer baselines, new epochs, and the thread that does it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Protocol

from cfctl import _native
from cfctl.clock import assembly, epoch, procedure
from cfctl.clock.calibration import Calibration, ClusterPoint, ns_per_tick
from cfctl.clock.fit import fit
from cfctl.errors import CfctlError

if TYPE_CHECKING:
    from cfctl.clock.epoch import Recheck

# A longer baseline keeps its oldest points, which carry the slope, and its newest.
_OLDEST_POINTS: Final = 12
_MAX_POINTS: Final = 32
_EPOCHS_KEPT: Final = 64
# Two baselines have one rate when it is within so many standard errors of each one's own.
_MAX_ERRORS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Epoch:
    """A span over which one calibration holds; times before `suspect_ns[1]` back to `[0]` may be wrong."""

    number: int
    cause: str
    reason: str
    realtime_ns: int
    suspect_ns: tuple[int, int] | None


class Work(Protocol):
    """What a keeper does to the machine: measures, and publishes."""

    def recheck(self, calibration: Calibration, last_good_ns: int | None, epoch: int) -> Recheck:
        """Return one look at a calibration."""

    def calibrate(self, previous: Calibration) -> Calibration:
        """Return a fresh calibration of the same kind, not published."""

    def extend(self, old: Calibration, fresh: Calibration) -> Calibration | None:
        """Return one calibration over both baselines, None when they do not lie on one line."""

    def publish(self, calibration: Calibration | None) -> None:
        """Make a calibration the process's clock, or take it back."""


class MachineWork:
    """The work on the machine at hand."""

    def __init__(self, duration_ns: int, snap: bool) -> None:
        self.duration_ns = duration_ns
        self.snap = snap

    def recheck(self, calibration: Calibration, last_good_ns: int | None, epoch_number: int) -> Recheck:
        """Return one look at a calibration."""
        return epoch.recheck(calibration, last_good_ns=last_good_ns, epoch=epoch_number)

    def calibrate(self, previous: Calibration) -> Calibration:
        """Return a fresh calibration against the same reference."""
        return procedure.calibrate(
            self.duration_ns, reference=previous.reference, snap=self.snap, publish=False
        )

    def extend(self, old: Calibration, fresh: Calibration) -> Calibration | None:
        """Return one calibration over both baselines."""
        return extended(old, fresh, snap=self.snap)

    def publish(self, calibration: Calibration | None) -> None:
        """Make a calibration the process's clock, or let now_ns() read the reference itself."""
        if calibration is None:
            procedure.withdraw_calibration()
        else:
            procedure.publish_calibration(calibration)


def extended(old: Calibration, fresh: Calibration, *, snap: bool) -> Calibration | None:
    """Return the calibration over the points of both, None when they do not lie on one line of one rate.

    Its slope is better by the ratio of the baselines; a short fresh calibration alone would be a
    worse one than the old.
    """
    points = thinned((*old.points, *fresh.points))
    if len(points) < 3 or points[-1].tick <= points[0].tick or not old.points:
        return None
    line = fit(points, ns_per_tick(old))
    if not line.valid or not all(_same_rate(line.line.frequency_hz, each) for each in (old, fresh)):
        return None
    slope = line.line.ns_per_tick
    half_width_ns = fresh.offset_bound_ns - (fresh.tick_step_ns or 0.0)
    span_ns = (points[-1].tick - points[0].tick) * slope
    given = assembly.Circumstances.observe(fresh.reference, fresh.method, snap)
    outcome = assembly.fitted(
        line,
        points,
        2 * half_width_ns / span_ns * 1e9,
        round(2 * half_width_ns / slope),
        duration_ns=round(span_ns),
        cpu_time_ns=fresh.cpu_time_ns,
    )
    outcome = replace(outcome, pairs_kept=fresh.pairs_kept, cpu_changes=fresh.cpu_changes)
    return assembly.assemble(given, outcome, assembly.snap_of(given, line))


def _same_rate(joined_hz: float, part: Calibration) -> bool:
    """Return whether a joined rate is one that a part allows.

    A step between two short baselines far apart looks like a line of another rate: only the parts'
    own rates tell the two apart.
    """
    off_ppb = abs(joined_hz / part.estimate_hz - 1) * 1e9
    return off_ppb <= _MAX_ERRORS * part.frequency_uncertainty_ppb


def thinned(points: tuple[ClusterPoint, ...]) -> tuple[ClusterPoint, ...]:
    """Return at most 32 points in the order of their ticks: the oldest 12 and the newest 20."""
    ordered = tuple(sorted(points, key=lambda point: point.tick))
    if len(ordered) <= _MAX_POINTS:
        return ordered
    return ordered[:_OLDEST_POINTS] + ordered[_OLDEST_POINTS - _MAX_POINTS :]


class Keeper:
    """Holds a calibration and keeps it good, one `step` at a time; not for several threads at once.

    A recheck within 5 ns changes nothing, whatever the age up to `max_age_ns`. Beyond 5 ns, or that
    age, a fresh calibration is joined with the old baseline; by age it is taken only when its
    uncertainty is smaller. A new epoch forgets the old baseline.
    """

    def __init__(self, calibration: Calibration, work: Work, max_age_ns: int) -> None:
        self.calibration = calibration
        self.work = work
        self.max_age_ns = max_age_ns
        self.last: Recheck | None = None
        self.epochs: list[Epoch] = [
            Epoch(1, "start", "the first calibration", calibration.created_realtime_ns, None)
        ]
        self._last_good_ns: int | None = None

    def step(self) -> Recheck:
        """Recheck once and do what follows from it; return the recheck.

        Raises CalibrationError when the clock can not be read or calibrated. At the end of an epoch
        the old line is taken back before that, so that now_ns() is never wrong meanwhile.
        """
        found = self.work.recheck(self.calibration, self._last_good_ns, self.epochs[-1].number)
        if found.action == "recalibrate":
            found = self._begin_epoch(found)
        elif found.action == "refit":
            self._adopt(self.work.calibrate(self.calibration), always=True)
        elif found.age_ns > self.max_age_ns:
            self._adopt(self.work.calibrate(self.calibration), always=False)
        if found.action != "recalibrate" and found.error_ns is not None:
            self._last_good_ns = self.calibration.to_ns(_native.ticks())
        self.last = found
        return found

    def _begin_epoch(self, found: Recheck) -> Recheck:
        number = self.epochs[-1].number + 1
        self.work.publish(None)
        self.calibration = self.work.calibrate(self.calibration)
        self.work.publish(self.calibration)
        began = Epoch(number, found.cause or "unknown", found.reason, found.realtime_ns, found.suspect_ns)
        self.epochs = [*self.epochs, began][-_EPOCHS_KEPT:]
        self._last_good_ns = None
        return replace(found, epoch=number)

    def _adopt(self, fresh: Calibration, *, always: bool) -> None:
        if fresh.verdict != "valid":
            return
        candidate = self.work.extend(self.calibration, fresh)
        if candidate is None:
            candidate = fresh if always else None
        if candidate is not None and (
            always or candidate.frequency_uncertainty_ppb < self.calibration.frequency_uncertainty_ppb
        ):
            self.calibration = candidate
            self.work.publish(candidate)


class AutoRecalibration:
    """A daemon thread that keeps this process's clock calibrated until stop() is called.

    `keeper` is None until the first calibration is made; `error` is the last failure, None after a
    success. A forked child has no such thread: start another one there.
    """

    def __init__(
        self,
        interval_s: float,
        make_keeper: Callable[[], Keeper],
        on_recheck: Callable[[Recheck], None] | None = None,
    ) -> None:
        self.keeper: Keeper | None = None
        self.error: CfctlError | None = None
        self._interval_s = interval_s
        self._make_keeper = make_keeper
        self._on_recheck = on_recheck
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cfctl-clock", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    @property
    def running(self) -> bool:
        """Return whether the thread is alive in this process."""
        return self._thread.is_alive()

    def stop(self, timeout_s: float = 5.0) -> None:
        """End the thread and wait for it; the published calibration stays."""
        self._stopping.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout_s)

    def _run(self) -> None:
        self._turn()
        while not self._stopping.wait(self._interval_s):
            self._turn()

    def _turn(self) -> None:
        try:
            if self.keeper is None:
                self.keeper = self._make_keeper()
            else:
                found = self.keeper.step()
                if self._on_recheck:
                    self._on_recheck(found)
            self.error = None
        except CfctlError as error:
            # The next turn tries again; health() shows it meanwhile.
            self.error = error


def start_auto_recalibration(
    interval_s: float = 60,
    max_age_s: float = 300,
    *,
    calibration: Calibration | None = None,
    duration_ns: int = procedure.DEFAULT_DURATION_NS,
    snap: bool = True,
    on_recheck: Callable[[Recheck], None] | None = None,
) -> AutoRecalibration:
    """Return a running daemon thread that keeps now_ns() calibrated.

    Every `interval_s` it rechecks (0.4 ms of CPU time, the interpreter lock released) and acts by
    the error found; by age only beyond `max_age_s`, and then only when the result is better.
    Starts from `calibration`, else from the published one, else makes one in the thread.
    """
    if not (interval_s > 0 and max_age_s > 0):
        raise ValueError("interval_s and max_age_s must be above 0")

    def make_keeper() -> Keeper:
        start = calibration or procedure.published_calibration()
        if start is None:
            start = procedure.calibrate(duration_ns, snap=snap, publish=False)
        procedure.publish_calibration(start)
        return Keeper(start, MachineWork(duration_ns, snap), round(max_age_s * 1e9))

    auto = AutoRecalibration(interval_s, make_keeper, on_recheck)
    auto.start()
    return auto
