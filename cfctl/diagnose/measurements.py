"""What the measured checks consume: a calibration, costs of operations, offsets between CPUs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cfctl.errors import UnobservableError

if TYPE_CHECKING:
    from cfctl.records import Measurement


@dataclass(frozen=True, slots=True)
class ClockFit:
    """A calibration as far as a check needs it; `source` is the tick source it fits: "tsc", "cntvct", or
    "os" where there is no usable counter, for which `source_reason` says why.

    `verdict` is valid, degraded (usable, wide) or another word. `estimate_hz` is what was measured,
    `uncertainty_ppb` its standard error. `stated_ppb` is how far the measured rate lies from the
    one the kernel states, beyond what rounding explains; None where none is stated.
    """

    source: str
    source_reason: str
    verdict: str
    verdict_reason: str
    estimate_hz: float
    uncertainty_ppb: float
    stated_hz: float | None
    stated_ppb: float | None


@dataclass(frozen=True, slots=True)
class TickOffsets:
    """How far the tick counters of CPUs are apart: the pair with the largest offset beyond its bound.

    An offset within `bound_ns` is consistent with 0. `warps` counts messages between any two CPUs
    that arrived before they were sent.
    """

    cpus: tuple[int, ...]
    pair: tuple[int, int]
    offset_ns: float
    bound_ns: float
    warps: int


@dataclass(frozen=True, slots=True)
class Measurements:
    """Measured values; what is None has its reason in `reasons` under the field's name.

    `saved_fit` is a calibration saved earlier in this boot. `costs` are medians in ns by operation:
    "monotonic" (clock_gettime), "syscall" (getppid), "tick" (a tick read), ...
    """

    fit: ClockFit | None = None
    saved_fit: ClockFit | None = None
    offsets: TickOffsets | None = None
    costs: dict[str, Measurement] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)

    def cost_ns(self, operation: str) -> float:
        """Return the median cost of an operation, ns; raises UnobservableError when there is none."""
        found = self.costs.get(operation)
        if found is None:
            raise UnobservableError(self.reasons.get("costs", f"the cost of {operation} was not measured"))
        if found.value is None:
            raise UnobservableError(found.reason or "not measured")
        return found.value
