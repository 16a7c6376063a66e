from __future__ import annotations

from typing import Final

from tests.hosts.cases import CPU, HIGH, LOW, MEDIUM, Case, Host, changed, rising

_HEADER: Final = "       CPU0 CPU1 CPU2 CPU3 CPU4 CPU5 CPU6 CPU7\n"
_STAT: Final = "".join(f"cpu{n} 1000 0 100 10000 0 0 {51 if n == 2 else 1} 0 0 0\n" for n in range(8))


def table(**rows: tuple[int, ...]) -> dict[str, str]:
    """Return /proc/interrupts with one row each: irq36=(0, 0, 5) is "36: 0 0 5 0 ..."."""
    lines = []
    for name, counts in rows.items():
        padded = counts if name in {"ERR", "MIS"} else (*counts, *[0] * (8 - len(counts)))
        lines.append(f"{name.removeprefix('irq')}: {' '.join(map(str, padded))}  some device\n")
    return {"proc/interrupts": _HEADER + "".join(lines)}


CASES: Final = {
    "IRQ_ON_TARGET_CPU": Case(
        "proc/interrupts",
        (
            rising(MEDIUM, table(irq36=(1000, 0, 20))),
            # The target's own CPU is hot also where none is isolated.
            (MEDIUM, Host({f"{CPU}/isolated": "\n"}, table(irq36=(1000, 0, 20)))),
        ),
    ),
    "IRQ_DEFAULT_AFFINITY": Case(
        "proc/irq/default_smp_affinity",
        (changed(LOW, {"proc/irq/default_smp_affinity": "ff\n"}),),
        lenient=True,
    ),
    "IRQBALANCE": Case(
        "proc/[0-9]*/comm",
        (changed(MEDIUM, {"proc/900/comm": "irqbalance\n"}),),
        Host({"proc/900/comm": "irqbalance\n", "etc/default/irqbalance": "IRQBALANCE_BANNED_CPULIST=2-7\n"}),
        lenient=True,
    ),
    "IRQ_RATE": Case(
        "proc/interrupts",
        (
            rising(MEDIUM, table(irq36=(1000, 0, 12_000))),
            rising(HIGH, table(irq36=(1000, 0, 120_000))),
        ),
        # CPU 0 is none of the target's.
        Host(later=table(irq36=(120_000,))),
    ),
    "SOFTIRQ_LOAD": Case("proc/stat", (rising(MEDIUM, {"proc/stat": _STAT}),)),
    "IPI_STORM": Case("proc/interrupts", (rising(MEDIUM, table(RES=(200, 200, 10), TLB=(100, 100, 2500))),)),
    "HW_ERRORS": Case(
        "proc/interrupts",
        (
            rising(HIGH, table(TRM=(0, 0, 1), ERR=(0,))),
            rising(HIGH, table(ERR=(2,))),
            changed(HIGH, table(MCE=(1,))),
        ),
    ),
    "NMI_RATE": Case("proc/interrupts", (rising(LOW, table(NMI=(0, 0, 4))),)),
}
