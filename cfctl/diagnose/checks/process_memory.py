"""Checks of a process's memory as the kernel sees it: growth, size, pages and faults."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from cfctl.alloc.growth import GrowthVerdict, growth
from cfctl.diagnose.advice import Fix, run
from cfctl.diagnose.engine import Issue, Outcome, Pass, check
from cfctl.diagnose.impact import NOT_YET, OF_THE_PROGRAM, SPACE, not_measurable
from cfctl.diagnose.record import Area, Scope
from cfctl.errors import UnobservableError
from cfctl.host.processes import process_counters, status_integer
from cfctl.host.view import Lack, UnreadableError, integer_in
from cfctl.records import Severity
from cfctl.units import format_quantity

if TYPE_CHECKING:
    from cfctl.diagnose.subject import Host

_KIB: Final = 1024
_MIB: Final = 1 << 20
RSS_TARGET_BYTES: Final = 100_000_000
_NO_PROBES: Final = not_measurable(
    "a diagnosis of memory runs no probes: see MINOR_FAULTS and MAJOR_FAULTS of latency"
)
# The kernel's counters of resident pages are kept by CPU and joined in batches.
_RSS_RESOLUTION_BYTES: Final = 512 << 10
_HUGE_PAGES_PAY_BYTES: Final = 256 * _MIB
_MINOR_FAULTS_PER_S: Final = 10_000
# glibc, malloc/arena.c: HEAP_MAX_SIZE is 64 MiB on 64 bit, and a heap is aligned to its size.
_ARENA_BYTES: Final = 64 * _MIB
_ARENAS_PER_CPU: Final = 2
_MAPPING: Final = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S{4}) \S+ \S+ (\d+)")


def process_of(host: Host) -> int:
    """Return the pid of the process that is diagnosed; raises when there is none to be looked at."""
    if host.pid is not None:
        return host.pid
    raise UnobservableError(f"no process is looked at: {host.live().reason}")


def _status_bytes(host: Host, name: str) -> int:
    pid = process_of(host)
    return host.saw(f"/proc/{pid}/status {name}, KiB", status_integer(host.view, pid, name)) * _KIB


def _rollup_bytes(host: Host, *names: str) -> tuple[int, ...]:
    """Return sizes of /proc/PID/smaps_rollup; raises UnreadableError, for another user's process too."""
    path = f"proc/{process_of(host)}/smaps_rollup"
    fields = host.view.fields(path, ":")
    found = []
    for name in names:
        if name not in fields:
            raise UnreadableError(f"/{path} {name}", Lack.MISSING)
        kib = integer_in(path, fields[name].removesuffix("kB").strip())
        found.append(host.saw(f"/{path} {name}, KiB", kib) * _KIB)
    return tuple(found)


def size(value: float) -> str:
    """Return bytes as words."""
    return format_quantity(value, "B")


@check(
    "MEM_GROWTH",
    "The resident memory grows",
    Severity.HIGH,
    Area.PROCESS_MEMORY,
    rule="the 95 % interval of the slope of VmRSS is above 0 in the whole and the second half, and above 1 % of it",
    source="slope: Theil (1950), Sen (1968); its interval: Hamed and Rao (1998)",
    solution=(
        "Find what is kept: count it by cfctl alloc run, find the place by memray, and look for cycles by "
        "cfctl.diagnose.memory.cycles()."
    ),
    impact=NOT_YET,
    scope=Scope.PROCESS,
    needs=("pid", "interval"),
)
def mem_growth(host: Host) -> Outcome:
    """What is never given back ends in swap, or in the kernel's out-of-memory killer."""
    pid = process_of(host)
    live = host.live()
    if not live.course:
        raise UnobservableError("needs an interval: run with --duration")
    found = growth(live.course, live.course_ns, _RSS_RESOLUTION_BYTES)
    if found.slope is None or found.interval is None:
        raise UnobservableError(
            f"inconclusive: {found.observed_ns / 1e9:.2g} s are too short, give --duration"
        )
    low, high = found.interval
    slope = f"{_rate(found.slope)} (95 % interval {_rate(low)} to {_rate(high)})"
    host.saw(f"/proc/{pid}/status VmRSS, {len(live.course)} readings", slope)
    if found.verdict is GrowthVerdict.STEADY:
        return Pass(f"steady: {slope}")
    if found.verdict is GrowthVerdict.INCONCLUSIVE:
        raise UnobservableError(f"inconclusive: {found.reason}; slope {slope}")
    return Issue(
        f"It grows by {slope}.",
        Fix(privilege=None),
    )  # fmt: skip


