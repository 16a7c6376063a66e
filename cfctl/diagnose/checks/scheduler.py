"""Checks of the scheduler: preemption, priorities, timers, and how long tasks wait to run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cfctl.diagnose.advice import Command, Fix, boot, in_unit, run, sysctl
from cfctl.diagnose.engine import Issue, NotApplicable, Outcome, Pass, check
from cfctl.diagnose.impact import (
    NEEDS_OTHER_SETTING,
    OF_THE_PROGRAM,
    PER_FAULT,
    PER_WAKEUP_TAIL,
    SCHEDULED_OUT,
    SLACK,
    cost_of,
    gain_of,
    not_measurable,
    time_lost_to,
)
from cfctl.diagnose.record import Area, Scope
from cfctl.diagnose.subject import RT_POLICIES
from cfctl.errors import UnobservableError
from cfctl.host.counters import vmstat
from cfctl.host.kernel import build_options, cpu_flags
from cfctl.host.syscalls import CAP_SYS_NICE, SyscallError
from cfctl.host.view import UnreadableError
from cfctl.records import Severity

if TYPE_CHECKING:
    from cfctl.diagnose.subject import Host

_SLACK_LIMIT_NS: Final = 1_000


@check(
    "PREEMPT_MODEL",
    "Kernel code is not preempted",
    Severity.MEDIUM,
    Area.SCHEDULER,
    rule="the preemption model is none or voluntary",
    source="kernel, kernel/Kconfig.preempt",
    solution="Start the kernel with full preemption, or use a PREEMPT_RT kernel.",
    impact=cost_of("wakeup_p99", PER_WAKEUP_TAIL, less="wakeup", is_bound=True),
)
def preempt_model(host: Host) -> Outcome:
    """A task that becomes runnable waits until the kernel code running on its CPU comes to an end:
    up to milliseconds."""
    model, how = _preempt_model(host)
    host.saw(f"preemption model ({how})", model)
    if model in {"full", "lazy", "rt"}:
        return Pass(f"preemption {model} ({how})")
    return Issue(
        f"The preemption model is {model} ({how}).",
        boot("preempt=full")
        if how != "built in"
        else Fix(privilege=None, solution="Use a kernel with full preemption or PREEMPT_RT."),
    )


def _preempt_model(host: Host) -> tuple[str, str]:
    """Return (model, how it is known); raises UnobservableError when nothing says."""
    version = host.saw("uname -v", host.view.syscalls.uname().version)
    if "PREEMPT_RT" in version:
        return "rt", "built in"
    if "PREEMPT_DYNAMIC" not in version:
        return ("full" if "PREEMPT" in version else _built_model(host)), "built in"
    try:
        # "none voluntary (full)": root and debugfs only.
        text = host.view.text("sys/kernel/debug/sched/preempt")
        chosen = [word.strip("()") for word in text.split() if word.startswith("(")]
        if chosen:
            return chosen[0], "debugfs"
    except UnreadableError:
        pass
    parameter = host.parameters().get("preempt")
    if parameter in {"none", "voluntary", "full", "lazy"}:
        return parameter, "command line"
    return _built_model(host), "inferred from the build options"


def _built_model(host: Host) -> str:
    options = build_options(host.view)
    for name, model in (("PREEMPT_LAZY", "lazy"), ("PREEMPT", "full"), ("PREEMPT_VOLUNTARY", "voluntary"),
                        ("PREEMPT_NONE", "none")):  # fmt: skip
        if options.get(name) == "y":
            return model
    raise UnobservableError("the build options name no preemption model")


@check(
    "RT_THROTTLING",
    "Real-time threads are stopped for 50 ms a second",
    Severity.LOW,
    Area.SCHEDULER,
    rule="sched_rt_runtime_us is not -1; medium when the target runs FIFO or RR",
    source="tuned 2.28 realtime: -1; kernel, Documentation/scheduler/sched-rt-group.rst",
    solution="Lift the limit, if real-time threads never spin without end.",
    impact=not_measurable("only a real-time thread that never sleeps is stopped, and a diagnosis runs none"),
)
def rt_throttling(host: Host) -> Outcome:
    """A busy FIFO or RR thread is stopped for the rest of each period once it used its share, in
    one piece: 50 ms with the defaults."""
    runtime = host.sysctl("kernel.sched_rt_runtime_us")
    period = host.sysctl("kernel.sched_rt_period_us")
    if runtime == -1 or runtime >= period:
        return Pass("real-time threads are not throttled")
    is_rt = host.pid is not None and host.policy() in RT_POLICIES
    return Issue(
        f"Real-time threads may run {runtime / 1000:.0f} of {period / 1000:.0f} ms.",
        sysctl(
            "kernel.sched_rt_runtime_us", -1,
            warning="A real-time thread that spins then starves everything else on its CPU, also the shell.",
        ),
        severity=Severity.MEDIUM if is_rt else None,
    )  # fmt: skip


@check(
    "RT_PRIO_DENIED",
    "Programs may not use real-time priorities",
    Severity.MEDIUM,
    Area.SCHEDULER,
    rule="RLIMIT_RTPRIO is 0 without CAP_SYS_NICE",
    source="sched(7)",
    solution="Allow real-time priorities (systemd: LimitRTPRIO=95; docker: --ulimit rtprio=95 --cap-add sys_nice).",
    impact=gain_of(SLACK),
    scope=Scope.PROCESS,
)
def rt_prio_denied(host: Host) -> Outcome:
    """Without a real-time policy a thread shares its CPU fairly with whatever else is runnable, and
    timers add their slack."""
    limit = host.limit("RTPRIO")
    capable = host.may(CAP_SYS_NICE, "CAP_SYS_NICE")
    if limit != 0 or capable:
        return Pass("CAP_SYS_NICE" if capable else f"priorities up to {limit} are allowed")
    return Issue(
        "RLIMIT_RTPRIO is 0 and there is no CAP_SYS_NICE.",
        Fix(
            persist=(Command("echo '* - rtprio 95' > /etc/security/limits.d/90-cfctl-rtprio.conf"),),
        ),
    )


@check(
    "TIMER_SLACK",
    "Timers may fire late",
    Severity.MEDIUM,
    Area.SCHEDULER,
    rule="timer slack > 1000 ns without a real-time policy",
    source="PR_SET_TIMERSLACK(2const); measured: wake-up 84-87 us with 50 us of slack, 31 us with 1 ns",
    solution="Set the slack to 1 ns: prctl(PR_SET_TIMERSLACK, 1) in the program's hot threads.",
    impact=gain_of(SLACK),
    scope=Scope.PROCESS,
    verify="cfctl diagnose latency --only TIMER_SLACK --pid PID",
)
def timer_slack(host: Host) -> Outcome:
    """The kernel may delay every sleep and timeout by the slack, 50 us by default, to wake up less
    often: it is added to each timed wait."""
    if host.policy() in RT_POLICIES:
        return NotApplicable("the kernel ignores timer slack under a real-time policy")
    if host.pid is None:
        slack = host.asked("prctl(PR_GET_TIMERSLACK), ns", host.view.syscalls.timer_slack_ns)
    else:
        slack = host.integer(f"proc/{host.pid}/timerslack_ns")
    if slack <= _SLACK_LIMIT_NS:
        return Pass(f"timer slack {slack} ns")
    whose = "programs started here" if host.pid is None else f"process {host.pid}"
    now = () if host.pid is None else (f"echo 1 > /proc/{host.pid}/timerslack_ns",)
    return Issue(
        f"Timers of {whose} may fire {slack / 1000:g} us late.",
        run(
            *now,
            persist=(in_unit("TimerSlackNSec=1"),),
            privilege="root" if now else None,
        ),
    )


@check(
    "TIMER_MIGRATION",
    "Timers move to other CPUs",
    Severity.LOW,
    Area.SCHEDULER,
    rule="kernel.timer_migration is 1",
    source="tuned 2.28 network-latency: 0",
    solution="Keep timers where they are.",
    impact=NEEDS_OTHER_SETTING,
)
def timer_migration(host: Host) -> Outcome:
    """An idle CPU hands its timers to a busy one, whose own work delays them."""
    if host.sysctl("kernel.timer_migration") == 0:
        return Pass("timers stay on their CPU")
    return Issue("Timers may fire on another CPU.", sysctl("kernel.timer_migration", 0))


@check(
    "SCHED_AUTOGROUP",
    "Priorities count only within a session",
    Severity.LOW,
    Area.SCHEDULER,
    rule="kernel.sched_autogroup_enabled is 1",
    source="sched(7), the autogroup feature",
    solution="Switch the grouping off.",
    impact=time_lost_to(*SCHEDULED_OUT),
)
def sched_autogroup(host: Host) -> Outcome:
    """Each session gets an equal share of the CPU: the nice value of a server's threads means
    nothing against other sessions."""
    if host.sysctl("kernel.sched_autogroup_enabled") == 0:
        return Pass("no session grouping")
    return Issue(
        "Sessions are scheduled as groups.",
        sysctl("kernel.sched_autogroup_enabled", 0),
    )


@check(
    "NUMA_BALANCING",
    "The kernel moves memory between nodes",
    Severity.MEDIUM,
    Area.SCHEDULER,
    rule="kernel.numa_balancing is not 0 on more than one node",
    source="tuned 2.28 network-latency: 0; kernel, Documentation/admin-guide/sysctl/kernel.rst",
    solution="Switch balancing off and bind memory yourself.",
    impact=cost_of("page_fault", PER_FAULT),
    sample=vmstat,
)
def numa_balancing(host: Host) -> Outcome:
    """Pages are unmapped so that the next access faults, and are copied to another node: stalls of
    microseconds to milliseconds in running code."""
    if not host.topology.nodes:
        host.view.cpu_list("sys/devices/system/node/node0/cpulist")
        raise UnobservableError("no NUMA node names its CPUs")
    if len(host.topology.nodes) <= 1:
        return NotApplicable("one NUMA node")
    if host.sysctl("kernel.numa_balancing") == 0:
        return Pass("memory stays where it is")
    return Issue(
        f"Memory is balanced over {len(host.topology.nodes)} nodes.",
        sysctl("kernel.numa_balancing", 0),
        events_per_s=host.rate(vmstat, lambda counters: counters.get("numa_hint_faults", 0)),
    )


@check(
    "SPLIT_LOCK_MITIGATE",
    "A split lock stalls its task for 10 ms",
    Severity.LOW,
    Area.SCHEDULER,
    rule="kernel.split_lock_mitigate is 1 on a CPU with split_lock_detect",
    source="kernel, Documentation/admin-guide/sysctl/kernel.rst, split_lock_mitigate",
    solution="Align the program's atomics; or switch the stall off.",
    impact=OF_THE_PROGRAM,
)
def split_lock_mitigate(host: Host) -> Outcome:
    """An atomic operation across two cache lines makes the kernel stop the task on purpose."""
    flags = cpu_flags(host.view)
    if not flags:
        try:
            machine = host.view.syscalls.uname().machine
        except SyscallError:
            machine = ""
        if machine in {"", "x86_64"}:
            raise UnobservableError("/proc/cpuinfo names no flags")
    if not any("split_lock_detect" in found for found in flags.values()):
        return NotApplicable("the CPU does not detect split locks")
    if host.sysctl("kernel.split_lock_mitigate") == 0:
        return Pass("split locks are not punished")
    return Issue(
        "A task with a split lock is stalled.",
        sysctl("kernel.split_lock_mitigate", 0,
               warning="Any program can then slow the whole machine down with split locks."),
    )  # fmt: skip
