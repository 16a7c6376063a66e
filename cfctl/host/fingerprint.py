"""What identifies a host in a saved result: its CPU, kernel, clocksource and what it runs in."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from typing import Final

from cfctl import paths
from cfctl.errors import CfctlError
from cfctl.host.environment import environment
from cfctl.host.syscalls import SyscallError
from cfctl.host.topology import topology
from cfctl.host.view import HostView, UnreadableError
from cfctl.records import to_json
from cfctl.text import safe_text

CACHE_NAME: Final = "cpu.json"
_CLOCKSOURCE: Final = "sys/devices/system/clocksource/clocksource0/current_clocksource"
# The lines of /proc/cpuinfo that name the CPU and do not change while it runs.
_IDENTITY: Final = frozenset({
    "vendor_id", "cpu family", "model", "model name", "stepping", "microcode", "Processor", "Hardware",
    "CPU implementer", "CPU architecture", "CPU variant", "CPU part", "CPU revision", "cpu", "isa", "uarch",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """A host's identity; None for what can not be read, "none" where there provably is none."""

    cpu_brand: str | None
    cpu_count: int | None
    kernel: str | None
    machine: str | None
    clocksource: str | None
    virtualisation: str | None
    container: str | None
    topology: str | None


def fingerprint(view: HostView | None = None) -> Fingerprint:
    """Return the fingerprint of a host, of this one without a view. Never fails.

    Costs about a millisecond; a second and more once for each CPU model, when py-cpuinfo is asked
    for the brand and the answer is kept in the state directory.
    """
    view = view or HostView()
    layers = environment(view)
    cpus = topology(view)
    kernel: str | None = None
    machine: str | None = None
    try:
        name = view.syscalls.uname()
        kernel, machine = safe_text(name.release), safe_text(name.machine)
    except SyscallError:
        pass
    try:
        clocksource = view.word(_CLOCKSOURCE)
    except UnreadableError:
        clocksource = None
    return Fingerprint(
        _brand(view),
        len(cpus.online) or None,
        kernel,
        machine,
        clocksource,
        layers.virtualisation,
        layers.container,
        cpus.summary(),
    )


def _brand(view: HostView) -> str | None:
    identity = _identity(view)
    if not view.is_live:
        # py-cpuinfo knows only the machine it runs on.
        named = (
            view.cpu_brand
            or identity.get("model name")
            or identity.get("Processor")
            or identity.get("Hardware")
        )
        return safe_text(named) if named else None
    key = hashlib.sha256(repr(sorted(identity.items())).encode()).hexdigest()
    cached = _cached_brand(key)
    if cached is not None:
        return cached
    brand = _asked_brand() or identity.get("model name")
    if brand is None:
        return None
    _keep_brand(key, brand)
    return safe_text(brand)


def _identity(view: HostView) -> dict[str, str]:
    try:
        return {k: v for k, v in view.fields("proc/cpuinfo", ":").items() if k in _IDENTITY}
    except UnreadableError:
        return {}


def _cached_brand(key: str) -> str | None:
    try:
        cache = paths.read_json_state(paths.state_directory() / CACHE_NAME)
    except (CfctlError, OSError, ImportError):
        return None
    brand = cache.get("brand") if cache is not None and cache.get("key") == key else None
    return safe_text(brand) if isinstance(brand, str) else None


@functools.cache
def _asked_brand() -> str | None:
    # Both may be missing (pip install --no-deps) or refused (no subprocess in a sandbox).
    try:
        import cpuinfo

        brand = cpuinfo.get_cpu_info().get("brand_raw")
    except Exception:  # noqa: BLE001 - py-cpuinfo raises a bare Exception on machines it does not know
        return None
    return brand if isinstance(brand, str) and brand.strip() else None


def _keep_brand(key: str, brand: str) -> None:
    try:
        paths.write_atomically(
            paths.state_directory() / CACHE_NAME, to_json({"key": key, "brand": brand}).encode()
        )
    except (CfctlError, OSError, ImportError):
        # Nothing is lost but the second it takes to ask again.
        return
