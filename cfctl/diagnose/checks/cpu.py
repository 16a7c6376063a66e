"""Checks of CPU power management and topology."""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING, Final

from cfctl.diagnose.advice import Command, Fix, boot, kernel_parameter, run, write
from cfctl.diagnose.engine import Issue, NotApplicable, Outcome, Pass, check
from cfctl.diagnose.impact import (
    IDLE,
    MIGRATION,
    PER_MIGRATION,
    PER_SECOND,
    SCHEDULED_OUT,
    SIBLING,
    cost_of,
    gain_of,
    throttled_for_heat,
    time_lost_to,
)
from cfctl.diagnose.record import Area, Scope
from cfctl.errors import UnobservableError
from cfctl.host.counters import thermal_throttles
from cfctl.host.cpus import format_cpu_list
from cfctl.host.view import UnreadableError, integer_in
from cfctl.records import Severity
from cfctl.text import safe_text

if TYPE_CHECKING:
    from cfctl.diagnose.subject import Host

_CPU: Final = "sys/devices/system/cpu"
_DMA_LATENCY: Final = "dev/cpu_dma_latency"
_EXIT_LIMIT_US: Final = 10


@check(
    "CPU_CSTATE_DEEP",
    "Idle CPUs sleep too deeply",
    Severity.HIGH,
    Area.CPU,
    rule="an enabled idle state has an exit latency > 10 us and above the PM QoS limit",
    source="tuned 2.28 latency-performance: force_latency 1 to 3 us",
    solution="Disable the deep idle states, or hold /dev/cpu_dma_latency open with 0 in it while the program runs.",
    impact=gain_of(IDLE),
)
def cpu_cstate_deep(host: Host) -> Outcome:
    """Waking from a deep sleep state takes tens to hundreds of microseconds, added to whatever woke
    the CPU."""
    limit = _latency_limit_us(host)
    deep: dict[str, int] = {}
    names = set()
    for cpu in host.target_cpus():
        states = host.view.matching(f"{_CPU}/cpu{cpu}/cpuidle/state[0-9]*")
        for state in states or [f"{_CPU}/cpu{cpu}/cpuidle/state0"]:
            if host.view.integer(f"{state}/disable"):
                continue
            name, latency = host.view.text(f"{state}/name"), host.view.integer(f"{state}/latency")
            names.add(f"{safe_text(name, 16)} {latency} us")
            allowed = min(_resume_limit_us(host, cpu), math.inf if limit is None else limit)
            if _EXIT_LIMIT_US < latency <= allowed:
                deep[state] = latency
    host.saw(f"/{_CPU}/cpu*/cpuidle/state*", sorted(names), ", ".join(sorted(names)) or "none enabled")
    if not deep:
        note = "; the host's own states are invisible to a guest" if host.environment.is_guest else ""
        return Pass(f"no enabled state takes longer than {_EXIT_LIMIT_US} us to leave{note}")
    numbers = sorted({int(state.rsplit("state", 1)[1]) for state in deep})
    intel = "intel_idle.max_cstate=1 " if host.facts.vendor == "GenuineIntel" else ""
    return Issue(
        f"Idle states with an exit latency up to {max(deep.values())} us are enabled.",
        Fix(
            tuple(
                Command(
                    f"echo 1 | tee /{_CPU}/cpu*/cpuidle/state{n}/disable",
                    f"{_CPU}/cpu0/cpuidle/state{n}/disable",
                )
                for n in numbers
            ),
            (kernel_parameter(f"{intel}processor.max_cstate=1"),),
        ),
    )


def _latency_limit_us(host: Host) -> int | None:
    """Return the limit programs hold through /dev/cpu_dma_latency, None when it can not be read."""
    try:
        data = host.view.content(_DMA_LATENCY)
    except UnreadableError:
        # Readable by root only; without it no limit is assumed.
        return None
    if len(data) != 4:
        return None
    (limit,) = struct.unpack("=i", data)
    return int(host.saw(f"/{_DMA_LATENCY}, us", limit))


def _resume_limit_us(host: Host, cpu: int) -> float:
    """Return the limit set for one CPU: 0 in the file is none, "n/a" is zero."""
    path = f"{_CPU}/cpu{cpu}/power/pm_qos_resume_latency_us"
    try:
        text = host.view.word(path)
    except UnreadableError:
        return math.inf
    if text == "n/a":
        return 0
    return integer_in(path, text) or math.inf


