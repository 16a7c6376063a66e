"""What the measured checks consume: a calibration, costs of operations, offsets between CPUs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cfctl.errors import UnobservableError

if TYPE_CHECKING:
    from cfctl.records import Measurement


@dataclass(frozen=True, slots=True)
class ClockFit:
    """A calibration as far as a check needs it; `source` is the tick source it fits ("tsc", ...).

    `verdict` is valid, degraded (usable, wide) or another word; `stated_hz` is the rate the kernel
    states for the counter, None where it states none.
    """

    source: str
    verdict: str
    verdict_reason: str | None
    frequency_hz: float | None
    uncertainty_ppb: float | None
    stated_hz: float | None
    snapped: bool | None


@dataclass(frozen=True, slots=True)
class TickOffsets:
    """Tick counter offsets of CPUs to the first one, with the bound of the method, and warps seen."""

    cpus: tuple[int, ...]
    offset_ns: tuple[float, ...]
    bound_ns: float
    warps: int


@dataclass(frozen=True, slots=True)
class Measurements:
    """Measured values; what is None has its reason in `reasons` under the field's name.

    `saved_fit` is a calibration saved earlier in this boot. `costs` are medians in ns by operation:
    "monotonic" (clock_gettime), "syscall" (getppid), "raw" (a tick read), ...
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
