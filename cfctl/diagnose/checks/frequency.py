"""Checks of the CPU's frequency: governors, limits, turbo."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cfctl.diagnose.advice import Command, Fix, write
from cfctl.diagnose.engine import Issue, Outcome, Pass, check
from cfctl.diagnose.impact import OF_THE_PROGRAM, PER_PAUSE, cost_of
from cfctl.diagnose.record import Area, Scope
from cfctl.host.cpus import format_cpu_list
from cfctl.records import Severity

if TYPE_CHECKING:
    from cfctl.diagnose.subject import Host

_CPU: Final = "sys/devices/system/cpu"
_TUNED: Final = "tuned 2.28 latency-performance"


def _all_cpus(file: str, value: str, *persist: Command) -> Fix:
    """Return the fix that writes a value for every CPU; needs no tool to be installed."""
    return Fix(
        (Command(f"echo {value} | tee /{_CPU}/cpu*/{file}", f"{_CPU}/cpu0/{file}"),),
        persist or (Command("tuned-adm profile latency-performance"),),
    )


@check(
    "CPU_GOVERNOR",
    "The CPU frequency follows the load",
    Severity.MEDIUM,
    Area.CPU,
    rule="scaling_governor of a target CPU is not performance; high for a slow governor on acpi-cpufreq",
    source=_TUNED,
    solution="Set the governor to performance.",
    impact=cost_of("pause", PER_PAUSE, is_bound=True),
    scope=Scope.MACHINE,
)
def cpu_governor(host: Host) -> Outcome:
    """A CPU that was idle starts slowly: the first microseconds to milliseconds of work after a
    pause run at a low frequency."""
    governors = host.of_each_cpu("cpufreq/scaling_governor", host.view.word)
    wrong = {cpu: governors[cpu] for cpu in host.target_cpus() if governors[cpu] != "performance"}
    if not wrong:
        return Pass("governor performance")
    drivers = set(host.of_each_cpu("cpufreq/scaling_driver", host.view.word).values())
    slow = "acpi-cpufreq" in drivers and set(wrong.values()) & {"ondemand", "conservative", "powersave"}
    return Issue(
        f"The governor is {', '.join(sorted(set(wrong.values())))} on CPU {format_cpu_list(wrong)}.",
        _all_cpus("cpufreq/scaling_governor", "performance"),
        severity=Severity.HIGH if slow else None,
    )


@check(
    "CPU_EPP",
    "The CPU is told to save energy",
    Severity.MEDIUM,
    Area.CPU,
    rule="energy_performance_preference is not performance",
    source=_TUNED,
    solution="Set the energy preference to performance.",
    impact=cost_of("pause", PER_PAUSE, is_bound=True),
    scope=Scope.MACHINE,
)
def cpu_epp(host: Host) -> Outcome:
    """The CPU's own frequency control raises the clock late and lowers it soon."""
    preferences = host.of_each_cpu("cpufreq/energy_performance_preference", host.view.word)
    wrong = {
        cpu: preferences[cpu] for cpu in host.target_cpus() if preferences[cpu] not in {"performance", "0"}
    }
    if not wrong:
        return Pass("energy preference performance")
    return Issue(
        f"The energy preference is {', '.join(sorted(set(wrong.values())))} on CPU {format_cpu_list(wrong)}.",
        _all_cpus(
            "cpufreq/energy_performance_preference",
            "performance",
        ),
    )


@check(
    "CPU_FREQ_CAPPED",
    "The CPU frequency is capped",
    Severity.MEDIUM,
    Area.CPU,
    rule="scaling_max_freq < cpuinfo_max_freq",
    source="kernel, Documentation/admin-guide/pm/cpufreq.rst",
    solution="Allow the highest frequency.",
    impact=OF_THE_PROGRAM,
    scope=Scope.MACHINE,
)
def cpu_freq_capped(host: Host) -> Outcome:
    """The CPU is kept below the frequency it can run at."""
    allowed = host.of_each_cpu("cpufreq/scaling_max_freq", host.view.integer)
    possible = host.of_each_cpu("cpufreq/cpuinfo_max_freq", host.view.integer)
    capped = [cpu for cpu in host.target_cpus() if allowed[cpu] < possible[cpu]]
    if not capped:
        return Pass("the highest frequency is allowed")
    cpu = capped[0]
    return Issue(
        f"CPU {format_cpu_list(capped)} may run at {allowed[cpu] / 1e6:.2f} of {possible[cpu] / 1e6:.2f} GHz.",
        _all_cpus("cpufreq/scaling_max_freq", str(possible[cpu])),
    )


@check(
    "CPU_FREQ_FLOOR",
    "The CPU frequency may fall",
    Severity.LOW,
    Area.CPU,
    rule="scaling_min_freq < scaling_max_freq, unless the governor is performance",
    source=f"{_TUNED}: min_perf_pct 100",
    solution="Raise the lowest frequency to the highest.",
    impact=cost_of("pause", PER_PAUSE, is_bound=True),
    scope=Scope.MACHINE,
)
def cpu_freq_floor(host: Host) -> Outcome:
    """After a pause the clock has to ramp up again before work runs at full speed."""
    low = host.of_each_cpu("cpufreq/scaling_min_freq", host.view.integer)
    high = host.of_each_cpu("cpufreq/scaling_max_freq", host.view.integer)
    governors = host.of_each_cpu("cpufreq/scaling_governor", host.view.word)
    below = [c for c in host.target_cpus() if low[c] < high[c] and governors[c] != "performance"]
    if not below:
        return Pass("the frequency does not fall")
    return Issue(
        f"CPU {format_cpu_list(below)} may fall to {low[below[0]] / 1e6:.2f} GHz.",
        _all_cpus("cpufreq/scaling_min_freq", str(high[below[0]])),
    )


@check(
    "CPU_BOOST_OFF",
    "Turbo frequencies are off",
    Severity.LOW,
    Area.CPU,
    rule="cpufreq/boost is 0 or intel_pstate/no_turbo is 1",
    source=_TUNED,
    solution="Allow turbo frequencies.",
    impact=OF_THE_PROGRAM,
    scope=Scope.MACHINE,
)
def cpu_boost_off(host: Host) -> Outcome:
    """The CPU does not use the frequencies above its base clock; some sites accept that for an even
    speed."""
    boost, no_turbo = f"{_CPU}/cpufreq/boost", f"{_CPU}/intel_pstate/no_turbo"
    if host.view.exists(no_turbo):
        off, fix = host.integer(no_turbo) == 1, write(no_turbo, 0)
    else:
        off, fix = host.integer(boost) == 0, write(boost, 1)
    return Issue("Turbo frequencies are off.", fix) if off else Pass("turbo frequencies are allowed")
