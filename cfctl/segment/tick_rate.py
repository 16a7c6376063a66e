"""What one tick of a segment lasts, from the best of what is known about its clock."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from cfctl.segment.format import TickSource
from cfctl.segment.records import ClockPair, SegmentHeader

# A pair of a tick and a CLOCK_MONOTONIC_RAW reading between two ticks is good to about half the
# cost of the three reads.
PAIR_ERROR_NS: Final = 50.0
# Beyond this the rate is worse than a histogram's bucket (0.4 %), and ticks say more than it.
_MAX_ERROR_RATIO: Final = 1e-3
# Tick counters run between 1 MHz (aarch64's slowest in use) and 10 GHz.
_NS_PER_TICK_RANGE: Final = (0.1, 1000.0)
_BOOT_ID_FILE: Final = "/proc/sys/kernel/random/boot_id"


@dataclass(frozen=True, slots=True)
class TickRate:
    """Nanoseconds per tick, its relative uncertainty in 1e-9, and where they are from.

    Without a usable rate `ns_per_tick` is None and `reason` says why; times stay in ticks.
    """

    ns_per_tick: float | None
    uncertainty_ppb: float | None
    method: str
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class LocalClock:
    """The reader's own tick counter: which boot, whether it counts the OS clock, and a pair of now."""

    boot_id: str
    counts_os_ns: bool
    pair: ClockPair


@dataclass(frozen=True, slots=True)
class SavedRate:
    """The rate of a saved calibration and the boot it belongs to."""

    ns_per_tick: float
    uncertainty_ppb: float
    boot_id: str
    name: str


def boot_id() -> str:
    """Return this boot's id, "" where the kernel tells none."""
    try:
        with open(_BOOT_ID_FILE, encoding="ascii") as file:
            return file.read(64).strip()
    except (OSError, UnicodeDecodeError):
        return ""


def local_clock(attempts: int = 20) -> LocalClock:
    """Return the reader's clock with the narrowest of some pairs; about 30 us."""
    from cfctl import _native

    narrowest: tuple[int, ClockPair, bool] | None = None
    for _ in range(attempts):
        before = _native.ticks()
        raw_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
        after = _native.ticks()
        # A tick source that counts the OS clock stands still around a reading of it; no CPU's
        # counter agrees with that clock to a microsecond by chance.
        is_os = before <= raw_ns <= after
        if narrowest is None or after - before < narrowest[0]:
            narrowest = (after - before, ClockPair((before + after) // 2, raw_ns), is_os)
    assert narrowest is not None
    return LocalClock(boot_id(), narrowest[2], narrowest[1])


def tick_rate(
    header: SegmentHeader, local: LocalClock | None = None, saved: SavedRate | None = None
) -> TickRate:
    """Return what a tick of the segment lasts.

    By preference: the OS clock counts nanoseconds; a calibration saved in the same boot; the
    segment's opening pair and the reader's of now; the segment's opening and latest pair. A
    calibration that the pairs contradict is not used.
    """
    if header.tick_source is TickSource.OS:
        return TickRate(1.0, 0.0, "ticks of the OS clock")
    measured = min(_from_pairs(header, local), key=_error, default=None)
    if saved is not None and saved.boot_id and saved.boot_id == header.boot_id:
        calibrated = TickRate(saved.ns_per_tick, saved.uncertainty_ppb, saved.name)
        if measured is None or _agree(calibrated, measured):
            return calibrated
    return measured or TickRate(None, None, "none", _no_rate_reason(header))


def _from_pairs(header: SegmentHeader, local: LocalClock | None) -> Iterator[TickRate]:
    own = _slope(header.opened, header.latest, "two clock readings of the program")
    here = local is not None and local.boot_id != "" and local.boot_id == header.boot_id
    if local is not None and here and not local.counts_os_ns:
        rate = _slope(header.opened, local.pair, "clock readings of the program and of this command")
        # In another time namespace the reader's clock is shifted against the writer's.
        if rate is not None and (own is None or _agree(rate, own)):
            yield rate
    if own is not None:
        yield own


def _slope(first: ClockPair, last: ClockPair, method: str) -> TickRate | None:
    ticks, elapsed_ns = last.tick - first.tick, last.raw_ns - first.raw_ns
    if ticks <= 0 or elapsed_ns <= 0:
        return None
    error_ratio = 2 * PAIR_ERROR_NS / elapsed_ns
    lowest, highest = _NS_PER_TICK_RANGE
    if error_ratio > _MAX_ERROR_RATIO or not lowest <= elapsed_ns / ticks <= highest:
        return None
    return TickRate(elapsed_ns / ticks, error_ratio * 1e9, method)


def _error(rate: TickRate) -> float:
    return math.inf if rate.uncertainty_ppb is None else rate.uncertainty_ppb


def _agree(a: TickRate, b: TickRate) -> bool:
    if a.ns_per_tick is None or b.ns_per_tick is None:
        return False
    return abs(a.ns_per_tick / b.ns_per_tick - 1) <= max((_error(a) + _error(b)) * 1e-9, _MAX_ERROR_RATIO)


def _no_rate_reason(header: SegmentHeader) -> str:
    if header.latest == header.opened:
        return "The program left one clock reading only, and it ran before this boot."
    return "The program's clock readings are too close together to give a rate."
