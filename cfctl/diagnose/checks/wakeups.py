"""Checks that only a probe can answer: noise from below, wake-ups across CPUs, page faults."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cfctl.diagnose.advice import Fix
from cfctl.diagnose.engine import Issue, NotApplicable, Outcome, Pass, check
from cfctl.diagnose.impact import COSTS, HYPERVISOR, JITTER, PER_FAULT, PER_ROUND_TRIP, cost_of, time_lost_to
from cfctl.diagnose.record import Area, Scope
from cfctl.host.processes import process_counters
from cfctl.records import Severity
from cfctl.units import format_quantity

if TYPE_CHECKING:
    from cfctl.diagnose.subject import Host

_KICK_LIMIT_NS: Final = 20_000
_FAULT_LIMIT_RATIO: Final = 1e-3


@check(
    "HYPERVISOR_NOISE",
    "A busy loop is stopped from below the kernel",
    Severity.MEDIUM,
    Area.INTERRUPTS,
    rule="gaps without an event of this kernel take > 0.1 % of a CPU's time; high > 1 %",
    source="judgement; measured: 0.50 % lost this way while steal counted 0 ticks",
    solution="Give this guest CPUs of its own (pinned, not overcommitted), or a whole machine.",
    impact=time_lost_to(*HYPERVISOR),
    scope=Scope.MACHINE,
    needs=(JITTER,),
    verify="cfctl probe jitter",
)
def hypervisor_noise(host: Host) -> Outcome:
    """The hypervisor, or firmware on a whole machine, takes the CPU and no counter of this kernel
    shows it: it is what is left when every event of the kernel is accounted for."""
    found = host.measured().lost_to(*HYPERVISOR)
    share = sum(each.ns_per_s for each in found) / 1e9
    cpu = f" of CPU {found[0].cpu}" if found else ""
    host.saw("gaps by elimination, share of the time", round(share, 6), f"{share:.3%}{cpu}")
    if share <= 0.001:
        return Pass(f"{share:.3%}{cpu} went without an event of this kernel")
    below = "the hypervisor or host" if host.environment.is_guest else "firmware (SMI)"
    firmware = "Switch off USB legacy support, power capping and patrol scrub in the firmware's setup."
    return Issue(
        f"{share:.2%}{cpu} went to {below}, by elimination.",
        Fix(privilege=None, solution=None if host.environment.is_guest else firmware),
        severity=Severity.HIGH if share > 0.01 else None,
    )


@check(
    "GUEST_KICK_COST",
    "Waking a thread on another CPU is slow",
    Severity.MEDIUM,
    Area.VIRTUALISATION,
    rule="futex round trip between two CPUs > 20 us",
    source="measured: 37-43 us in a guest, 4-5 us on one CPU",
    solution="Let the waiting thread poll, keep threads that talk on one CPU, or stop CPUs from sleeping (CPU_HALTPOLL_OFF, CPU_CSTATE_DEEP).",
    scope=Scope.PROCESS,
    needs=(COSTS,),
    impact=cost_of("futex_cross_cpu", PER_ROUND_TRIP, less="futex_same_cpu"),
    verify="cfctl probe cost",
)
def guest_kick_cost(host: Host) -> Outcome:
    """An idle CPU must be kicked awake, which in a guest takes an exit to the hypervisor on both
    sides."""
    cost = host.cost_ns("futex_cross_cpu")
    shown = format_quantity(cost, "ns")
    if cost <= _KICK_LIMIT_NS:
        return Pass(f"{shown} there and back")
    return Issue(
        f"A round trip between two CPUs takes {shown}.",
        Fix(
            privilege=None,
        ),
    )


@check(
    "MINOR_FAULTS",
    "The target faults pages in while it runs",
    Severity.MEDIUM,
    Area.MEMORY,
    rule="minor faults of the target times the measured cost of one > 0.1 % of the time",
    source="judgement; measured: 1.5 us a fault, 4.2 us at p99",
    solution="Touch buffers before the hot phase and keep freed memory (MALLOC_TRIM_THRESHOLD_=-1 MALLOC_MMAP_MAX_=0).",
    impact=cost_of("page_fault", PER_FAULT),
    scope=Scope.PROCESS,
    sample=process_counters,
    needs=("pid", COSTS),
)
def minor_faults(host: Host) -> Outcome:
    """Each first touch of a page enters the kernel, which finds and clears a page."""
    pid = host.target()
    change = host.change(process_counters)
    if change.after.start_ticks != change.before.start_ticks:
        return NotApplicable("the target ended during the interval")
    rate = (change.after.minor_faults - change.before.minor_faults) / change.seconds
    host.saw(f"/proc/{pid}/stat minflt, 1/s", round(rate, 1))
    if rate <= 0:
        return Pass("no page was faulted in")
    lost_ns_per_s = rate * host.cost_ns("page_fault")
    if lost_ns_per_s / 1e9 <= _FAULT_LIMIT_RATIO:
        return Pass(f"{rate:.0f} faults a second take {lost_ns_per_s / 1e9:.3%} of the time")
    return Issue(
        f"{rate:.0f} faults a second take {lost_ns_per_s / 1e9:.2%} of the time.",
        Fix(
            privilege=None,
        ),
        events_per_s=rate,
    )
