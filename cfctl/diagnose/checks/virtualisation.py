"""Checks of what is below and around the system: hypervisor, sandbox, control groups."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from cfctl.diagnose.advice import Command, Fix, run
from cfctl.diagnose.engine import Issue, NotApplicable, Outcome, Pass, check
from cfctl.diagnose.impact import (
    HYPERVISOR,
    SEEN_BY_CHECK,
    THROTTLED,
    cost_of,
    observed,
    stopped_by_quota,
    throttled_while_probing,
    time_lost_to,
    waiting_for,
)
from cfctl.diagnose.record import Actor, Area, Scope
from cfctl.errors import UnobservableError
from cfctl.host.cgroup import cpu_quotas, cpu_throttling, groups, memory_stalls
from cfctl.host.counters import USER_HZ, cpu_times, pressure
from cfctl.host.cpus import format_cpu_list
from cfctl.host.environment import is_gvisor
from cfctl.host.processes import status, status_integer
from cfctl.host.view import shown
from cfctl.records import Severity

if TYPE_CHECKING:
    from cfctl.diagnose.subject import Host


@check(
    "HYPERVISOR_PRESENT",
    "This is a virtual machine",
    Severity.LOW,
    Area.VIRTUALISATION,
    rule="a hypervisor is detected",
    source="CPUID flag hypervisor, DMI, device tree",
    solution="Read what is unobservable below as the host's part; for microseconds use a whole machine.",
    impact=time_lost_to(*HYPERVISOR),
    scope=Scope.MACHINE,
)
def hypervisor_present(host: Host) -> Outcome:
    """The hypervisor may stop a virtual CPU at any time, and the guest does not see it; frequency,
    sleep states, siblings and firmware interrupts are the host's affair."""
    found = host.environment.virtualisation
    if found is None:
        raise UnobservableError("nothing says whether there is a hypervisor")
    host.saw("virtualisation", found, "; ".join(host.environment.evidence[:1]) or found)
    if found == "none":
        return Pass("no hypervisor")
    return Issue(
        f"The hypervisor is {found}.",
        Fix(
            privilege=None,
        ),
        actor=Actor.INFORMATIONAL,
    )


@check(
    "CPU_STEAL",
    "The hypervisor runs others on this CPU",
    Severity.MEDIUM,
    Area.VIRTUALISATION,
    rule="steal surely > 0.1 % of a CPU's time; high > 1 %, critical > 5 %, by the lower bound",
    source="judgement; measured: 30 ms lost while steal counted 0 ticks",
    solution="Give this guest CPUs of its own (pinned, not overcommitted), or a whole machine.",
    impact=time_lost_to(*HYPERVISOR),
    scope=Scope.MACHINE,
    sample=cpu_times,
)
def cpu_steal(host: Host) -> Outcome:
    """The guest was ready to run and did not get the CPU; nothing in the guest can prevent it."""
    if host.environment.virtualisation == "none":
        return NotApplicable("no hypervisor")
    if host.environment.container == "gvisor":
        raise UnobservableError("gVisor counts no steal")
    change = host.change(cpu_times)
    ticks = {
        cpu: change.after[cpu]["steal"] - t["steal"]
        for cpu, t in change.before.items()
        if cpu in change.after
    }
    worst = max(ticks, key=lambda cpu: ticks[cpu], default=0)
    count = ticks.get(worst, 0)
    # Both samples count whole ticks: the time between them is known to one tick either way.
    tick_share = 1 / USER_HZ / change.seconds
    low, high = (max(0, count + error) * tick_share for error in (-1, 1))
    host.saw("/proc/stat steal, ticks of 10 ms", ticks, f"cpu{worst} +{count} in {change.seconds:.1f} s")
    if sum(ticks.values()) == 0:
        return Pass(f"below the resolution of 10 ms in {change.seconds:.1f} s (which is not none)")
    found = f"{low:.2%} to {high:.2%} of CPU {worst}"
    if low <= 0.001:
        return Pass(
            f"{found}: {count} ticks of 10 ms in {change.seconds:.1f} s tell no more (--interval 30s does)"
        )
    severity = Severity.CRITICAL if low > 0.05 else Severity.HIGH if low > 0.01 else None
    return Issue(
        f"{found} was stolen in {change.seconds:.1f} s.",
        Fix(privilege=None),
        severity=severity,
        observed=observed(
            count * tick_share * 1e9, f"steal of CPU {worst}, counted in ticks of 10 ms", tick_share * 1e9
        ),
    )


