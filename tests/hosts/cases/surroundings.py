"""Virtualisation, process, network and storage."""

from __future__ import annotations

from typing import Final

from tests.hosts.cases import CRITICAL, GUEST, HIGH, LOW, MEDIUM, Case, Host, changed, costs, rising
from tests.hosts.cases.memory import limits, status

_GROUP: Final = "sys/fs/cgroup/system.slice/engine.service"
_SNMP: Final = (
    "Tcp: RtoAlgorithm ActiveOpens InSegs OutSegs RetransSegs\nTcp: 1 10 101000 {sent} {again}\n"
    "Udp: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors\nUdp: {received} 0 {lost} 50000 0 0\n"
)
_PSI: Final = "some avg10={} avg60=0.00 avg300=0.00 total=0\nfull avg10={} avg60=0.00 avg300=0.00 total=0\n"
_DISK: Final = "sys/block/nvme0n1/queue"
_EVENTS: Final = "low 0\nhigh {}\nmax {}\noom 0\noom_kill 0\n"


def stat(steal: int) -> dict[str, str]:
    """Return /proc/stat of bare_tuned in which CPU 1 lost that many ticks."""
    rows = (f"cpu{n} 1000 0 100 10000 0 0 1 {steal if n == 1 else 0} 0 0\n" for n in range(8))
    return {"proc/stat": "".join(rows)}


def snmp(sent: int = 100_000, again: int = 5, received: int = 50_000, lost: int = 0) -> dict[str, str]:
    return {"proc/net/snmp": _SNMP.format(sent=sent, again=again, received=received, lost=lost)}


V1: Final = {
    "proc/4242/cgroup": "3:cpu,cpuacct:/pod/box\n",
    "proc/self/mountinfo": "31 23 0:28 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n",
    "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
    "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
    "sys/fs/cgroup/cpu/pod/cpu.cfs_quota_us": "-1\n",
    "sys/fs/cgroup/cpu/pod/cpu.cfs_period_us": "100000\n",
    "sys/fs/cgroup/cpu/pod/box/cpu.cfs_quota_us": "-1\n",
    "sys/fs/cgroup/cpu/pod/box/cpu.cfs_period_us": "100000\n",
    "sys/fs/cgroup/cpu/pod/box/cpu.stat": "nr_periods 9\nnr_throttled 0\nthrottled_time 0\n",
}

