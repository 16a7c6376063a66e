"""Checks of interrupts: which CPUs they reach, how often, and what they tell about the hardware."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from cfctl.diagnose.advice import SYSTEMD, Command, Fix, run, sysctl, write
from cfctl.diagnose.engine import Issue, NotApplicable, Outcome, Pass, check
from cfctl.diagnose.impact import (
    DEVICE_IRQ,
    IPI,
    NOT_YET,
    SOFTIRQ,
    TOO_RARE,
    not_measurable,
    observed,
    time_lost_to,
)
from cfctl.diagnose.record import Area, Scope
from cfctl.host.counters import USER_HZ, InterruptRow, cpu_times, interrupts, readable
from cfctl.host.cpus import format_cpu_list, format_cpu_mask
from cfctl.host.processes import processes_named
from cfctl.host.view import Lack, UnreadableError
from cfctl.records import Severity

if TYPE_CHECKING:
    from cfctl.diagnose.subject import Host

_NO_ISOLATED: Final = "no CPU is isolated"
_IPI_ROWS: Final = ("RES", "CAL", "TLB")
_Table = dict[str, InterruptRow]


def _rates(before: _Table, after: _Table, seconds: float, names: list[str]) -> dict[int, float]:
    """Return the interrupts per second of each CPU over some rows."""
    rates: dict[int, float] = {}
    for name in names:
        earlier = before[name].counts if name in before else {}
        for cpu, count in after[name].counts.items():
            rates[cpu] = rates.get(cpu, 0.0) + (count - earlier.get(cpu, 0)) / seconds
    return rates


@check(
    "IRQ_ON_TARGET_CPU",
    "A device interrupts the hot CPUs",
    Severity.MEDIUM,
    Area.INTERRUPTS,
    rule="a device interrupt fires on an isolated CPU, or on a target's CPU when it is pinned",
    source="kernel, Documentation/core-api/irq/irq-affinity.rst; tuned 2.28 realtime",
    solution="Move the interrupts to other CPUs (managed ones refuse: give their device fewer queues).",
    impact=time_lost_to(*DEVICE_IRQ),
    sample=interrupts,
)
def irq_on_target_cpu(host: Host) -> Outcome:
    """Each device interrupt takes the CPU from the running thread for 2 to 30 us and leaves cold
    caches."""
    change = host.change(interrupts)
    hot = host.hot_cpus()
    if not hot:
        return NotApplicable("no CPU is isolated and no target is pinned")
    hits: dict[str, float] = {}
    for name, row in change.after.items():
        if name.isdecimal():
            rates = _rates(change.before, change.after, change.seconds, [name])
            rate = sum(value for cpu, value in rates.items() if cpu in hot)
            if rate > 0:
                hits[name] = rate
                host.saw(f"/proc/interrupts {name}", round(rate, 1), f"{rate:.1f}/s {row.description}")
    if not hits:
        return Pass(f"no device interrupt on CPU {format_cpu_list(hot)}")
    often = sorted(hits, key=lambda name: -hits[name])
    worst = often[0]
    keep = format_cpu_list(set(host.online()) - hot) or "0"
    return Issue(
        f"{len(hits)} device interrupts fire on CPU {format_cpu_list(hot)}, most often {worst}: {hits[worst]:.0f}/s.",
        Fix(
            tuple(
                Command(f"echo {keep} > /proc/irq/{n}/smp_affinity_list", f"proc/irq/{n}") for n in often[:8]
            ),
            (Command(f"kernel command line: irqaffinity={keep}"),),
        ),
    )


@check(
    "IRQ_DEFAULT_AFFINITY",
    "New interrupts may go to isolated CPUs",
    Severity.LOW,
    Area.INTERRUPTS,
    rule="default_smp_affinity includes an isolated CPU",
    source="kernel, Documentation/core-api/irq/irq-affinity.rst",
    solution="Send new interrupts to the other CPUs.",
    impact=NOT_YET,
)
def irq_default_affinity(host: Host) -> Outcome:
    """A device that is added later interrupts the isolated CPUs."""
    isolated = host.isolated()
    if not isolated:
        return NotApplicable(_NO_ISOLATED)
    path = "proc/irq/default_smp_affinity"
    both = set(host.cpu_mask(path)) & set(isolated)
    if not both:
        return Pass("new interrupts stay off isolated CPUs")
    others = set(host.online()) - set(isolated)
    return Issue(
        f"New interrupts may go to isolated CPU {format_cpu_list(both)}.",
        write(
            path,
            format_cpu_mask(others),
            "irqaffinity=" + format_cpu_list(others),
        ),
    )


@check(
    "IRQBALANCE",
    "irqbalance moves interrupts to isolated CPUs",
    Severity.MEDIUM,
    Area.INTERRUPTS,
    rule="irqbalance runs with isolated CPUs and no IRQBALANCE_BANNED_CPULIST",
    source="irqbalance(1); tuned 2.28 cpu-partitioning",
    solution="Stop irqbalance, or ban the isolated CPUs.",
    impact=time_lost_to(*DEVICE_IRQ),
)
def irqbalance(host: Host) -> Outcome:
    """It spreads interrupts over all CPUs it does not know to be reserved."""
    running = host.saw("/proc/*/comm irqbalance", len(processes_named(host.view, "irqbalance")))
    if not running:
        return Pass("irqbalance does not run")
    isolated = host.isolated()
    if not isolated:
        return Pass("irqbalance runs, and no CPU is isolated")
    for path in ("etc/default/irqbalance", "etc/sysconfig/irqbalance"):
        try:
            lines = host.view.lines(path)
        except UnreadableError:
            continue
        if any(re.match(r"IRQBALANCE_BANNED_CPU(LIST|S)=[\"']?[^\s\"'#]", line) for line in lines):
            return Pass(f"/{path} bans CPUs")
    return Issue(
        f"irqbalance runs without a ban on isolated CPU {format_cpu_list(isolated)}.",
        run(
            Command("systemctl disable --now irqbalance", SYSTEMD),
            persist=(
                f"echo 'IRQBALANCE_BANNED_CPULIST={format_cpu_list(isolated)}' >> /etc/default/irqbalance",
            ),
        ),
    )


@check(
    "IRQ_RATE",
    "Many interrupts on a target CPU",
    Severity.MEDIUM,
    Area.INTERRUPTS,
    rule="device interrupts > 5000/s on a target CPU, high > 50 000/s",
    source="judgement",
    solution="Coalesce interrupts, spread queues, or move the interrupts to other CPUs.",
    impact=time_lost_to(*DEVICE_IRQ),
    sample=interrupts,
)
def irq_rate(host: Host) -> Outcome:
    """At that rate the CPU is interrupted again before its caches are warm."""
    change = host.change(interrupts)
    names = [name for name in change.after if name.isdecimal()]
    rates = _rates(change.before, change.after, change.seconds, names)
    mine = {cpu: rates.get(cpu, 0.0) for cpu in host.target_cpus()}
    worst = max(mine, key=lambda cpu: mine[cpu], default=0)
    rate = host.saw(f"/proc/interrupts device rows of CPU {worst}, 1/s", round(mine.get(worst, 0.0), 1))
    if rate <= 5000:
        return Pass(f"at most {rate:.0f} device interrupts a second on a target CPU")
    return Issue(
        f"{rate:.0f} device interrupts a second on CPU {worst}.",
        Fix(privilege=None),
        severity=Severity.HIGH if rate > 50_000 else None,
    )


@check(
    "SOFTIRQ_LOAD",
    "Soft interrupts take CPU time",
    Severity.MEDIUM,
    Area.INTERRUPTS,
    rule="softirq time > 5 % of a target CPU",
    source="judgement",
    solution="Move packet work to other CPUs (RPS), or into a thread (echo 1 > /sys/class/net/LINK/threaded).",
    impact=time_lost_to(*SOFTIRQ),
    sample=cpu_times,
)
def softirq_load(host: Host) -> Outcome:
    """Network and timer work of the kernel runs before the thread goes on."""
    change = host.change(cpu_times)
    # Both samples count whole ticks: one less is what surely passed between them.
    shares = {
        cpu: max(0, change.after[cpu]["softirq"] - times["softirq"] - 1) / USER_HZ / change.seconds
        for cpu, times in change.before.items()
        if cpu in change.after and cpu in host.target_cpus()
    }
    worst = max(shares, key=lambda cpu: shares[cpu], default=0)
    share = host.saw(f"/proc/stat softirq of CPU {worst}", round(shares.get(worst, 0.0), 4))
    if share <= 0.05:
        return Pass(f"about {share:.1%} of a target CPU at most")
    return Issue(
        f"Soft interrupts took at least {share:.1%} of CPU {worst}.",
        Fix(privilege=None),
        observed=observed(
            share * 1e9, "/proc/stat softirq, counted in whole ticks of 10 ms: at least", 1e7 / change.seconds
        ),
    )


@check(
    "IPI_STORM",
    "CPUs interrupt each other often",
    Severity.MEDIUM,
    Area.INTERRUPTS,
    rule="rescheduling, call or TLB interrupts > 1000/s on a target CPU",
    source="judgement",
    solution="Avoid munmap, madvise and mprotect in the hot process: prefault, mlock, MALLOC_ARENA_MAX=1; or split it into processes.",
    impact=time_lost_to(*IPI),
    scope=Scope.PROCESS,
    sample=interrupts,
)
def ipi_storm(host: Host) -> Outcome:
    """Another thread of the process that unmaps or protects memory interrupts every CPU that runs
    the process, to empty its TLB."""
    change = host.change(interrupts)
    rows = [name for name in change.after if name in _IPI_ROWS or name.startswith("IPI")]
    if not rows:
        raise UnreadableError("/proc/interrupts", Lack.GARBAGE, "no row of that kind")
    worst: tuple[float, str, int] = (0.0, rows[0], 0)
    for name in rows:
        for cpu, rate in _rates(change.before, change.after, change.seconds, [name]).items():
            if cpu in host.target_cpus():
                worst = max(worst, (rate, name, cpu))
    rate, name, cpu = worst
    host.saw(f"/proc/interrupts {name} of CPU {cpu}, 1/s", round(rate, 1), change.after[name].description)
    if rate <= 1000:
        return Pass(f"at most {rate:.0f} interrupts between CPUs a second")
    return Issue(
        f"{rate:.0f} {name} interrupts a second on CPU {cpu}.",
        Fix(
            privilege=None,
        ),
    )


@check(
    "HW_ERRORS",
    "The hardware reports errors",
    Severity.HIGH,
    Area.INTERRUPTS,
    rule="MCE exceptions since boot, or thermal, threshold or APIC errors during the interval",
    source="kernel, Documentation/arch/x86/x86_64/machinecheck.rst",
    solution="Find the failing part.",
    impact=TOO_RARE,
    scope=Scope.MACHINE,
    sample=interrupts,
)
def hw_errors(host: Host) -> Outcome:
    """A machine check or a corrected memory error stops a CPU for up to milliseconds."""
    change = host.change(interrupts)
    names = [name for name in ("MCE", "TRM", "THR", "DFR", "ERR", "MIS") if name in change.after]
    if not names:
        raise UnreadableError("/proc/interrupts", Lack.GARBAGE, "no row of that kind")
    rises = {n: change.after[n].total - (change.before[n].total if n in change.before else 0) for n in names}
    found = {name: rise for name, rise in rises.items() if rise > 0}
    if "MCE" in names and change.after["MCE"].total:
        found["MCE"] = change.after["MCE"].total
    host.saw("/proc/interrupts error rows", found, ", ".join(f"{n} +{r}" for n, r in rises.items()))
    if not found:
        return Pass(f"no rise of {', '.join(names)}")
    return Issue(
        f"The hardware reported {', '.join(f'{name} {count}' for name, count in found.items())}.",
        run("ras-mc-ctl --summary", "dmesg | grep -i -e mce -e 'hardware error'"),
    )


@check(
    "NMI_RATE",
    "Non-maskable interrupts come often",
    Severity.LOW,
    Area.INTERRUPTS,
    rule="NMI > 1/s on a target CPU",
    source="judgement",
    solution="Stop the profiler, or switch the watchdog off.",
    impact=not_measurable("the causes of gaps do not tell an NMI"),
    sample=interrupts,
)
def nmi_rate(host: Host) -> Outcome:
    """A profiler or the NMI watchdog interrupts even code that masked interrupts."""
    change = host.change(interrupts)
    if "NMI" not in change.after:
        raise UnreadableError("/proc/interrupts", Lack.GARBAGE, "no row of that kind")
    rates = _rates(change.before, change.after, change.seconds, ["NMI"])
    rate = max((rates.get(cpu, 0.0) for cpu in host.target_cpus()), default=0.0)
    host.saw("/proc/interrupts NMI, 1/s", round(rate, 2))
    if rate <= 1:
        return Pass(f"{rate:.1f} NMI a second")
    watchdog = readable(host.view, "proc/sys/kernel/nmi_watchdog")
    fix = Fix(privilege=None, solution="Stop the profiler.")
    return Issue(
        f"{rate:.1f} NMI a second on a target CPU.",
        sysctl("kernel.nmi_watchdog", 0) if watchdog else fix,
    )