@check(
    "CPU_HALTPOLL_OFF",
    "Every idle wake-up costs an exit to the hypervisor",
    Severity.MEDIUM,
    Area.CPU,
    rule="guest_halt_poll_ns is 0 with the haltpoll governor",
    source="kernel, Documentation/virt/guest-halt-polling.rst; measured: wake-up 13-17 us polling, 30 us halting",
    solution="Let idle CPUs poll before they halt.",
    impact=gain_of(IDLE),
)
def cpu_haltpoll_off(host: Host) -> Outcome:
    """A guest that halts as soon as it is idle leaves the CPU to the hypervisor and needs an exit
    and an entry to come back: about 17 us for each wake-up."""
    if host.environment.virtualisation == "none":
        return NotApplicable("no hypervisor")
    governor = host.word(f"{_CPU}/cpuidle/current_governor")
    if governor != "haltpoll":
        return NotApplicable(f"the idle governor is {governor}")
    path = "sys/module/haltpoll/parameters/guest_halt_poll_ns"
    poll_ns = host.integer(path)
    if poll_ns > 0:
        return Pass(f"an idle CPU polls for {poll_ns} ns before it halts")
    return Issue(
        "An idle CPU halts at once: guest_halt_poll_ns is 0.",
        write(path, 200_000, "haltpoll.guest_halt_poll_ns=200000"),
    )


@check(
    "SMT_ACTIVE",
    "A sibling thread shares the core",
    Severity.MEDIUM,
    Area.CPU,
    rule="SMT is active and a sibling of a target CPU is online",
    source="tuned 2.28 realtime; Red Hat Enterprise Linux for Real Time, tuning guide",
    solution="Switch SMT off, or keep the siblings of the target CPUs idle.",
    impact=cost_of(SIBLING, PER_SECOND, is_bound=True),
    scope=Scope.MACHINE,
)
def smt_active(host: Host) -> Outcome:
    """Work on the sibling thread takes half of the core's execution units and evicts its caches,
    whenever it runs."""
    active = host.integer(f"{_CPU}/smt/active")
    control = host.word(f"{_CPU}/smt/control")
    if not active:
        if host.environment.is_guest and control in {"notsupported", "notimplemented"}:
            raise UnobservableError("the hypervisor shows no siblings")
        return Pass(f"SMT is {control}")
    shared = [g for g in host.topology.cores if len(g) > 1 and set(g) & set(host.target_cpus())]
    if not shared:
        if not host.topology.cores:
            raise UnobservableError("SMT is active, but thread_siblings_list can not be read")
        return Pass("no target CPU has a sibling online")
    return Issue(
        f"SMT is on: {len(shared)} cores are shared by two or more threads.",
        write(
            f"{_CPU}/smt/control",
            "off",
            "nosmt",
        ),
    )


@check(
    "CPU_THERMAL_THROTTLE",
    "The CPU slows down for heat",
    Severity.HIGH,
    Area.CPU,
    rule="a thermal throttle counter rises during the interval; low: it rose since boot",
    source="kernel, Documentation/admin-guide/thermal/intel_powerclamp.rst; Intel SDM volume 3, 15.8",
    solution="Improve cooling, raise the power limit, or limit turbo frequencies.",
    impact=throttled_for_heat(),
    scope=Scope.MACHINE,
    sample=thermal_throttles,
)
def cpu_thermal_throttle(host: Host) -> Outcome:
    """A hot CPU lowers its clock by itself, for milliseconds to seconds."""
    since_boot = sum(host.now(thermal_throttles).values())
    host.saw(f"/{_CPU}/cpu*/thermal_throttle/*_throttle_count", since_boot, f"{since_boot} since boot")
    fix = Fix(privilege=None)
    if host.has_interval:
        change = host.change(thermal_throttles)
        rise = since_boot - sum(change.before.values())
        if rise > 0:
            return Issue(f"The CPU throttled for heat {rise} times in {change.seconds:.1f} s.", fix)
    if since_boot:
        return Issue(f"The CPU throttled for heat {since_boot} times since boot.", fix, severity=Severity.LOW)
    return Pass("no thermal throttling since boot")


@check(
    "CPU_OFFLINE",
    "CPUs are switched off",
    Severity.LOW,
    Area.CPU,
    rule="a present CPU is not online",
    source="kernel, Documentation/core-api/cpu_hotplug.rst",
    solution="Switch the CPUs on.",
    impact=time_lost_to(*SCHEDULED_OUT),
)
def cpu_offline(host: Host) -> Outcome:
    """The work of the missing CPUs runs on the others."""
    present, online = host.cpu_list(f"{_CPU}/present"), host.cpu_list(f"{_CPU}/online")
    off = sorted(set(present) - set(online))
    if not present or not online:
        raise UnobservableError(f"/{_CPU}/present and online name no CPUs")
    if not off:
        return Pass(f"all {len(present)} CPUs are online")
    return Issue(
        f"CPU {format_cpu_list(off)} is offline.",
        Fix(
            tuple(
                Command(f"echo 1 > /{_CPU}/cpu{cpu}/online", f"{_CPU}/cpu{cpu}/online") for cpu in off[:16]
            ),
        ),
    )


