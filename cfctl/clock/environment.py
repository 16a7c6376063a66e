"""What the kernel and the hypervisor say about the clocks: the facts that open and close an epoch."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cfctl import _native
from cfctl.clock.calibration import CLOCK_BOOTTIME, CLOCK_IDS
from cfctl.clock.snap import kernel_rate
from cfctl.text import safe_text

_CLOCKSOURCE: Final = "sys/devices/system/clocksource/clocksource0"
# adjtimex(2): the clock is not disciplined by anything.
_STA_UNSYNC: Final = 0x40
_TIME_ERROR: Final = 5
# struct vmclock_abi of linux/vmclock-abi.h: magic "VCLK" at 0, disruption_marker at 16.
_VMCLOCK_MAGIC: Final = 0x4B4C4356
_VIRTUAL_PTP: Final = ("kvm", "vmware", "hyperv", "vmclock")
_KMSG_RECORD_BYTES: Final = 8192
_STATED_MHZ: Final = re.compile(
    r"tsc: (Detected|Refined TSC clocksource calibration:) ([0-9]+\.[0-9]{3}) MHz"
)
_CLOCK_LINES: Final = re.compile(
    r"marking (tsc|clocksource)|tsc (found )?unstable|tsc synchronization|firmware bug.*tsc|refined tsc|tsc: detected",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Environment:
    """The state of the clocks at one moment; two of them differ when an epoch ended between.

    `suspended_ns` is BOOTTIME - MONOTONIC: the time spent suspended. `disruption_marker` is the
    hypervisor's count of migrations (VMClock), None where there is none.
    """

    clocksource: str | None
    boot_id: str | None
    time_namespace_offset_ns: int
    suspended_ns: int
    disruption_marker: int | None


@dataclass(frozen=True, slots=True)
class Discipline:
    """What adjtimex(2) says about the wall clock, or why it says nothing."""

    synchronized: bool | None
    frequency_ppm: float | None
    max_error_ns: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class StatedRate:
    """The counter's rate as the kernel, the hypervisor or the CPU states it, and where it was read."""

    stated_hz: int | None
    source: str


def observe(sysroot: Path = Path("/")) -> Environment:
    """Return the present state of the clocks; about 0.1 ms."""
    monotonic_offset, boottime_offset = time_namespace_offsets(sysroot)
    monotonic = _native.os_clock_ns(CLOCK_IDS["monotonic"]) - monotonic_offset
    boottime = _native.os_clock_ns(CLOCK_BOOTTIME) - boottime_offset
    return Environment(
        clocksource(sysroot),
        _read(sysroot / "proc/sys/kernel/random/boot_id"),
        monotonic_offset,
        # Whole milliseconds: the two are read one after the other, and no suspend is shorter.
        (boottime - monotonic) // 1_000_000 * 1_000_000,
        disruption_marker(sysroot),
    )


def clocksource(sysroot: Path = Path("/")) -> str | None:
    """Return the kernel's current clocksource, None when /sys does not tell."""
    return _read(sysroot / _CLOCKSOURCE / "current_clocksource")


def available_clocksources(sysroot: Path = Path("/")) -> tuple[str, ...]:
    """Return the clocksources the kernel would accept; empty when /sys does not tell."""
    return tuple((_read(sysroot / _CLOCKSOURCE / "available_clocksource") or "").split())


def time_namespace_offsets(sysroot: Path = Path("/")) -> tuple[int, int]:
    """Return what this process's time namespace adds to MONOTONIC (and RAW) and to BOOTTIME, in ns."""
    offsets = {"monotonic": 0, "boottime": 0}
    for line in (_read(sysroot / "proc/self/timens_offsets") or "").splitlines():
        words = line.split()
        if len(words) == 3 and words[0] in offsets:
            try:
                offsets[words[0]] = int(words[1]) * 1_000_000_000 + int(words[2])
            except ValueError:
                continue
    return offsets["monotonic"], offsets["boottime"]


