"""What reading each clock costs, and the counter's step."""

from __future__ import annotations

import statistics
from typing import Final

from cfctl import _native
from cfctl.clock.lattice import step_ticks
from cfctl.clock.procedure import process_ns_per_tick
from cfctl.records import Measurement

# In the order of enum cf_read_kind (native/cost.h).
KINDS: Final = (
    "tick",
    "tick_ordered",
    "raw",
    "monotonic",
    "realtime",
    "boottime",
    "monotonic_coarse",
    "syscall",
)
_READS: Final = 1000
_BATCHES: Final = 21


def read_costs() -> dict[str, Measurement]:
    """Return what one read of each clock costs, in ns; "syscall" is getppid, the cheapest real one.

    About 8 ms; the interpreter lock is released.
    """
    return {kind: _read_cost(index) for index, kind in enumerate(KINDS)}


def _read_cost(kind: int) -> Measurement:
    try:
        elapsed = _native.read_costs(kind, _READS, _BATCHES)
    except OSError as error:
        return Measurement.missing("ns", f"{error.strerror}")
    costs = sorted(ns / _READS for ns in elapsed)
    lower, _, upper = statistics.quantiles(costs, n=4)
    return Measurement(
        statistics.median(costs),
        "ns",
        uncertainty=max((upper - lower) / 2, 1 / _READS),
        sample_count=_BATCHES,
        method=f"median of {_BATCHES} batches of {_READS} reads; half their interquartile range",
    )


def tick_step() -> Measurement:
    """Return the step in which the counter advances: the resolution of a single stamp, in ns.

    About 6 ms, and 10 ms more when this process has no calibration yet.
    """
    reads = 50_000
    step = step_ticks(reads)
    if step is None:
        return Measurement.missing("ns", "the counter did not advance between two reads")
    return Measurement(
        step * process_ns_per_tick(),
        "ns",
        sample_count=reads,
        method=f"step of which 99 % of the increments are multiples: {step:g} {'tick' if step == 1 else 'ticks'}",
    )
