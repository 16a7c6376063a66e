"""Checks of the system's clocks: sources, cost, discipline, timers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cfctl.diagnose.advice import SYSTEMD, Command, Fix, boot, kernel_parameter, run, write
from cfctl.diagnose.engine import Issue, NotApplicable, Outcome, Pass, check
from cfctl.diagnose.impact import BLINDS, PER_READ, PER_WAKEUP, cost_of, error_of, not_measurable
from cfctl.diagnose.record import Area, Scope
from cfctl.errors import UnobservableError
from cfctl.host.view import UnreadableError, shown
from cfctl.records import Severity
from cfctl.text import safe_text
from cfctl.units import format_quantity

if TYPE_CHECKING:
    from cfctl.diagnose.subject import Host
    from cfctl.host.syscalls import ClockState

_SOURCES: Final = "sys/devices/system/clocksource/clocksource0"
_SLOW: Final = frozenset({"hpet", "acpi_pm", "jiffies", "refined-jiffies", "pit"})
_PARAVIRTUAL: Final = frozenset({"kvm-clock", "xen", "hyperv_clocksource_tsc_page", "hyperv_clocksource_msr"})
_GOOD: Final = frozenset({"tsc", "tsc-early", "arch_sys_counter", "timebase", "riscv_clocksource", "tod"})

_SLOW_DEVICES: Final = ("hpet", "pit", "bc_", "broadcast")
_GOOD_DEVICES: Final = ("lapic", "arch_", "xen", "Hyper-V", "riscv", "decrementer", "comparator")
_TIME_ERROR: Final = 5
_STA_UNSYNC: Final = 0x40


@check(
    "CLOCKSOURCE_SLOW",
    "The kernel's clocksource is slow to read",
    Severity.HIGH,
    Area.CLOCK,
    rule="clocksource is hpet, acpi_pm, jiffies or pit; medium: a paravirtual clock although tsc is offered",
    source="kernel, Documentation/timers/timekeeping.rst; tuned 2.28",
    solution="Switch the clocksource to tsc.",
    impact=cost_of("monotonic", PER_READ, less="tick"),
)
def clocksource_slow(host: Host) -> Outcome:
    """Every clock read of every program goes through the clocksource. HPET and ACPI PM are device
    reads of about a microsecond that all CPUs share; a paravirtual clock costs more than the TSC."""
    current = host.word(f"{_SOURCES}/current_clocksource")
    offered = host.text(f"{_SOURCES}/available_clocksource").split()
    switch = write(f"{_SOURCES}/current_clocksource", "tsc", persist="clocksource=tsc")
    if current in _SLOW:
        if "tsc" in offered:
            return Issue(f"The clocksource is {current}, although tsc is offered.", switch)
        return Issue(
            f"The clocksource is {current}; the kernel offers no tsc.",
            run(
                "dmesg | grep -i tsc",
                solution="Find out why the kernel refused the TSC: firmware, or an emulated CPU.",
            ),
            scope=Scope.MACHINE,
        )
    if current in _PARAVIRTUAL and "tsc" in offered:
        return Issue(
            f"The clocksource is {current}, although tsc is offered.", switch, severity=Severity.MEDIUM
        )
    if current not in _GOOD | _PARAVIRTUAL:
        raise UnobservableError(f"the cost of the clocksource {current} is not known")
    return Pass(f"clocksource {current}")


@check(
    "CLOCK_READ_COST",
    "Reading the clock costs a system call",
    Severity.HIGH,
    Area.CLOCK,
    rule="median of clock_gettime(CLOCK_MONOTONIC) > 200 ns; 100 to 200 ns is not decided by one run",
    source="measured: 23 ns through the vDSO, 165 ns for a system call",
    solution="Use a clocksource the vDSO can read, and leave a sandbox that traps system calls.",
    impact=cost_of("monotonic", PER_READ, less="tick"),
    needs=("measurements",),
)
def clock_read_cost(host: Host) -> Outcome:
    """A clock read that leaves the vDSO enters the kernel: each timestamp then costs ten times as
    much, and programs that stamp every event slow down by it."""
    cost = host.cost_ns("monotonic")
    if "syscall" in host.measured().costs:
        host.cost_ns("syscall")
    if cost <= 100:
        return Pass(f"clock_gettime takes {cost:.0f} ns")
    if cost <= 200:
        raise UnobservableError(
            f"clock_gettime took {cost:.0f} ns: between 100 and 200 ns one run can not tell"
        )
    fix = Fix(
        (Command(f"echo tsc > /{_SOURCES}/current_clocksource", f"{_SOURCES}/current_clocksource"),),
        (kernel_parameter("remove vdso=0"),) if _parameter(host, "vdso") == "0" else (),
    )
    return Issue(f"clock_gettime takes {cost:.0f} ns: it does not go through the vDSO.", fix)


def _discipline(host: Host) -> ClockState:
    clock = host.view.syscalls.adjtimex()
    raw = f"state {clock.state}, status {clock.status:#x}, maxerror {clock.max_error_us} us, freq {clock.frequency_ppm:g} ppm"
    return host.saw("adjtimex(modes=0)", clock, raw)


def _is_unsynced(clock: ClockState) -> bool:
    return clock.state == _TIME_ERROR or bool(clock.status & _STA_UNSYNC)


@check(
    "CLOCK_UNSYNCED",
    "The wall clock is not synchronised",
    Severity.MEDIUM,
    Area.CLOCK,
    rule="adjtimex returns TIME_ERROR or its status has STA_UNSYNC",
    source="adjtimex(2)",
    solution="Run an NTP or PTP client.",
    impact=not_measurable("nothing on the host says how far the wall clock is off"),
)
def clock_unsynced(host: Host) -> Outcome:
    """Nothing disciplines the wall clock: timestamps of different hosts drift apart, one-way
    latencies and the order of events between hosts mean nothing."""
    clock = _discipline(host)
    if not _is_unsynced(clock):
        return Pass(f"synchronised, maximum error {clock.max_error_us} us")
    client = "usr/sbin/chronyd"
    start = (
        Command("systemctl enable --now chronyd", client)
        if host.view.exists(SYSTEMD)
        else Command("chronyd", client)
    )
    solution = (
        "Run an NTP or PTP client"
        if host.view.exists(client)
        else "Install and run an NTP or PTP client (chrony)"
    )
    if host.environment.is_guest and host.view.exists("dev/ptp0"):
        solution += ", with the hypervisor's clock as reference (chrony: refclock PHC /dev/ptp0 poll 2)"
    return Issue(
        f"The kernel says the wall clock is not synchronised (its bound on the error: {format_quantity(clock.max_error_us * 1e3, 'ns')}).",
        run(start, solution=f"{solution}."),
    )


@check(
    "CLOCK_MAX_ERROR",
    "The wall clock's error is large",
    Severity.MEDIUM,
    Area.CLOCK,
    rule="synchronised, and adjtimex.maxerror > 1000 us",
    source="judgement",
    solution="Poll a near NTP server more often (chrony: minpoll 0 maxpoll 2), or use PTP with hardware timestamps.",
    impact=BLINDS,
)
def clock_max_error(host: Host) -> Outcome:
    """Times of two hosts can be compared no better than the sum of their clocks' errors."""
    clock = _discipline(host)
    if _is_unsynced(clock):
        return NotApplicable("the wall clock is not synchronised: CLOCK_UNSYNCED")
    if clock.max_error_us <= 1000:
        return Pass(f"maximum error {clock.max_error_us} us")
    return Issue(
        f"The wall clock may be wrong by {clock.max_error_us} us.",
        run(
            "chronyc tracking",
            "chronyc sources -v",
            privilege=None,
        ),
        observed=error_of(
            clock.max_error_us * 1e3, "timestamp", "the kernel's own bound (adjtimex maxerror)"
        ),
    )