@check(
    "CGROUP_CPU_QUOTA",
    "A CPU quota may freeze the program",
    Severity.MEDIUM,
    Area.VIRTUALISATION,
    rule="cpu.max or cpu.cfs_quota_us is set on the group or any ancestor",
    source="kernel, Documentation/scheduler/sched-bwc.rst; kubernetes#67577",
    solution="Remove the CPU limit (Kubernetes: whole CPUs, static CPU manager; docker: --cpuset-cpus instead of --cpus).",
    impact=stopped_by_quota(),
    scope=Scope.MACHINE,
)
def cgroup_cpu_quota(host: Host) -> Outcome:
    """Once the threads together used the quota of a period, all of them stand still until the next:
    up to 100 ms, also when the machine is idle."""
    quotas = cpu_quotas(host.view, host.pid)
    for quota in quotas:
        value = "max" if quota.quota_us is None else str(quota.quota_us)
        host.saw(quota.path, quota.cpus, f"{value} {quota.period_us}")
    limited = [quota for quota in quotas if quota.cpus is not None]
    # What lies above a namespace's root limits as well and can not be seen.
    scope = "from the namespace's root down" if host.environment.is_container else "on all ancestors"
    if not limited:
        return Pass(f"no quota {scope}")
    tightest = min(limited, key=lambda quota: quota.cpus or 0.0)
    lift = "max" if tightest.path.endswith("cpu.max") else "-1"
    outside = Scope.MACHINE if host.environment.is_container else Scope.PROCESS
    return Issue(
        f"The quota is {tightest.cpus:g} CPUs per {tightest.period_us / 1000:g} ms.",
        Fix(
            (Command(f"echo {lift} > {shlex.quote(tightest.path)}", tightest.path.lstrip("/")),),
        ),
        scope=outside,
    )


@check(
    "CGROUP_CPU_THROTTLED",
    "The program was stopped for its CPU quota",
    Severity.HIGH,
    Area.VIRTUALISATION,
    rule="nr_throttled rises during the interval, or while cfctl probes in the group",
    source="kernel, Documentation/scheduler/sched-bwc.rst",
    solution="Remove or raise the CPU limit: CGROUP_CPU_QUOTA names it.",
    impact=stopped_by_quota(),
    sample=cpu_throttling,
)
def cgroup_cpu_throttled(host: Host) -> Outcome:
    """All threads of the group stood still for the rest of the period."""
    change = host.change(cpu_throttling)
    periods = change.after.periods - change.before.periods
    stopped_ns = change.after.throttled_ns - change.before.throttled_ns
    host.saw(
        "cpu.stat nr_throttled", periods, f"+{periods}, {stopped_ns / 1e6:.1f} ms in {change.seconds:.1f} s"
    )
    text = f"Stopped in {periods} periods, {stopped_ns / 1e6:.1f} ms in {change.seconds:.1f} s."
    if periods <= 0:
        # This program slept in the interval: whether a quota is short shows when it works.
        if host.pid is None and any(quota.cpus is not None for quota in cpu_quotas(host.view, None)):
            host.measured().cost_ns(THROTTLED)
        probed = throttled_while_probing(host)
        if probed is None:
            return Pass("not throttled during the interval")
        lost_ns = host.saw("cpu.stat throttled while probing, ns/s", round(probed.cost.value or 0.0))
        text = f"Stopped for {lost_ns / 1e6:.1f} ms in each second of probing, {probed.cost.sample_count} periods."
    return Issue(
        text,
        Fix(privilege=None),
        scope=Scope.MACHINE if host.environment.is_container else Scope.PROCESS,
    )


@check(
    "CGROUP_CPUSET",
    "The program's threads share one CPU",
    Severity.LOW,
    Area.VIRTUALISATION,
    rule="the cpuset of the group holds one CPU of several online, and the program has more than one thread",
    source="kernel, Documentation/admin-guide/cgroup-v2.rst, cpuset",
    solution="Give the group more CPUs (systemd: AllowedCPUs=; docker: --cpuset-cpus).",
    impact=waiting_for("cpu"),
)
def cgroup_cpuset(host: Host) -> Outcome:
    """All threads of the program take turns on one CPU, whatever else is idle."""
    names = {1: "cpuset.effective_cpus", 2: "cpuset.cpus.effective"}
    paths = [f"{group.path}/{names[group.version]}" for group in groups(host.view, host.pid, "cpuset")]
    # A group without the controller has the CPUs of the nearest ancestor with it.
    path = next(filter(host.view.exists, paths), paths[0])
    allowed = host.cpu_list(path)
    if not allowed:
        raise UnobservableError(f"/{path} names no CPU")
    if len(allowed) > 1 or host.cpu_count() == 1:
        return Pass(f"CPU {format_cpu_list(allowed)} of {host.cpu_count()} online")
    threads = host.saw("status Threads", status_integer(host.view, host.pid, "Threads"))
    if threads == 1:
        return Pass(f"one thread on CPU {format_cpu_list(allowed)}")
    return Issue(
        f"{threads} threads share CPU {format_cpu_list(allowed)}.",
        Fix(privilege=None),
        scope=Scope.MACHINE if host.environment.is_container else Scope.PROCESS,
    )


