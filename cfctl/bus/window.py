"""Two readings of the bus and what happened between: rises, rates and ages, by process."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from cfctl.bus.latency import integer, latency_of
from cfctl.bus.reading import LATENESS, BusReading, is_own
from cfctl.bus.statistics import ClockStatistics, DispatcherStatistics, missed_of
from cfctl.records import Measurement
from cfctl.segment.file import state_word
from cfctl.segment.tick_rate import tick_rate
from cfctl.temporal.coherence import MIN_SAMPLES, DispatcherTime, PhaseSum

if TYPE_CHECKING:
    from cfctl.bus.rings import Ring, RingReader
    from cfctl.segment.file import Liveness
    from cfctl.segment.records import Entry, Segment

COUNTS: Final = (
    "accepted", "with_deadline", "refused", "delivered", "late", "expired", "held_by_deps", "unmet_delivered",
    "dropped_by_deps", "fifo_violations", "dependency_violations", "hlc_order_violations", "dispatches",
    "received_due", "failed", "damaged", "unsent", "undelivered", "unknown_dependencies", "not_held", "subscribed",
    "unsubscribed", "idle_pending",
)  # fmt: skip
_NS_PER_S: Final = 1e9
# kind, name, labels
_Key = tuple[str, str, tuple[tuple[str, str], ...]]


class Window:
    """Two readings, or one: what each counter was, and the time between."""

    def __init__(self, now: BusReading, before: BusReading | None) -> None:
        self.now = now
        self.ns = None if before is None else max(1, now.monotonic_ns - before.monotonic_ns)
        self.skew_ns = now.took_ns + (before.took_ns if before else 0)
        earlier = {_identity(segment): segment for segment, _ in before.segments} if before else {}
        self.processes = [Process(self, s, state, earlier.get(_identity(s))) for s, state in now.segments]
        self.rings_before = {ring.ring_id: ring for ring in before.rings} if before else {}
        self.wake_words_before = {page.hash: page.wake_word for page in before.topics} if before else {}
        rates = (each.ns_per_tick for each in self.processes if each.state == "live")
        self.ns_per_tick = next((rate for rate in rates if rate), None)
        self.problems = tuple(problem for segment, _ in now.segments for problem in segment.problems)

    def rate(self, rise: int | None, whole: int, elapsed_ns: float | None) -> Measurement:
        """Return messages per second in the window, else between the first and the last one."""
        if self.ns is not None and rise is not None:
            value = rise * _NS_PER_S / self.ns
            error = (_NS_PER_S + value * self.skew_ns) / self.ns
            return Measurement(value, "1/s", error, rise, "over the window")
        if whole < 2 or not elapsed_ns:
            return Measurement.missing("1/s", "fewer than two messages")
        value = (whole - 1) * _NS_PER_S / elapsed_ns
        return Measurement(value, "1/s", value / whole, whole, "between the first message and the last")

    def age_ns(self, ring: Ring, readers: Iterable[RingReader]) -> float | None:
        """Return since when the oldest message waits for one of the readers."""
        oldest = min((each.oldest_tick for each in readers if each.oldest_tick), default=None)
        local = self.now.local
        if oldest is None or self.ns_per_tick is None or ring.boot_id != local.boot_id:
            return None
        return max(0.0, (local.pair.tick - oldest) * self.ns_per_tick)


def _identity(segment: Segment) -> tuple[int, int, int]:
    return segment.header.pid, segment.header.start_time, segment.header.opened_unix_ns


class Process:
    """The instruments of one process."""

    def __init__(self, window: Window, segment: Segment, state: Liveness, before: Segment | None) -> None:
        self.window = window
        self.segment = segment
        self.pid = segment.header.pid
        self.state = state_word(segment.header, state)
        self.own = is_own(segment.header)
        self.ns_per_tick = tick_rate(segment.header, window.now.local).ns_per_tick
        self._before = {_key(entry): entry for entry in before.entries} if before else {}

    def of(self, kind: str) -> Iterator[Entry]:
        """Yield its instruments of a kind."""
        return (entry for entry in self.segment.entries if entry.kind == kind)

    def before(self, entry: Entry) -> Entry | None:
        """Return an instrument as it was at the window's start; None when it is newer."""
        return self._before.get(_key(entry))

    def rise(self, entry: Entry, field: str) -> int | None:
        """Return by how much a counter rose in the window; what is new in it rose from 0."""
        if self.window.ns is None:
            return None
        before = self.before(entry)
        return max(0, integer(entry.values, field) - (integer(before.values, field) if before else 0))

    def elapsed_ns(self, entry: Entry) -> float | None:
        """Return the time between an endpoint's first message and its last."""
        first, last = entry.values.get("first_tick"), entry.values.get("last_tick")
        if (
            not isinstance(first, int)
            or not isinstance(last, int)
            or last <= first
            or self.ns_per_tick is None
        ):
            return None
        return (last - first) * self.ns_per_tick

    def dispatcher(self, entry: Entry) -> DispatcherStatistics:
        """Return what a bus's dispatcher did."""
        counts = {name: integer(entry.values, name) for name in COUNTS}
        rises = None
        if self.window.ns is not None:
            rises = {name: self.rise(entry, name) or 0 for name in COUNTS}
        late = next((each for each in self.of(LATENESS) if each.name == entry.name), None)
        missed, due = missed_of(counts)
        phases, whose = self._phases(entry)
        oldest_ns = integer(entry.values, "oldest_unix_ns")
        end_ns = self.window.now.unix_ns if self.state == "live" else self._last_unix_ns()
        utilization, efficiency = self._shares(entry)
        failed, thread_id = entry.values.get("threads_failed"), integer(entry.values, "thread_id")
        return DispatcherStatistics(
            pid=self.pid, state=self.state, bus=entry.name.removeprefix("bus "),
            quantum_ns=integer(entry.values, "quantum_ns"),
            open_subscriptions=max(0, counts["subscribed"] - counts["unsubscribed"]),
            queued=max(0, integer(entry.values, "queued")), held=max(0, integer(entry.values, "held")),
            high_water=integer(entry.values, "high_water"),
            oldest_age_ns=float(max(0, end_ns - oldest_ns)) if oldest_ns > 0 else None, counts=counts, counts_now=rises,
            coherence=phases.coherence() if phases else None, coherence_of=whose, utilization=utilization,
            efficiency=efficiency, miss_ratio=share_of(missed, due, "messages with a deadline"),
            lateness=latency_of(late, "late", 1.0), failed=failed > 0 if isinstance(failed, int) else None,
            thread_id=thread_id or None, own=self.own,
        )  # fmt: skip

    def _phases(self, entry: Entry) -> tuple[PhaseSum | None, str]:
        before = self.before(entry)
        later = _phase_sum(entry)
        earlier = _phase_sum(before) if before else None
        if later is None or earlier is None or earlier.period_ns != later.period_ns:
            return later, "start"
        part = later.since(earlier)
        return (part, "window") if part.count >= MIN_SAMPLES else (later, "start")

    def _shares(self, entry: Entry) -> tuple[Measurement, Measurement]:
        """Return utilization and efficiency, of the window where something was done in it."""
        names = ("busy", "overhead", "idle_pending")
        part = DispatcherTime(*(self.rise(entry, name) or 0 for name in names))
        span_ns, method = self.window.ns, "of the window"
        if part.efficiency() is None:
            part = DispatcherTime(*(integer(entry.values, name) for name in names))
            span_ns, method = self._lived_ns(), "since the start"
        count = integer(entry.values, "dispatches")
        efficiency = part.efficiency()
        if efficiency is None or not span_ns:
            idle = Measurement.missing("ratio", "nothing was dispatched")
            return idle, idle
        # A stamp is good to 16 ns and each dispatch takes two.
        spent_ns = part.busy_ns + part.overhead_ns + part.idle_pending_ns
        error = min(1.0, 32 * max(1, count) / spent_ns)
        return (
            Measurement(part.busy_ns / span_ns, "ratio", 32 * max(1, count) / span_ns, count, method),
            Measurement(efficiency, "ratio", error, count, method),
        )

    def _lived_ns(self) -> int | None:
        if self.ns_per_tick is None:
            return None
        header = self.segment.header
        end = self.window.now.local.pair.tick if self.state == "live" else header.latest.tick
        return round(max(0, end - header.opened.tick) * self.ns_per_tick)

    def _last_unix_ns(self) -> int:
        return self.segment.header.opened_unix_ns + (self._lived_ns() or 0)

    def clock(self, entry: Entry) -> ClockStatistics:
        """Return what the process's hybrid logical clock did."""
        names = ("stamps", "received", "refused", "steps_back")
        stamps, received, refused, steps_back = (integer(entry.values, name) for name in names)
        drift = latency_of(entry, "stamps", 1.0)
        # Stamps that were not ahead are not in the histogram: its percentiles are of those that were.
        ahead = sum(samples for _, samples in drift.buckets)
        drift = latency_of(
            dataclasses.replace(entry, values={**entry.values, "ahead_stamps": ahead}), "ahead_stamps", 1.0
        )
        return ClockStatistics(
            self.pid, self.state, entry.name.removeprefix("node "), stamps, received, refused, steps_back, drift,
            integer(entry.values, "drift_max_ns"), integer(entry.values, "refused_node"),
            integer(entry.values, "ahead_node"), self.rise(entry, "refused"),
        )  # fmt: skip


def _key(entry: Entry) -> _Key:
    return entry.kind, entry.name, entry.labels


def _phase_sum(entry: Entry) -> PhaseSum | None:
    quantum_ns = integer(entry.values, "quantum_ns")
    cosines, sines = entry.values.get("cosines"), entry.values.get("sines")
    if quantum_ns <= 0 or not isinstance(cosines, (int, float)) or not isinstance(sines, (int, float)):
        return None
    return PhaseSum(quantum_ns, integer(entry.values, "dispatches"), cosines, sines)


def share_of(part: int, whole: int, of_what: str) -> Measurement:
    """Return a share whose error is that of a count: its square root, and at least one."""
    if whole <= 0:
        return Measurement.missing("ratio", f"no {of_what}")
    return Measurement(part / whole, "ratio", max(part, 1) ** 0.5 / whole, whole, f"share of the {of_what}")
