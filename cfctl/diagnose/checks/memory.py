"""Checks of memory: huge pages, reclaim, swap, write-back, and what is left."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cfctl.diagnose.advice import Command, Fix, run, sysctl, write
from cfctl.diagnose.engine import Issue, Outcome, Pass, check
from cfctl.diagnose.impact import PER_FAULT, PER_SWITCH, cost_of, waiting_for
from cfctl.diagnose.record import Area, Scope
from cfctl.host.cgroup import MemoryLimit, memory_limits
from cfctl.host.counters import meminfo_kib, pressure, vmstat
from cfctl.host.view import Lack, UnreadableError
from cfctl.records import Severity
from cfctl.units import format_quantity

if TYPE_CHECKING:
    from cfctl.diagnose.subject import Change, Host

_KIB: Final = 1024
_GIB: Final = 1 << 30


def _meminfo(host: Host, name: str) -> int:
    """Return one size of /proc/meminfo, bytes."""
    sizes = meminfo_kib(host.view)
    if name not in sizes:
        raise UnreadableError(f"/proc/meminfo {name}", Lack.MISSING)
    return host.saw(f"/proc/meminfo {name}, KiB", sizes[name]) * _KIB


def _total(host: Host) -> int:
    """Return the size of the memory, bytes; raises UnreadableError for none."""
    total = _meminfo(host, "MemTotal")
    if total <= 0:
        raise UnreadableError("/proc/meminfo MemTotal", Lack.GARBAGE)
    return total


def vmstat_rise(host: Host, change: Change[dict[str, int]], *names: str) -> int:
    """Return how much some counters of /proc/vmstat rose together; raises when none of them exists.

    A name that ends with "*" stands for all counters that start with it.
    """
    rises = {
        key: value - change.before.get(key, 0)
        for key, value in change.after.items()
        if any(key == name or (name.endswith("*") and key.startswith(name[:-1])) for name in names)
    }
    if not rises:
        raise UnreadableError(f"/proc/vmstat {', '.join(names)}", Lack.MISSING)
    raw = ", ".join(f"{key} +{rise}" for key, rise in rises.items())
    host.saw("/proc/vmstat", rises, f"{raw} in {change.seconds:.1f} s")
    return sum(rises.values())


@check(
    "SWAP_ACTIVITY",
    "Memory is swapped in or out",
    Severity.HIGH,
    Area.MEMORY,
    rule="pswpin or pswpout rises during the interval",
    source="judgement",
    solution="Add memory, lock the hot program's memory (mlockall), or switch swap off.",
    impact=waiting_for("memory"),
    sample=vmstat,
)
def swap_activity(host: Host) -> Outcome:
    """A page fault waits for the disk: 50 us to 10 ms."""
    rise = vmstat_rise(host, host.change(vmstat), "pswpin", "pswpout")
    if rise <= 0:
        return Pass("no page was swapped")
    return Issue(
        f"{rise} pages were swapped during the interval.",
        run("swapoff -a"),
    )


@check(
    "SWAP_PRESENT",
    "Memory may be swapped out",
    Severity.LOW,
    Area.MEMORY,
    rule="a swap device is active; medium with vm.swappiness > 10",
    source="tuned 2.28 latency-performance: swappiness 10",
    solution="Swap less eagerly, or not at all (swapoff -a).",
    impact=waiting_for("memory"),
)
def swap_present(host: Host) -> Outcome:
    """Memory that was not used for a while may be on a disk when it is needed."""
    header, *devices = host.view.lines("proc/swaps")
    if not header.startswith("Filename"):
        raise UnreadableError("/proc/swaps", Lack.GARBAGE, "a header line was expected")
    names = [line.split()[0] for line in devices if line.split()]
    host.saw("/proc/swaps", names, ", ".join(names) or "no device")
    if not names:
        return Pass("no swap device")
    swappiness = host.sysctl("vm.swappiness")
    compressed = all("zram" in name for name in names)
    return Issue(
        f"{len(names)} swap devices are active with swappiness {swappiness}.",
        sysctl("vm.swappiness", 10),
        severity=Severity.MEDIUM if swappiness > 10 and not compressed else None,
    )


@check(
    "DIRECT_RECLAIM",
    "Programs reclaim memory themselves",
    Severity.HIGH,
    Area.MEMORY,
    rule="allocstall or compact_stall rises during the interval",
    source="kernel, Documentation/admin-guide/sysctl/vm.rst, min_free_kbytes and watermark_scale_factor",
    solution="Let the kernel start reclaiming earlier, in the background.",
    impact=waiting_for("memory"),
    sample=vmstat,
)
def direct_reclaim(host: Host) -> Outcome:
    """An allocation finds no free page and has to free or compact memory first: milliseconds."""
    rise = vmstat_rise(host, host.change(vmstat), "allocstall*", "compact_stall")
    if rise <= 0:
        return Pass("no allocation had to reclaim memory")
    return Issue(
        f"{rise} allocations reclaimed memory during the interval.",
        sysctl("vm.watermark_scale_factor", 200),
    )


@check(
    "MIN_FREE_KBYTES",
    "The kernel keeps little memory free",
    Severity.LOW,
    Area.MEMORY,
    rule="vm.min_free_kbytes < 0.5 % of the memory",
    source="judgement; kernel, Documentation/admin-guide/sysctl/vm.rst",
    solution="Keep 1 % of the memory free.",
    impact=waiting_for("memory"),
)
def min_free_kbytes(host: Host) -> Outcome:
    """A burst of allocations uses the reserve up before the background reclaim has freed more."""
    reserve = host.sysctl("vm.min_free_kbytes") * _KIB
    total = _total(host)
    if reserve >= 0.005 * total:
        return Pass(f"{reserve / total:.2%} of the memory is kept free")
    return Issue(
        f"{reserve / total:.2%} of the memory is kept free.",
        sysctl("vm.min_free_kbytes", total // 100 // _KIB),
    )


@check(
    "ZONE_RECLAIM",
    "A node reclaims before it uses another",
    Severity.MEDIUM,
    Area.MEMORY,
    rule="vm.zone_reclaim_mode is not 0",
    source="kernel, Documentation/admin-guide/sysctl/vm.rst",
    solution="Switch it off.",
    impact=waiting_for("memory"),
)
def zone_reclaim(host: Host) -> Outcome:
    """An allocation frees pages of the local node although another node has free ones."""
    if host.sysctl("vm.zone_reclaim_mode") == 0:
        return Pass("no reclaim by zone")
    return Issue("Allocations reclaim within their node.", sysctl("vm.zone_reclaim_mode", 0))


@check(
    "KSM_RUN",
    "Equal pages are merged",
    Severity.MEDIUM,
    Area.MEMORY,
    rule="ksm/run is 1",
    source="kernel, Documentation/admin-guide/mm/ksm.rst",
    solution="Stop, and split what was merged.",
    impact=cost_of("page_fault", PER_FAULT),
    sample=vmstat,
)
def ksm_run(host: Host) -> Outcome:
    """A write to a merged page faults and copies it; the scanner takes a CPU."""
    running = host.integer("sys/kernel/mm/ksm/run") == 1
    if not running:
        note = "; the host's own merging is invisible to a guest" if host.environment.is_guest else ""
        return Pass(f"pages are not merged{note}")
    return Issue(
        "The kernel merges equal pages.",
        write("sys/kernel/mm/ksm/run", 2),
        events_per_s=host.rate(vmstat, lambda counters: counters.get("cow_ksm", 0)),
    )


@check(
    "VM_STAT_INTERVAL",
    "Statistics are gathered each second on each CPU",
    Severity.LOW,
    Area.MEMORY,
    rule="vm.stat_interval < 10",
    source="tuned 2.28 realtime: 10",
    solution="Gather them every 10 s.",
    impact=cost_of("context_switch", PER_SWITCH),
)
def vm_stat_interval(host: Host) -> Outcome:
    """A kernel worker interrupts each CPU for it."""
    seconds = host.sysctl("vm.stat_interval")
    if seconds >= 10:
        return Pass(f"every {seconds} s")
    return Issue(
        f"Statistics are gathered every {seconds} s.",
        sysctl("vm.stat_interval", 10),
        # To the worker and back; what it does comes on top.
        events_per_s=2 / max(seconds, 1),
    )


@check(
    "DIRTY_LIMITS",
    "Much data may wait for write-back",
    Severity.LOW,
    Area.MEMORY,
    rule="the dirty limit > 1 GiB, medium > 4 GiB",
    source="judgement; tuned 2.28 latency-performance: 10 %",
    solution="Write back earlier and in smaller pieces.",
    impact=waiting_for("io"),
)
def dirty_limits(host: Host) -> Outcome:
    """Once the limit is reached every writer is stopped while gigabytes go to the disk: seconds."""
    limit = host.sysctl("vm.dirty_bytes")
    if limit == 0:
        limit = host.sysctl("vm.dirty_ratio") * _meminfo(host, "MemAvailable") // 100
    shown = format_quantity(limit, "B")
    if limit <= _GIB:
        return Pass(f"writers are stopped at {shown} of dirty data")
    fix = sysctl("vm.dirty_background_bytes", 64 << 20)
    return Issue(
        f"Up to {shown} may be dirty before writers are stopped.",
        fix.and_also(sysctl("vm.dirty_bytes", 256 << 20)),
        severity=Severity.MEDIUM if limit > 4 * _GIB else None,
    )


@check(
    "OOM_KILLS",
    "The kernel killed processes for memory",
    Severity.MEDIUM,
    Area.MEMORY,
    rule="oom_kill > 0 since boot; high when it rises during the interval",
    source="kernel, Documentation/admin-guide/mm/concepts.rst, OOM killer",
    solution="Add memory, or raise the memory limit of what was killed.",
    impact=waiting_for("memory"),
    sample=vmstat,
)
def oom_kills(host: Host) -> Outcome:
    """Memory ran out: before a kill every allocation waits for reclaim, for seconds."""
    counters = vmstat(host.view)
    if "oom_kill" not in counters:
        raise UnreadableError("/proc/vmstat oom_kill", Lack.MISSING)
    count = host.saw("/proc/vmstat oom_kill", counters["oom_kill"])
    if count == 0:
        return Pass("none since boot")
    return Issue(
        f"{count} process{' was' if count == 1 else 'es were'} killed since boot.",
        Fix(
            (Command("dmesg | grep -i 'killed process'"),),
        ),
        severity=_rising(host, "oom_kill"),
    )


def _rising(host: Host, name: str) -> Severity | None:
    if not host.has_interval:
        return None
    change = host.change(vmstat)
    return Severity.HIGH if change.after.get(name, 0) > change.before.get(name, 0) else None


@check(
    "MEMORY_PRESSURE",
    "Programs wait for memory",
    Severity.MEDIUM,
    Area.MEMORY,
    rule="PSI memory some avg10 > 0.1 %; high when full > 0",
    source="judgement; kernel, Documentation/accounting/psi.rst",
    solution="Add memory, or lower what others may use.",
    impact=waiting_for("memory"),
)
def memory_pressure(host: Host) -> Outcome:
    """Tasks stand still while pages are reclaimed or read back."""
    found = pressure(host.view, "proc/pressure/memory")
    host.saw("/proc/pressure/memory some avg10, %", found.some_avg10)
    if found.some_avg10 <= 0.1:
        return Pass(f"{found.some_avg10:.2f} % of the last 10 s")
    return Issue(
        f"In {found.some_avg10:.2f} % of the last 10 s a task waited for memory.",
        Fix(privilege=None),
        severity=Severity.HIGH if found.full_avg10 else None,
    )


@check(
    "MEMORY_LOW",
    "Memory is nearly used up",
    Severity.MEDIUM,
    Area.MEMORY,
    rule="available < 10 % of the memory, or of what a control group of the program may use; high < 5 %",
    source="judgement; kernel, Documentation/admin-guide/cgroup-v2.rst, memory.max",
    solution="Add memory, or stop what uses it.",
    impact=waiting_for("memory"),
)
def memory_low(host: Host) -> Outcome:
    """Soon allocations will wait for reclaim."""
    total, available = _total(host), _meminfo(host, "MemAvailable")
    share, size, whose = available / total, total, ""
    for limit in _limits(host, total):
        host.saw(
            f"{limit.path}, bytes", limit.limit_bytes, f"{limit.used_bytes} of {limit.limit_bytes} in use"
        )
        left = max(0.0, 1 - limit.used_bytes / limit.limit_bytes)
        if left < share:
            share, size, whose = left, limit.limit_bytes, " that the control group may use"
    if share >= 0.1:
        return Pass(f"{share:.0%} of {format_quantity(size, 'B')}{whose} is available")
    return Issue(
        f"{share:.1%} of {format_quantity(size, 'B')}{whose} is available.",
        Fix(
            (Command("ps -eo rss,pid,comm --sort=-rss | head"),),
            privilege=None,
        ),
        severity=Severity.HIGH if share < 0.05 else None,
    )


def _limits(host: Host, total: int) -> list[MemoryLimit]:
    """Return the limits of the control groups that are below the size of the memory."""
    try:
        found = memory_limits(host.view, host.pid)
    except UnreadableError:
        # The host's own memory is known.
        return []
    return [limit for limit in found if 0 < limit.limit_bytes < total]


@check(
    "RAM_SIZE",
    "There is little memory",
    Severity.LOW,
    Area.MEMORY,
    rule="MemTotal < 8 GB less what the kernel takes at boot (5 %)",
    source="performance guide: 8 GB or more",
    solution="Give this system 8 GB or more.",
    impact=waiting_for("memory"),
    scope=Scope.MACHINE,
)
def ram_size(host: Host) -> Outcome:
    """Buffers and caches of a latency-bound program compete for it."""
    total = _meminfo(host, "MemTotal")
    if total >= 0.95 * 8e9:
        return Pass(format_quantity(total, "B"))
    return Issue(f"The memory is {format_quantity(total, 'B')}.", Fix(privilege=None))
