"""What the measured checks consume: a calibration, costs of operations, offsets between CPUs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cfctl.errors import UnobservableError

if TYPE_CHECKING:
    from cfctl.diagnose.latency import UseLatency
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
class LostTime:
    """The time a busy loop on one CPU lost to one cause, by what method that is known."""

    cpu: int
    cause: str
    ns_per_s: float
    share_ratio: float
    gap_count: int
    method: str


@dataclass(frozen=True, slots=True)
class Effect:
    """What one setting does to a wake-up: median latency with it and without it, in interleaved runs.

    `gain` is the median of the differences of neighbouring runs, its error half their range.
    `events_per_s` is how often the probe woke up.
    """

    before_ns: float
    after_ns: float
    gain: Measurement
    events_per_s: float


@dataclass(frozen=True, slots=True)
class Measurements:
    """Measured values; what is None has its reason in `reasons` under the field's name.

    `saved_fit` is a calibration saved earlier in this boot. `costs` are medians in ns by operation:
    "monotonic" (clock_gettime), "syscall" (getppid), "tick" (a tick read), "page_fault", ...
    `latency` is what decides for the use, `lost` where a busy loop's time goes, `effects` what a
    setting does to a wake-up: "slack" (1 ns instead of the default), "pm_qos" (a limit held).
    """

    fit: ClockFit | None = None
    saved_fit: ClockFit | None = None
    offsets: TickOffsets | None = None
    costs: dict[str, Measurement] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    latency: UseLatency | None = None
    lost: tuple[LostTime, ...] = ()
    effects: dict[str, Effect] = field(default_factory=dict)

    def cost_ns(self, operation: str) -> float:
        """Return the median cost of an operation, ns; raises UnobservableError when there is none."""
        found = self.costs.get(operation)
        if found is None:
            # Operations are called after their probe: fsync_p99 is missing for the reason of fsync.
            named = (reason for name, reason in self.reasons.items() if operation.startswith(name))
            why = next(named, None) or self.reasons.get("costs")
            raise UnobservableError(why or f"the cost of {operation} was not measured")
        if found.value is None:
            raise UnobservableError(found.reason or "not measured")
        return found.value

    def lost_to(self, *causes: str) -> tuple[LostTime, ...]:
        """Return what the CPU that lost most to some causes lost to each; () for nothing.

        Raises UnobservableError when no gap's cause was looked for.
        """
        if not self.lost:
            raise UnobservableError(self.reasons.get("lost", "the causes of gaps were not measured"))
        by_cpu: dict[int, list[LostTime]] = {}
        for each in self.lost:
            if each.cause in causes:
                by_cpu.setdefault(each.cpu, []).append(each)
        return tuple(max(by_cpu.values(), key=lambda found: sum(e.ns_per_s for e in found), default=()))

    def lost_ns_per_s(self) -> float | None:
        """Return what the CPU that lost most lost to all causes, ns/s; None when it was not measured."""
        totals: dict[int, float] = {}
        for each in self.lost:
            totals[each.cpu] = totals.get(each.cpu, 0.0) + each.ns_per_s
        return max(totals.values(), default=None)
