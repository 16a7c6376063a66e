"""What is observed of one CPU around and during a run: counters, the thread's switches, kernel events."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from cfctl.errors import UnobservableError
from cfctl.host import counters
from cfctl.host.environment import environment
from cfctl.host.kernel import build_options
from cfctl.host.view import HostView, UnreadableError
from cfctl.probe import tracing
from cfctl.probe.conversion import Line, Stamp

AUTO: Final = "auto"
UNPRIVILEGED: Final = "unprivileged"
OFF: Final = "off"
MODES: Final = (AUTO, UNPRIVILEGED, OFF)


@dataclass(frozen=True, slots=True)
class Sources:
    """What a run can be observed with: tracepoints, or () and why not; CONFIG_HZ where it is told."""

    tracepoints: tuple[tracing.Tracepoint, ...]
    no_tracepoints: str
    known_hz: int | None
    virtualisation: str | None


def prepare(mode: str) -> Sources:
    """Return the sources of a mode of MODES; reads tracefs, a few ms."""
    if mode == OFF:
        return Sources((), "not asked for", None, None)
    view = HostView()
    hz: int | None = None
    with contextlib.suppress(UnreadableError, ValueError):
        hz = int(build_options(view).get("HZ", "")) or None
    below = environment(view).virtualisation
    if mode == UNPRIVILEGED:
        return Sources((), "not asked for", hz, below)
    try:
        return Sources(tracing.kernel_tracepoints(), "", hz, below)
    except UnobservableError as error:
        return Sources((), str(error), hz, below)


@dataclass(frozen=True, slots=True)
class CpuCounters:
    """One CPU's counters at a moment; None where the file can not be read."""

    monotonic_ns: int
    interrupts: Mapping[str, int] | None
    ticks: int | None
    softirqs: Mapping[str, int] | None
    steal: int | None

    @classmethod
    def read(cls, cpu: int) -> CpuCounters:
        """Return the counters now; about 0.3 ms."""
        view = HostView()
        now_ns = time.monotonic_ns()
        rows: Mapping[str, counters.InterruptRow] | None = None
        softirqs: Mapping[str, int] | None = None
        steal: int | None = None
        with contextlib.suppress(UnreadableError):
            rows = counters.interrupts(view)
        with contextlib.suppress(UnreadableError):
            softirqs = {name: row.counts.get(cpu, 0) for name, row in counters.softirqs(view).items()}
        with contextlib.suppress(UnreadableError):
            steal = counters.cpu_times(view).get(cpu, {}).get("steal")
        if rows is None:
            return cls(now_ns, None, None, softirqs, steal)
        ticks = sum(row.counts.get(cpu, 0) for name, row in rows.items() if _is_timer(name, row.description))
        # The rows of errors (ERR, MIS) count on no CPU.
        return cls(
            now_ns, {name: row.counts.get(cpu, 0) for name, row in rows.items()}, ticks, softirqs, steal
        )


def _is_timer(name: str, description: str) -> bool:
    return name == "LOC" or "arch_timer" in description


@dataclass(frozen=True, slots=True)
class Observed:
    """What was observed around and during one run."""

    monotonic: Line
    raw: Line
    before: CpuCounters | None
    after: CpuCounters | None
    switches_out_ns: tuple[int, ...] | None
    no_switches: str
    events: tuple[tracing.Event, ...] | None
    no_events: str
    tid: int
    sources: Sources


class Observer:
    """Opens the rings of the calling thread and reads the counters around its run."""

    def __init__(self, cpu: int, sources: Sources, duration_ns: float, enabled: bool = True) -> None:
        self._cpu = cpu
        self._sources = sources
        self._duration_ns = round(duration_ns)
        self._enabled = enabled
        self._stack = contextlib.ExitStack()
        self._switches: tracing.Ring | None = None
        self._trace: tracing.Ring | None = None
        self._no_switches = self._no_events = "not asked for"
        self._first: tuple[Stamp, Stamp] | None = None
        self._before: CpuCounters | None = None

    def __enter__(self) -> Observer:
        if self._enabled:
            try:
                self._switches = self._stack.enter_context(tracing.record_switches())
            except UnobservableError as error:
                self._no_switches = error.why
            self._no_events = self._sources.no_tracepoints
            if self._sources.tracepoints:
                try:
                    ring = tracing.trace_this_thread(self._cpu, self._sources.tracepoints, self._duration_ns)
                    self._trace = self._stack.enter_context(ring)
                except UnobservableError as error:
                    self._no_events = str(error)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def begin(self) -> None:
        """Note where the run begins; to be called just before it."""
        if self._enabled:
            self._before = CpuCounters.read(self._cpu)
        self._first = (Stamp.now(time.CLOCK_MONOTONIC), Stamp.now(time.CLOCK_MONOTONIC_RAW))

    def end(self) -> Observed:
        """Return what was observed; to be called just after the run."""
        assert self._first is not None
        last = (Stamp.now(time.CLOCK_MONOTONIC), Stamp.now(time.CLOCK_MONOTONIC_RAW))
        after = CpuCounters.read(self._cpu) if self._enabled else None
        switches, events = self._read_switches(), self._read_events()
        return Observed(
            Line(self._first[0], last[0]),
            Line(self._first[1], last[1]),
            self._before,
            after,
            switches,
            self._no_switches,
            events,
            self._no_events,
            threading.get_native_id(),
            self._sources,
        )

    def _read_switches(self) -> tuple[int, ...] | None:
        if self._switches is None:
            return None
        data, has_room = self._switches.read()
        switches, complete = tracing.switches_in(data)
        if not (complete and has_room):
            self._no_switches = "more switches than the ring holds"
            return None
        return tuple(switch.ns for switch in switches if switch.out)

    def _read_events(self) -> tuple[tracing.Event, ...] | None:
        if self._trace is None:
            return None
        data, has_room = self._trace.read()
        events, complete = tracing.events_in(data, self._sources.tracepoints)
        if not (complete and has_room):
            self._no_events = "more events than the ring holds"
            return None
        return tuple(events)
