"""What an issue costs here, from the probe that can put a number on it; never a guess."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cfctl.errors import UnobservableError
from cfctl.records import Measurement

if TYPE_CHECKING:
    from cfctl.diagnose.measurements import Measurements

PER_WAKEUP: Final = "ns/wake-up"
PER_ROUND_TRIP: Final = "ns/round trip"
PER_CALL: Final = "ns/call"
PER_SECOND: Final = "ns/s"
NO_PROBE: Final = "no probe measures what it costs"

# The probes a check's cost can come from.
JITTER: Final = "jitter"
SLACK: Final = "slack"
PM_QOS: Final = "pm_qos"
COSTS: Final = "costs"
CLOCK_COSTS: Final = "measurements"
# Causes of gaps, as cfctl.probe.attribution names them.
TICK: Final = ("timer tick", "tick + softirq")
SOFTIRQ: Final = ("softirq", "tick + softirq")
DEVICE_IRQ: Final = ("device IRQ",)
IPI: Final = ("interprocessor interrupt",)
SCHEDULED_OUT: Final = ("scheduled out",)
PAGE_FAULT: Final = ("page fault",)
HYPERVISOR: Final = ("hypervisor or firmware",)


@dataclass(frozen=True, slots=True)
class Impact:
    """A cost with its method, and the same in ns per second where that was measured too."""

    cost: Measurement
    ns_per_s: float | None = None


@dataclass(frozen=True, slots=True)
class ImpactSource:
    """Where a check's cost comes from: the probe that must run, and how it is read from its results.

    `measure` raises UnobservableError when the probe gave nothing.
    """

    probe: str
    measure: Callable[[Measurements], Impact]

    def of(self, measurements: Measurements | None, why_not: str) -> Impact:
        """Return the cost; missing, with the reason, when it was not measured."""
        if measurements is None:
            return Impact(Measurement.missing(PER_SECOND, why_not))
        try:
            return self.measure(measurements)
        except UnobservableError as error:
            return Impact(Measurement.missing(PER_SECOND, str(error)))


def time_lost_to(*causes: str) -> ImpactSource:
    """Return the source for what a busy loop loses to some causes on the CPU that loses most."""

    def measure(measurements: Measurements) -> Impact:
        found = measurements.lost_to(*causes)
        if not found:
            raise UnobservableError(f"the busy loop lost no time to: {', '.join(causes)}")
        total = sum(each.ns_per_s for each in found)
        what = " and ".join(dict.fromkeys(each.cause for each in found))
        how = "; ".join(dict.fromkeys(each.method for each in found if each.method))
        method = f"time a busy loop on CPU {found[0].cpu} lost to {what}, of which a fix can save this at most; {how}"
        count = sum(each.gap_count for each in found)
        return Impact(Measurement(total, PER_SECOND, None, count, method.rstrip("; ")), total)

    return ImpactSource(JITTER, measure)


def gain_of(effect: str, probe: str) -> ImpactSource:
    """Return the source for what a setting takes off each wake-up."""

    def measure(measurements: Measurements) -> Impact:
        found = measurements.effects.get(effect)
        if found is None:
            raise UnobservableError(
                measurements.reasons.get(effect, f"the effect of {effect} was not measured")
            )
        gain = found.gain
        return Impact(gain, None if gain.value is None else max(0.0, gain.value) * found.events_per_s)

    return ImpactSource(probe, measure)


def cost_of(operation: str, unit: str = PER_CALL, less: str | None = None) -> ImpactSource:
    """Return the source for what an operation costs, beyond another one when `less` names it."""

    def measure(measurements: Measurements) -> Impact:
        found = _cost(measurements, operation)
        if less is None:
            return Impact(
                Measurement(
                    found.value, unit, found.uncertainty, found.sample_count, f"{operation}: {found.method}"
                )
            )
        base = _cost(measurements, less)
        assert found.value is not None
        assert base.value is not None
        error = (found.uncertainty or 0.0) + (base.uncertainty or 0.0)
        method = f"median of {operation} less that of {less}"
        return Impact(Measurement(found.value - base.value, unit, error, found.sample_count, method))

    probe = CLOCK_COSTS if operation in {"monotonic", "realtime", "syscall"} else COSTS
    return ImpactSource(probe, measure)


def _cost(measurements: Measurements, operation: str) -> Measurement:
    measurements.cost_ns(operation)
    return measurements.costs[operation]
