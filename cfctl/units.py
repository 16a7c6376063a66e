"""Quantities as text and back: unit prefixes, digits that the error allows, parsing with a unit."""

from __future__ import annotations

import math
import re
from typing import Final

from cfctl.errors import InputError

NS_PER_S: Final = 1_000_000_000

_TIME_NS: Final = {
    "ns": 1,
    "us": 1_000,
    "ms": 1_000_000,
    "s": NS_PER_S,
    "min": 60 * NS_PER_S,
    "h": 3600 * NS_PER_S,
}
_BYTES: Final = {
    "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40,
}  # fmt: skip
_TIME_EXPECTED: Final = "a time with its unit (ns, us, ms, s, min, h)"
_BYTES_EXPECTED: Final = "a size with its unit (B, kB, MB, GB, KiB, MiB, GiB)"
_RATE: Final = {"/s": 1, "k/s": 10**3, "M/s": 10**6, "G/s": 10**9}
_BYTE_RATE: Final = {f"{name}/s": factor for name, factor in _BYTES.items()}
_RATIO: Final = {"": 1.0, "%": 1e-2, "ppm": 1e-6, "ppb": 1e-9}
# Per base unit: factors, and what a text should be.
_QUANTITIES: Final[dict[str, tuple[dict[str, int], str]]] = {
    "ns": (_TIME_NS, _TIME_EXPECTED),
    "B": (_BYTES, _BYTES_EXPECTED),
    "1/s": (_RATE, "a rate with its unit (/s, k/s, M/s, G/s)"),
    "B/s": (_BYTE_RATE, "a rate with its unit (B/s, kB/s, MB/s, GB/s, MiB/s)"),
    "1": ({"": 1}, "a number"),
}
# The units a number is shown in when none is asked for, per base unit.
_SHOWN: Final[dict[str, tuple[tuple[str, float], ...]]] = {
    "ns": (("s", 1e9), ("ms", 1e6), ("us", 1e3), ("ns", 1)),
    "B": (("GB", 1e9), ("MB", 1e6), ("kB", 1e3), ("B", 1)),
    "Hz": (("GHz", 1e9), ("MHz", 1e6), ("kHz", 1e3), ("Hz", 1)),
    "B/s": (("GB/s", 1e9), ("MB/s", 1e6), ("kB/s", 1e3), ("B/s", 1)),
    "1/s": (("G/s", 1e9), ("M/s", 1e6), ("k/s", 1e3), ("/s", 1)),
    "ratio": (("%", 1e-2),),
    "1": (("", 1),),
}
_QUANTITY = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*([A-Za-zµ%/]*)\s*")


def parse_time_ns(text: str, default_unit: str | None = None) -> int:
    """Return the nanoseconds in "100ms", "1.5 s" or "60" with `default_unit`.

    Raises InputError for a missing or unknown unit, a negative value, one that is not finite or does
    not fit 63 bits.
    """
    return _whole(text, _parse(text, _TIME_NS, _TIME_EXPECTED, default_unit))


def parse_bytes(text: str, default_unit: str | None = None) -> int:
    """Return the bytes in "100MB" (10**6) or "64 KiB" (2**10); raises InputError."""
    return _whole(text, _parse(text, _BYTES, _BYTES_EXPECTED, default_unit))


def parse_ratio(text: str) -> float:
    """Return the ratio in "0.01%", "80 %", "5 ppm" or "0.7"; raises InputError."""
    return _parse(text, _RATIO, "a ratio (0.8, 80%, 5ppm, 20ppb)", "")


def parse_quantity(text: str, unit: str) -> float:
    """Return the value of a text in a base unit, not rounded; raises InputError.

    Base units: "ns", "B", "ratio", "1/s", "B/s", and "1" for a plain number.
    """
    if unit == "ratio":
        return parse_ratio(text)
    if unit not in _QUANTITIES:
        raise ValueError(f"no text form is known for the unit {unit}")
    return _parse(text, *_QUANTITIES[unit], "" if unit == "1" else None)


def _whole(text: str, value: float) -> int:
    if value >= 2**63:
        raise InputError(f"'{text}' can not be used.", "It does not fit 63 bits.")
    return round(value)


def _parse(
    text: str, factors: dict[str, int] | dict[str, float], expected: str, default_unit: str | None
) -> float:
    match = _QUANTITY.fullmatch(text)
    unit = (match[2].replace("µ", "u") or default_unit) if match else None
    if match is None or unit is None or unit not in factors:
        raise InputError(
            f"'{text}' can not be read.",
            f"It should be {expected}.",
            "Write it like '100ms', '64KiB' or '80%'.",
        )
    value = float(match[1]) * factors[unit]
    if not math.isfinite(value) or value < 0:
        raise InputError(f"'{text}' can not be used.", f"It should be {expected}, zero or more.")
    return value


def decimals_for(uncertainty: float) -> int:
    """Return how many decimals show an uncertainty with one digit, two when it starts with 1.

    Source: the rule of the Particle Data Group in its short form; 0 or NaN give 0.
    """
    if not math.isfinite(uncertainty) or uncertainty <= 0:
        return 0
    exponent = math.floor(math.log10(uncertainty))
    leading = uncertainty / 10.0**exponent
    return max(0, -exponent + (1 if leading < 1.95 else 0))


def format_quantity(
    value: float | None,
    unit: str,
    *,
    uncertainty: float | None = None,
    shown_unit: str | None = None,
    digits: int = 3,
) -> str:
    """Return a value as text with its unit, with no more digits than its uncertainty allows.

    `unit` is the base unit of `value` ("ns", "B", "Hz", "1/s", "ratio", or any other, shown as it
    is). The shown unit is chosen by size unless `shown_unit` fixes it. Without an uncertainty
    `digits` significant digits are shown; None is shown as "-".
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    name, factor = choose_unit(value, unit, shown_unit)
    scaled = value / factor
    if math.isinf(scaled):
        return "inf" if scaled > 0 else "-inf"
    if uncertainty is not None and uncertainty > 0:
        decimals = decimals_for(uncertainty / factor)
    elif (unit in {"ns", "B", "Hz"} and factor == 1 and float(value).is_integer()) or scaled == 0:
        decimals = 0
    else:
        # The exponent after rounding: 0.9996 us is 1.00 us.
        exponent = int(f"{scaled:.{digits - 1}e}".partition("e")[2])
        decimals = max(0, digits - 1 - exponent)
    text = f"{scaled:.{min(decimals, 15)}f}"
    if text.startswith("-") and not text.strip("-0."):
        text = text[1:]
    separator = "" if name.startswith("/") else " "
    return f"{text}{separator}{name}" if name else text


def choose_unit(value: float, unit: str, shown_unit: str | None = None) -> tuple[str, float]:
    """Return (name, factor) of the unit a value is shown in: the largest that keeps it >= 1.

    A fixed `shown_unit` that does not belong to `unit` is ignored, so that `--unit us` fixes times
    and leaves sizes alone.
    """
    choices = _SHOWN.get(unit)
    if choices is None:
        return unit, 1.0
    for name, factor in choices:
        if shown_unit == name:
            return name, factor
    for name, factor in choices:
        if abs(value) >= factor * 0.9995:
            return name, factor
    return choices[-1]