@check(
    "CLOCK_FREQ_CORRECTION",
    "The clock's rate is corrected strongly",
    Severity.LOW,
    Area.CLOCK,
    rule="|adjtimex.freq| > 100 ppm, or a tick other than 10000 us",
    source="judgement",
    solution="Let the NTP client settle, and calibrate against the uncorrected clock.",
    impact=BLINDS,
)
def clock_freq_correction(host: Host) -> Outcome:
    """CLOCK_MONOTONIC runs at the corrected rate: intervals measured with it inherit the
    correction, and a tick counter fitted against it inherits the error."""
    clock = _discipline(host)
    if abs(clock.frequency_ppm) <= 100 and clock.tick_us == 10_000:
        return Pass(f"rate correction {clock.frequency_ppm:.3f} ppm")
    return Issue(
        f"The rate is corrected by {clock.frequency_ppm:.1f} ppm with a tick of {clock.tick_us} us.",
        run(
            "cfctl calibrate --reference raw",
            "chronyc tracking",
            privilege=None,
        ),
        observed=error_of(
            abs(_correction_ppm(clock)) * 1e3, "measured second", "correction in CLOCK_MONOTONIC (adjtimex)"
        ),
    )


def _correction_ppm(clock: ClockState) -> float:
    """Return how much faster than nominal the clock runs: its rate correction and the length of its tick."""
    return clock.frequency_ppm + (clock.tick_us / 10_000 - 1) * 1e6


