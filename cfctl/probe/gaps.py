"""The gaps of a jitter run: what the loop noted about each."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from cfctl.probe.conversion import Line

# struct cf_gap of native/probe_jitter.h.
_GAP: Final = struct.Struct("=QQII")


@dataclass(frozen=True, slots=True, order=True)
class Gap:
    """Time between two neighbouring reads of the loop, in ns of CLOCK_MONOTONIC or _RAW.

    `involuntary_switches` and `minor_faults` are those of the measuring thread during the gap.
    """

    start_ns: int
    end_ns: int
    involuntary_switches: int = 0
    minor_faults: int = 0

    @property
    def duration_ns(self) -> int:
        """Return the gap's length."""
        return self.end_ns - self.start_ns


def unpack(kept: bytes, line: Line) -> list[Gap]:
    """Return the gaps in the native loop's array in order of time, placed by `line`."""
    gaps = [
        Gap(line.ns_of(start), line.ns_of(start + ticks), switches, faults)
        for start, ticks, switches, faults in _GAP.iter_unpack(kept)
    ]
    gaps.sort()
    return gaps
