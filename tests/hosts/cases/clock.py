from __future__ import annotations

from dataclasses import replace
from typing import Final

from cfctl.diagnose.measurements import TickOffsets
from tests.hosts.cases import CRITICAL, GOOD_FIT, HIGH, LOW, MEDIUM, Case, Host, changed, costs

_SOURCES: Final = "sys/devices/system/clocksource/clocksource0"
_CLOCK: Final = {
    "state": 0, "status": 8193, "max_error_us": 300, "est_error_us": 20, "frequency_ppm": -12.5, "tick_us": 10000,
}  # fmt: skip
_NOT_CONSTANT: Final = "processor\t: 0\nflags\t: fpu tsc constant_tsc nonstop_tsc\n\nprocessor\t: 1\nflags\t: fpu tsc nonstop_tsc\n"

CASES: Final = {
    "CLOCKSOURCE_SLOW": Case(
        f"{_SOURCES}/.*",
        (
            changed(HIGH, {f"{_SOURCES}/current_clocksource": "hpet\n"}),
            changed(HIGH, {f"{_SOURCES}/current_clocksource": "acpi_pm\n", f"{_SOURCES}/available_clocksource": "acpi_pm\n"}),
            changed(MEDIUM, {f"{_SOURCES}/current_clocksource": "kvm-clock\n", f"{_SOURCES}/available_clocksource": "tsc kvm-clock\n"}),
        ),
        Host({f"{_SOURCES}/current_clocksource": "arch_sys_counter\n"}),
    ),
    "CLOCK_READ_COST": Case("measured costs", ((HIGH, Host(measured=costs(monotonic=250.0))),)),
    "CLOCK_UNSYNCED": Case(
        "syscalls adjtimex",
        (
            (MEDIUM, Host(syscalls={"adjtimex": _CLOCK | {"state": 5}})),
            (MEDIUM, Host(syscalls={"adjtimex": _CLOCK | {"status": 0x40}})),
        ),
    ),
    "CLOCK_MAX_ERROR": Case(
        "syscalls adjtimex", ((MEDIUM, Host(syscalls={"adjtimex": _CLOCK | {"max_error_us": 1001}})),)
    ),
    "CLOCK_FREQ_CORRECTION": Case(
        "syscalls adjtimex",
        (
            (LOW, Host(syscalls={"adjtimex": _CLOCK | {"frequency_ppm": -101.0}})),
            (LOW, Host(syscalls={"adjtimex": _CLOCK | {"tick_us": 9999}})),
        ),
    ),
    "TIMER_LOW_RES": Case(
        "syscalls clock_resolution_ns",
        (
            (HIGH, Host(syscalls={"clock_resolution_ns": 4_000_000})),
            changed(HIGH, {"proc/timer_list": "  .hres_active    : 0\n"}),
        ),
    ),
    "CLOCKEVENT_DEVICE": Case(
        "sys/devices/system/clockevents/.*",
        (changed(MEDIUM, {"sys/devices/system/clockevents/clockevent3/current_device": "hpet\n"}),),
    ),
    "TSC_CALIBRATION": Case(
        "measured fit",
        (
            (HIGH, Host(measured={"fit": replace(GOOD_FIT, verdict="invalid")})),
            (MEDIUM, Host(measured={"fit": replace(GOOD_FIT, verdict="degraded")})),
            (HIGH, Host(measured={"saved_fit": replace(GOOD_FIT, estimate_hz=2.596e9 * (1 + 3e-9))})),
            (HIGH, Host(measured={"fit": replace(GOOD_FIT, stated_ppb=-1001.0)})),
        ),
        # A fresh host was never calibrated before; that is no fault.
        Host(measured={"saved_fit": None}),
    ),
    "TSC_NOT_INVARIANT": Case("proc/cpuinfo", (changed(CRITICAL, {"proc/cpuinfo": _NOT_CONSTANT}),)),
    "TSC_UNSTABLE": Case(
        f"{_SOURCES}/available_clocksource",
        (
            changed(CRITICAL, {f"{_SOURCES}/available_clocksource": "hpet acpi_pm\n"}),
            (CRITICAL, Host(syscalls={"kernel_log": "timekeeping: Marking clocksource 'tsc' as unstable"})),
        ),
        Host(syscalls={"kernel_log": {"error": "EPERM"}}),
        lenient=True,
    ),
    "TSC_CPU_SKEW": Case(
        "measured offsets",
        (
            (HIGH, Host(measured={"offsets": TickOffsets((0, 1), (0, 1), 150.0, 70.0, 0)})),
            (HIGH, Host(measured={"offsets": TickOffsets((0, 1), (0, 1), 5.0, 70.0, 2)})),
        ),
    ),
}  # fmt: skip