CASES: Final = {
    "HYPERVISOR_PRESENT": Case("proc/cpuinfo", (changed(LOW, GUEST),)),
    "CPU_STEAL": Case(
        "proc/stat",
        (
            (MEDIUM, Host(GUEST, stat(2))),
            (HIGH, Host(GUEST, stat(4))),
            (CRITICAL, Host(GUEST, stat(20))),
        ),
        # One tick may be a moment's steal that ended it: 0 to 20 ms.
        Host(GUEST, stat(1)),
    ),
    "CGROUP_CPU_QUOTA": Case(
        "sys/fs/cgroup/.*/cpu.max|proc/4242/cgroup",
        (
            changed(MEDIUM, {f"{_GROUP}/cpu.max": "150000 100000\n"}),
            changed(MEDIUM, {"sys/fs/cgroup/system.slice/cpu.max": "50000 100000\n"}),
            changed(MEDIUM, {**V1, "sys/fs/cgroup/cpu/pod/cpu.cfs_quota_us": "20000\n"}),
        ),
        Host(V1),
    ),
    "CGROUP_CPU_THROTTLED": Case(
        f"{_GROUP}/cpu.stat",
        (
            rising(HIGH, {f"{_GROUP}/cpu.stat": "nr_throttled 3\nthrottled_usec 90000\n"}),
            (
                HIGH,
                Host(
                    V1,
                    {"sys/fs/cgroup/cpu/pod/box/cpu.stat": "nr_throttled 1\nthrottled_time 5000\n"},
                ),
            ),
            # Asleep in the interval, stopped while it probed.
            (HIGH, Host(pid=None, measured=costs(throttled=4e8))),
        ),
    ),
    "CGROUP_CPUSET": Case(
        f"{_GROUP}/cpuset.cpus.effective", (changed(LOW, {f"{_GROUP}/cpuset.cpus.effective": "3\n"}),)
    ),
    "CGROUP_MEMORY_HIGH": Case(
        f"{_GROUP}/memory.events", (rising(HIGH, {f"{_GROUP}/memory.events": _EVENTS.format(2, 0)}),)
    ),
    "CGROUP_PRESSURE": Case(
        f"{_GROUP}/cpu.pressure", (changed(MEDIUM, {f"{_GROUP}/cpu.pressure": _PSI.format("5.10", "0.00")}),)
    ),
    "SANDBOX_KERNEL": Case(
        "proc/version",
        (
            changed(HIGH, {"proc/version": "Linux version 4.4.0 #1 SMP Sun Jan 10 15:06:54 PST 2016\n"}),
            (HIGH, Host(measured=costs(syscall=1500.0))),
        ),
        lenient=True,
    ),
    "SECCOMP_FILTER": Case(
        "proc/4242/status",
        (
            changed(LOW, status(Seccomp="2", Seccomp_filters="1")),
            changed(MEDIUM, status(Seccomp="2", Seccomp_filters="4")),
            changed(LOW, status(Seccomp="2")),
        ),
    ),
    "PTRACED": Case("proc/4242/status", (changed(HIGH, status(TracerPid="77")),)),
    "FD_LIMIT": Case(
        "syscalls limits",
        (
            (LOW, Host(syscalls={"limits": {"NOFILE": 20000}}, pid=None)),
            changed(LOW, limits(Max_open_files="1024")),
        ),
        Host(pid=None),
    ),
    "NICE_LIMIT": Case(
        "proc/4242/limits",
        (
            (LOW, Host(syscalls={"limits": {"NICE": 0}}, pid=None)),
            changed(LOW, limits(Max_nice_priority="0")),
        ),
        Host({**limits(Max_nice_priority="0"), **status(CapEff="0000000000800000")}),
    ),
    "RTTIME_LIMIT": Case("proc/4242/limits", (changed(MEDIUM, limits(Max_realtime_timeout="200000")),)),
    "RSS_TARGET": Case("proc/4242/status", (changed(MEDIUM, status(VmRSS="200000 kB")),)),
    "PERF_ACCESS": Case(
        "proc/sys/kernel/perf_event_paranoid", (changed(LOW, {"proc/sys/kernel/perf_event_paranoid": "4\n"}),)
    ),
    "NET_BUSY_POLL": Case(
        "proc/sys/net/core/busy_read",
        (
            changed(LOW, {"proc/sys/net/core/busy_read": "0\n"}),
            changed(LOW, {"proc/sys/net/core/busy_poll": "0\n"}),
        ),
    ),
    "NET_SOFTNET_DROP": Case(
        "proc/net/softnet_stat",
        (
            rising(
                HIGH, {"proc/net/softnet_stat": "00000011 0000000a 00000003\n00002a31 00000000 00000000\n"}
            ),
        ),
        lenient=True,
    ),
    "NET_TIME_SQUEEZE": Case(
        "proc/net/softnet_stat",
        (
            rising(
                MEDIUM, {"proc/net/softnet_stat": "00000011 00000000 00000013\n00002a31 00000000 00000000\n"}
            ),
        ),
        lenient=True,
    ),
    "NET_UDP_DROPS": Case(
        "proc/net/snmp",
        (rising(HIGH, snmp(received=51_000, lost=1)),),
        Host(later=snmp(received=100_000, lost=1)),
    ),
    "NET_TCP_RETRANS": Case(
        "proc/net/snmp",
        (rising(MEDIUM, snmp(sent=101_000, again=7)),),
        Host(later=snmp(sent=102_000, again=7)),
    ),
    "NET_SOCKBUF": Case(
        "proc/sys/net/core/rmem_max", (changed(LOW, {"proc/sys/net/core/rmem_max": "212992\n"}),)
    ),
    "NET_TCP_IDLE_RESTART": Case(
        "proc/sys/net/ipv4/tcp_slow_start_after_idle",
        (changed(LOW, {"proc/sys/net/ipv4/tcp_slow_start_after_idle": "1\n"}),),
    ),
    "NET_LINK_ERRORS": Case(
        "sys/class/net/.*", (rising(MEDIUM, {"sys/class/net/eth0/statistics/rx_dropped": "9\n"}),)
    ),
    "NET_LINK_SPEED": Case(
        "sys/class/net/eth0/speed", (changed(LOW, {"sys/class/net/eth0/speed": "100\n"}),)
    ),
    "IO_SCHEDULER": Case(
        "sys/block/.*",
        (changed(LOW, {f"{_DISK}/scheduler": "none mq-deadline kyber [bfq]\n"}),),
        Host({f"{_DISK}/scheduler": "none [bfq]\n", f"{_DISK}/rotational": "1\n"}),
        lenient=True,
    ),
    "IO_PRESSURE": Case(
        "proc/pressure/io",
        (
            changed(MEDIUM, {"proc/pressure/io": _PSI.format("5.10", "0.90")}),
            changed(HIGH, {"proc/pressure/io": _PSI.format("8.00", "2.00")}),
        ),
    ),
}
