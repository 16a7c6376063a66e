"""Checks of a process's limits, memory and faults."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cfctl.diagnose.advice import Command, Fix, in_unit, run, sysctl
from cfctl.diagnose.engine import Issue, NotApplicable, Outcome, Pass, check
from cfctl.diagnose.impact import (
    BLINDS,
    OF_THE_PROGRAM,
    PER_FAULT,
    REFUSES,
    SCHEDULED_OUT,
    cost_of,
    time_lost_to,
    waiting_for,
)
from cfctl.diagnose.record import Area, Scope
from cfctl.host.processes import process_counters, status_integer
from cfctl.host.syscalls import CAP_IPC_LOCK, CAP_SYS_NICE, UNLIMITED
from cfctl.records import Severity
from cfctl.units import format_quantity

if TYPE_CHECKING:
    from cfctl.diagnose.subject import Host

_KIB: Final = 1024
_LIMITS_FILE: Final = "/etc/security/limits.d/90-cfctl.conf"


def _raise_limit(item: str, value: str) -> Fix:
    return Fix(persist=(Command(f"echo '* - {item} {value}' >> {_LIMITS_FILE}"),))


@check(
    "MEMLOCK_LIMIT",
    "Little memory may be locked",
    Severity.MEDIUM,
    Area.MEMORY,
    rule="RLIMIT_MEMLOCK < 64 MiB without CAP_IPC_LOCK",
    source="judgement",
    solution="Allow it (systemd: LimitMEMLOCK=infinity; docker: --ulimit memlock=-1).",
    impact=cost_of("page_fault", PER_FAULT),
    scope=Scope.PROCESS,
)
def memlock_limit(host: Host) -> Outcome:
    """mlockall fails, so that memory of the hot program may be reclaimed and faulted in again."""
    limit = host.limit("MEMLOCK")
    if limit == UNLIMITED or limit >= 64 << 20:
        return Pass("unlimited" if limit == UNLIMITED else format_quantity(limit, "B"))
    if host.may(CAP_IPC_LOCK, "CAP_IPC_LOCK"):
        return Pass("CAP_IPC_LOCK")
    return Issue(
        f"Only {format_quantity(limit, 'B')} may be locked.",
        _raise_limit("memlock", "unlimited"),
    )


@check(
    "FD_LIMIT",
    "Few files may be open",
    Severity.LOW,
    Area.PROCESS,
    rule="soft RLIMIT_NOFILE < 65536",
    source="judgement",
    solution="Allow more (systemd: LimitNOFILE=1048576).",
    impact=REFUSES,
    scope=Scope.PROCESS,
)
def fd_limit(host: Host) -> Outcome:
    """A program that runs out of descriptors refuses connections under load."""
    limit = host.limit("NOFILE")
    if limit == UNLIMITED or limit >= 65_536:
        return Pass("unlimited" if limit == UNLIMITED else str(limit))
    return Issue(
        f"{limit} files may be open.",
        _raise_limit("nofile", "1048576"),
    )


@check(
    "NICE_LIMIT",
    "Priorities may not be raised",
    Severity.LOW,
    Area.PROCESS,
    rule="RLIMIT_NICE is 0 without CAP_SYS_NICE",
    source="getrlimit(2)",
    solution="Allow it (systemd: LimitNICE=-20).",
    impact=time_lost_to(*SCHEDULED_OUT),
    scope=Scope.PROCESS,
)
def nice_limit(host: Host) -> Outcome:
    """A program can not put its hot thread before others."""
    limit = host.limit("NICE")
    if limit != 0 or host.may(CAP_SYS_NICE, "CAP_SYS_NICE"):
        return Pass("priorities may be raised")
    return Issue(
        "RLIMIT_NICE is 0 and there is no CAP_SYS_NICE.",
        _raise_limit("nice", "-20"),
    )


@check(
    "RTTIME_LIMIT",
    "Real-time threads are killed after a while",
    Severity.MEDIUM,
    Area.PROCESS,
    rule="RLIMIT_RTTIME is set and the policy is FIFO or RR",
    source="getrlimit(2)",
    solution="Lift the limit.",
    impact=REFUSES,
    scope=Scope.PROCESS,
)
def rttime_limit(host: Host) -> Outcome:
    """A real-time thread that does not block in time gets SIGXCPU, then SIGKILL."""
    policy = host.policy()
    if policy not in {"FIFO", "RR"}:
        return NotApplicable(f"the policy is {policy}")
    limit = host.limit("RTTIME")
    if limit == UNLIMITED:
        return Pass("unlimited")
    return Issue(
        f"A real-time thread may run {limit / 1e6:g} s without blocking.",
        run(persist=(in_unit("LimitRTTIME=infinity"),), privilege=None),
    )


@check(
    "NOT_MLOCKED",
    "The target's memory is not locked",
    Severity.LOW,
    Area.MEMORY,
    rule="VmLck of the target is 0",
    source="mlock(2)",
    solution="Call mlockall(MCL_CURRENT | MCL_FUTURE) when the program starts.",
    impact=cost_of("page_fault", PER_FAULT),
    sample=process_counters,
    scope=Scope.PROCESS,
    needs=("pid",),
)
def not_mlocked(host: Host) -> Outcome:
    """Pages may be reclaimed, and the next access waits for them."""
    pid = host.target()
    locked = host.saw(f"/proc/{pid}/status VmLck, KiB", status_integer(host.view, pid, "VmLck"))
    if locked:
        return Pass(f"{format_quantity(locked * _KIB, 'B')} are locked")
    return Issue(
        "None of its memory is locked.",
        Fix(privilege=None),
        events_per_s=host.rate(process_counters, lambda counters: counters.minor_faults),
    )


@check(
    "MAJOR_FAULTS",
    "The target waits for pages from the disk",
    Severity.HIGH,
    Area.MEMORY,
    rule="majflt rises during the interval",
    source="proc_pid_stat(5)",
    solution="Lock its memory (mlockall), and touch files and buffers before the hot phase.",
    impact=waiting_for("io"),
    scope=Scope.PROCESS,
    sample=process_counters,
    needs=("pid",),
)
def major_faults(host: Host) -> Outcome:
    """Each major fault reads from a disk: 50 us to 10 ms."""
    pid = host.target()
    change = host.change(process_counters)
    faults = change.after.major_faults - change.before.major_faults
    host.saw(f"/proc/{pid}/stat majflt", faults, f"+{faults} in {change.seconds:.1f} s")
    if change.after.start_ticks != change.before.start_ticks:
        return NotApplicable("the target ended during the interval")
    if faults <= 0:
        return Pass("no major fault during the interval")
    return Issue(
        f"{faults} major faults in {change.seconds:.1f} s.",
        Fix(privilege=None),
    )


@check(
    "RSS_TARGET",
    "The target uses much memory",
    Severity.MEDIUM,
    Area.PROCESS,
    rule="VmRSS > 100 MB",
    source="performance guide: 100 MB",
    solution="Find what allocates, and reuse buffers.",
    impact=OF_THE_PROGRAM,
    scope=Scope.PROCESS,
    needs=("pid",),
)
def rss_target(host: Host) -> Outcome:
    """A large working set does not fit the caches."""
    pid = host.target()
    rss = host.saw(f"/proc/{pid}/status VmRSS, KiB", status_integer(host.view, pid, "VmRSS")) * _KIB
    if rss <= 100e6:
        return Pass(format_quantity(rss, "B"))
    return Issue(
        f"It uses {format_quantity(rss, 'B')}.",
        Fix(privilege=None),
    )


@check(
    "PERF_ACCESS",
    "The cause of a delay can not be recorded",
    Severity.LOW,
    Area.PROCESS,
    rule="kernel.perf_event_paranoid > 2",
    source="perf_event_open(2); measured: 2 is enough to record a thread's own context switches",
    solution="Allow a program to watch itself.",
    impact=BLINDS,
)
def perf_access(host: Host) -> Outcome:
    """Without perf events a gap can be seen, but not what caused it."""
    level = host.sysctl("kernel.perf_event_paranoid")
    if level <= 2:
        return Pass(f"perf_event_paranoid {level}")
    return Issue(
        f"perf_event_paranoid is {level}.",
        sysctl("kernel.perf_event_paranoid", 1),
    )
