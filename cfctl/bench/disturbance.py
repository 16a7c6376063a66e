"""What other programs and the hypervisor took from a benchmark's processes while it measured."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from cfctl.host.processes import run_delay
from cfctl.host.view import HostView, UnreadableError
from cfctl.records import Measurement

# From this share of a CPU on, a 99th percentile can be made of the time that was lost alone.
DISTURBED: Final = 0.01
METHOD: Final = "steal + the smaller of the time waited for a CPU and the CPU time of other programs"


def waited_ns(pids: Iterable[int], view: HostView | None = None) -> int | None:
    """Return how long the threads of processes waited for a CPU although runnable, since their start.

    None where the kernel does not tell (schedstat), or a process has ended.
    """
    seen = HostView() if view is None else view
    try:
        return sum(each.wait_ns for pid in pids for each in run_delay(seen, pid).values())
    except UnreadableError:
        return None


def lost_share(
    *, waited_ns: int | None, window_ns: int, busy_cpus: float | None, own_cpus: float | None, steal_cpus: float | None
) -> Measurement:  # fmt: skip
    """Return the CPU time lost to others per time: 1 is a whole CPU.

    `busy_cpus`: CPUs that were not idle, stolen time included; `own_cpus` of them the benchmark's. A
    process that waits for another of the same benchmark lost nothing to others, so no more is counted
    as lost than others took.
    """
    if waited_ns is None or window_ns <= 0:
        return Measurement.missing("ratio", "The kernel does not tell how long a process waited for a CPU.")
    if busy_cpus is None or own_cpus is None or steal_cpus is None:
        return Measurement.missing("ratio", "The machine's CPU time is not known.")
    others = max(0.0, busy_cpus - steal_cpus - own_cpus)
    return Measurement(steal_cpus + min(waited_ns / window_ns, others), "ratio", None, 2, METHOD)