def disruption_marker(sysroot: Path = Path("/")) -> int | None:
    """Return the hypervisor's count of disruptions of this machine's clocks, None without a VMClock."""
    import mmap

    try:
        fd = os.open(sysroot / "dev/vmclock0", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        with mmap.mmap(fd, mmap.PAGESIZE, prot=mmap.PROT_READ) as page:
            return parse_vmclock(page[:24])
    except (OSError, ValueError):
        return None
    finally:
        os.close(fd)


def parse_vmclock(data: bytes) -> int | None:
    """Return the disruption marker of a VMClock page, None when it is no such page."""
    if len(data) < 24 or struct.unpack_from("<I", data)[0] != _VMCLOCK_MAGIC:
        return None
    return int(struct.unpack_from("<Q", data, 16)[0])


def discipline() -> Discipline:
    """Return whether and how something disciplines the system clock."""
    try:
        state, status, frequency, _, max_error_us, _ = _native.clock_discipline()
    except OSError as error:
        return Discipline(None, None, None, f"adjtimex: {error.strerror}")
    synchronized = state != _TIME_ERROR and not status & _STA_UNSYNC
    reason = (
        "the kernel counts the clock as synchronized" if synchronized else "nothing disciplines the clock"
    )
    return Discipline(synchronized, frequency / 65536, max_error_us * 1000, reason)


def independence(reference: str, clock: Discipline, sysroot: Path = Path("/")) -> tuple[str, str]:
    """Return what a comparison with the reference is worth ("none", "host", "external"), and why."""
    if reference == "raw":
        return "none", "the kernel derives CLOCK_MONOTONIC_RAW from this counter"
    if not clock.synchronized:
        return "none", f"the kernel derives the reference from this counter, and {clock.reason}"
    names = [_read(path / "clock_name") or "" for path in sorted((sysroot / "sys/class/ptp").glob("ptp*"))]
    virtual = [name for name in names if any(word in name.lower() for word in _VIRTUAL_PTP)]
    if virtual:
        return (
            "host",
            f"the clock is disciplined and a hypervisor's clock ({safe_text(virtual[0])}) is at hand",
        )
    return "external", "the clock is disciplined by NTP or PTP"


def stated_rate(source: str, sysroot: Path = Path("/")) -> StatedRate:
    """Return the first rate that is stated: sysfs, kernel log, hypervisor, CPU; never a marketing MHz.

    CPUID leaf 0x16 and the brand string are not read: they name a nominal speed, 3 % off and more.
    """
    if source == "cntvct":
        return StatedRate(_native.stated_counter_hz(), "CNTFRQ_EL0")
    if source != "tsc":
        return StatedRate(None, "the OS clock has no stated rate")
    khz = _read(sysroot / "sys/devices/system/cpu/cpu0/tsc_freq_khz")
    if khz and khz.isdecimal():
        return StatedRate(int(khz) * 1000, "sysfs tsc_freq_khz")
    lines, log_reason = kernel_log_clock_lines(sysroot)
    # The refined rate, when there is one, is the later line and the one that counts.
    stated = [match for line in lines if (match := _STATED_MHZ.search(line))]
    if stated:
        return StatedRate(round(float(stated[-1][2]) * 1000) * 1000, "kernel log")
    return _stated_by_cpuid() or StatedRate(
        None, f"{log_reason or 'the kernel log no longer holds it'}, and CPUID states none"
    )


def _stated_by_cpuid() -> StatedRate | None:
    """Return the rate of the hypervisor's leaf 0x40000010, or of leaf 0x15 (Intel SDM vol. 2A, CPUID)."""
    hypervisor = _native.cpuid(0x40000000)
    if hypervisor and hypervisor[0] >= 0x40000010:
        leaf = _native.cpuid(0x40000010)
        if leaf and leaf[0]:
            return StatedRate(leaf[0] * 1000, "hypervisor (CPUID 0x40000010)")
    crystal = _native.cpuid(0x15)
    if crystal and all(crystal[:3]):
        return StatedRate(crystal[2] * crystal[1] // crystal[0], "CPUID 0x15")
    return None


def stated_deviation_ppb(estimate_hz: float, stated_hz: int, source: str) -> float | None:
    """Return how far a rate lies from a stated one, beyond the kernel's rounding of mult, in ppb."""
    try:
        rate = kernel_rate(stated_hz, 1000 if source == "tsc" else 1)
    except ValueError:
        return None
    return (estimate_hz / rate.frequency_hz - 1) * 1e9


def kernel_log_clock_lines(sysroot: Path = Path("/")) -> tuple[list[str], str]:
    """Return the kernel log's lines about clocks, and why there are none when it can not be read."""
    try:
        fd = os.open(sysroot / "dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        return [], f"the kernel log can not be read ({error.strerror})"
    try:
        return [line for line in _kmsg_messages(fd) if _CLOCK_LINES.search(line)], ""
    except OSError as error:
        return [], f"the kernel log can not be read ({error.strerror})"
    finally:
        os.close(fd)


def _kmsg_messages(fd: int) -> Iterator[str]:
    """Yield the messages of /dev/kmsg: one read is one record, "priority,sequence,time,flags;message"."""
    while True:
        try:
            record = os.read(fd, _KMSG_RECORD_BYTES)
        except BlockingIOError:
            return
        except BrokenPipeError:
            continue  # the record was overwritten meanwhile; the next read takes the oldest left
        if not record:
            return
        text = record.decode("utf-8", "replace").partition(";")[2] or record.decode("utf-8", "replace")
        yield from (safe_text(line) for line in text.split("\n", 1)[:1])


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None
