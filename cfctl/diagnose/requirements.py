"""The guide's hardware requirements against a host: met, not met or unobservable, with the evidence."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final

from cfctl.diagnose.record import Evidence
from cfctl.errors import UnobservableError
from cfctl.host.counters import meminfo_kib
from cfctl.host.environment import environment, machine
from cfctl.host.fingerprint import Fingerprint, fingerprint
from cfctl.host.kernel import cpu_flags
from cfctl.host.topology import topology
from cfctl.host.view import HostView, Lack, UnreadableError, shown
from cfctl.records import Document, Judgement, JudgementLevel, Verdict
from cfctl.text import safe_text

if TYPE_CHECKING:
    from cfctl.diagnose.storage_probe import StorageRate

# Firmware and kernel keep some memory for themselves: MemTotal is up to a tenth below what is fitted.
_RAM_SHARE: Final = 0.9
_VIRTUAL_DISKS: Final = ("loop", "zram", "ram", "dm-", "md", "sr", "fd")
_CPU: Final = "sys/devices/system/cpu"
NOT_ASKED: Final = "measured only on request: --storage DIR"
_BELOW: Final = "a guest does not see what is below its virtual device"


class Level(enum.StrEnum):
    """What a requirement is for."""

    MINIMUM = "minimum"
    OPTIMAL = "optimal"


class Standing(enum.StrEnum):
    """Whether a host meets a requirement; what can not be seen is never met."""

    MET = "met"
    NOT_MET = "not met"
    UNOBSERVABLE = "unobservable"


@dataclass(frozen=True, slots=True)
class Requirement:
    """One requirement of the guide on one host; `reason` belongs to what could not be observed."""

    level: Level
    subject: str
    rule: str
    standing: Standing
    found: str | None
    evidence: tuple[Evidence, ...]
    reason: str | None


@dataclass(frozen=True, slots=True)
class HardwareReport(Document):
    """All requirements; the verdict is about the minimum: fail when one is not met, pass when all are."""

    SCHEMA: ClassVar[str] = "cfctl.hardware"
    VERSION: ClassVar[int] = 1
    ROWS: ClassVar[str | None] = "requirements"
    verdict: Verdict
    verdict_reason: str
    sysroot: str
    host: Fingerprint
    requirements: tuple[Requirement, ...]

    def judgements(self) -> tuple[Judgement, ...]:
        """Return each requirement; only one of the minimum that is not met counts as failed."""
        return tuple(map(_judgement, self.requirements))


_VERDICTS: Final = {
    Standing.MET: Verdict.PASS, Standing.NOT_MET: Verdict.FAIL, Standing.UNOBSERVABLE: Verdict.INCONCLUSIVE,
}  # fmt: skip


def _judgement(found: Requirement) -> Judgement:
    verdict = _VERDICTS[found.standing]
    failed = verdict is Verdict.FAIL and found.level is Level.MINIMUM
    return Judgement(
        f"{found.level} {found.subject}", found.level, verdict, Verdict.FAIL if failed else Verdict.PASS,
        JudgementLevel.WARNING if failed else JudgementLevel.NOTICE, found.found or found.reason or "",
    )  # fmt: skip


class _Reader:
    """A view whose reads become evidence."""

    def __init__(self, view: HostView) -> None:
        self.view = view
        self.evidence: list[Evidence] = []

    def saw(self, source: str, value: str | int | float) -> None:
        self.evidence.append(
            Evidence(source, safe_text(value), safe_text(value) if isinstance(value, str) else value)
        )


# What a requirement makes of a host: whether it is met, and what was found; raises UnobservableError.
Test = Callable[[_Reader], tuple[bool, str]]


def _x86_with_tsc(reader: _Reader) -> tuple[bool, str]:
    architecture = machine(reader.view)
    if architecture is None:
        raise UnobservableError("the architecture is not known")
    reader.saw("uname", architecture)
    if architecture != "x86_64":
        return False, architecture
    flags = cpu_flags(reader.view)
    if not flags:
        raise UnreadableError("/proc/cpuinfo flags", Lack.MISSING)
    without = [cpu for cpu, names in flags.items() if "tsc" not in names]
    reader.saw("/proc/cpuinfo flags", f"tsc on {len(flags) - len(without)} of {len(flags)} CPUs")
    return not without, f"x86_64, {'no TSC' if without else 'TSC'}"


def _server_cpu(reader: _Reader) -> tuple[bool, str]:
    brand = reader.view.fields("proc/cpuinfo", ":").get("model name")
    if not brand:
        raise UnreadableError("/proc/cpuinfo model name", Lack.MISSING)
    reader.saw("/proc/cpuinfo model name", brand)
    return any(name in brand.upper() for name in ("XEON", "EPYC")), safe_text(brand)


def _cores(least: int) -> Test:
    def test(reader: _Reader) -> tuple[bool, str]:
        known = topology(reader.view)
        threads, cores = len(known.online), len(known.cores)
        if not threads:
            raise UnreadableError(shown(f"{_CPU}/online"), Lack.MISSING)
        reader.saw(shown(f"{_CPU}/online"), threads)
        if cores:
            reader.saw(shown(f"{_CPU}/cpu*/topology/thread_siblings_list"), cores)
            return cores >= least, f"{cores} cores"
        if threads < least:
            return False, f"{threads} threads"
        raise UnobservableError(f"{threads} threads are online; how many cores they are is not said")

    return test


def _clock(least_ghz: float) -> Test:
    def test(reader: _Reader) -> tuple[bool, str]:
        view = reader.view
        paths = view.matching(f"{_CPU}/cpu[0-9]*/cpufreq/cpuinfo_max_freq")
        if paths:
            slowest = min(view.integer(path) for path in paths) / 1e6
            reader.saw(shown(f"{_CPU}/cpu*/cpufreq/cpuinfo_max_freq"), slowest)
            return slowest >= least_ghz, f"{slowest:.2f} GHz at most"
        try:
            now = float(view.fields("proc/cpuinfo", ":").get("cpu MHz", "")) / 1e3
        except ValueError:
            raise UnreadableError(shown(f"{_CPU}/cpu0/cpufreq/cpuinfo_max_freq"), Lack.MISSING) from None
        reader.saw("/proc/cpuinfo cpu MHz", now)
        if now >= least_ghz:
            return True, f"{now:.2f} GHz now"
        raise UnobservableError(f"{now:.2f} GHz now; the highest clock is not said")

    return test


def _ram(least_gb: int) -> Test:
    def test(reader: _Reader) -> tuple[bool, str]:
        total_kib = meminfo_kib(reader.view).get("MemTotal")
        if total_kib is None:
            raise UnreadableError("/proc/meminfo MemTotal", Lack.MISSING)
        reader.saw("/proc/meminfo MemTotal, KiB", total_kib)
        gib = total_kib / 2**20
        return gib >= least_gb * _RAM_SHARE, f"{gib:.1f} GiB usable"

    return test


def _ecc(reader: _Reader) -> tuple[bool, str]:
    paths = reader.view.matching("sys/devices/system/edac/mc/mc[0-9]*/dimm[0-9]*/dimm_edac_mode")
    if not paths:
        raise UnobservableError(f"no EDAC driver says what the memory modules do{_guest_note(reader)}")
    modes = sorted({reader.view.text(path) for path in paths})
    reader.saw("/sys/devices/system/edac/mc/mc*/dimm*/dimm_edac_mode", ", ".join(modes))
    if "Unknown" in modes:
        raise UnobservableError("the EDAC driver does not know the mode of a module")
    return "None" not in modes, f"{len(paths)} modules: {safe_text(', '.join(modes))}"


def _guest_note(reader: _Reader) -> str:
    return f"; {_BELOW}" if environment(reader.view).is_guest else ""


def _disks(reader: _Reader) -> list[str]:
    names = [name for name in reader.view.names("sys/block") if not name.startswith(_VIRTUAL_DISKS)]
    if not names:
        raise UnobservableError("no disk is to be seen in /sys/block")
    return names


def _ssd(reader: _Reader) -> tuple[bool, str]:
    disks = _disks(reader)
    for disk in disks:
        path = f"sys/block/{disk}/queue/rotational"
        rotational = reader.view.integer(path)
        reader.saw(shown(path), rotational)
        # A virtual disk states what the hypervisor was told to state.
        if rotational == 0 and (disk.startswith("nvme") or not environment(reader.view).is_guest):
            return True, f"{disk} does not rotate"
    if environment(reader.view).is_guest:
        raise UnobservableError(_BELOW)
    return False, f"{', '.join(map(safe_text, disks))} rotate"


def _nvme(reader: _Reader) -> tuple[bool, str]:
    disks = _disks(reader)
    reader.saw("/sys/block", ", ".join(disks))
    found = [disk for disk in disks if disk.startswith("nvme")]
    if not found and environment(reader.view).is_guest:
        raise UnobservableError(_BELOW)
    return bool(found), ", ".join(map(safe_text, found or disks))


def _iops(least: int, storage: StorageRate | str) -> Test:
    def test(reader: _Reader) -> tuple[bool, str]:
        if isinstance(storage, str):
            raise UnobservableError(storage)
        rate = storage.reads_per_s
        value, error = rate.value or 0.0, 3 * (rate.uncertainty or 0.0)
        reader.saw(f"{storage.directory}: {rate.method}", round(value))
        if abs(value - least) <= error:
            raise UnobservableError(f"{value:.0f} reads a second, too near to {least} to tell")
        return value > least, f"{value:.0f} random reads a second"

    return test


def _links(reader: _Reader) -> list[str]:
    """Return the network links with a device behind them; a bridge or tunnel has none."""
    view = reader.view
    links = [name for name in view.names("sys/class/net") if view.exists(f"sys/class/net/{name}/device")]
    if not links:
        raise UnobservableError("no network link with a device is to be seen")
    return links


def _network(least_mbps: int) -> Test:
    def test(reader: _Reader) -> tuple[bool, str]:
        fastest, unknown = 0, []
        for link in _links(reader):
            path = f"sys/class/net/{link}/speed"
            try:
                speed = reader.view.integer(path)
            except UnreadableError as error:
                unknown.append(str(error))
                continue
            reader.saw(shown(path), speed)
            if speed <= 0:
                unknown.append(f"{safe_text(link)} does not say its speed")
            fastest = max(fastest, speed)
        if fastest < least_mbps and unknown:
            raise UnobservableError(unknown[0])
        return fastest >= least_mbps, f"{fastest / 1000:g} Gbit/s"

    return test


def _sriov(reader: _Reader) -> tuple[bool, str]:
    view = reader.view
    links = _links(reader)
    for link in links:
        device = f"sys/class/net/{link}/device"
        if view.exists(f"{device}/physfn"):
            reader.saw(shown(f"{device}/physfn"), "a virtual function")
            return True, f"{safe_text(link)} is a virtual function"
        if view.exists(f"{device}/sriov_totalvfs"):
            count = view.integer(f"{device}/sriov_totalvfs")
            reader.saw(shown(f"{device}/sriov_totalvfs"), count)
            if count > 0:
                return True, f"{safe_text(link)} offers {count} virtual functions"
    if environment(view).is_guest:
        raise UnobservableError(_BELOW)
    # The kernel makes the file exactly for a device with the capability: pci-iov-howto.rst.
    reader.saw("/sys/class/net/*/device/sriov_totalvfs", "none")
    return False, f"none of {', '.join(map(safe_text, links))}"


def _table(storage: StorageRate | str) -> Sequence[tuple[Level, str, str, Test]]:
    """Return the guide's two lists, section "Hardware Requirements for Optimal Performance"."""
    low, high = Level.MINIMUM, Level.OPTIMAL
    return (
        (low, "CPU", "x86_64 with TSC", _x86_with_tsc),
        (low, "cores", "4 or more", _cores(4)),
        (low, "RAM", "8 GB or more", _ram(8)),
        (low, "storage", "SSD", _ssd),
        (low, "storage IOPS", "more than 1000", _iops(1000, storage)),
        (low, "network", "1 Gbit/s or more", _network(1000)),
        (high, "CPU", "Intel Xeon or AMD EPYC", _server_cpu),
        (high, "cores", "8 or more", _cores(8)),
        (high, "clock", "3 GHz or more", _clock(3.0)),
        (high, "RAM", "32 GB or more", _ram(32)),
        (high, "ECC", "error-correcting memory", _ecc),
        (high, "storage", "NVMe SSD", _nvme),
        (high, "storage IOPS", "more than 10000", _iops(10_000, storage)),
        (high, "network", "10 Gbit/s or more", _network(10_000)),
        (high, "SR-IOV", "supported by a network device", _sriov),
    )


