"""A directory with a real bus in it, whose faults the checks are to find: what their tests plant in."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cfctl import _native
from cfctl.bus import Bus, BusConfig, Subscription
from cfctl.bus.reading import BusReading
from cfctl.bus.report import report_of
from cfctl.bus.rings import list_bus
from cfctl.bus.runs import RunWatch
from cfctl.diagnose.bus import NO_BUS
from cfctl.diagnose.engine import catalogue, run_check
from cfctl.diagnose.live import Live
from cfctl.diagnose.record import Area, CheckResult, Subject
from cfctl.diagnose.subject import Facts
from cfctl.host.view import HostView
from cfctl.segment.file import Liveness
from cfctl.segment.process import open_segment
from cfctl.segment.reader import parse_segment
from cfctl.segment.tick_rate import local_clock

if TYPE_CHECKING:
    from cfctl.bus.statistics import BusReport

CHECKS = {check.id: check for check in catalogue(Subject.TEMPORAL) if check.area is Area.BUS}
PATIENCE_S = 30.0
SECOND_NS = 1_000_000_000


def result_of(check_id: str, report: BusReport) -> CheckResult:
    """Return what a check makes of a report."""
    return run_check(
        CHECKS[check_id], Facts(HostView(), None, "timer", None, live=Live((), NO_BUS, bus=report))
    )


class Plant:
    """A directory of rings with this process's own counters, of the buses made through it only."""

    def __init__(self, directory: Path) -> None:
        open_segment()
        self.directory = directory
        self._buses: list[Bus] = []
        self._known: set[int] = set()
        self._known = {entry.offset for entry in self._segment().entries}
        self.before: BusReading | None = None
        self.runs = RunWatch()
        self.window_ns = SECOND_NS

    def bus(self, **settings: Any) -> Bus:
        settings = {"channel_buffer_size": 64, "payload_bytes": 32} | settings
        made = Bus(BusConfig(directory=self.directory, **settings))
        self._buses.append(made)
        return made

    def close(self) -> None:
        for bus in self._buses:
            bus.close()

    def mark(self) -> None:
        """Begin the interval."""
        self.before = self.read()
        self.runs = RunWatch()
        self.look()

    def look(self) -> None:
        """Look at the rings within the interval."""
        self.runs.look(list_bus(self.directory).rings)

    def read(self) -> BusReading:
        files = list_bus(self.directory)
        assert not files.errors
        return BusReading(
            self.directory, files.topics, files.rings, ((self._segment(), Liveness.LOCKED),), local_clock(), time.monotonic_ns(),
            time.time_ns(), 0, (),
        )  # fmt: skip

    def _segment(self) -> Any:
        segment = parse_segment(_native.segment_bytes())
        entries = tuple(e for e in segment.entries if e.offset not in self._known and e.kind != "operation")
        return dataclasses.replace(segment, entries=entries)

    def result(self, check_id: str) -> CheckResult:
        """Return a check's result; the interval counts as `window_ns` long, however long it took."""
        now, before = self.read(), self.before
        if before is not None:
            before = dataclasses.replace(before, monotonic_ns=now.monotonic_ns - self.window_ns)
        self.look()
        return result_of(check_id, report_of(now, before, None, self.runs.runs))


def joined(bus: Bus, topic: str = "topic") -> Subscription:
    bus.publisher(topic)
    subscription = bus.subscribe(topic)
    assert subscription.try_recv() is None
    return subscription


def until(holds: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.001)