@check(
    "CPU_TOO_FEW",
    "There are few CPUs",
    Severity.MEDIUM,
    Area.CPU,
    rule="fewer than 4 online CPUs",
    source="performance guide: 4 cores or more",
    solution="Give this system at least 4 CPUs, and isolate none before.",
    impact=time_lost_to(*SCHEDULED_OUT),
    scope=Scope.MACHINE,
)
def cpu_too_few(host: Host) -> Outcome:
    """With two or three CPUs none can be kept for one thread: interrupts, kernel threads and other
    programs run where the hot thread runs."""
    count = host.saw(f"/{_CPU}/online", host.cpu_count(), format_cpu_list(host.online()))
    if count >= 4:
        return Pass(f"{count} CPUs are online")
    return Issue(
        f"{count} CPUs are online; isolating one would starve the rest." if count > 1 else "1 CPU is online.",
        Fix(privilege=None),
    )


@check(
    "MITIGATIONS_COST",
    "Mitigations make system calls slow",
    Severity.LOW,
    Area.CPU,
    rule="a mitigation is active and a system call costs > 250 ns; medium > 300 ns",
    source="kernel, Documentation/admin-guide/hw-vuln; measured: getppid 165 ns with retpolines",
    solution="Keep them; only where no other tenant and no foreign code runs, and after review: switch them off.",
    impact=cost_of("syscall", is_bound=True),
    needs=("measurements",),
)
def mitigations_cost(host: Host) -> Outcome:
    """Guards against speculation attacks run at each entry to the kernel and each indirect call."""
    base = f"{_CPU}/vulnerabilities"
    states = {name: host.view.text(f"{base}/{name}") for name in host.view.names(base)}
    if not states:
        host.view.text(f"{base}/spectre_v2")
    active = sorted(name for name, state in states.items() if state.startswith("Mitigation"))
    host.saw(f"/{base}/*", active, f"mitigated: {', '.join(active) or 'none'}")
    if not active:
        return Pass("no mitigation is active")
    cost = host.cost_ns("syscall")
    if cost <= 250:
        return Pass(f"a system call takes {cost:.0f} ns with {len(active)} mitigations")
    return Issue(
        f"A system call takes {cost:.0f} ns with mitigations for {', '.join(active)}.",
        boot(
            "mitigations=off",
            warning="Without mitigations any program on the host may read other programs' memory.",
        ),
        severity=Severity.MEDIUM if cost > 300 else None,
    )


@check(
    "CPU_HETEROGENEOUS",
    "Fast and slow cores are mixed",
    Severity.MEDIUM,
    Area.CPU,
    rule="cpu_capacity differs among the CPUs the target may run on, or they are cores of two kinds (cpu_core, cpu_atom)",
    source="kernel, Documentation/scheduler/sched-capacity.rst; Documentation/admin-guide/pm/intel_pstate.rst",
    solution="Keep the hot threads on the fast cores.",
    impact=cost_of(MIGRATION, PER_MIGRATION, is_bound=True),
    scope=Scope.PROCESS,
)
def cpu_heterogeneous(host: Host) -> Outcome:
    """A thread that moves between fast and efficient cores changes its speed by a factor."""
    capacity = _capacities(host)
    found = {capacity[cpu] for cpu in host.target_cpus()}
    if len(found) <= 1:
        return Pass("all CPUs have the same capacity")
    fast = [cpu for cpu in host.target_cpus() if capacity[cpu] == max(found)]
    pid = "PID" if host.pid is None else str(host.pid)
    return Issue(
        f"CPU {format_cpu_list(fast)} of CPU {format_cpu_list(host.target_cpus())} are faster than the others.",
        run(
            f"taskset -acp {format_cpu_list(fast)} {pid}",
            privilege=None,
        ),
    )


def _capacities(host: Host) -> dict[int, int]:
    """Return how fast each online CPU is beside the others; of Intel's two kinds of cores 2 and 1."""
    kinds = [f"sys/devices/{name}/cpus" for name in ("cpu_atom", "cpu_core")]
    if not all(map(host.view.exists, kinds)):
        return host.of_each_cpu("cpu_capacity", host.view.integer)
    # There the capacities of like cores differ by a few percent, for the turbo frequency of each.
    found = {cpu: speed for speed, path in enumerate(kinds, 1) for cpu in host.cpu_list(path)}
    if set(host.online()) - found.keys():
        raise UnobservableError(f"/{kinds[0]} and /{kinds[1]} do not name every CPU")
    return found
