"""What an issue costs here: each check names the measurement that is its cost, or why there is none.

A source reads a probe's result or a counter's rise; it never estimates. A cost is a loss (ns per
second, or per event), or a bound: what several issues cost together, of which one can not be told.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from cfctl.errors import UnobservableError
from cfctl.host.cgroup import cpu_throttling
from cfctl.host.counters import pressure, stall_totals_us, thermal_times_ms
from cfctl.records import Measurement

if TYPE_CHECKING:
    from cfctl.diagnose.measurements import Measurements
    from cfctl.diagnose.subject import Host, Sample

PER_WAKEUP: Final = "ns/wake-up"
PER_ROUND_TRIP: Final = "ns/round trip"
PER_CALL: Final = "ns/call"
PER_READ: Final = "ns/clock read"
PER_FAULT: Final = "ns/page fault"
PER_SECOND: Final = "ns/s"
PER_PAUSE: Final = "ns/pause"
PER_MIGRATION: Final = "ns/migration"
PER_SWITCH: Final = "ns/context switch"
PER_FSYNC: Final = "ns/fsync"
PER_HAND_OVER: Final = "ns/hand-over"
PER_COLLECTION: Final = "ns/collection"
PER_LINE: Final = "ns/cache line"
# A tail is no part of the median that a budget may be judged by.
PER_WAKEUP_TAIL: Final = "ns/wake-up at p99"

# The probes a check's cost can come from.
JITTER: Final = "jitter"
WAKEUP: Final = "wakeup"
SLACK: Final = "slack"
PM_QOS: Final = "pm_qos"
IDLE: Final = "idle"
SOCKET: Final = "socket"
COSTS: Final = "costs"
CLOCK_COSTS: Final = "measurements"
HUGE_FAULT: Final = "huge_fault"
PAUSE: Final = "pause"
MIGRATION: Final = "migration"
CACHE_LINE: Final = "cache_line"
SIBLING: Final = "sibling"
FSYNC: Final = "fsync"
THROTTLED: Final = "throttled"
GIL: Final = "gil_hand_over"
COLLECTION: Final = "gc_collection"
# Which probe measures an operation, where it is not called like it.
_PROBES: Final = {
    **dict.fromkeys(("tick", "raw", "monotonic", "realtime", "syscall"), CLOCK_COSTS),
    **dict.fromkeys(("page_fault", "futex_same_cpu", "futex_cross_cpu", "context_switch"), COSTS),
    **dict.fromkeys(("wakeup", "wakeup_p99"), WAKEUP),
    **dict.fromkeys(("cache_line_near", "cache_line_far"), CACHE_LINE),
    "fsync_p99": FSYNC,
}
_WAITED_FOR: Final = {"cpu": "a CPU", "memory": "memory", "io": "a disk"}
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
    """A cost with its method, and the same in ns per second where that was measured too.

    `is_bound`: the issue costs this at most, because others may be part of it.
    """

    cost: Measurement
    ns_per_s: float | None = None
    is_bound: bool = False

    def at_rate(self, events_per_s: float | None) -> Impact:
        """Return a cost per event as a loss per second too, for the events that a check counted."""
        if events_per_s is None or self.ns_per_s is not None or self.cost.value is None:
            return self
        lost = self.cost.value * events_per_s
        often = f"{_rate(events_per_s)} in a second here" if events_per_s else "none in the interval here"
        method = f"{self.cost.method or 'measured'}; {often}"
        return Impact(replace(self.cost, method=method), lost, self.is_bound)


def _rate(events_per_s: float) -> str:
    return f"{events_per_s:.0f}" if events_per_s >= 10 else f"{events_per_s:.2g}"


@dataclass(frozen=True, slots=True)
class ImpactSource:
    """Where a check's cost comes from: the probe that must run or the counters to compare, and how to read it.

    `measure` raises UnobservableError with the reason when there is no number; `what` says which number it is.
    """

    what: str
    measure: Callable[[Host], Impact]
    probe: str | None = None
    sample: Sample | None = None

    def of(self, host: Host) -> Impact:
        """Return the cost on a host; missing, with the reason, when it was not measured."""
        try:
            return self.measure(host)
        except UnobservableError as error:
            return Impact(Measurement.missing(PER_SECOND, str(error)))


def not_measurable(reason: str) -> ImpactSource:
    """Return the source of a check whose cost nothing on the host itself can put a number on."""

    def measure(host: Host) -> Impact:  # noqa: ARG001
        raise UnobservableError(reason)

    return ImpactSource(f"not measured: {reason}", measure)


def time_lost_to(*causes: str) -> ImpactSource:
    """Return the source for what a busy loop loses to some causes on the CPU that loses most: a bound."""

    def measure(host: Host) -> Impact:
        found = host.measured().lost_to(*causes)
        if not found:
            raise UnobservableError(f"the busy loop lost no time to: {', '.join(causes)}")
        total = sum(each.ns_per_s for each in found)
        what = " and ".join(dict.fromkeys(each.cause for each in found))
        how = "; ".join(dict.fromkeys(each.method for each in found if each.method))
        method = f"what a busy loop on CPU {found[0].cpu} lost to {what}; {how}"
        count = sum(each.gap_count for each in found)
        # Gaps come independently of each other: the error of a sum over a Poisson count of them.
        error = total / count**0.5 if count else None
        return Impact(Measurement(total, PER_SECOND, error, count, method.rstrip("; ")), total, True)

    return ImpactSource(f"at most what a busy loop loses to {' and '.join(causes)}", measure, JITTER)


def gain_of(effect: str) -> ImpactSource:
    """Return the source for what a setting takes off each event, from runs with and without it."""

    def measure(host: Host) -> Impact:
        measured = host.measured()
        found = measured.effects.get(effect)
        if found is None:
            raise UnobservableError(measured.reasons.get(effect, f"the effect of {effect} was not measured"))
        gain = found.gain
        # A gain within its own error is none.
        told = gain.value is not None and gain.value > (gain.uncertainty or 0.0)
        return Impact(gain, gain.value * found.events_per_s if told and gain.value else None)

    return ImpactSource(f"what an event gains in runs with and without it (probe {effect})", measure, effect)


def cost_of(
    operation: str,
    unit: str = PER_CALL,
    *,
    less: str | None = None,
    is_bound: bool = False,
    of_target: bool = True,
) -> ImpactSource:
    """Return the source for what an operation costs, beyond another one when `less` names it.

    It is measured in this process: with `of_target` False it says nothing about another one.
    """

    def measure(host: Host) -> Impact:
        if not of_target and host.pid is not None:
            raise UnobservableError("it is measured in cfctl's own process, which says nothing of the target")
        measurements = host.measured()
        found = _cost(measurements, operation)
        assert found.value is not None
        if less is None:
            cost = Measurement(
                found.value, unit, found.uncertainty, found.sample_count, f"{operation}: {found.method}"
            )
            return Impact(cost, found.value if unit == PER_SECOND else None, is_bound)
        base = _cost(measurements, less)
        assert base.value is not None
        error = (found.uncertainty or 0.0) + (base.uncertainty or 0.0)
        method = f"{operation} less {less}: {found.method}"
        cost = Measurement(found.value - base.value, unit, error, found.sample_count, method)
        return Impact(cost, None, is_bound)

    beyond = f" less {less}" if less else ""
    what = f"{'at most ' if is_bound else ''}the cost of {operation}{beyond}, {unit}"
    return ImpactSource(what, measure, _PROBES.get(operation, operation))


def _cost(measurements: Measurements, operation: str) -> Measurement:
    measurements.cost_ns(operation)
    return measurements.costs[operation]


def waiting_for(resource: str) -> ImpactSource:
    """Return the source for the time in which a task waited for "cpu", "memory" or "io" in the interval.

    It is the kernel's own sum (PSI, resolution 1 us) over all tasks: a bound for one of them.
    Source: kernel, Documentation/accounting/psi.rst.
    """
    what = f"time in which a task waited for {_WAITED_FOR[resource]}"

    def measure(host: Host) -> Impact:
        if not host.has_interval:
            share = pressure(host.view, f"proc/pressure/{resource}").some_avg10
            return observed(share * 1e7, f"{what} (PSI, average over 10 s)", is_bound=True)
        change = host.change(stall_totals_us)
        if resource not in change.after or resource not in change.before:
            raise UnobservableError(f"/proc/pressure/{resource} gives no total")
        waited = max(0, change.after[resource] - change.before[resource]) * 1000 / change.seconds
        return observed(waited, f"{what} (PSI, sum over {change.seconds:.1f} s)", is_bound=True)

    return ImpactSource(f"at most the {what}", measure, sample=stall_totals_us)


def stopped_by_quota() -> ImpactSource:
    """Return the source for the time the program's group stood still for its CPU quota.

    In the interval, in which this program sleeps, or while it probed if that was longer.
    """

    def measure(host: Host) -> Impact:
        change = host.change(cpu_throttling)
        lost = max(0, change.after.throttled_ns - change.before.throttled_ns) / change.seconds
        found = observed(lost, f"throttled time of the group over {change.seconds:.1f} s (cpu.stat)")
        probed = throttled_while_probing(host)
        return found if probed is None or probed.ns_per_s is None or probed.ns_per_s <= lost else probed

    what = "the time the group was throttled, in the interval or while it was probed"
    return ImpactSource(what, measure, THROTTLED, cpu_throttling)


def throttled_while_probing(host: Host) -> Impact | None:
    """Return the time this program's group was throttled while it probed; None when it was not, or is not known.

    It says nothing of another program.
    """
    measured = host.facts.measurements
    found = None if measured is None or host.pid is not None else measured.costs.get(THROTTLED)
    return Impact(found, found.value) if found is not None and found.value else None


def throttled_for_heat() -> ImpactSource:
    """Return the source for the time the CPU that throttled most ran slower for heat."""

    def measure(host: Host) -> Impact:
        change = host.change(thermal_times_ms)
        rises = [ms - change.before.get(path, 0) for path, ms in change.after.items()]
        lost = max(0, max(rises, default=0)) * 1e6 / change.seconds
        return observed(lost, f"time throttled over {change.seconds:.1f} s", 1e6 / change.seconds)

    return ImpactSource("the time the CPU was throttled for heat", measure, sample=thermal_times_ms)


def error_of(value_ns: float, event: str, method: str, uncertainty: float | None = None) -> Impact:
    """Return the error that each event's time has, ns: it spoils a result and takes no time."""
    return Impact(Measurement(value_ns, f"ns/{event}", uncertainty, None, method))


def observed(
    ns_per_s: float, method: str, uncertainty: float | None = None, *, is_bound: bool = False
) -> Impact:
    """Return the loss that a check itself saw, by what method."""
    return Impact(Measurement(ns_per_s, PER_SECOND, uncertainty, None, method), ns_per_s, is_bound)


# Why nothing on the host itself can put a number on a check.
NEEDS_OTHER_SETTING: Final = not_measurable(
    "it shows only against the other setting, and a diagnosis changes none"
)
TOO_RARE: Final = not_measurable("it comes too seldom for a run of seconds")
REFUSES: Final = not_measurable("it does not slow the program down, it makes it fail")
BLINDS: Final = not_measurable("it costs knowledge, not time")
OF_THE_PROGRAM: Final = not_measurable("it depends on the program's own accesses")
OTHER_SIDE: Final = not_measurable("a second host would have to answer")
SEEN_BY_CHECK: Final = replace(not_measurable("the check saw no loss"), what="what the check itself counts")
SPACE: Final = not_measurable("it costs memory, not time")
NOT_YET: Final = not_measurable("it costs nothing until it happens")
