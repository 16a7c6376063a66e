"""The clock: ticks, nanoseconds, calibration and its health. Needs only the standard library.

Before any calibration now_ns() is CLOCK_MONOTONIC_RAW; after one it is the calibrated counter,
which may differ from the clock it replaces by some nanoseconds in either direction.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from cfctl._native import StampRing, now_ns, ticks

if TYPE_CHECKING:
    from cfctl.clock.calibration import Calibration, ns_per_tick
    from cfctl.clock.condition import ClockHealth, health
    from cfctl.clock.costs import read_costs, tick_step
    from cfctl.clock.epoch import Recheck, recheck, residual
    from cfctl.clock.history import saved_calibration
    from cfctl.clock.keeper import AutoRecalibration, start_auto_recalibration
    from cfctl.clock.offsets import CpuOffsets, cpu_offsets
    from cfctl.clock.procedure import calibrate, published_calibration

__all__ = [
    "AutoRecalibration",
    "Calibration",
    "ClockHealth",
    "CpuOffsets",
    "Recheck",
    "StampRing",
    "calibrate",
    "cpu_offsets",
    "health",
    "now_ns",
    "ns_per_tick",
    "published_calibration",
    "read_costs",
    "recheck",
    "residual",
    "saved_calibration",
    "start_auto_recalibration",
    "tick_step",
    "ticks",
]

# Loaded when first named: who only stamps pays for nothing else.
_MODULE_OF = {
    "AutoRecalibration": "keeper",
    "Calibration": "calibration",
    "ClockHealth": "condition",
    "CpuOffsets": "offsets",
    "Recheck": "epoch",
    "calibrate": "procedure",
    "cpu_offsets": "offsets",
    "health": "condition",
    "ns_per_tick": "calibration",
    "published_calibration": "procedure",
    "read_costs": "costs",
    "recheck": "epoch",
    "residual": "epoch",
    "saved_calibration": "history",
    "start_auto_recalibration": "keeper",
    "tick_step": "costs",
}


def __getattr__(name: str) -> Any:
    """Return a public name of one of the modules."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value