@check(
    "TIMER_LOW_RES",
    "Timers fire only with the tick",
    Severity.HIGH,
    Area.CLOCK,
    rule="clock_getres(CLOCK_MONOTONIC) > 1 ns, or hres_active is 0",
    source="kernel, Documentation/timers/highres.rst",
    solution="Use a kernel with CONFIG_HIGH_RES_TIMERS, on a clocksource it accepts.",
    impact=cost_of("wakeup", PER_WAKEUP, is_bound=True),
)
def timer_low_res(host: Host) -> Outcome:
    """Without high-resolution timers every sleep and timeout is rounded up to the next tick: 1 to
    10 ms."""
    resolution = host.asked("clock_getres(CLOCK_MONOTONIC), ns", host.view.syscalls.clock_resolution_ns)
    coarse = resolution > 1
    try:
        # Only root may read it; the resolution alone says the same.
        timers = host.view.text("proc/timer_list")
        active = [line.split()[-1] for line in timers.splitlines() if ".hres_active" in line]
        coarse |= "0" in host.saw("/proc/timer_list .hres_active", active)
    except UnreadableError:
        pass
    if not coarse:
        return Pass(f"resolution {resolution} ns")
    remove = "highres" in host.parameters()
    return Issue(
        f"The timers' resolution is {format_quantity(resolution, 'ns')}.",
        boot(
            "remove highres=off",
            solution="Use a kernel with CONFIG_HIGH_RES_TIMERS, started without highres=off.",
        )
        if remove
        else Fix(privilege=None),
    )


@check(
    "CLOCKEVENT_DEVICE",
    "Timers are programmed through a slow device",
    Severity.MEDIUM,
    Area.CLOCK,
    rule="a CPU's clock event device is hpet, pit or broadcast",
    source="kernel, Documentation/timers/timekeeping.rst",
    solution="Enable the CPU's own timer (LAPIC timer, ARAT) in the firmware.",
    impact=cost_of("wakeup", PER_WAKEUP, is_bound=True),
)
def clockevent_device(host: Host) -> Outcome:
    """A CPU without a timer of its own programs a shared device, or is woken by another CPU: every
    timer costs microseconds more."""
    devices = host.view.matching("sys/devices/system/clockevents/clockevent*/current_device")
    if not devices:
        host.view.text("sys/devices/system/clockevents/clockevent0/current_device")
    # A CPU that is off has an empty file: kernel, kernel/time/clockevents.c, current_device_show().
    online = {f"clockevent{cpu}" for cpu in host.topology.online}
    used = [path for path in devices if path.split("/")[-2] in online] or devices
    names = [host.saw(shown(path), host.view.text(path)) for path in used]
    slow = sorted({name for name in names if name.startswith(_SLOW_DEVICES)})
    strange = sorted({name for name in names if not name.startswith((*_SLOW_DEVICES, *_GOOD_DEVICES))})
    if strange and not slow:
        raise UnobservableError(
            f"the cost of the clock event device {safe_text(strange[0], 40)} is not known"
        )
    if not slow:
        return Pass(f"clock event devices: {', '.join(sorted(set(names)))}")
    parameter = "nolapic_timer" in host.parameters()
    fix = Fix(
        persist=(kernel_parameter("remove nolapic_timer"),) if parameter else (),
    )
    return Issue(
        f"Timers are programmed through {', '.join(slow)}.",
        fix,
        scope=Scope.KERNEL if parameter else Scope.MACHINE,
    )


def _parameter(host: Host, name: str) -> str | None:
    try:
        return host.parameters().get(name)
    except UnreadableError:
        return None
