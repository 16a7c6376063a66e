"""What a kernel was built with, was started with, and runs on."""

from __future__ import annotations

import shlex
import zlib
from typing import Final

from cfctl.host.syscalls import SyscallError
from cfctl.host.view import HostView, Lack, UnreadableError, integer_in, shown

_CONFIG: Final = "proc/config.gz"
_MAX_CONFIG_BYTES: Final = 4 << 20


def command_line(view: HostView) -> dict[str, str]:
    """Return the parameters the kernel was started with; the value of a bare one is "".

    What follows "--" belongs to init. Raises UnreadableError.
    """
    text = view.text("proc/cmdline")
    try:
        words = shlex.split(text)
    except ValueError:
        words = text.split()
    if "--" in words:
        words = words[: words.index("--")]
    pairs = (word.partition("=") for word in words)
    # The kernel treats - and _ in names alike: kernel, kernel/params.c, dash2underscore().
    return {name.replace("-", "_"): value for name, _, value in pairs}


def build_options(view: HostView) -> dict[str, str]:
    """Return the CONFIG_ options of the kernel that are set, without the prefix.

    From /proc/config.gz, else /boot/config-<release>; raises UnreadableError.
    """
    try:
        text = _inflated(view.content(_CONFIG))
    except UnreadableError as error:
        try:
            release = view.syscalls.uname().release
        except SyscallError:
            raise error from None
        if "/" in release:
            raise error from None
        text = view.text(f"boot/config-{release}")
    pairs = (line[7:].partition("=") for line in text.splitlines() if line.startswith("CONFIG_"))
    options = {name: value.strip('"') for name, _, value in pairs}
    if not options:
        raise UnreadableError(shown(_CONFIG), Lack.GARBAGE, "no CONFIG_ option in it")
    return options


def _inflated(data: bytes) -> str:
    if not data:
        raise UnreadableError(shown(_CONFIG), Lack.EMPTY)
    try:
        # 16 + MAX_WBITS: gzip. The bound keeps a hostile capture from filling the memory.
        return (
            zlib.decompressobj(16 + zlib.MAX_WBITS)
            .decompress(data, _MAX_CONFIG_BYTES)
            .decode("utf-8", "replace")
        )
    except zlib.error:
        raise UnreadableError(shown(_CONFIG), Lack.GARBAGE, "no gzip data") from None


def cpu_flags(view: HostView) -> dict[int, frozenset[str]]:
    """Return the feature flags of each CPU in /proc/cpuinfo; {} where it has no such line.

    Raises UnreadableError. x86 calls the line "flags", arm64 "Features".
    """
    found: dict[int, frozenset[str]] = {}
    cpu = -1
    for line in view.lines("proc/cpuinfo"):
        name, _, value = line.partition(":")
        name = name.strip()
        if name == "processor":
            cpu = integer_in("proc/cpuinfo", value.strip())
        elif name in {"flags", "Features"} and cpu >= 0:
            found[cpu] = frozenset(value.split())
    return found


def cpu_vendor(view: HostView) -> str | None:
    """Return the vendor_id of /proc/cpuinfo, e.g. GenuineIntel; None when it is not named."""
    try:
        return view.fields("proc/cpuinfo", ":").get("vendor_id")
    except UnreadableError:
        return None
