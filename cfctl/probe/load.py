"""What happened to the measuring thread itself, and whether that spoils the measurement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

# Waiting for the CPU for more than this share of the time is another program's doing, not noise.
_WAITED_SHARE: Final = 1e-3
# A thread that wakes up waits a few us for the switch, which is what a wake-up costs.
_WAIT_A_WAKEUP_NS: Final = 10_000
# Without run_delay: kernel threads take the CPU a few times a second on an idle host.
_SWITCHES_A_SECOND: Final = 10


@dataclass(frozen=True, slots=True)
class ThreadLoad:
    """The measuring thread's counters over its run, and the verdict over them.

    `run_delay_ns`: runnable, waiting for a CPU; None where the kernel does not tell.
    """

    wall_ns: int
    involuntary_switches: int
    voluntary_switches: int
    minor_faults: int
    major_faults: int
    run_delay_ns: int | None
    contaminated: bool
    contamination: str


def thread_load(raw: Mapping[str, Any], wall_ns: int) -> ThreadLoad:
    """Return the load in what a native probe gave over a run of `wall_ns`."""
    contaminated, why = judge(
        wall_ns, raw["involuntary_switches"], raw["voluntary_switches"], raw["run_delay_ns"]
    )
    return ThreadLoad(
        wall_ns,
        raw["involuntary_switches"],
        raw["voluntary_switches"],
        raw["minor_faults"],
        raw["major_faults"],
        raw["run_delay_ns"],
        contaminated,
        why,
    )


def total(loads: list[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the sum of native loads; run_delay_ns is None when one does not tell."""
    keys = ("involuntary_switches", "voluntary_switches", "minor_faults", "major_faults")
    delays = [load["run_delay_ns"] for load in loads]
    return {key: sum(load[key] for load in loads) for key in keys} | {
        "run_delay_ns": None if None in delays else sum(delays)
    }


def judge(
    wall_ns: int, involuntary_switches: int, voluntary_switches: int, run_delay_ns: int | None
) -> tuple[bool, str]:
    """Return whether other work took the CPU from the measuring thread, and how that is known."""
    if run_delay_ns is None:
        rate = involuntary_switches / max(wall_ns, 1) * 1e9
        return (
            rate > _SWITCHES_A_SECOND,
            f"{rate:.1f} involuntary switches a second (run delay is not readable)",
        )
    waited_ns = max(0, run_delay_ns - _WAIT_A_WAKEUP_NS * voluntary_switches)
    share = waited_ns / max(wall_ns, 1)
    return (
        share > _WAITED_SHARE,
        f"waited for the CPU {100 * share:.2g} % of the time (limit {100 * _WAITED_SHARE:g} %)",
    )
