"""The clocks of this machine as an instrument: what a read costs and how finely the counter steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from cfctl.records import Document, Measurement

if TYPE_CHECKING:
    from cfctl.host.fingerprint import Fingerprint


@dataclass(frozen=True, slots=True)
class ClockCosts(Document):
    """The cost of one read of each clock, the counter's step, and which counter is used and why."""

    SCHEMA: ClassVar[str] = "cfctl.probe.clock"
    VERSION: ClassVar[int] = 1

    tick_source: str
    tick_source_reason: str
    tick_step: Measurement
    read_costs: Mapping[str, Measurement]
    host: Fingerprint | None = None


def measure_clock() -> ClockCosts:
    """Return what cfctl.clock measures of the clocks; about 30 ms."""
    from cfctl import _native
    from cfctl.clock.costs import read_costs, tick_step

    source, _, reason = _native.tick_source()
    return ClockCosts(source, reason, tick_step(), read_costs())
