"""Clusters of bracketed pairs over a span of time, and the line through their centres."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final, Protocol

from cfctl import _native
from cfctl.clock.calibration import CLOCK_IDS, ClusterPoint
from cfctl.clock.fit import Fit, Line, fit, provisional_slope
from cfctl.errors import CalibrationError, InputError, os_error_reason

PAIRS: Final = 1500
# Three clusters at each end carry the slope, two in the middle show whether it is one line.
POSITIONS: Final = (0.0, 0.03, 0.06, 0.35, 0.65, 0.94, 0.97, 1.0)

Progress = Callable[[float], None]


class Sampler(Protocol):
    """What takes and analyses clusters: _native.PairSampler, or a test's synthetic one."""

    def sample(self, index: int, clock_id: int, /) -> None:
        """Take the pairs of one cluster."""

    def narrowest(self, index: int, /) -> tuple[int, int, int]:
        """Return (middle tick, ns, width) of a cluster's narrowest pair."""

    def centre(
        self, index: int, ns_per_tick: float, /
    ) -> tuple[int, int, float, float, int, int, int, int] | None:
        """Return a cluster's centre as _native.PairSampler does."""


class Timeline(Protocol):
    """The clock that spaces the clusters: the machine's, or a test's."""

    def now_ns(self) -> int:
        """Return the present, in ns."""

    def sleep_until(self, deadline_ns: int) -> None:
        """Return at or after `deadline_ns`."""


class MachineTimeline:
    """CLOCK_MONOTONIC and a sleep."""

    def now_ns(self) -> int:
        """Return CLOCK_MONOTONIC."""
        return _native.os_clock_ns(CLOCK_IDS["monotonic"])

    def sleep_until(self, deadline_ns: int) -> None:
        """Return at or after `deadline_ns`; signals are handled meanwhile."""
        while (left := deadline_ns - self.now_ns()) > 0:
            time.sleep(left / 1e9)


@dataclass(frozen=True, slots=True)
class Centre:
    """A cluster's centre and what it was made from; widths in ticks, `cpu` -1 when several."""

    point: ClusterPoint
    kept: int
    cpu_changes: int
    min_width: int
    cpu: int


@dataclass(frozen=True, slots=True)
class Sampled:
    """The clusters of one attempt with the line through them, and the CPU time they took."""

    centres: tuple[Centre, ...]
    fit: Fit
    taken: int
    cpu_time_ns: int

    @property
    def min_width(self) -> int:
        """Return the narrowest bracket, in ticks."""
        return min(centre.min_width for centre in self.centres)

    @property
    def half_bracket_ns(self) -> float:
        """Return how far reading the clock can put the centre of a cluster off."""
        return self.min_width / 2 * self.fit.line.ns_per_tick

    @property
    def bound_ppb(self) -> float:
        """Return the hard bound of the slope: the ends' half brackets over the span."""
        first, last = self.centres[0], self.centres[-1]
        return (first.min_width + last.min_width) / 2 / (last.point.tick - first.point.tick) * 1e9


def sample_line(
    duration_ns: int,
    reference: str,
    *,
    sampler: Sampler | None = None,
    timeline: Timeline | None = None,
    on_progress: Progress | None = None,
) -> Sampled:
    """Return eight clusters spread over `duration_ns` and the line through their centres.

    When the centres do not lie on a line it is the one through the narrowest pair of each end.
    About 3 ms of CPU time; the interpreter lock is released while pairs are taken and analysed.
    Raises CalibrationError when the clock can not be read or too few clusters can be used.
    """
    sampler = sampler or _native.PairSampler(len(POSITIONS), PAIRS)
    timeline = timeline or MachineTimeline()
    cpu_start = time.thread_time_ns()
    start = timeline.now_ns()
    for index, position in enumerate(POSITIONS):
        timeline.sleep_until(start + round(position * duration_ns))
        try:
            sampler.sample(index, CLOCK_IDS[reference])
        except OSError as error:
            raise CalibrationError("The reference clock can not be read.", os_error_reason(error)) from error
        if on_progress:
            on_progress((index + 1) / len(POSITIONS))
    try:
        slope = provisional_slope([sampler.narrowest(i)[:2] for i in range(len(POSITIONS))])
        if slope <= 0:
            raise ValueError("the reference clock did not advance")  # noqa: TRY301
        line = fit([c.point for c in centres_of(sampler, slope)], slope)
        # Once more with the better slope: the first one was good to about 1 ppm.
        centres = centres_of(sampler, line.line.ns_per_tick)
        line = fit([c.point for c in centres], line.line.ns_per_tick)
        if not line.valid:
            # The bound of the brackets holds for the line through them, and for no other.
            first, last = (sampler.narrowest(index)[:2] for index in (0, len(POSITIONS) - 1))
            line = replace(line, line=Line.between(first, last))
    except ValueError as error:
        raise CalibrationError(
            "The clock could not be calibrated.",
            f"{error}.".capitalize(),
            "Try again with a longer --duration.",
        ) from error
    return Sampled(centres, line, len(POSITIONS), time.thread_time_ns() - cpu_start)


def centres_of(sampler: Sampler, ns_per_tick: float) -> tuple[Centre, ...]:
    """Return the centres of the clusters that have one."""
    found = (sampler.centre(index, ns_per_tick) for index in range(len(POSITIONS)))
    return tuple(as_centre(values) for values in found if values is not None)


def as_centre(values: tuple[int, int, float, float, int, int, int, int]) -> Centre:
    """Return a native centre as a record."""
    tick, ns, fraction_ns, error_ns, kept, cpu_changes, min_width, cpu = values
    return Centre(ClusterPoint(tick, ns, fraction_ns, error_ns), kept, cpu_changes, min_width, cpu)


def sample_point(reference: str, ns_per_tick: float) -> Centre:
    """Return the centre of one cluster taken now; about 0.3 ms of CPU time.

    Raises CalibrationError when the clock can not be read or no pair could be used.
    """
    sampler = _native.PairSampler(1, PAIRS)
    try:
        sampler.sample(0, CLOCK_IDS[reference])
    except OSError as error:
        raise CalibrationError("The reference clock can not be read.", os_error_reason(error)) from error
    values = sampler.centre(0, ns_per_tick)
    if values is None:
        raise CalibrationError(
            "No reading of the clock could be used.", "The thread changed its CPU all the time."
        )
    return as_centre(values)


@contextmanager
def on_cpu(cpu: int | None) -> Iterator[None]:
    """Keep the calling thread on one CPU; its old affinity comes back. None leaves it alone.

    Raises InputError for a CPU that this thread may not use.
    """
    if cpu is None:
        yield
        return
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {cpu})
    except (OSError, ValueError, OverflowError) as error:
        raise InputError(
            f"CPU {cpu} can not be used.", f"{error}.", f"CPUs of this process: {sorted(before)}."
        ) from error
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
