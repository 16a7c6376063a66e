"""Checks of who runs when: tasks that wait for a CPU, and what the target may do about it."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Final

from cfctl.diagnose.advice import Command, Fix, in_unit, run
from cfctl.diagnose.engine import Issue, Outcome, Pass, check
from cfctl.diagnose.impact import (
    MIGRATION,
    PER_MIGRATION,
    SEEN_BY_CHECK,
    Impact,
    cost_of,
    observed,
    waiting_for,
)
from cfctl.diagnose.record import Area, Scope
from cfctl.diagnose.subject import RT_POLICIES
from cfctl.host.cgroup import cpu_weights
from cfctl.host.counters import pressure
from cfctl.host.cpus import format_cpu_list
from cfctl.host.processes import migrations, process_counters, run_delay
from cfctl.host.view import Lack, UnreadableError, garbage, shown
from cfctl.records import Severity

if TYPE_CHECKING:
    from cfctl.diagnose.subject import Host

_WAIT_LIMIT_NS_PER_S: Final = 1e6


@check(
    "RUN_QUEUE_SATURATED",
    "Tasks wait for a CPU",
    Severity.MEDIUM,
    Area.SCHEDULER,
    rule="PSI cpu some avg10 > 5 %, high > 20 %; without PSI: more runnable tasks than CPUs",
    source="judgement; kernel, Documentation/accounting/psi.rst",
    solution="Move load away, or give the hot threads their own CPUs or a real-time policy.",
    impact=waiting_for("cpu"),
)
def run_queue_saturated(host: Host) -> Outcome:
    """More tasks want to run than there are CPUs: a thread that wakes up waits for its turn."""
    fix = run(
        "ps -eLo pcpu,psr,pid,comm --sort=-pcpu | head",
        privilege=None,
    )
    try:
        share = pressure(host.view, "proc/pressure/cpu").some_avg10
    except UnreadableError as error:
        if error.lack is Lack.GARBAGE:
            raise
        return _by_load_average(host, fix)
    host.saw("/proc/pressure/cpu some avg10, %", share)
    if share <= 5:
        return Pass(f"in {share:.2f} % of the last 10 s a task waited for a CPU")
    return Issue(
        f"In {share:.1f} % of the last 10 s a task waited for a CPU.",
        fix,
        severity=Severity.HIGH if share > 20 else None,
    )


def _by_load_average(host: Host, fix: Fix) -> Outcome:
    path = "proc/loadavg"
    fields = host.text(path).split()
    running = fields[3].split("/")[0] if len(fields) > 3 else ""
    if not (running.isascii() and running.isdecimal()):
        raise garbage(path, " ".join(fields), "running/total tasks")
    if int(running) <= host.cpu_count():
        return Pass(f"{running} runnable tasks on {host.cpu_count()} CPUs")
    return Issue(f"{running} tasks want to run on {host.cpu_count()} CPUs.", fix)


@check(
    "RUN_DELAY",
    "The target waits for a CPU",
    Severity.HIGH,
    Area.SCHEDULER,
    rule="a thread waits on the run queue for > 1 ms in each second it runs",
    source="judgement; kernel, Documentation/scheduler/sched-stats.rst",
    solution="Pin the thread to a CPU of its own, or raise its priority.",
    impact=SEEN_BY_CHECK,
    scope=Scope.PROCESS,
    sample=run_delay,
    needs=("pid",),
)
def run_delay_high(host: Host) -> Outcome:
    """The thread is ready and does not run: other tasks on its CPU come first."""
    pid = host.target()
    change = host.change(run_delay)
    worst_rate, worst_wait, worst = 0.0, 0, ""
    for path, after in change.after.items():
        before = change.before.get(path)
        if before is None:
            continue
        wait, ran = after.wait_ns - before.wait_ns, after.run_ns - before.run_ns
        # A thread that hardly ran has no rate: it is judged by the length of the interval.
        rate = wait / max(ran / 1e9, change.seconds if ran < 1e6 else 0)
        if rate > worst_rate:
            worst_rate, worst_wait, worst = rate, wait, path
    host.saw(f"/{worst or f'proc/{pid}/schedstat'}, ns waited per s of run", round(worst_rate))
    if worst_rate <= _WAIT_LIMIT_NS_PER_S:
        return Pass(f"at most {worst_rate / 1e6:.2f} ms of waiting in a second of run")
    return Issue(
        f"A thread waited {worst_wait / 1e6:.2f} ms in {change.seconds:.1f} s, {worst_rate / 1e6:.1f} ms per second of run.",
        run(f"chrt -f -p 50 {pid}"),
        observed=observed(worst_wait / change.seconds, f"run delay of /{worst}"),
    )


@check(
    "AFFINITY_UNPINNED",
    "The target may move between CPUs",
    Severity.LOW,
    Area.SCHEDULER,
    rule="the target may run on more than one CPU",
    source="judgement",
    solution="Pin its hot thread to one CPU.",
    impact=cost_of(MIGRATION, PER_MIGRATION),
    sample=migrations,
    scope=Scope.PROCESS,
    needs=("pid",),
)
def affinity_unpinned(host: Host) -> Outcome:
    """A thread that moves to another CPU finds its caches cold, and its tick counter reads differ
    by the offset of the CPUs."""
    pid = host.target()
    allowed = host.asked(f"sched_getaffinity({pid})", lambda: host.view.syscalls.affinity(pid))
    if len(allowed) == 1:
        return Pass(f"pinned to CPU {allowed[0]}")
    return Issue(
        f"Process {pid} may run on CPU {format_cpu_list(allowed)}.",
        run(f"taskset -cp {allowed[-1]} {pid}",
            persist=(in_unit(f"CPUAffinity={allowed[-1]}"),), privilege=None),
        events_per_s=host.rate(migrations, lambda count: count),
    )  # fmt: skip


@check(
    "PROC_DEPRIORITISED",
    "The target runs with a low priority",
    Severity.MEDIUM,
    Area.SCHEDULER,
    rule="policy BATCH or IDLE, a nice value above 0, or a control group of less than the usual weight (100, v1 1024)",
    source="sched(7); kernel, Documentation/admin-guide/cgroup-v2.rst, cpu.weight",
    solution="Raise its priority.",
    impact=waiting_for("cpu"),
    sample=run_delay,
    scope=Scope.PROCESS,
    needs=("pid",),
)
def proc_deprioritised(host: Host) -> Outcome:
    """Whatever else is runnable on its CPU runs first."""
    pid = host.target()
    policy = host.policy()
    nice = host.saw(f"/proc/{pid}/stat nice", process_counters(host.view, pid).nice)
    if policy not in {"BATCH", "IDLE"} and (nice <= 0 or policy in RT_POLICIES):
        return _by_weight(host, policy) or Pass(f"policy {policy}, nice {nice}")
    return Issue(
        f"Process {pid} runs with policy {policy} and nice {nice}.",
        run(f"chrt -o -p 0 {pid}", f"renice -n -5 -p {pid}"),
        observed=_waited(host),
    )


def _by_weight(host: Host, policy: str) -> Issue | None:
    """Return the issue of a group that gets less than its share when CPUs are short; None for no such group."""
    if policy in RT_POLICIES:
        return None
    try:
        weights = cpu_weights(host.view, host.pid)
    except UnreadableError:
        # Policy and nice value are known.
        return None
    light = {path: found for path, found in weights.items() if found[0] < found[1]}
    if not light:
        return None
    path, (weight, usual) = min(light.items(), key=lambda each: each[1][0] / each[1][1])
    host.saw(shown(path), weight)
    return Issue(
        f"Its control group has a weight of {weight} of {usual}.",
        run(Command(f"echo {usual} > {shlex.quote(shown(path))}", path)),
        scope=Scope.MACHINE if host.environment.is_container else Scope.PROCESS,
        observed=_waited(host),
    )


def _waited(host: Host) -> Impact | None:
    """Return how long the target's threads together waited for a CPU; None when that can not be told."""
    lost = host.rate(run_delay, lambda threads: sum(delay.wait_ns for delay in threads.values()))
    return None if lost is None else observed(lost, "run delay of the target's threads")
