"""Where threads, memory and interrupts are; tracers, counters and network devices."""

from __future__ import annotations

from typing import Final

from tests.hosts.cases import CPU, GUEST, HIGH, LOW, MEDIUM, Case, Host, changed, rising
from tests.hosts.cases.interrupts import table
from tests.hosts.cases.surroundings import V1

_HOG: Final = "901 (hog) R 1 0 0 0 -1 4194304 0 0 0 0 0 0 0 0 20 0 1 0 100 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 3 0 0 0 0 0\n"
_BUDGET: Final = "sys/fs/cgroup/cpu/pod/box/cpu.rt_runtime_us"
_CACHE: Final = "cache/index3/shared_cpu_list"
_LINK: Final = "sys/class/net/eth0"
_DISK_ON_2: Final = (
    "  CPU0 CPU1 CPU2 CPU3 CPU4 CPU5 CPU6 CPU7\n36: 1000 0 {} 0 0 0 0 0 PCI-MSI 1-edge nvme0q1\n"
)

CASES: Final = {
    "TICK_ON_ISOLATED": Case(
        "proc/interrupts",
        (rising(MEDIUM, table(LOC=(90_000, 90_000, 2100))),),
        Host(later=table(LOC=(99_000, 99_000, 110))),
    ),
    "ISOLATED_INTRUDERS": Case(
        "proc/[0-9]*/task/[0-9]*/stat",
        (
            changed(
                MEDIUM,
                {"proc/901/task/901/stat": _HOG, "proc/901/task/901/status": "Cpus_allowed_list:\t0-7\n"},
            ),
        ),
        # A program that was put there is no intruder, wherever it is from.
        Host({"proc/901/task/901/stat": _HOG, "proc/901/task/901/status": "Cpus_allowed_list:\t3\n"}),
    ),
    "RT_GROUP_BUDGET": Case(
        _BUDGET, (changed(MEDIUM, {**V1, _BUDGET: "0\n"}),), Host({**V1, _BUDGET: "950000\n"})
    ),
    "CACHE_DOMAIN_SPLIT": Case(
        f"{CPU}/cpu[0-9]/{_CACHE}",
        (
            (
                LOW,
                Host(
                    {f"{CPU}/cpu{{0-3}}/{_CACHE}": "0-3\n", f"{CPU}/cpu{{4-7}}/{_CACHE}": "4-7\n"}, pid=None
                ),
            ),
        ),
        # The target is pinned.
        Host({f"{CPU}/cpu{{0-3}}/{_CACHE}": "0-3\n", f"{CPU}/cpu{{4-7}}/{_CACHE}": "4-7\n"}),
    ),
    "NUMA_REMOTE": Case(
        "proc/4242/numa_maps",
        (changed(MEDIUM, {"proc/4242/numa_maps": "7f00 default anon=100 N0=80 N1=20\n7f01 default\n"}),),
        Host({"proc/4242/numa_maps": "7f00 default anon=100 N0=95 N1=5\n"}),
    ),
    "MALLOC_TUNABLES": Case(
        "proc/4242/environ",
        (changed(LOW, {"proc/4242/environ": "PATH=/bin\0MALLOC_ARENA_MAX=1\0"}),),
        Host({"proc/4242/environ": "GLIBC_TUNABLES=glibc.malloc.trim_threshold=-1\0"}),
        lenient=True,
    ),
    "LOG_ON_HOT_CPU": Case(
        "proc/interrupts",
        (rising(LOW, {"proc/interrupts": _DISK_ON_2.format(5)}),),
        Host(later={"proc/interrupts": _DISK_ON_2.format(0)}),
    ),
    "TRACING_ACTIVE": Case(
        "sys/kernel/tracing/current_tracer",
        (
            changed(MEDIUM, {"sys/kernel/tracing/current_tracer": "function\n"}),
            changed(MEDIUM, {"sys/kernel/tracing/set_event": "sched:sched_switch\n"}),
        ),
        lenient=True,
    ),
    "PMU_MISSING": Case(
        "sys/bus/event_source/.*",
        ((LOW, Host(GUEST, absent=("sys/bus/event_source/devices/cpu.*",))),),
    ),
    "SMI_COUNT": Case("syscalls smi_count", ((HIGH, Host(later_syscalls={"smi_count": 9})),)),
    "DISK_ROTATIONAL": Case(
        "sys/block/nvme0n1/queue/rotational",
        (changed(MEDIUM, {"sys/block/nvme0n1/queue/rotational": "1\n"}),),
    ),
    "NET_COALESCE": Case(
        "syscalls coalescing",
        (
            (MEDIUM, Host(syscalls={"coalescing": {"eth0": {"rx_us": 50, "adaptive_rx": 0}}})),
            (MEDIUM, Host(syscalls={"coalescing": {"eth0": {"rx_us": 0, "adaptive_rx": 1}}})),
        ),
    ),
    "NET_RING": Case(
        "syscalls ring",
        (
            (
                LOW,
                Host(
                    later={f"{_LINK}/statistics/rx_dropped": "9\n"},
                    syscalls={"ring": {"eth0": {"rx": 256, "rx_max": 4096}}},
                ),
            ),
        ),
        Host(syscalls={"ring": {"eth0": {"rx": 256, "rx_max": 4096}}}),
    ),
    "NET_GRO_DEFER": Case(
        f"{_LINK}/napi_defer_hard_irqs",
        (
            changed(LOW, {f"{_LINK}/napi_defer_hard_irqs": "2\n", "proc/sys/net/core/busy_poll": "0\n"}),
            changed(LOW, {f"{_LINK}/gro_flush_timeout": "20000\n", "proc/sys/net/core/busy_poll": "0\n"}),
        ),
        Host({f"{_LINK}/napi_defer_hard_irqs": "2\n"}),
    ),
    "NET_RPS_ON_TARGET": Case(
        f"{_LINK}/queues/rx-0/rps_cpus",
        (changed(LOW, {f"{_LINK}/queues/rx-0/rps_cpus": "0c\n"}),),
        lenient=True,
    ),
}
