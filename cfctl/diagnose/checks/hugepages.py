"""Checks of huge pages: what they cost where nobody asked for them, and where they lack."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cfctl.diagnose.advice import sysctl, write
from cfctl.diagnose.checks.memory import vmstat_rise
from cfctl.diagnose.engine import Issue, NotApplicable, Outcome, Pass, check
from cfctl.diagnose.impact import HUGE_FAULT, OF_THE_PROGRAM, PER_FAULT, cost_of, waiting_for
from cfctl.diagnose.record import Area
from cfctl.host.counters import vmstat
from cfctl.host.processes import status_integer
from cfctl.records import Severity
from cfctl.units import format_quantity

if TYPE_CHECKING:
    from cfctl.diagnose.subject import Host

_THP: Final = "sys/kernel/mm/transparent_hugepage"
_KIB: Final = 1024


@check(
    "THP_ALWAYS",
    "Transparent huge pages are always on",
    Severity.MEDIUM,
    Area.MEMORY,
    rule="transparent_hugepage/enabled is always",
    source="tuned 2.28 network-latency: never",
    solution="Use huge pages only where a program asks for them.",
    impact=cost_of(HUGE_FAULT, PER_FAULT, less="page_fault"),
)
def thp_always(host: Host) -> Outcome:
    """A page fault may clear or assemble 2 MiB instead of 4 KiB, and khugepaged copies memory under
    a lock the program waits for."""
    if host.choice(f"{_THP}/enabled") != "always":
        return Pass("huge pages only where a program asks for them")
    return Issue(
        "Huge pages are used everywhere.",
        write(f"{_THP}/enabled", "madvise",
              "transparent_hugepage=madvise"),
    )  # fmt: skip


@check(
    "THP_DEFRAG",
    "A page fault may wait for compaction",
    Severity.HIGH,
    Area.MEMORY,
    rule="transparent_hugepage/defrag is always; medium: defer+madvise with huge pages always on",
    source="kernel, Documentation/admin-guide/mm/transhuge.rst",
    solution="Compact in the background only.",
    impact=cost_of(HUGE_FAULT, PER_FAULT, less="page_fault"),
)
def thp_defrag(host: Host) -> Outcome:
    """The fault compacts memory itself until a huge page is free: milliseconds."""
    mode = host.choice(f"{_THP}/defrag")
    enabled = host.choice(f"{_THP}/enabled")
    if enabled == "never" or mode not in {"always", "defer+madvise"}:
        return Pass(f"defrag {mode}, huge pages {enabled}")
    if mode == "defer+madvise" and enabled != "always":
        return Pass(f"defrag {mode}, huge pages {enabled}")
    return Issue(
        f"Page faults compact memory: defrag is {mode}.",
        write(f"{_THP}/defrag", "defer"),
        severity=Severity.MEDIUM if mode == "defer+madvise" else None,
    )


@check(
    "KHUGEPAGED",
    "khugepaged rearranges memory",
    Severity.LOW,
    Area.MEMORY,
    rule="thp_collapse_alloc rises during the interval",
    source="kernel, Documentation/admin-guide/mm/transhuge.rst",
    solution="Stop khugepaged from compacting.",
    impact=waiting_for("memory"),
    sample=vmstat,
)
def khugepaged(host: Host) -> Outcome:
    """While pages are collapsed into a huge one, the process's page faults and mappings wait."""
    rise = vmstat_rise(host, host.change(vmstat), "thp_collapse_alloc")
    if rise <= 0:
        return Pass("no pages were collapsed")
    return Issue(
        f"{rise} huge pages were assembled during the interval.",
        write(f"{_THP}/khugepaged/defrag", 0),
    )


@check(
    "COMPACTION_PROACTIVE",
    "The kernel compacts memory ahead of need",
    Severity.LOW,
    Area.MEMORY,
    rule="vm.compaction_proactiveness > 0 with reserved huge pages or huge pages always on",
    source="kernel, Documentation/admin-guide/sysctl/vm.rst, compaction_proactiveness",
    solution="Compact on demand only.",
    impact=waiting_for("memory"),
)
def compaction_proactive(host: Host) -> Outcome:
    """Pages are moved in the background; a program that touches one waits."""
    level = host.sysctl("vm.compaction_proactiveness")
    if level == 0:
        return Pass("no compaction ahead of need")
    always = host.choice(f"{_THP}/enabled") == "always"
    pools = host.view.matching("sys/kernel/mm/hugepages/hugepages-*/nr_hugepages")
    reserved = sum(host.view.integer(path) for path in pools)
    host.saw("/sys/kernel/mm/hugepages/*/nr_hugepages", reserved)
    if not always and not reserved:
        return Pass("no huge pages in use, so that nothing is compacted for them")
    return Issue(
        f"compaction_proactiveness is {level} and huge pages are in use.",
        sysctl("vm.compaction_proactiveness", 0),
    )


@check(
    "HUGEPAGES_NONE",
    "A large program runs without huge pages",
    Severity.LOW,
    Area.MEMORY,
    rule="no huge pages reserved and the target's RSS > 256 MiB",
    source="judgement",
    solution="Reserve huge pages for it.",
    impact=OF_THE_PROGRAM,
    needs=("pid",),
)
def hugepages_none(host: Host) -> Outcome:
    """Each access to memory that is far apart needs a walk of the page tables."""
    pid = host.target()
    rss = host.saw(f"/proc/{pid}/status VmRSS, KiB", status_integer(host.view, pid, "VmRSS")) * _KIB
    if rss <= 256 << 20:
        return NotApplicable(f"the target uses {format_quantity(rss, 'B')}")
    pools = host.view.matching("sys/kernel/mm/hugepages/hugepages-*/nr_hugepages")
    if not pools:
        host.view.integer("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages")
    reserved = host.saw("/sys/kernel/mm/hugepages/*/nr_hugepages", sum(host.view.integer(p) for p in pools))
    if reserved:
        return Pass(f"{reserved} huge pages are reserved")
    return Issue(
        f"The target uses {format_quantity(rss, 'B')} in small pages.",
        sysctl("vm.nr_hugepages", -(-rss // (2 << 20))),
    )
