from __future__ import annotations

from typing import Final

from tests.hosts.cases import CPU, GUEST, HIGH, LOW, MEDIUM, Case, Host, changed, costs, rising

_HALTPOLL: Final = "sys/module/haltpoll/parameters/guest_halt_poll_ns"
_HALTPOLL_GUEST: Final = {**GUEST, f"{CPU}/cpuidle/current_governor": "haltpoll\n", _HALTPOLL: "200000\n"}
_FREQ: Final = f"{CPU}/cpu2/cpufreq"

CASES: Final = {
    "CPU_GOVERNOR": Case(
        f"{CPU}/cpu./cpufreq/scaling_governor",
        (
            changed(MEDIUM, {f"{_FREQ}/scaling_governor": "schedutil\n"}),
            changed(HIGH, {f"{_FREQ}/scaling_governor": "ondemand\n", f"{CPU}/cpu{{0-7}}/cpufreq/scaling_driver": "acpi-cpufreq\n"}),
        ),
        Host({f"{CPU}/cpu0/cpufreq/scaling_governor": "powersave\n"}),
        lenient=True,
    ),
    "CPU_EPP": Case(
        f"{CPU}/cpu./cpufreq/energy_performance_preference",
        (changed(MEDIUM, {f"{_FREQ}/energy_performance_preference": "balance_power\n"}),),
        lenient=True,
    ),
    "CPU_FREQ_CAPPED": Case(
        f"{CPU}/cpu./cpufreq/scaling_max_freq", (changed(MEDIUM, {f"{_FREQ}/scaling_max_freq": "2000000\n"}),)
    ),
    "CPU_FREQ_FLOOR": Case(
        f"{CPU}/cpu./cpufreq/scaling_min_freq",
        (changed(LOW, {f"{_FREQ}/scaling_min_freq": "800000\n", f"{_FREQ}/scaling_governor": "powersave\n"}),),
        Host({f"{_FREQ}/scaling_min_freq": "800000\n"}),
    ),
    "CPU_BOOST_OFF": Case(
        f"{CPU}/intel_pstate/no_turbo",
        (
            changed(LOW, {f"{CPU}/intel_pstate/no_turbo": "1\n"}),
            changed(LOW, {f"{CPU}/cpufreq/boost": "0\n"}, absent=(".*no_turbo",)),
        ),
    ),
    "CPU_CSTATE_DEEP": Case(
        f"{CPU}/cpu./cpuidle/.*",
        (changed(HIGH, {f"{CPU}/cpu{{0-7}}/cpuidle/state2/disable": "0\n"}),),
        # A program that holds a limit of 5 us keeps the state out of use.
        Host({f"{CPU}/cpu{{0-7}}/cpuidle/state2/disable": "0\n", "dev/cpu_dma_latency": "\x05\0\0\0"}),
    ),
    "CPU_HALTPOLL_OFF": Case(
        _HALTPOLL,
        (changed(MEDIUM, {**_HALTPOLL_GUEST, _HALTPOLL: "0\n"}),),
        Host(_HALTPOLL_GUEST),
    ),
    "SMT_ACTIVE": Case(
        f"{CPU}/smt/active",
        (
            changed(
                MEDIUM,
                {
                    f"{CPU}/smt/active": "1\n",
                    f"{CPU}/smt/control": "on\n",
                    f"{CPU}/cpu{{2,3}}/topology/thread_siblings_list": "2-3\n",
                },
            ),
        ),
    ),
    "CPU_THERMAL_THROTTLE": Case(
        ".*_throttle_count",
        (
            rising(HIGH, {f"{CPU}/cpu1/thermal_throttle/core_throttle_count": "3\n"}),
            changed(LOW, {f"{CPU}/cpu1/thermal_throttle/core_throttle_count": "3\n"}),
        ),
    ),
    "CPU_OFFLINE": Case(f"{CPU}/present", (changed(LOW, {f"{CPU}/present": "0-15\n"}),)),
    "CPU_TOO_FEW": Case(f"{CPU}/online|proc/stat", (changed(MEDIUM, {f"{CPU}/online": "0-2\n"}),)),
    "MITIGATIONS_COST": Case(
        f"{CPU}/vulnerabilities/.*",
        (
            (LOW, Host(measured=costs(syscall=260.0))),
            (MEDIUM, Host(measured=costs(syscall=301.0))),
        ),
        lenient=True,
    ),
    "CPU_HETEROGENEOUS": Case(
        f"{CPU}/cpu./cpu_capacity",
        ((MEDIUM, Host({f"{CPU}/cpu{{0-3}}/cpu_capacity": "446\n"}, pid=None)),),
        Host({f"{CPU}/cpu{{4-7}}/cpu_capacity": "446\n"}),
    ),
}  # fmt: skip