def hardware(view: HostView, storage: StorageRate | str = NOT_ASKED) -> HardwareReport:
    """Return how a host stands to the guide's requirements; `storage` is a rate or why there is none."""
    found = tuple(_standing(view, *row) for row in _table(storage))
    minimum = [each for each in found if each.level is Level.MINIMUM]
    missed = [each.subject for each in minimum if each.standing is Standing.NOT_MET]
    unseen = [each.subject for each in minimum if each.standing is Standing.UNOBSERVABLE]
    if missed:
        verdict, reason = Verdict.FAIL, f"below the minimum: {', '.join(missed)}"
    elif unseen:
        verdict, reason = Verdict.INCONCLUSIVE, f"of the minimum not to be seen: {', '.join(unseen)}"
    else:
        verdict, reason = Verdict.PASS, "the minimum is met"
    return HardwareReport(verdict, reason, str(view.sysroot), fingerprint(view), found)


def _standing(view: HostView, level: Level, subject: str, rule: str, test: Test) -> Requirement:
    reader = _Reader(view)
    try:
        met, found = test(reader)
    except UnobservableError as error:
        reason = safe_text(error, 300)
        return Requirement(level, subject, rule, Standing.UNOBSERVABLE, None, tuple(reader.evidence), reason)
    standing = Standing.MET if met else Standing.NOT_MET
    return Requirement(level, subject, rule, standing, found, tuple(reader.evidence), None)
