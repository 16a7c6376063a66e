"""The calibration procedure: gate, attempts, verdict, snap, publication."""

from __future__ import annotations

from typing import Final

from cfctl import _native
from cfctl.clock.assembly import Circumstances, from_median, from_sampled, identity
from cfctl.clock.calibration import CLOCK_IDS, REFERENCES, Calibration
from cfctl.clock.median import sample_median
from cfctl.clock.sampling import Progress, Sampled, Sampler, Timeline, on_cpu, sample_line
from cfctl.errors import CalibrationError, InputError

DEFAULT_DURATION_NS: Final = 100_000_000
MIN_DURATION_NS: Final = 1_000_000
MAX_DURATION_NS: Final = 600_000_000_000
# A budget is widened up to here when clusters do not lie on a line.
_WIDENED_MAX_NS: Final = 3_000_000_000
METHODS: Final = ("clustered", "median")


def calibrate(
    duration_ns: int = DEFAULT_DURATION_NS,
    *,
    method: str = "clustered",
    reference: str = "raw",
    snap: bool = True,
    cpu: int | None = None,
    samples: int = 10,
    sample_ns: int = 100_000_000,
    publish: bool = True,
    on_progress: Progress | None = None,
) -> Calibration:
    """Return a calibration of the tick counter against a reference clock.

    `method` "clustered" takes `duration_ns` (more when the clusters do not lie on a line) and about
    3 ms of CPU time; "median" takes `samples` naive intervals of `sample_ns` and the median of
    their rates. `cpu` keeps the calling thread on one CPU meanwhile. With `publish` the calibration
    becomes the clock of now_ns(). `on_progress` is called with the share that is done.
    The interpreter lock is released while it samples and sleeps.

    Raises InputError for arguments that can not be used, CalibrationError when the clock can not be
    read or stepped in every attempt. A calibration whose verdict is "degraded" is returned.
    """
    _check_arguments(duration_ns, method, reference, samples, sample_ns)
    with on_cpu(cpu):
        given = Circumstances.observe(reference, method, snap)
        if given.source == "os" and reference == "raw":
            result = identity(given)
        elif method == "median":
            median = sample_median(samples, sample_ns, reference, on_progress=on_progress)
            result = from_median(given, median, samples, sample_ns)
        else:
            sampled, budget_ns, attempts = sample_until_valid(duration_ns, reference, on_progress=on_progress)
            result = from_sampled(given, sampled, budget_ns, attempts)
    if publish:
        publish_calibration(result)
    return result


# The clock that now_ns() shows belongs to the process; so does the record of what it is.
_published: list[Calibration] = []


def publish_calibration(calibration: Calibration) -> None:
    """Make a calibration the clock of now_ns() in this process."""
    _native.clock_publish(
        calibration.base_tick,
        calibration.base_ns,
        calibration.mult,
        calibration.shift,
        CLOCK_IDS[calibration.reference],
    )
    _published[:] = [calibration]


def withdraw_calibration() -> None:
    """Let now_ns() read the reference clock itself, as it did before any calibration."""
    _native.clock_withdraw()
    _published.clear()


def published_calibration() -> Calibration | None:
    """Return the calibration behind now_ns() in this process, None when there is none."""
    return next(iter(_published), None)


def process_ns_per_tick() -> float:
    """Return the nanoseconds of one tick: of the published calibration, else of one made in 10 ms."""
    line = _native.clock_published()
    if line is not None:
        return line[2] / (1 << line[3])
    quick = calibrate(10_000_000, publish=False)
    return quick.mult / (1 << quick.shift)


def _check_arguments(duration_ns: int, method: str, reference: str, samples: int, sample_ns: int) -> None:
    if method not in METHODS:
        raise InputError(f"There is no method '{method}'.", f"Methods: {', '.join(METHODS)}.")
    if reference not in REFERENCES:
        raise InputError(f"There is no reference '{reference}'.", f"References: {', '.join(REFERENCES)}.")
    if not MIN_DURATION_NS <= duration_ns <= MAX_DURATION_NS:
        raise InputError("The duration can not be used.", "It must be 1 ms to 10 min.", "100 ms is enough.")
    if not (1 <= samples <= 10_000 and MIN_DURATION_NS <= sample_ns <= MAX_DURATION_NS):
        raise InputError("The samples can not be used.", "1 to 10000 samples of 1 ms to 10 min are possible.")


def _budgets(duration_ns: int) -> tuple[int, ...]:
    wider = dict.fromkeys(min(factor * duration_ns, _WIDENED_MAX_NS) for factor in (2, 4, 8))
    return duration_ns, duration_ns, *(budget_ns for budget_ns in wider if budget_ns > duration_ns)


def sample_until_valid(
    duration_ns: int,
    reference: str,
    *,
    sampler: Sampler | None = None,
    timeline: Timeline | None = None,
    on_progress: Progress | None = None,
) -> tuple[Sampled, int, int]:
    """Return the first attempt whose clusters lie on one line, its budget, and how many there were.

    A failed attempt is repeated once, then with twice, four and eight times the duration (at most
    3 s, which is tried once); the last one is returned even when it is not valid. Raises
    CalibrationError when the last one shows a step: an average over two groups would be a rate that
    never was. A shift within half a bracket is none: reading the clock can make it, and the bound
    of a degraded calibration covers it.
    """
    attempts = 0
    for budget_ns in _budgets(duration_ns):
        attempts += 1
        sampled = sample_line(
            budget_ns, reference, sampler=sampler, timeline=timeline, on_progress=on_progress
        )
        if sampled.fit.valid:
            break
    if sampled.fit.step_ns is not None and abs(sampled.fit.step_ns) > sampled.half_bracket_ns:
        raise CalibrationError(
            "The clock could not be calibrated.",
            f"The clock stepped by {sampled.fit.step_ns:+.0f} ns between two groups of clusters, "
            f"in the last of {attempts} attempts.",
            "Look for a suspend, a migration or something that sets the clock, and try again.",
        )
    return sampled, budget_ns, attempts