def _rate(bytes_per_s: float) -> str:
    sign = "-" if bytes_per_s < 0 else ""
    return f"{sign}{size(abs(bytes_per_s))}/s"


@check(
    "MEM_RSS_TARGET",
    "The process is larger than the target",
    Severity.MEDIUM,
    Area.PROCESS_MEMORY,
    rule="VmRSS > 100 MB; high above 1 GB",
    source="the performance guide: less than 100 MB baseline",
    solution="See what takes it: cfctl alloc run -- COMMAND, by place with memray.",
    impact=SPACE,
    scope=Scope.PROCESS,
    needs=("pid",),
)
def mem_rss_target(host: Host) -> Outcome:
    """What does not fit the caches and the TLB costs a miss at each use."""
    resident = _status_bytes(host, "VmRSS")
    peak = _status_bytes(host, "VmHWM")
    if resident <= RSS_TARGET_BYTES:
        return Pass(f"{size(resident)} resident, {size(peak)} at most")
    return Issue(
        f"{size(resident)} are resident, {size(peak)} at most.",
        Fix(privilege=None),
        severity=Severity.HIGH if resident > 10 * RSS_TARGET_BYTES else None,
    )


@check(
    "MEM_SWAPPED",
    "Parts of the process are swapped out",
    Severity.HIGH,
    Area.PROCESS_MEMORY,
    rule="VmSwap > 0",
    source="judgement",
    solution="Lock the memory of the hot program (mlockall), or give the machine more of it.",
    impact=NOT_YET,
    scope=Scope.PROCESS,
    needs=("pid",),
)
def mem_swapped(host: Host) -> Outcome:
    """The next use of such a page waits for the disk: 50 us to 10 ms."""
    swapped = _status_bytes(host, "VmSwap")
    if swapped == 0:
        return Pass("nothing is swapped out")
    return Issue(
        f"{size(swapped)} are swapped out.",
        Fix(privilege=None),
    )


@check(
    "MEM_MAJOR_FAULTS",
    "The process waits for pages from the disk",
    Severity.HIGH,
    Area.PROCESS_MEMORY,
    rule="majflt rises during the interval",
    source="proc_pid_stat(5); judgement",
    solution="Touch all memory at the start and lock it: mlockall(MCL_CURRENT | MCL_FUTURE).",
    impact=_NO_PROBES,
    scope=Scope.PROCESS,
    sample=process_counters,
    needs=("pid",),
)
def mem_major_faults(host: Host) -> Outcome:
    """A major fault reads a page of the program or of swap from the disk: 50 us to 10 ms."""
    pid = process_of(host)
    change = host.change(process_counters)
    rise = host.saw(f"/proc/{pid}/stat majflt", change.after.major_faults - change.before.major_faults)
    if rise <= 0:
        return Pass("no page came from the disk")
    return Issue(
        f"{rise} pages came from the disk in {change.seconds:.1f} s.",
        Fix(privilege=None),
    )


@check(
    "MEM_MINOR_FAULTS",
    "The process takes many page faults",
    Severity.MEDIUM,
    Area.PROCESS_MEMORY,
    rule=f"minflt rises by more than {_MINOR_FAULTS_PER_S} a second",
    source="judgement: 1 % of the time at 1 us a fault",
    solution="Use large buffers again (cfctl.BufferPool) or let malloc keep them instead of giving them back.",
    impact=_NO_PROBES,
    scope=Scope.PROCESS,
    sample=process_counters,
    needs=("pid",),
)
def mem_minor_faults(host: Host) -> Outcome:
    """Each first touch of a page enters the kernel: 0.1 to 1 us, more in a guest."""
    pid = process_of(host)
    change = host.change(process_counters)
    rise = host.saw(f"/proc/{pid}/stat minflt", change.after.minor_faults - change.before.minor_faults)
    rate = rise / change.seconds
    if rate <= _MINOR_FAULTS_PER_S:
        return Pass(f"{rate:.0f} faults a second")
    return Issue(
        f"{rate:.0f} page faults a second.",
        run("export MALLOC_TRIM_THRESHOLD_=1073741824 MALLOC_MMAP_THRESHOLD_=1073741824", privilege=None),
    )


