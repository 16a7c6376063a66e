"""From readings of the bus's files to its report: endpoints joined by topic, ring and subscription."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Final

from cfctl.bus import health
from cfctl.bus.latency import integer, latency_of
from cfctl.bus.reading import CLOCK, DISPATCHER, LATENESS, PUBLISHER, SUBSCRIBER, BusReading
from cfctl.bus.statistics import (
    BusReport,
    ClockStatistics,
    DispatcherStatistics,
    PublisherStatistics,
    SubscriptionStatistics,
    TopicStatistics,
)
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
    "received_due", "subscribed", "unsubscribed",
)  # fmt: skip
_NS_PER_S: Final = 1e9
# A reader tells the ring its place after so many messages, and when it finds the ring empty.
GRAIN: Final = 32
_End = PublisherStatistics | SubscriptionStatistics
# kind, name, labels
_Key = tuple[str, str, tuple[tuple[str, str], ...]]


def report_of(now: BusReading, before: BusReading | None = None, which: str | None = None) -> BusReport:
    """Return the report of a reading, or of the window between two; all, or what concerns a pid or a topic."""
    window = _Window(now, before)
    publishers = tuple(_publishers(window))
    subscriptions = tuple(_subscriptions(window))
    dispatchers = tuple(each.dispatcher(e) for each in window.processes for e in each.of(DISPATCHER))
    # Where there is no bus, a clock is another instrument's.
    clocks = tuple(each.clock(e) for each in window.processes for e in each.of(CLOCK))
    whole = BusReport(
        str(now.directory), which, window.ns, now.unix_ns, None, (), (), tuple(sorted(publishers, key=_order)),
        tuple(sorted(subscriptions, key=_order)), dispatchers, clocks, now.problems + window.problems,
    )  # fmt: skip
    found = whole if which is None else _concerned(whole, which)
    conditions = health.conditions(found, now)
    return dataclasses.replace(
        found,
        topics=tuple(_topics(found)),
        conditions=conditions,
        healthy=None if any(c.holds is None for c in conditions) else all(c.holds for c in conditions),
    )


def _order(each: _End) -> tuple[bool, str]:
    return each.state != "live", each.topic


def _concerned(whole: BusReport, which: str) -> BusReport:
    """Return what belongs to a process and the other ends of its topics, or to a topic of that name."""
    ends: tuple[_End, ...] = (*whole.publishers, *whole.subscriptions)
    pids = {each.pid for each in ends} | {each.pid for each in whole.dispatchers}
    pids = {pid for pid in pids if str(pid) == which}
    topics = {each.topic for each in ends if each.pid in pids} if pids else {which}
    if not pids:
        pids = {each.pid for each in ends if each.topic == which}
    return dataclasses.replace(
        whole,
        publishers=tuple(each for each in whole.publishers if each.topic in topics),
        subscriptions=tuple(each for each in whole.subscriptions if each.topic in topics),
        dispatchers=tuple(each for each in whole.dispatchers if each.pid in pids),
        clocks=tuple(each for each in whole.clocks if each.pid in pids),
    )


class _Window:
    """Two readings: what each counter was, and the time between."""

    def __init__(self, now: BusReading, before: BusReading | None) -> None:
        self.now = now
        self.ns = None if before is None else max(1, now.monotonic_ns - before.monotonic_ns)
        self.skew_ns = now.took_ns + (before.took_ns if before else 0)
        earlier = {_identity(segment): segment for segment, _ in before.segments} if before else {}
        self.processes = [_Process(self, s, state, earlier.get(_identity(s))) for s, state in now.segments]
        self.rings_before = {ring.ring_id: ring for ring in before.rings} if before else {}
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


class _Process:
    """The instruments of one process."""

    def __init__(self, window: _Window, segment: Segment, state: Liveness, before: Segment | None) -> None:
        self.window = window
        self.segment = segment
        self.pid = segment.header.pid
        self.state = state_word(segment.header, state)
        self.ns_per_tick = tick_rate(segment.header, window.now.local).ns_per_tick
        self._before = {_key(entry): entry for entry in before.entries} if before else {}

    def of(self, kind: str) -> Iterator[Entry]:
        return (entry for entry in self.segment.entries if entry.kind == kind)

    def before(self, entry: Entry) -> Entry | None:
        return self._before.get(_key(entry))

    def rise(self, entry: Entry, field: str) -> int | None:
        """Return by how much a counter rose in the window; what is new in it rose from 0."""
        if self.window.ns is None:
            return None
        before = self.before(entry)
        return max(0, integer(entry.values, field) - (integer(before.values, field) if before else 0))

    def elapsed_ns(self, entry: Entry) -> float | None:
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
        counts = {name: integer(entry.values, name) for name in COUNTS}
        rises = None
        if self.window.ns is not None:
            rises = {name: self.rise(entry, name) or 0 for name in COUNTS}
        late = next((each for each in self.of(LATENESS) if each.name == entry.name), None)
        missed, due = missed_of(counts)
        phases, whose = self._phases(entry)
        oldest_ns = integer(entry.values, "oldest_unix_ns")
        end_ns = self.window.now.unix_ns if self.state == "live" else self._last_unix_ns()
        return DispatcherStatistics(
            self.pid, self.state, entry.name.removeprefix("bus "), integer(entry.values, "quantum_ns"),
            max(0, counts["subscribed"] - counts["unsubscribed"]),
            max(0, integer(entry.values, "queued")), max(0, integer(entry.values, "held")),
            integer(entry.values, "high_water"), float(max(0, end_ns - oldest_ns)) if oldest_ns > 0 else None,
            counts, rises, phases.coherence() if phases else None, whose, *self._shares(entry),
            _share(missed, due, "messages with a deadline"),
            latency_of(late, "late", 1.0),
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


def missed_of(counts: Mapping[str, int]) -> tuple[int, int]:
    """Return how many messages with a deadline missed it, of how many that a bus sent or received.

    What a bus sends and another receives is late there and expired here.
    """
    missed = counts["late"] + counts["expired"]
    return missed, max(missed, counts["with_deadline"], counts["received_due"] + counts["expired"])


def _key(entry: Entry) -> _Key:
    return entry.kind, entry.name, entry.labels


def _phase_sum(entry: Entry) -> PhaseSum | None:
    quantum_ns = integer(entry.values, "quantum_ns")
    cosines, sines = entry.values.get("cosines"), entry.values.get("sines")
    if quantum_ns <= 0 or not isinstance(cosines, (int, float)) or not isinstance(sines, (int, float)):
        return None
    return PhaseSum(quantum_ns, integer(entry.values, "dispatches"), cosines, sines)


def _share(part: int, whole: int, of_what: str) -> Measurement:
    """Return a share whose error is that of a count: its square root, and at least one."""
    if whole <= 0:
        return Measurement.missing("ratio", f"no {of_what}")
    return Measurement(part / whole, "ratio", max(part, 1) ** 0.5 / whole, whole, f"share of the {of_what}")


def _publishers(window: _Window) -> Iterator[PublisherStatistics]:
    rings = {f"{ring.ring_id:016x}": ring for ring in window.now.rings}
    for process in window.processes:
        for entry in process.of(PUBLISHER):
            labels = dict(entry.labels)
            ring_id = labels.get("ring", "")
            yield _publisher(window, rings.pop(ring_id, None), process, entry, ring_id)
    for ring_id, ring in rings.items():
        yield _publisher(window, ring, None, None, ring_id)


def _publisher(
    window: _Window, ring: Ring | None, process: _Process | None, entry: Entry | None, ring_id: str
) -> PublisherStatistics:
    labels = dict(entry.labels) if entry else {}
    earlier = window.rings_before.get(ring.ring_id) if ring else None
    published = ring.published if ring else integer(entry.values, "published") if entry else 0
    rejected = ring.rejected if ring else integer(entry.values, "rejected") if entry else 0
    published_now = rejected_now = None
    if window.ns is not None:
        published_now = rejected_now = 0
        if ring is not None:
            published_now = max(0, published - (earlier.published if earlier else 0))
            rejected_now = max(0, rejected - (earlier.rejected if earlier else 0))
    alive = [reader for reader in ring.readers if reader.alive] if ring else []
    elapsed_ns = process.elapsed_ns(entry) if process and entry else None
    return PublisherStatistics(
        ring.topic if ring else entry.name if entry else "", ring.pid if ring else process.pid if process else 0,
        _ring_state(ring, process), ring_id, ring.publisher if ring else _number(labels.get("publisher")),
        ring.priority if ring else _number(labels.get("priority")) or 0, ring.scheduled if ring else None,
        ring.overwrite if ring else None, ring.capacity if ring else None, published, rejected,
        integer(entry.values, "bytes") if entry else None, ring.orphaned if ring else 0, len(alive),
        len(ring.readers) - len(alive) if ring else 0, max((reader.pending for reader in alive), default=0),
        integer(entry.values, "high_water") if entry else None, window.age_ns(ring, alive) if ring else None,
        window.rate(published_now, published, elapsed_ns), published_now, rejected_now,
        ring.arena_bytes if ring else None,
    )  # fmt: skip


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None


def _ring_state(ring: Ring | None, process: _Process | None) -> str:
    if ring is not None:
        # A ring that was closed is held until its publisher is gone.
        return "ended" if ring.closed else "live" if ring.live else "killed"
    return "killed" if process is not None and process.state == "killed" else "ended"


def _subscriptions(window: _Window) -> Iterator[SubscriptionStatistics]:
    lines: dict[str, list[tuple[Ring, RingReader]]] = {}
    for ring in window.now.rings:
        for reader in ring.readers:
            lines.setdefault(f"{reader.subscription:016x}", []).append((ring, reader))
    for process in window.processes:
        for entry in process.of(SUBSCRIBER):
            subscription = dict(entry.labels).get("subscription", "")
            yield _subscription(window, subscription, lines.pop(subscription, []), process, entry)
    for subscription, found in lines.items():
        yield _subscription(window, subscription, found, None, None)


def _subscription(
    window: _Window, subscription: str, lines: list[tuple[Ring, RingReader]], process: _Process | None,
    entry: Entry | None,
) -> SubscriptionStatistics:  # fmt: skip
    lines = [(ring, _told(reader, entry, len(lines))) for ring, reader in lines]
    readers = [reader for _, reader in lines]
    alive = [(ring, reader) for ring, reader in lines if reader.alive]
    pending = sum(reader.pending for reader in readers)
    dropped = sum(reader.dropped for reader in readers)
    if entry is not None and process is not None:
        topic, pid, state = entry.name, process.pid, process.state
        delivered, dropped = (
            integer(entry.values, "delivered"),
            max(dropped, integer(entry.values, "dropped")),
        )
        before = process.before(entry)
        rises = process.rise(entry, "delivered"), process.rise(entry, "dropped")
    else:
        topic, pid, state = lines[0][0].topic, readers[0].pid, "live" if alive else "killed"
        delivered, before, rises = sum(reader.delivered for reader in readers), None, (None, None)
    rate, ns_per_tick = Measurement.missing("1/s", "its process has no segment"), None
    if process is not None and entry is not None:
        rate, ns_per_tick = window.rate(rises[0], delivered, process.elapsed_ns(entry)), process.ns_per_tick
    copies = delivered + dropped + pending
    ages = [age for ring, reader in alive if (age := window.age_ns(ring, [reader])) is not None]
    whole = latency_of(entry, "delivered", ns_per_tick)
    part = latency_of(entry, "delivered", ns_per_tick, before) if before is not None else None
    return SubscriptionStatistics(
        topic, pid, state, subscription,
        any(not ring.closed and ring.live for ring, _ in alive) or (bool(alive) and pending > 0), len(alive),
        copies, delivered, dropped, pending, integer(entry.values, "bytes") if entry else None,
        integer(entry.values, "high_water") if entry else None, max(ages, default=None),
        _share(dropped, copies, "copies"), rate, whole, part, *rises,
    )  # fmt: skip


def _told(reader: RingReader, entry: Entry | None, rings: int) -> RingReader:
    """Return a reader with what its segment tells of the messages it took since it last told the ring its place."""
    if entry is None or rings != 1:
        return reader
    waiting = reader.copies - integer(entry.values, "delivered") - reader.dropped
    if not 0 <= reader.pending - waiting < GRAIN:
        return reader
    if waiting <= 0:
        return dataclasses.replace(reader, pending=0, oldest_tick=None)
    return dataclasses.replace(reader, pending=waiting)


def _topics(report: BusReport) -> Iterator[TopicStatistics]:
    ends: tuple[_End, ...] = (*report.publishers, *report.subscriptions)
    for topic in sorted({each.topic for each in ends}):
        publishers = [each for each in report.publishers if each.topic == topic]
        subscriptions = [each for each in report.subscriptions if each.topic == topic]
        dropped = sum(each.dropped for each in subscriptions)
        yield TopicStatistics(
            topic, sum(each.is_live for each in publishers), sum(each.active for each in subscriptions),
            sum(each.published for each in publishers), sum(each.rejected for each in publishers),
            sum(each.delivered for each in subscriptions), dropped,
            max((each.pending for each in subscriptions if each.active), default=0),
            _share(dropped, sum(each.copies for each in subscriptions), "copies"),
            _sum([each.rate for each in publishers if each.is_live]),
            _sum([each.rate for each in subscriptions if each.state == "live"]),
        )  # fmt: skip


def _sum(rates: list[Measurement]) -> Measurement:
    known = [rate for rate in rates if rate.value is not None]
    if not known:
        return Measurement.missing("1/s", rates[0].reason or "not known" if rates else "nothing of it lives")
    return Measurement(
        sum(rate.value or 0.0 for rate in known), "1/s", sum(rate.uncertainty or 0.0 for rate in known),
        sum(rate.sample_count or 0 for rate in known), known[0].method,
    )  # fmt: skip
