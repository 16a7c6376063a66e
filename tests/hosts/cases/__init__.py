"""What each check says of a host that differs from bare_tuned in one thing."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from cfctl.diagnose.measurements import ClockFit, Effect, LostTime, Measurements, TickOffsets
from cfctl.records import Measurement, Severity

if TYPE_CHECKING:
    from collections.abc import Mapping

LOW, MEDIUM, HIGH, CRITICAL = Severity
CPU: Final = "sys/devices/system/cpu"
# What turns bare_tuned into a KVM guest that still passes.
GUEST: Final = {
    "proc/cpuinfo": "processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: AMD EPYC\n"
    "flags\t\t: fpu tsc constant_tsc nonstop_tsc hypervisor\n",
    "sys/class/dmi/id/sys_vendor": "QEMU\n",
}


@dataclass(frozen=True)
class Host:
    """How a host differs from bare_tuned, whose hot process 4242 is the target."""

    files: Mapping[str, str] = field(default_factory=dict)
    later: Mapping[str, str] = field(default_factory=dict)
    syscalls: Mapping[str, Any] = field(default_factory=dict)
    later_syscalls: Mapping[str, Any] = field(default_factory=dict)
    absent: tuple[str, ...] = ()
    measured: Mapping[str, Any] = field(default_factory=dict)
    pid: int | None = 4242


@dataclass(frozen=True)
class Case:
    """The subject of a check, hosts that make it an issue with their severity, and one that passes.

    `subject` is a regular expression over paths, or "syscalls NAME", or "measured FIELD". With
    `lenient` the content can not be told from garbage (names, free text); with `cpus` an empty line
    is a value.
    """

    subject: str
    bad: tuple[tuple[Severity, Host], ...]
    good: Host = field(default_factory=Host)
    lenient: bool = False
    cpus: bool = False


def changed(severity: Severity, files: Mapping[str, str], **more: Any) -> tuple[Severity, Host]:
    """Return a bad host by the files that differ."""
    return severity, Host(files, **more)


def rising(severity: Severity, later: Mapping[str, str], **more: Any) -> tuple[Severity, Host]:
    """Return a bad host by the files that differ at the end of the interval."""
    return severity, Host(later=later, **more)


GOOD_FIT: Final = ClockFit("tsc", "invariant", "valid", "8 of 8 clusters", 2.596e9, 0.05, 2.596e9, 12.0)
GOOD: Final = Measurements(
    fit=GOOD_FIT,
    saved_fit=replace(GOOD_FIT, estimate_hz=2.596e9 * (1 + 1e-9)),
    offsets=TickOffsets((0, 1), (0, 1), 17.0, 68.0, 0),
    costs={
        name: Measurement(ns, "ns", method="median")
        for name, ns in (
            ("monotonic", 22.6), ("syscall", 165.0), ("page_fault", 1500.0), ("futex_same_cpu", 4000.0),
            ("futex_cross_cpu", 9000.0), ("tick", 10.0), ("context_switch", 2000.0), ("wakeup", 84e3),
            ("wakeup_p99", 130e3), ("huge_fault", 110e3), ("pause", 11e3), ("migration", 5e3),
            ("sibling", 4e8), ("cache_line_near", 26.0), ("cache_line_far", 90.0), ("fsync", 1e6), ("fsync_p99", 3e6),
            ("gil_hand_over", 5e6), ("gc_collection", 11e6),
        )
    },
    lost=(
        LostTime(2, "timer tick", 4e3, 0.8, 10, "phase of the tick"),
        LostTime(2, "hypervisor or firmware", 1e3, 0.2, 3, "by elimination"),
    ),
    effects={
        name: Effect(before, after, Measurement(before - after, unit, 2e3, 4000, "in turn"), 5e3)
        for name, unit, before, after in (
            ("slack", "ns/wake-up", 84e3, 31e3), ("pm_qos", "ns/wake-up", 30e3, 13e3),
            ("idle", "ns/wake-up", 31e3, 15e3), ("socket", "ns/round trip", 60e3, 20e3),
        )
    },
)  # fmt: skip


def lost(cause: str, ns_per_s: float) -> dict[str, Any]:
    """Return the measured losses of a busy loop that lost time to one cause."""
    return {"lost": (LostTime(2, cause, ns_per_s, 1.0, 100, "by elimination"),)}


def costs(**ns: float) -> dict[str, Any]:
    """Return the measured costs of GOOD with some replaced."""
    return {"costs": {**GOOD.costs, **{name: Measurement(value, "ns") for name, value in ns.items()}}}