@check(
    "CGROUP_MEMORY_HIGH",
    "Allocations hit the memory limit",
    Severity.HIGH,
    Area.VIRTUALISATION,
    rule="memory.events high or max, or memory.failcnt, rises during the interval",
    source="kernel, Documentation/admin-guide/cgroup-v2.rst, memory.high",
    solution="Raise memory.high and memory.max of the group.",
    impact=waiting_for("memory"),
    sample=memory_stalls,
)
def cgroup_memory_high(host: Host) -> Outcome:
    """The kernel slows allocations down or reclaims memory before it grants them."""
    change = host.change(memory_stalls)
    rises = {name: count - change.before.get(name, 0) for name, count in change.after.items()}
    host.saw("memory events", rises, ", ".join(f"{name} +{rise}" for name, rise in rises.items()))
    total = sum(rise for rise in rises.values() if rise > 0)
    if not total:
        return Pass("the limit was not hit")
    return Issue(
        f"Allocations hit the limit {total} times in {change.seconds:.1f} s.",
        Fix(privilege=None),
        scope=Scope.MACHINE if host.environment.is_container else Scope.PROCESS,
    )


@check(
    "CGROUP_PRESSURE",
    "Tasks of the group wait for a CPU",
    Severity.MEDIUM,
    Area.VIRTUALISATION,
    rule="cpu.pressure some avg10 of the own group > 5 %",
    source="judgement; kernel, Documentation/accounting/psi.rst",
    solution="Use fewer busy threads than the group has CPUs, or give it more.",
    impact=SEEN_BY_CHECK,
    scope=Scope.PROCESS,
)
def cgroup_pressure(host: Host) -> Outcome:
    """The group has more runnable tasks than it gets CPUs."""
    own = next((group for group in groups(host.view, host.pid, "cpu") if group.version == 2), None)
    if own is None:
        return NotApplicable("control groups v1 know no pressure")
    path = f"{own.path}/cpu.pressure"
    share = host.saw(f"{shown(path)} some avg10, %", pressure(host.view, path).some_avg10)
    if share <= 5:
        return Pass(f"{share:.2f} % of the last 10 s")
    return Issue(
        f"In {share:.1f} % of the last 10 s a task of the group waited for a CPU.",
        Fix(privilege=None),
        observed=observed(share * 1e7, "PSI of the group, average over 10 s", is_bound=True),
    )


@check(
    "SANDBOX_KERNEL",
    "System calls are served by a sandbox",
    Severity.HIGH,
    Area.VIRTUALISATION,
    rule="gVisor's kernel version, or a system call > 1 us",
    source="gVisor documentation, performance guide; judgement",
    solution="Run with the host's kernel (runc) or in a small virtual machine (kata).",
    impact=cost_of("syscall", of_target=False),
    scope=Scope.MACHINE,
)
def sandbox_kernel(host: Host) -> Outcome:
    """Each system call is trapped and emulated: microseconds instead of 0.2 us."""
    host.text("proc/version")
    fix = Fix(privilege=None)
    if is_gvisor(host.view):
        return Issue("The kernel is gVisor's.", fix)
    if host.facts.measurements is not None:
        cost = host.cost_ns("syscall")
        if cost > 1000:
            return Issue(f"A system call takes {cost:.0f} ns.", fix)
    return Pass("system calls reach the kernel")


@check(
    "SECCOMP_FILTER",
    "System calls are filtered",
    Severity.LOW,
    Area.VIRTUALISATION,
    rule="seccomp mode 2; medium with more than 3 filters",
    source="kernel, Documentation/userspace-api/seccomp_filter.rst; judgement",
    solution="Use fewer filters for hot programs (docker: one profile that allows their calls first).",
    impact=cost_of("syscall", is_bound=True, of_target=False),
    scope=Scope.MACHINE,
)
def seccomp_filter(host: Host) -> Outcome:
    """Each system call first runs through every filter program."""
    mode = host.saw("status Seccomp", status_integer(host.view, host.pid, "Seccomp"))
    if mode != 2:
        return Pass("no filter")
    try:
        count: int | None = host.saw(
            "status Seccomp_filters", status_integer(host.view, host.pid, "Seccomp_filters")
        )
    except UnobservableError:
        # Older than Linux 5.9.
        count = None
    return Issue(
        f"{count or 'An unknown number of'} filter programs run on each system call.",
        Fix(
            privilege=None,
        ),
        severity=Severity.MEDIUM if count is not None and count > 3 else None,
        scope=Scope.MACHINE if host.environment.is_container else Scope.PROCESS,
    )


@check(
    "PTRACED",
    "A tracer stops the program",
    Severity.HIGH,
    Area.VIRTUALISATION,
    rule="TracerPid is not 0",
    source="ptrace(2)",
    solution="Detach the tracer.",
    impact=cost_of("syscall", is_bound=True, of_target=False),
    scope=Scope.PROCESS,
)
def ptraced(host: Host) -> Outcome:
    """A debugger or strace stops the program at each system call or signal: tens of microseconds."""
    tracer = host.saw("status TracerPid", status_integer(host.view, host.pid, "TracerPid"))
    if tracer == 0:
        return Pass("not traced")
    name = status(host.view, tracer, "Name") if host.view.exists(f"proc/{tracer}/status") else "?"
    return Issue(
        f"Process {tracer} ({name}) traces it.",
        run(f"kill -INT {tracer}", privilege=None),
    )
