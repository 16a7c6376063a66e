"""CPU sets as the kernel writes them: lists ("0-3,8") and hex masks ("ff,ffffffff")."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

# NR_CPUS of the largest kernels is 8192; anything far above it is no CPU list.
MAX_CPU: Final = 65_535
_RANGE = re.compile(r"(\d+)(?:-(\d+)(?::(\d+)/(\d+))?)?")
_MASK = re.compile(r"(?:0x)?[0-9a-fA-F]+(?:,[0-9a-fA-F]{1,8})*")


def parse_cpu_list(text: str) -> tuple[int, ...]:
    """Return the CPUs of a list like "0-3,8" or "0-31:1/2" in order; "(null)" and "" are none.

    Raises ValueError for anything else. Source: kernel, lib/bitmap-str.c, bitmap_parselist().
    """
    text = text.strip()
    if text in {"", "(null)", "none"}:
        return ()
    cpus: set[int] = set()
    left = MAX_CPU + 1
    for part in text.split(","):
        match = _RANGE.fullmatch(part.strip())
        if match is None:
            raise ValueError(f"'{part}' is no CPU range")
        first, last = int(match[1]), int(match[2] or match[1])
        used, group = int(match[3] or 1), int(match[4] or 1)
        if not first <= last <= MAX_CPU or not 0 < used <= group:
            raise ValueError(f"'{part}' is no CPU range")
        # Ranges that name more CPUs than there can be come from nobody but an attacker of our time.
        left -= last - first + 1
        if left < 0:
            raise ValueError(f"more than {MAX_CPU + 1} CPUs are named")
        cpus.update(cpu for cpu in range(first, last + 1) if (cpu - first) % group < used)
    return tuple(sorted(cpus))


def parse_cpu_mask(text: str) -> tuple[int, ...]:
    """Return the CPUs of a hex mask like "ff,ffffffff" in order; "(null)" and "" are none.

    Each comma separates 32 CPUs, the lowest last. Raises ValueError for anything else.
    """
    text = text.strip()
    if text in {"", "(null)"}:
        return ()
    if len(text) > MAX_CPU // 3 or not _MASK.fullmatch(text):
        raise ValueError(f"'{text[:40]}' is no CPU mask")
    head, *tail = text.removeprefix("0x").split(",")
    mask = int(head + "".join(word.rjust(8, "0") for word in tail), 16)
    return tuple(cpu for cpu in range(mask.bit_length()) if mask >> cpu & 1)


def format_cpu_mask(cpus: Iterable[int]) -> str:
    """Return CPUs as a hex mask the kernel accepts: "ff,ffffffff"; "0" for none.

    Source: kernel, lib/bitmap-str.c, bitmap_parse(): a word of more than 32 bits without a comma is refused.
    """
    mask = sum(1 << cpu for cpu in set(cpus))
    words = []
    while mask >> 32:
        words.append(f"{mask & 0xFFFF_FFFF:08x}")
        mask >>= 32
    return ",".join([f"{mask:x}", *reversed(words)])


def format_cpu_list(cpus: Iterable[int]) -> str:
    """Return CPUs as a list the kernel accepts: "0-3,8"; "" for none."""
    parts: list[str] = []
    ordered = sorted(set(cpus))
    start = 0
    for index, cpu in enumerate(ordered):
        if index + 1 < len(ordered) and ordered[index + 1] == cpu + 1:
            continue
        first = ordered[start]
        parts.append(str(cpu) if first == cpu else f"{first}-{cpu}")
        start = index + 1
    return ",".join(parts)
