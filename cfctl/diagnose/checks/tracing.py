"""Checks of instruments: tracers that slow everything, counters that are missing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cfctl.diagnose.advice import Command, Fix
from cfctl.diagnose.engine import Issue, Outcome, Pass, check
from cfctl.diagnose.impact import BLINDS, HYPERVISOR, cost_of, time_lost_to
from cfctl.diagnose.record import Area, Scope
from cfctl.errors import UnobservableError
from cfctl.host.view import HostView, Lack, UnreadableError, shown
from cfctl.records import Severity

if TYPE_CHECKING:
    from cfctl.diagnose.subject import Host

_TRACEFS: Final = ("sys/kernel/tracing", "sys/kernel/debug/tracing")
_EVENT_SOURCES: Final = "sys/bus/event_source/devices"
_CORE_PMUS: Final = ("cpu", "armv8", "armv9", "apple_")


@check(
    "TRACING_ACTIVE",
    "The kernel is being traced",
    Severity.MEDIUM,
    Area.SCHEDULER,
    rule="current_tracer is not nop, or an event is enabled",
    source="kernel, Documentation/trace/ftrace.rst",
    solution="Stop the tracing.",
    impact=cost_of("syscall", is_bound=True),
)
def tracing_active(host: Host) -> Outcome:
    """Each traced function or event costs 0.1 to 1 us wherever it happens, on every CPU."""
    base = next((path for path in _TRACEFS if host.view.exists(f"{path}/current_tracer")), _TRACEFS[0])
    tracer = host.word(f"{base}/current_tracer")
    try:
        events = host.view.lines(f"{base}/set_event")
    except UnreadableError as error:
        # An empty list is what the kernel writes for no event.
        if error.lack is not Lack.EMPTY:
            raise
        events = []
    host.saw(shown(f"{base}/set_event"), len(events), ", ".join(events[:3]) or "no event")
    if tracer == "nop" and not events:
        return Pass("no tracer and no event is on")
    return Issue(
        f"The tracer is {tracer} and {len(events)} events are on.",
        Fix(
            (
                Command(f"echo nop > /{base}/current_tracer", f"{base}/current_tracer"),
                Command(f"echo > /{base}/set_event", f"{base}/set_event"),
            ),
        ),
    )


@check(
    "PMU_MISSING",
    "The CPU's counters can not be read",
    Severity.LOW,
    Area.PROCESS,
    rule="no core PMU is registered",
    source="perf_event_open(2); kernel, Documentation/ABI/testing/sysfs-bus-event_source-devices",
    solution="Pass the PMU on to this guest (vPMU).",
    impact=BLINDS,
    scope=Scope.MACHINE,
)
def pmu_missing(host: Host) -> Outcome:
    """Without cycles and cache misses a profile can say where time goes, but not why."""
    sources = host.view.names(_EVENT_SOURCES)
    if not sources:
        raise UnreadableError(shown(_EVENT_SOURCES), Lack.MISSING)
    for name in sources:
        # A name without its number is no source that perf_event_open can be given.
        host.view.integer(f"{_EVENT_SOURCES}/{name}/type")
    host.saw(shown(_EVENT_SOURCES), sources, ", ".join(sources))
    found = [name for name in sources if name.startswith(_CORE_PMUS)]
    if found:
        return Pass(f"core PMU {found[0]}")
    return Issue("No core PMU is registered.", Fix(privilege=None))


def smi_count(view: HostView, pid: int | None = None) -> int:  # noqa: ARG001
    """Return how many system management interrupts CPU 0 has taken."""
    return view.syscalls.smi_count()


@check(
    "SMI_COUNT",
    "The firmware interrupts the CPU",
    Severity.HIGH,
    Area.INTERRUPTS,
    rule="MSR_SMI_COUNT rises during the interval",
    source="Intel SDM volume 4, MSR 34H",
    solution="Switch off USB legacy support, power capping and patrol scrub in the firmware's setup.",
    impact=time_lost_to(*HYPERVISOR),
    scope=Scope.MACHINE,
    sample=smi_count,
)
def smi(host: Host) -> Outcome:
    """A system management interrupt stops all CPUs at once, for 10 us to milliseconds, and no
    kernel sees it."""
    if host.facts.vendor is None:
        raise UnobservableError("/proc/cpuinfo names no vendor")
    host.saw("/proc/cpuinfo vendor_id", host.facts.vendor)
    if host.facts.vendor != "GenuineIntel":
        raise UnobservableError("only Intel CPUs count these interrupts in MSR 34H")
    if host.environment.is_guest:
        raise UnobservableError("a guest's MSR 34H counts none of the machine's interrupts")
    change = host.change(smi_count)
    rise = change.after - change.before
    host.saw("MSR 0x34 of CPU 0", change.after, f"+{rise} in {change.seconds:.1f} s")
    if rise <= 0:
        return Pass("none during the interval")
    return Issue(
        f"{rise} interrupts of the firmware in {change.seconds:.1f} s.",
        Fix(
            privilege=None,
        ),
    )
