"""Checks of where a program's threads, memory and interrupts are, beside its hot CPUs."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Final

from cfctl.diagnose.advice import Command, Fix, run
from cfctl.diagnose.engine import Issue, NotApplicable, Outcome, Pass, check
from cfctl.diagnose.impact import (
    DEVICE_IRQ,
    OF_THE_PROGRAM,
    PER_FAULT,
    PER_LINE,
    SCHEDULED_OUT,
    SLACK,
    TICK,
    cost_of,
    gain_of,
    time_lost_to,
)
from cfctl.diagnose.record import Area, Scope
from cfctl.errors import UnobservableError
from cfctl.host.cgroup import groups
from cfctl.host.counters import interrupts
from cfctl.host.cpus import format_cpu_list, parse_cpu_list
from cfctl.host.processes import require_every_process, status_integer
from cfctl.host.view import HostView, Lack, UnreadableError, garbage, integer_in, shown
from cfctl.records import Severity

if TYPE_CHECKING:
    from cfctl.diagnose.subject import Host

_NO_ISOLATED: Final = "no CPU is isolated"
# include/linux/sched.h: user space can not move such a thread.
_PF_NO_SETAFFINITY: Final = 0x04000000
# Positions after the name in parentheses. Source: proc_pid_stat(5), where flags is field 9.
_STATE, _FLAGS, _PROCESSOR = 0, 9 - 3, 39 - 3
_PAGES_ON_NODE: Final = re.compile(r"\bN(\d{1,4})=(\d{1,18})\b")
_DISK_IRQ: Final = re.compile(r"nvme|ahci|scsi|megasas|mpt\ds|virtio\d+-req|xen-blk|blkif", re.IGNORECASE)


@check(
    "TICK_ON_ISOLATED",
    "The tick runs on CPUs that should have none",
    Severity.MEDIUM,
    Area.SCHEDULER,
    rule="local timer interrupts > 10/s on a nohz_full CPU",
    source="kernel, Documentation/timers/no_hz.rst; judgement",
    solution="Leave one runnable thread on the CPU, and switch its deadline server off.",
    impact=time_lost_to(*TICK),
    sample=interrupts,
)
def tick_on_isolated(host: Host) -> Outcome:
    """A second runnable task, a POSIX CPU timer or a deadline server keeps the tick alive, which
    interrupts the busy thread each time."""
    try:
        silent = host.cpu_list("sys/devices/system/cpu/nohz_full")
    except UnreadableError as error:
        if error.lack is not Lack.MISSING:
            raise
        silent = ()
    change = host.change(interrupts)
    if not silent:
        return NotApplicable("no nohz_full CPU")
    row = next((name for name in ("LOC", "arch_timer") if name in change.after), None)
    if row is None:
        raise UnreadableError("/proc/interrupts", Lack.GARBAGE, "no row of the local timer")
    before = change.before[row].counts if row in change.before else {}
    after = change.after[row].counts
    rates = {cpu: (after[cpu] - before.get(cpu, 0)) / change.seconds for cpu in silent if cpu in after}
    worst = max(rates, key=lambda cpu: rates[cpu], default=silent[0])
    rate = host.saw(f"/proc/interrupts {row} of CPU {worst}, 1/s", round(rates.get(worst, 0.0), 1))
    if rate <= 10:
        return Pass(f"at most {rate:.1f} ticks a second on CPU {format_cpu_list(silent)}")
    return Issue(
        f"{rate:.0f} ticks a second on CPU {worst}, which is nohz_full.",
        Fix(
            (Command(f"ps -eLo psr,pid,tid,stat,comm | grep '^ *{worst} '"),
             Command(f"echo 0 > /sys/kernel/debug/sched/fair_server/cpu{worst}/runtime",
                     f"sys/kernel/debug/sched/fair_server/cpu{worst}/runtime")),
        ),
    )  # fmt: skip


@check(
    "ISOLATED_INTRUDERS",
    "Other tasks run on isolated CPUs",
    Severity.MEDIUM,
    Area.SCHEDULER,
    rule="a runnable task that may run elsewhere is on an isolated CPU",
    source="kernel, Documentation/admin-guide/kernel-per-CPU-kthreads.rst",
    solution="Move them to the other CPUs.",
    impact=time_lost_to(*SCHEDULED_OUT),
)
def isolated_intruders(host: Host) -> Outcome:
    """The hot thread takes turns with it, a time slice at a time."""
    isolated = set(host.isolated())
    if not isolated:
        return NotApplicable(_NO_ISOLATED)
    found: list[str] = []
    seen = 0
    for path in host.view.matching("proc/[0-9]*/task/[0-9]*/stat"):
        try:
            name = _intruder(host.view, path, isolated)
        except UnreadableError as error:
            if error.lack is Lack.MISSING:
                # The thread ended between the listing and the read.
                continue
            raise
        seen += 1
        if name:
            found.append(name)
    if not seen:
        raise UnreadableError("/proc/*/task/*/stat", Lack.MISSING)
    host.saw("/proc/*/task/*/stat", found[:8], f"{len(found)} of {seen} tasks")
    if not found:
        require_every_process(host.view)
        return Pass(f"none of {seen} tasks is in the way on CPU {format_cpu_list(isolated)}")
    keep = format_cpu_list(set(host.online()) - isolated) or "0"
    return Issue(
        f"On isolated CPUs run: {', '.join(found[:4])}.",
        run(*(f"taskset -cp {keep} {shlex.quote(n.split()[0])}" for n in found[:8])),
    )


def _intruder(view: HostView, path: str, isolated: set[int]) -> str:
    """Return "tid (name)" of a runnable task on an isolated CPU that may run elsewhere, else ""."""
    text = view.text(path)
    fields = text[text.rfind(")") + 1 :].split()
    if len(fields) <= _PROCESSOR:
        raise garbage(path, text, "the fields of proc_pid_stat(5)")
    cpu, flags = integer_in(path, fields[_PROCESSOR]), integer_in(path, fields[_FLAGS])
    if fields[_STATE] != "R" or cpu not in isolated or flags & _PF_NO_SETAFFINITY:
        return ""
    status_path = path.removesuffix("stat") + "status"
    allowed = view.fields(status_path, ":").get("Cpus_allowed_list", "")
    try:
        elsewhere = set(parse_cpu_list(allowed)) - isolated
    except ValueError:
        raise garbage(status_path, allowed, "a CPU list") from None
    return text[: text.rfind(")") + 1] if elsewhere else ""


@check(
    "RT_GROUP_BUDGET",
    "The control group allows no real-time threads",
    Severity.MEDIUM,
    Area.SCHEDULER,
    rule="cpu.rt_runtime_us of the own group is 0",
    source="kernel, Documentation/scheduler/sched-rt-group.rst; moby#22380",
    solution="Give the group a budget (docker: --cpu-rt-runtime=950000).",
    impact=gain_of(SLACK),
)
def rt_group_budget(host: Host) -> Outcome:
    """Setting a real-time policy fails with EPERM whatever the privileges."""
    own = groups(host.view, host.pid, "cpu")[0]
    if own.version == 2:
        return NotApplicable("control groups v2 have no real-time budget")
    path = f"{own.path}/cpu.rt_runtime_us"
    budget = host.integer(path)
    if budget != 0:
        return Pass(f"{budget} us a period")
    return Issue(
        "The group's real-time budget is 0.",
        Fix(
            (Command(f"echo 950000 > /{path}", path),),
        ),
        scope=Scope.MACHINE if host.environment.is_container else Scope.PROCESS,
    )


@check(
    "CACHE_DOMAIN_SPLIT",
    "Threads that share data share no cache",
    Severity.LOW,
    Area.CPU,
    rule="the CPUs the target may run on have more than one last-level cache",
    source="kernel, Documentation/admin-guide/cputopology.rst; judgement",
    solution="Keep threads that talk on CPUs of one cache.",
    impact=cost_of("cache_line_far", PER_LINE, less="cache_line_near"),
    scope=Scope.PROCESS,
)
def cache_domain_split(host: Host) -> Outcome:
    """A cache line takes 3 to 10 times as long between two caches as within one."""
    caches = host.of_each_cpu("cache/index3/shared_cpu_list", host.view.cpu_list)
    if not all(caches.values()):
        raise UnobservableError("a CPU's last-level cache names no CPU")
    mine = sorted({caches[cpu] for cpu in host.target_cpus()})
    if len(mine) <= 1:
        return Pass(f"one last-level cache: CPU {format_cpu_list(mine[0]) if mine else '-'}")
    pid = "PID" if host.pid is None else str(host.pid)
    return Issue(
        f"The CPUs lie in {len(mine)} last-level caches.",
        run(f"taskset -acp {format_cpu_list(mine[0])} {pid}",
            privilege=None),
    )  # fmt: skip


@check(
    "NUMA_REMOTE",
    "The target's memory is on another node",
    Severity.MEDIUM,
    Area.MEMORY,
    rule="> 10 % of the target's pages are on nodes without a CPU of the target",
    source="judgement; numa(7)",
    solution="Start it with its memory on its node, or move the pages.",
    impact=OF_THE_PROGRAM,
    scope=Scope.PROCESS,
    needs=("pid",),
)
def numa_remote(host: Host) -> Outcome:
    """An access to another node takes 1.5 to 3 times as long."""
    pid = host.target()
    path = f"proc/{pid}/numa_maps"
    pages: dict[int, int] = {}
    for line in host.view.lines(path):
        for node, count in _PAGES_ON_NODE.findall(line):
            pages[int(node)] = pages.get(int(node), 0) + int(count)
    if not pages:
        raise garbage(path, host.view.text(path), "pages by node")
    nodes = host.view.matching("sys/devices/system/node/node[0-9]*")
    if len(nodes) <= 1:
        return NotApplicable("one NUMA node")
    cpus = set(host.target_cpus())
    near = {
        int(node.rpartition("node")[2]) for node in nodes if cpus & set(host.view.cpu_list(f"{node}/cpulist"))
    }
    total = sum(pages.values())
    share = sum(count for node, count in pages.items() if node not in near) / total if total else 0.0
    host.saw(shown(path), pages, ", ".join(f"N{node}={count}" for node, count in pages.items()))
    if share <= 0.1:
        return Pass(f"{share:.1%} of {total} pages are remote")
    node = min(near, default=0)
    return Issue(
        f"{share:.0%} of its {total} pages are remote.",
        run(f"migratepages {pid} all {node}", persist=(f"numactl --cpunodebind={node} --membind={node} PROGRAM",)),
    )  # fmt: skip


@check(
    "MALLOC_TUNABLES",
    "The allocator gives memory back",
    Severity.LOW,
    Area.PROCESS,
    rule="the target locks memory, and its environment sets no trim threshold",
    source="mallopt(3), M_TRIM_THRESHOLD",
    solution="Start it with trimming off.",
    impact=cost_of("page_fault", PER_FAULT),
    scope=Scope.PROCESS,
    needs=("pid",),
)
def malloc_tunables(host: Host) -> Outcome:
    """Memory that malloc returns to the kernel is faulted in again with the next allocation."""
    pid = host.target()
    names = [entry.partition("=")[0] for entry in host.view.text(f"proc/{pid}/environ").split("\0")]
    # The names only: an environment holds secrets.
    chosen = [name for name in names if name.startswith("MALLOC_") or name == "GLIBC_TUNABLES"]
    host.saw(f"/proc/{pid}/environ", chosen, ", ".join(chosen) or "no MALLOC_* and no GLIBC_TUNABLES")
    if {"MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"} & set(chosen):
        return Pass(f"set: {', '.join(chosen)}")
    if status_integer(host.view, pid, "VmLck") == 0:
        return NotApplicable("its memory is not locked (NOT_MLOCKED)")
    return Issue(
        "Its memory is locked, and the allocator trims as usual.",
        run(persist=("MALLOC_TRIM_THRESHOLD_=-1 MALLOC_MMAP_MAX_=0 PROGRAM",),
            privilege=None),
    )  # fmt: skip


@check(
    "LOG_ON_HOT_CPU",
    "A disk interrupts the hot CPUs",
    Severity.LOW,
    Area.STORAGE,
    rule="a disk's interrupt fires on an isolated CPU, or on a target's CPU when it is pinned",
    source="kernel, Documentation/core-api/irq/irq-affinity.rst",
    solution="Move them, and log to memory (tmpfs) in hot programs.",
    impact=time_lost_to(*DEVICE_IRQ),
    sample=interrupts,
)
def log_on_hot_cpu(host: Host) -> Outcome:
    """Every block that any program writes, a log line too, comes back as an interrupt there."""
    change = host.change(interrupts)
    hot = host.hot_cpus()
    if not hot:
        return NotApplicable("no CPU is isolated and no target is pinned")
    hits = {}
    for name, row in change.after.items():
        earlier = change.before[name].counts if name in change.before else {}
        rise = sum(count - earlier.get(cpu, 0) for cpu, count in row.counts.items() if cpu in hot)
        if _DISK_IRQ.search(row.description) and rise > 0:
            hits[name] = host.saw(f"/proc/interrupts {name}", rise, f"+{rise} {row.description}")
    if not hits:
        return Pass(f"no disk interrupt on CPU {format_cpu_list(hot)}")
    keep = format_cpu_list(set(host.online()) - hot) or "0"
    return Issue(
        f"Disk interrupts {', '.join(hits)} fire on CPU {format_cpu_list(hot)}.",
        Fix(
            tuple(
                Command(f"echo {keep} > /proc/irq/{n}/smp_affinity_list", f"proc/irq/{n}")
                for n in list(hits)[:8]
            ),
        ),
    )
