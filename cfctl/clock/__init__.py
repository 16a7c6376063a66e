"""The clock: ticks, nanoseconds, calibration and its health. Needs only the standard library.

Before any calibration now_ns() is CLOCK_MONOTONIC_RAW; after one it is the calibrated counter.
"""

from cfctl._native import StampRing, now_ns, ticks
from cfctl.clock.calibration import Calibration, ns_per_tick
from cfctl.clock.procedure import calibrate

__all__ = ["Calibration", "StampRing", "calibrate", "now_ns", "ns_per_tick", "ticks"]
