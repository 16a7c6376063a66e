"""Checks of the tick counter: invariant, accepted by the kernel, alike on all CPUs, calibrated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cfctl.diagnose.advice import Fix, run
from cfctl.diagnose.engine import Issue, NotApplicable, Outcome, Pass, check
from cfctl.diagnose.impact import BLINDS, PER_READ, Impact, cost_of, error_of, not_measurable
from cfctl.diagnose.record import Area, Scope, Subject
from cfctl.errors import UnobservableError
from cfctl.host.cpus import format_cpu_list
from cfctl.host.kernel import cpu_flags
from cfctl.host.syscalls import SyscallError
from cfctl.host.view import Lack, UnreadableError
from cfctl.records import Severity

if TYPE_CHECKING:
    from cfctl.diagnose.subject import Host

_AVAILABLE: Final = "sys/devices/system/clocksource/clocksource0/available_clocksource"
_INVARIANT: Final = frozenset({"constant_tsc", "nonstop_tsc"})
_STATED_LIMIT_PPB: Final = 1000.0
# How far two estimates of one rate may lie apart: 5 standard errors of both, and 2 ppb for what a
# standard error does not hold (the tolerance with which a calibration takes the kernel's rate).
_STANDARD_ERRORS: Final = 5
_FLOOR_PPB: Final = 2.0
_SKEW_LIMIT_NS: Final = 100.0


def _x86_flags(host: Host) -> dict[int, frozenset[str]] | None:
    """Return the flags of each CPU, None when this is provably no x86; raises UnreadableError."""
    flags = cpu_flags(host.view)
    try:
        machine = host.view.syscalls.uname().machine
    except SyscallError:
        machine = ""
    if machine and machine not in {"x86_64", "i386", "i486", "i586", "i686"}:
        return None
    if not any("tsc" in found for found in flags.values()):
        raise UnreadableError("/proc/cpuinfo", Lack.GARBAGE, "no CPU with the flag tsc")
    return flags


@check(
    "TSC_CALIBRATION",
    "The tick counter's rate is not certain",
    Severity.HIGH,
    Area.CLOCK,
    rule="the calibration just made is not valid (degraded: medium), disagrees with the saved one of this boot "
    "beyond both uncertainties, or is > 1 ppm off the stated rate beyond its rounding",
    source="judgement",
    solution="Calibrate for longer on a quiet machine, then watch it.",
    impact=BLINDS,
    scope=Scope.PROCESS,
    needs=("measurements",),
    also=(Subject.TEMPORAL,),
)
def tsc_calibration(host: Host) -> Outcome:
    """Ticks become nanoseconds by one number: if it is wrong or not known well, every measured
    latency is."""
    measured = host.measured()
    fit = measured.fit
    if fit is None:
        raise UnobservableError(measured.reasons.get("fit", "not measured"))
    if fit.source == "os":
        raise UnobservableError(f"no tick counter is used: {fit.source_reason}")
    again = run("cfctl calibrate --duration 1s",
                "cfctl calibrate --watch", privilege=None)  # fmt: skip
    host.saw(f"calibration of {fit.source}, Hz", round(fit.estimate_hz, 1))
    if fit.verdict != "valid":
        return Issue(
            f"The calibration is {fit.verdict}: {fit.verdict_reason or 'no reason given'}.",
            again,
            severity=Severity.MEDIUM if fit.verdict == "degraded" else None,
            observed=_rate_error(fit.uncertainty_ppb, "standard error of the rate"),
        )
    saved = measured.saved_fit
    if saved is not None and saved.source == fit.source and saved.estimate_hz > 0:
        host.saw("calibration saved in this boot, Hz", round(saved.estimate_hz, 1))
        apart_ppb = abs(fit.estimate_hz / saved.estimate_hz - 1) * 1e9
        limit_ppb = _STANDARD_ERRORS * (fit.uncertainty_ppb + saved.uncertainty_ppb) + _FLOOR_PPB
        if apart_ppb > limit_ppb:
            return Issue(
                f"The rate is {apart_ppb:.3g} ppb off the one saved in this boot; both errors explain "
                f"{limit_ppb:.3g} ppb.",
                again,
                observed=_rate_error(apart_ppb, "difference of the two rates", limit_ppb),
            )
    if fit.stated_ppb is not None:
        host.saw("rate stated by the kernel, Hz", fit.stated_hz)
        if abs(fit.stated_ppb) > _STATED_LIMIT_PPB:
            return Issue(
                f"The counter runs {fit.stated_ppb / 1000:.2f} ppm off the rate the kernel states, beyond rounding.",
                again,
                observed=_rate_error(
                    abs(fit.stated_ppb), "difference from the stated rate", fit.uncertainty_ppb
                ),
            )
    return Pass(f"{fit.source} at {fit.estimate_hz / 1e6:.6f} MHz, {fit.verdict}")


def _rate_error(ppb: float, method: str, uncertainty_ppb: float | None = None) -> Impact:
    """Return the error of a rate as that of a measured second: 1 ppb of it is 1 ns."""
    return error_of(ppb, "measured second", method, uncertainty_ppb)


@check(
    "TSC_NOT_INVARIANT",
    "The TSC changes its rate",
    Severity.CRITICAL,
    Area.CLOCK,
    rule="constant_tsc or nonstop_tsc is missing on any CPU",
    source="Intel SDM volume 3, 18.17.1 Invariant TSC; kernel, arch/x86/kernel/tsc.c",
    solution="Measure with CLOCK_MONOTONIC on this CPU (cfctl calibrate --reference monotonic).",
    impact=not_measurable("how far a rate that changes is off at a moment can not be known"),
    scope=Scope.MACHINE,
)
def tsc_not_invariant(host: Host) -> Outcome:
    """The counter follows the CPU's frequency or stops in sleep states: a difference of two reads
    is no time."""
    flags = _x86_flags(host)
    if flags is None:
        return NotApplicable("no x86: the architecture's counter has a constant rate")
    lacking = {cpu: sorted(_INVARIANT - found) for cpu, found in flags.items() if not found >= _INVARIANT}
    missing = sorted({flag for names in lacking.values() for flag in names})
    host.saw("/proc/cpuinfo flags", missing, f"missing: {', '.join(missing) or 'none'} on {len(flags)} CPUs")
    if not lacking:
        return Pass(f"constant_tsc and nonstop_tsc on {len(flags)} CPUs")
    solution = (
        "Expose the invariant TSC to this guest (-cpu host,+invtsc), and use CLOCK_MONOTONIC until then."
        if host.environment.is_guest
        else "Measure with CLOCK_MONOTONIC on this CPU (cfctl calibrate --reference monotonic)."
    )
    return Issue(
        f"{', '.join(missing)} missing on CPU {format_cpu_list(lacking)}.",
        Fix(privilege=None, solution=solution),
    )


@check(
    "TSC_UNSTABLE",
    "The kernel rejected the TSC",
    Severity.CRITICAL,
    Area.CLOCK,
    rule="an invariant TSC is not among the available clocksources, or the log marks it unstable",
    source="kernel, kernel/time/clocksource.c, clocksource watchdog",
    solution="Check firmware and the log; do not force tsc=reliable before TSC_CPU_SKEW passes.",
    impact=cost_of("monotonic", PER_READ, less="tick"),
    scope=Scope.MACHINE,
)
def tsc_unstable(host: Host) -> Outcome:
    """The kernel's watchdog compared the TSC with another clock and does not trust it: all times
    taken with it are suspect, and the clock in its place is slow."""
    flags = _x86_flags(host)
    if flags is None:
        return NotApplicable("no x86")
    offered = host.text(_AVAILABLE).split()
    marked = _unstable_in_log(host)
    if "tsc" in offered and not marked:
        log = "the log does not mark it" if marked is False else "the kernel log can not be read"
        return Pass(f"tsc is offered; {log}")
    if "tsc" not in offered and not all(found >= _INVARIANT for found in flags.values()):
        return NotApplicable("the TSC is not invariant: TSC_NOT_INVARIANT")
    return Issue(
        "The kernel marked the TSC unstable." if marked else "The TSC is invariant, but no clocksource.",
        run(
            "dmesg | grep -i -e tsc -e clocksource",
        ),
    )


def _unstable_in_log(host: Host) -> bool | None:
    try:
        log = host.view.syscalls.kernel_log()
    except SyscallError as error:
        host.saw("kernel log", None, str(error))
        return None
    marks = [
        line
        for line in log.splitlines()
        if "clocksource 'tsc' as unstable" in line or "TSC found unstable" in line
    ]
    host.saw("kernel log", len(marks), marks[0] if marks else "no mark")
    return bool(marks)


@check(
    "TSC_CPU_SKEW",
    "The tick counters of the CPUs differ",
    Severity.HIGH,
    Area.CLOCK,
    rule="an offset between CPUs > 100 ns and beyond the bound of the measurement, or time seen going back",
    source="judgement",
    solution="Keep producer and consumer on one socket, or take times with CLOCK_MONOTONIC.",
    impact=BLINDS,
    scope=Scope.MACHINE,
    needs=("measurements",),
    also=(Subject.TEMPORAL,),
)
def tsc_cpu_skew(host: Host) -> Outcome:
    """A time taken on one CPU and another on a second differ by the offset of their counters:
    one-way latencies below it are not measurable and may be negative."""
    measured = host.measured()
    if host.cpu_count() == 1:
        return NotApplicable("one CPU")
    offsets = measured.offsets
    if offsets is None:
        raise UnobservableError(measured.reasons.get("offsets", "not measured"))
    worst, bound = offsets.offset_ns, offsets.bound_ns
    pair = f"CPU {offsets.pair[0]} and {offsets.pair[1]}"
    host.saw(
        f"tick counters of {pair}, ns apart", worst, f"{worst:.0f} +-{bound:.0f} ns, {offsets.warps} warps"
    )
    fix = Fix(privilege=None)
    if offsets.warps:
        return Issue(
            f"Time was seen going back between CPUs {offsets.warps} times.", fix, scope=Scope.PROCESS
        )
    if worst <= _SKEW_LIMIT_NS:
        return Pass(f"{len(offsets.cpus)} CPUs, {worst:.0f} ns apart, bound {bound:.0f} ns, no warps")
    if worst <= bound:
        raise UnobservableError(
            f"the offset of {worst:.0f} ns lies within the bound of the measurement, {bound:.0f} ns"
        )
    return Issue(
        f"The counters of {pair} are {worst:.0f} ns apart.",
        fix,
        scope=Scope.PROCESS,
        observed=error_of(worst, "one-way latency", f"error of times taken on {pair}", bound),
    )
