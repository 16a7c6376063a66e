from __future__ import annotations

from typing import Final

from tests.hosts.cases import HIGH, LOW, MEDIUM, Case, Host, changed, rising

_THP: Final = "sys/kernel/mm/transparent_hugepage"
_PSI: Final = "some avg10={} avg60=0.00 avg300=0.00 total=0\nfull avg10={} avg60=0.00 avg300=0.00 total=0\n"
_POOL: Final = "sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"
_SWAPS: Final = "Filename\tType\tSize\tUsed\tPriority\n/dev/{}\tpartition\t100\t0\t-2\n"
_STAT: Final = "4242 (engine) S 1 1 1 0 -1 0 1500 0 {} 0 100 50 0 0 20 0 2 0 {} 1 1\n"


def vmstat(**counters: int) -> dict[str, str]:
    """Return /proc/vmstat of bare_tuned with some counters replaced."""
    base = {
        "pswpin": 0, "pswpout": 0, "oom_kill": 0, "allocstall_normal": 10, "allocstall_movable": 20,
        "compact_stall": 0, "thp_collapse_alloc": 5,
    } | counters  # fmt: skip
    return {"proc/vmstat": "".join(f"{name} {value}\n" for name, value in base.items())}


def meminfo(total: int, available: int) -> dict[str, str]:
    return {"proc/meminfo": f"MemTotal: {total} kB\nMemAvailable: {available} kB\nHugePages_Total: 0\n"}


def status(**lines: str) -> dict[str, str]:
    return {"proc/4242/status": "".join(f"{name}:\t{value}\n" for name, value in lines.items())}


def limits(**values: str) -> dict[str, str]:
    """Return /proc/4242/limits with soft limits by the names of the file."""
    return {
        "proc/4242/limits": "".join(
            f"{name.replace('_', ' ')}   {v}   {v}  x\n" for name, v in values.items()
        )
    }


CASES: Final = {
    "THP_ALWAYS": Case(
        f"{_THP}/enabled", (changed(MEDIUM, {f"{_THP}/enabled": "[always] madvise never\n"}),)
    ),
    "THP_DEFRAG": Case(
        f"{_THP}/defrag",
        (
            changed(HIGH, {f"{_THP}/defrag": "[always] defer defer+madvise madvise never\n"}),
            changed(
                MEDIUM,
                {
                    f"{_THP}/defrag": "always defer [defer+madvise] madvise never\n",
                    f"{_THP}/enabled": "[always] madvise never\n",
                },
            ),
        ),
        Host({f"{_THP}/defrag": "[always] defer\n", f"{_THP}/enabled": "always madvise [never]\n"}),
    ),
    "KHUGEPAGED": Case("proc/vmstat", (rising(LOW, vmstat(thp_collapse_alloc=6)),)),
    "SWAP_ACTIVITY": Case("proc/vmstat", (rising(HIGH, vmstat(pswpin=1)), rising(HIGH, vmstat(pswpout=1)))),
    "SWAP_PRESENT": Case(
        "proc/swaps",
        (
            changed(LOW, {"proc/swaps": _SWAPS.format("sda2")}),
            changed(MEDIUM, {"proc/swaps": _SWAPS.format("sda2"), "proc/sys/vm/swappiness": "60\n"}),
            changed(LOW, {"proc/swaps": _SWAPS.format("zram0"), "proc/sys/vm/swappiness": "60\n"}),
        ),
    ),
    "DIRECT_RECLAIM": Case(
        "proc/vmstat", (rising(HIGH, vmstat(allocstall_movable=21)), rising(HIGH, vmstat(compact_stall=1)))
    ),
    "MIN_FREE_KBYTES": Case(
        "proc/sys/vm/min_free_kbytes", (changed(LOW, {"proc/sys/vm/min_free_kbytes": "67584\n"}),)
    ),
    "COMPACTION_PROACTIVE": Case(
        "proc/sys/vm/compaction_proactiveness",
        (
            changed(LOW, {"proc/sys/vm/compaction_proactiveness": "20\n"}),
            changed(
                LOW,
                {
                    "proc/sys/vm/compaction_proactiveness": "20\n",
                    _POOL: "0\n",
                    f"{_THP}/enabled": "[always] madvise never\n",
                },
            ),
        ),
        # Without huge pages in use nothing is compacted for them.
        Host({"proc/sys/vm/compaction_proactiveness": "20\n", _POOL: "0\n"}),
    ),
    "ZONE_RECLAIM": Case(
        "proc/sys/vm/zone_reclaim_mode", (changed(MEDIUM, {"proc/sys/vm/zone_reclaim_mode": "1\n"}),)
    ),
    "KSM_RUN": Case("sys/kernel/mm/ksm/run", (changed(MEDIUM, {"sys/kernel/mm/ksm/run": "1\n"}),)),
    "VM_STAT_INTERVAL": Case(
        "proc/sys/vm/stat_interval", (changed(LOW, {"proc/sys/vm/stat_interval": "1\n"}),)
    ),
    "DIRTY_LIMITS": Case(
        "proc/sys/vm/dirty_bytes",
        (
            changed(LOW, {"proc/sys/vm/dirty_bytes": str(2 << 30)}),
            changed(MEDIUM, {"proc/sys/vm/dirty_bytes": "0\n", "proc/sys/vm/dirty_ratio": "20\n"}),
        ),
    ),
    "OOM_KILLS": Case("proc/vmstat", (changed(MEDIUM, vmstat(oom_kill=1)), rising(HIGH, vmstat(oom_kill=1)))),
    "MEMORY_PRESSURE": Case(
        "proc/pressure/memory",
        (
            changed(MEDIUM, {"proc/pressure/memory": _PSI.format("0.11", "0.00")}),
            changed(HIGH, {"proc/pressure/memory": _PSI.format("3.00", "0.50")}),
        ),
    ),
    "MEMORY_LOW": Case(
        "proc/meminfo",
        (
            changed(MEDIUM, meminfo(65_536_000, 6_000_000)),
            changed(HIGH, meminfo(65_536_000, 3_000_000)),
        ),
    ),
    "RAM_SIZE": Case("proc/meminfo", (changed(LOW, meminfo(4_000_000, 3_000_000)),)),
    "HUGEPAGES_NONE": Case(
        "proc/4242/status",
        (changed(LOW, {**status(VmRSS="300000 kB"), _POOL: "0\n"}),),
        Host(status(VmRSS="300000 kB")),
    ),
    "MEMLOCK_LIMIT": Case(
        "syscalls limits",
        (
            (MEDIUM, Host(syscalls={"limits": {"MEMLOCK": 8 << 20}}, pid=None)),
            changed(MEDIUM, limits(Max_locked_memory="8388608")),
        ),
        Host(syscalls={"limits": {"MEMLOCK": 8 << 20}, "capabilities": 1 << 14}, pid=None),
    ),
    "NOT_MLOCKED": Case("proc/4242/status", (changed(LOW, status(VmLck="0 kB")),)),
    "MAJOR_FAULTS": Case("proc/4242/stat", (rising(HIGH, {"proc/4242/stat": _STAT.format(4, 12345)}),)),
}