@check(
    "MEM_HUGE_PAGES",
    "A large process uses no huge pages",
    Severity.LOW,
    Area.PROCESS_MEMORY,
    rule=f"Anonymous > {_HUGE_PAGES_PAY_BYTES // _MIB} MiB and AnonHugePages < 10 % of it",
    source="kernel, Documentation/admin-guide/mm/transhuge.rst; glibc tunables manual, glibc.malloc.hugetlb; judgement",
    solution="Let malloc ask for huge pages (glibc 2.35 and later), or madvise(MADV_HUGEPAGE) large regions.",
    impact=OF_THE_PROGRAM,
    scope=Scope.PROCESS,
    needs=("pid",),
)
def mem_huge_pages(host: Host) -> Outcome:
    """With pages of 4 KiB the TLB covers some MiB only; beyond, each access may walk the page tables."""
    anonymous, huge = _rollup_bytes(host, "Anonymous", "AnonHugePages")
    if anonymous <= _HUGE_PAGES_PAY_BYTES:
        return Pass(f"{size(anonymous)} of anonymous memory need none")
    if huge >= 0.1 * anonymous:
        return Pass(f"{huge / anonymous:.0%} of {size(anonymous)} are huge pages")
    return Issue(
        f"{huge / anonymous:.0%} of {size(anonymous)} are huge pages.",
        run("export GLIBC_TUNABLES=glibc.malloc.hugetlb=1", privilege=None),
    )


@check(
    "MEM_ARENAS",
    "malloc spreads over many arenas",
    Severity.MEDIUM,
    Area.PROCESS_MEMORY,
    rule=f"more than {_ARENAS_PER_CPU} arenas of 64 MiB for each CPU",
    source="mallopt(3), M_ARENA_MAX: 8 for each CPU by default; glibc, malloc/arena.c",
    solution="Limit the arenas, or use an allocator that shares between threads (jemalloc, mimalloc).",
    impact=SPACE,
    scope=Scope.PROCESS,
    needs=("pid",),
)
def mem_arenas(host: Host) -> Outcome:
    """Each arena keeps free memory of its own, which no other thread gets: fragmentation and RSS."""
    pid = process_of(host)
    count = host.saw(f"/proc/{pid}/maps, regions of 64 MiB at multiples of 64 MiB", _arenas(host, pid))
    limit = _ARENAS_PER_CPU * host.cpu_count()
    if count <= limit:
        return Pass(f"{count} arenas beside the main one")
    return Issue(
        f"{count} arenas beside the main one on {host.cpu_count()} CPUs.",
        run("export MALLOC_ARENA_MAX=2", privilege=None),
    )


def _arenas(host: Host, pid: int) -> int:
    """Return how many aligned regions look like an arena's heap: its used part and the rest kept back."""
    path = f"proc/{pid}/maps"
    mappings = []
    for line in host.view.lines(path):
        match = _MAPPING.match(line)
        if match is None:
            raise UnreadableError(f"/{path}", Lack.GARBAGE, "mappings as of proc_pid_maps(5) were expected")
        # Without an inode: anonymous memory.
        if match[4] == "0":
            mappings.append((int(match[1], 16), int(match[2], 16), match[3]))
    ends = {start: (end, mode) for start, end, mode in mappings}
    count = 0
    for start, end, mode in mappings:
        if start % _ARENA_BYTES or not mode.startswith("rw"):
            continue
        rest = ends.get(end)
        whole = end - start == _ARENA_BYTES
        count += whole or (rest is not None and rest[1].startswith("---") and rest[0] == start + _ARENA_BYTES)
    return count


def resident_anonymous(host: Host) -> int:
    """Return the anonymous resident memory of the process, bytes."""
    return _status_bytes(host, "RssAnon")
