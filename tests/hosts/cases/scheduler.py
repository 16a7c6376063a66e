from __future__ import annotations

from typing import Final

from tests.hosts.cases import CPU, HIGH, LOW, MEDIUM, Case, Host, changed, rising
from tests.hosts.cases.memory import limits

_DYNAMIC: Final = {"release": "6.8.0", "version": "#1 SMP PREEMPT_DYNAMIC", "machine": "x86_64"}
_PSI: Final = "some avg10={} avg60=0.00 avg300=0.00 total=0\n"
_CMDLINE: Final = "root=/dev/sda1 quiet\n"
_SYSCTL: Final = "proc/sys/kernel"
_OTHER: Final = {"policy": {"0": "OTHER", "4242": "OTHER"}}

CASES: Final = {
    "CPU_NOT_ISOLATED": Case(
        f"{CPU}/isolated",
        (
            changed(MEDIUM, {f"{CPU}/isolated": "\n"}),
            changed(LOW, {f"{CPU}/isolated": "(null)\n", f"{CPU}/online": "0-1\n"}),
        ),
        Host({f"{CPU}/isolated": "\n", "sys/fs/cgroup/hot/cpuset.cpus.partition": "isolated\n"}), cpus=True),
    "NOHZ_FULL_OFF": Case(
        f"{CPU}/nohz_full",
        (
            changed(MEDIUM, {f"{CPU}/nohz_full": "  (null)\n"}),
            changed(LOW, {f"{CPU}/nohz_full": "\n", f"{CPU}/online": "0-2\n"}),
            changed(MEDIUM, {"proc/config.gz": "CONFIG_HZ=250\n"}, absent=(f"{CPU}/nohz_full",)),
        ), cpus=True),
    "RCU_NOCBS_OFF": Case(
        "proc/cmdline",
        (
            changed(LOW, {"proc/cmdline": _CMDLINE}),
            changed(LOW, {"proc/cmdline": "rcu_nocbs=2-6 -- rcu_nocbs=2-7\n"}),
        ),
        Host({"proc/cmdline": "rcu_nocbs=all\n"}),
        lenient=True,
    ),
    "WORKQUEUE_MASK": Case(
        "sys/devices/virtual/workqueue/cpumask",
        (changed(LOW, {"sys/devices/virtual/workqueue/cpumask": "ff\n"}),), lenient=True),
    "WATCHDOG_NMI": Case(f"{_SYSCTL}/nmi_watchdog", (changed(LOW, {f"{_SYSCTL}/nmi_watchdog": "1\n"}),)),
    "WATCHDOG_SOFT": Case(
        f"{_SYSCTL}/watchdog",
        (
            changed(LOW, {f"{_SYSCTL}/watchdog_cpumask": "0-7\n"}),
            changed(LOW, {f"{_SYSCTL}/watchdog_cpumask": "0-7\n", f"{CPU}/isolated": "\n"}),
        ),
        Host({f"{_SYSCTL}/watchdog": "0\n", f"{_SYSCTL}/watchdog_cpumask": "0-7\n"}),
    ),
    "SKEW_TICK": Case(
        "proc/cmdline",
        (changed(LOW, {f"{CPU}/online": "0-31\n", "proc/cmdline": _CMDLINE}),),
        Host({f"{CPU}/online": "0-31\n"}),
        lenient=True,
    ),
    "KERNEL_DEBUG_BUILD": Case(
        "proc/config.gz", (changed(LOW, {"proc/config.gz": "CONFIG_KASAN=y\nCONFIG_HZ=250\n"}),)
    ),
    "KERNEL_HZ": Case(
        "proc/config.gz",
        ((LOW, Host({"proc/config.gz": "CONFIG_HZ=250\n"}, syscalls={"clock_resolution_ns": 4_000_000})),),
        Host({"proc/config.gz": "CONFIG_HZ=250\n"}),
    ),
    "PREEMPT_MODEL": Case(
        "syscalls uname",
        (
            (MEDIUM, Host({"proc/config.gz": "CONFIG_PREEMPT_NONE=y\n"}, syscalls={"uname": _DYNAMIC})),
            (MEDIUM, Host({"proc/cmdline": "preempt=voluntary\n"}, syscalls={"uname": _DYNAMIC})),
            (MEDIUM, Host({"sys/kernel/debug/sched/preempt": "(none) voluntary full\n"}, syscalls={"uname": _DYNAMIC})),
        ),
        Host({"sys/kernel/debug/sched/preempt": "none voluntary (full)\n"}, syscalls={"uname": _DYNAMIC}),
    ),
    "RT_THROTTLING": Case(
        f"{_SYSCTL}/sched_rt_runtime_us",
        (
            changed(MEDIUM, {f"{_SYSCTL}/sched_rt_runtime_us": "950000\n"}),
            (LOW, Host({f"{_SYSCTL}/sched_rt_runtime_us": "950000\n"}, syscalls=_OTHER)),
        ),
    ),
    "RT_PRIO_DENIED": Case(
        "syscalls limits",
        (
            (MEDIUM, Host(syscalls={"limits": {"RTPRIO": 0}}, pid=None)),
            changed(MEDIUM, limits(Max_realtime_priority="0")),
        ),
        Host(syscalls={"limits": {"RTPRIO": 0}, "capabilities": 1 << 23}, pid=None),
    ),
    "TIMER_SLACK": Case(
        "proc/4242/timerslack_ns",
        (
            (HIGH, Host({"proc/4242/timerslack_ns": "50000\n"}, syscalls=_OTHER)),
            (HIGH, Host(syscalls={"timer_slack_ns": 50000}, pid=None)),
        ),
        Host(syscalls=_OTHER),
    ),
    "TIMER_MIGRATION": Case(f"{_SYSCTL}/timer_migration", (changed(LOW, {f"{_SYSCTL}/timer_migration": "1\n"}),)),
    "SCHED_AUTOGROUP": Case(
        f"{_SYSCTL}/sched_autogroup_enabled", (changed(LOW, {f"{_SYSCTL}/sched_autogroup_enabled": "1\n"}),)
    ),
    "NUMA_BALANCING": Case(
        f"{_SYSCTL}/numa_balancing|sys/devices/system/node/.*",
        (changed(MEDIUM, {f"{_SYSCTL}/numa_balancing": "1\n"}),),
    ),
    "RUN_QUEUE_SATURATED": Case(
        "proc/pressure/cpu|proc/loadavg",
        (
            changed(MEDIUM, {"proc/pressure/cpu": _PSI.format("8.56")}),
            changed(HIGH, {"proc/pressure/cpu": _PSI.format("20.50")}),
            changed(MEDIUM, {"proc/loadavg": "9.0 9.0 9.0 9/300 1\n"}, absent=("proc/pressure/.*",)),
        ),
        Host(absent=("proc/pressure/.*",)),
    ),
    "RUN_DELAY": Case(
        "proc/4242/.*schedstat",
        (rising(HIGH, {"proc/4242/task/4243/schedstat": "11000000000 5000000 210\n"}),), lenient=True),
    "AFFINITY_UNPINNED": Case(
        "syscalls affinity", ((LOW, Host(syscalls={"affinity": {"0": [0], "4242": [2, 3]}})),)
    ),
    "PROC_DEPRIORITISED": Case(
        "proc/4242/stat",
        (
            (MEDIUM, Host(syscalls={"policy": {"4242": "BATCH"}})),
            (
                MEDIUM,
                Host(
                    {"proc/4242/stat": "4242 (evil) name) S 1 1 1 0 -1 0 1 0 0 0 1 1 0 0 25 5 1 0 99 1 1\n"},
                    syscalls=_OTHER,
                ),
            ),
        ),
    ),
    "SPLIT_LOCK_MITIGATE": Case(
        f"{_SYSCTL}/split_lock_mitigate", (changed(LOW, {f"{_SYSCTL}/split_lock_mitigate": "1\n"}),)
    ),
}  # fmt: skip
