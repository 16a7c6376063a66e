"""From readings of the bus's files to its endpoints: what a ring, a seat and a segment each know of one, joined."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from cfctl.bus.latency import integer, latency_of
from cfctl.bus.reading import PUBLISHER, SUBSCRIBER
from cfctl.bus.runs import NO_RUNS, Runs
from cfctl.bus.statistics import GroupStatistics, PublisherStatistics, SubscriptionStatistics
from cfctl.bus.topic_pages import SeatFlag, SeatKind
from cfctl.bus.window import share_of
from cfctl.records import Measurement

if TYPE_CHECKING:
    from cfctl.bus.rings import Ring, RingReader
    from cfctl.bus.topic_pages import Seat, TopicPage
    from cfctl.bus.window import Process, Window
    from cfctl.segment.records import Entry

# A reader stores its place after so many messages, in a small ring a quarter of it, and when it finds it empty.
GRAIN: Final = 32


def publishers_of(window: Window, runs: Runs = NO_RUNS) -> Iterator[PublisherStatistics]:
    """Yield the publishers: those with a segment, then rings alone."""
    rings = {f"{ring.ring_id:016x}": ring for ring in window.now.rings}
    for process in window.processes:
        for entry in process.of(PUBLISHER):
            ring_id = dict(entry.labels).get("ring", "")
            yield _publisher(window, rings.pop(ring_id, None), process, entry, runs)
    for ring in rings.values():
        yield _publisher(window, ring, None, None, runs)


def _publisher(
    window: Window, ring: Ring | None, process: Process | None, entry: Entry | None, runs: Runs
) -> PublisherStatistics:
    if ring is None:
        assert entry is not None
        assert process is not None
        return _without_ring(window, process, entry)
    earlier = window.rings_before.get(ring.ring_id)
    published_now = rejected_now = run = pending_before = None
    if window.ns is not None:
        published_now = max(0, ring.published - (earlier.published if earlier else 0))
        rejected_now = max(0, ring.rejected - (earlier.rejected if earlier else 0))
        run = min(runs.rejected.get(ring.ring_id, rejected_now), rejected_now)
        waited = (reader.pending for reader in (earlier.readers if earlier else ()) if reader.alive)
        pending_before = max(waited, default=0)
    alive = [reader for reader in ring.readers if reader.alive]
    elapsed_ns = process.elapsed_ns(entry) if process and entry else None
    return PublisherStatistics(
        topic=ring.topic, pid=ring.pid, state="ended" if ring.closed else "live" if ring.live else "killed",
        ring=f"{ring.ring_id:016x}", publisher=ring.publisher, priority=ring.priority, scheduled=ring.scheduled,
        overwrite=ring.overwrite, capacity=ring.capacity, published=ring.published, rejected=ring.rejected,
        bytes=integer(entry.values, "bytes") if entry else None, orphaned=ring.orphaned, readers=len(alive),
        dead_readers=len(ring.readers) - len(alive), pending=max((each.pending for each in alive), default=0),
        high_water=integer(entry.values, "high_water") if entry else None,
        oldest_age_ns=window.age_ns(ring, alive), rate=window.rate(published_now, ring.published, elapsed_ns),
        published_now=published_now, rejected_now=rejected_now, rejected_run=run, pending_before=pending_before,
        arena_bytes=ring.arena_bytes, own=ring.own or (process is not None and process.own),
    )  # fmt: skip


def _without_ring(window: Window, process: Process, entry: Entry) -> PublisherStatistics:
    """Return a publisher whose ring has gone, which it has when all was taken: its segment is left."""
    labels, published = dict(entry.labels), integer(entry.values, "published")
    still = None if window.ns is None else 0
    return PublisherStatistics(
        topic=entry.name, pid=process.pid, state="killed" if process.state == "killed" else "ended",
        ring=labels.get("ring", ""), publisher=_number(labels.get("publisher")),
        priority=_number(labels.get("priority")) or 0, scheduled=None, overwrite=None, capacity=None,
        published=published, rejected=integer(entry.values, "rejected"), bytes=integer(entry.values, "bytes"),
        orphaned=0, readers=0, dead_readers=0, pending=0, high_water=integer(entry.values, "high_water"),
        oldest_age_ns=None,
        rate=window.rate(process.rise(entry, "published"), published, process.elapsed_ns(entry)),
        published_now=process.rise(entry, "published"), rejected_now=process.rise(entry, "rejected"),
        rejected_run=still, pending_before=still, arena_bytes=None, own=process.own,
    )  # fmt: skip


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None


@dataclass(slots=True)
class _Subscription:
    """What is known of a subscription to a topic: its seat, its places in rings, its segment's entry."""

    topic: str
    seat: Seat | None = None
    group: str | None = None
    lines: list[tuple[Ring, RingReader]] = field(default_factory=list)
    process: Process | None = None
    entry: Entry | None = None
    # The entry counts this topic alone.
    exact: bool = False


def subscriptions_of(window: Window, runs: Runs = NO_RUNS) -> Iterator[SubscriptionStatistics]:
    """Yield the subscriptions by topic: those with a segment, then those that only seats or rings show."""
    known: dict[int, dict[str, _Subscription]] = {}
    for page in window.now.topics:
        for seat in page.seats:
            if seat.kind is not SeatKind.GROUP:
                group = page.seat(seat.group)
                known.setdefault(seat.subscription, {})[page.topic] = _Subscription(
                    page.topic, seat, None if group is None else group.group_name
                )
    groups = {each.subscription for _, each in _group_seats(window)}
    for ring in window.now.rings:
        for reader in ring.readers:
            if reader.subscription not in groups:
                by_topic = known.setdefault(reader.subscription, {})
                by_topic.setdefault(ring.topic, _Subscription(ring.topic)).lines.append((ring, reader))
    for process in window.processes:
        for entry in process.of(SUBSCRIBER):
            number = _hex(dict(entry.labels).get("subscription", ""))
            by_topic = known.pop(number, {}) or {entry.name: _Subscription(entry.name)}
            for found in by_topic.values():
                found.process, found.entry, found.exact = process, entry, len(by_topic) == 1
                yield _subscription(window, number, found, runs)
    for number, by_topic in known.items():
        for found in by_topic.values():
            yield _subscription(window, number, found, runs)


def _hex(text: str) -> int:
    try:
        return int(text, 16)
    except ValueError:
        return 0


def _subscription(window: Window, number: int, of: _Subscription, runs: Runs) -> SubscriptionStatistics:
    lines = [(ring, _exact(reader, of, len(of.lines))) for ring, reader in of.lines]
    alive = [(ring, reader) for ring, reader in lines if reader.alive]
    delivered, dropped, rises = _taken(window, of, [reader for _, reader in lines])
    pending = sum(reader.pending for _, reader in lines)
    process, entry = of.process, of.entry
    before = process.before(entry) if process is not None and entry is not None else None
    seen = any(each.pid == _pid(of) for each in window.processes)
    why = "nothing was received" if seen else "its process has no segment"
    rate, ns_per_tick = Measurement.missing("1/s", why), None
    if process is not None and entry is not None:
        rate, ns_per_tick = window.rate(rises[0], delivered, process.elapsed_ns(entry)), process.ns_per_tick
    ages = [age for ring, reader in alive if (age := window.age_ns(ring, [reader])) is not None]
    flags = SeatFlag(0)
    for flag in (of.seat and of.seat.flags, *(reader.flags for _, reader in lines)):
        flags |= flag or SeatFlag(0)
    is_alive = of.seat.alive if of.seat is not None else bool(alive)
    copies = delivered + dropped + pending
    return SubscriptionStatistics(
        topic=of.topic, pid=_pid(of), state=_state(of, is_alive), subscription=f"{number:016x}", active=is_alive,
        rings=len(alive), copies=copies, delivered=delivered, dropped=dropped, pending=pending,
        bytes=integer(entry.values, "bytes") if entry else None,
        high_water=integer(entry.values, "high_water") if entry else None, oldest_age_ns=max(ages, default=None),
        loss=share_of(dropped, copies, "copies"), rate=rate, latency=latency_of(entry, "delivered", ns_per_tick),
        window_latency=latency_of(entry, "delivered", ns_per_tick, before) if before is not None else None,
        delivered_now=rises[0], dropped_now=rises[1],
        dropped_run=None if rises[1] is None else min(runs.dropped.get(number, rises[1]), rises[1]),
        stalled=is_alive and rises[0] == 0 and _was_offered(window, alive), group=of.group,
        waits=None if of.seat is None else "sleeps" if of.seat.flags & SeatFlag.SLEEPS else "spins",
        pattern=bool(flags & SeatFlag.PATTERN), lossy=bool(flags & SeatFlag.LOSSY),
        own=bool(flags & SeatFlag.OWN) or (process is not None and process.own),
    )  # fmt: skip


def _pid(of: _Subscription) -> int:
    if of.process is not None:
        return of.process.pid
    return of.seat.pid if of.seat is not None else max((reader.pid for _, reader in of.lines), default=0)


def _state(of: _Subscription, is_alive: bool) -> str:
    if of.process is not None:
        return of.process.state
    return "live" if is_alive else "killed"


def _taken(
    window: Window, of: _Subscription, readers: list[RingReader]
) -> tuple[int, int, tuple[int | None, int | None]]:
    """Return what was delivered and dropped, and by how much that rose in the window."""
    delivered, dropped = (sum(each.delivered for each in readers), sum(each.dropped for each in readers))
    rises: tuple[int | None, int | None] = (None, None)
    if window.ns is not None:
        earlier = [_line_before(window, ring, reader) for ring, reader in of.lines]
        was_there = [each for each in earlier if each is not None]
        rises = (
            max(0, delivered - sum(each.delivered for each in was_there)),
            max(0, dropped - sum(each.dropped for each in was_there)),
        )
    if of.process is None or of.entry is None or not of.exact:
        return delivered, dropped, rises
    # The segment counts over all rings, those that have gone too; the rings know what was lost and not passed yet.
    lost_now = None if rises[1] is None else max(rises[1], of.process.rise(of.entry, "dropped") or 0)
    return (
        integer(of.entry.values, "delivered"),
        max(dropped, integer(of.entry.values, "dropped")),
        (of.process.rise(of.entry, "delivered"), lost_now),
    )


def _line_before(window: Window, ring: Ring, reader: RingReader) -> RingReader | None:
    earlier = window.rings_before.get(ring.ring_id)
    same = (each for each in (earlier.readers if earlier else ()) if each.subscription == reader.subscription)
    return next(same, None)


def _was_offered(window: Window, lines: Iterable[tuple[Ring, RingReader]]) -> bool:
    """Return whether messages waited at both ends of the window, or more came than a reader may have yet to store."""
    for ring, reader in lines:
        earlier = _line_before(window, ring, reader)
        waited = earlier is not None and earlier.pending > 0
        if reader.pending > min(GRAIN, ring.capacity // 4) or (waited and reader.pending > 0):
            return True
    return False


def _exact(reader: RingReader, of: _Subscription, rings: int) -> RingReader:
    """Return a reader with what its segment shows of the messages it took since it last stored its place."""
    if of.entry is None or not of.exact or rings != 1:
        return reader
    # History, from before it joined, is none of the ring's copies.
    taken = integer(of.entry.values, "delivered") - integer(of.entry.values, "history")
    waiting = reader.copies - taken - reader.dropped
    if not 0 <= reader.pending - waiting < GRAIN:
        return reader
    if waiting <= 0:
        return dataclasses.replace(reader, pending=0, oldest_tick=None)
    return dataclasses.replace(reader, pending=waiting)


def _group_seats(window: Window) -> Iterator[tuple[TopicPage, Seat]]:
    for page in window.now.topics:
        for seat in page.seats:
            if seat.kind is SeatKind.GROUP:
                yield page, seat


def groups_of(window: Window) -> Iterator[GroupStatistics]:
    """Yield the groups of all topics."""
    for page, seat in _group_seats(window):
        members = page.members(seat)
        lines = [
            (ring, reader)
            for ring in window.now.rings
            if ring.topic_hash == page.hash
            for reader in ring.readers
            if reader.subscription == seat.subscription
        ]
        ages = [age for ring, reader in lines if (age := window.age_ns(ring, [reader])) is not None]
        delivered = sum(reader.delivered for _, reader in lines)
        earlier = [_line_before(window, ring, reader) for ring, reader in lines]
        taken_before = sum(each.delivered for each in earlier if each is not None)
        yield GroupStatistics(
            topic=page.topic, group=seat.group_name, members=sum(each.alive for each in members),
            redeliver=bool(seat.flags & SeatFlag.REDELIVER), copies=sum(reader.copies for _, reader in lines),
            delivered=delivered, dropped=sum(reader.dropped for _, reader in lines),
            pending=sum(reader.pending for _, reader in lines), unfinished=sum(each.unfinished for each in members),
            abandoned=seat.abandoned, redelivered=seat.redelivered, oldest_age_ns=max(ages, default=None),
            delivered_now=None if window.ns is None else max(0, delivered - taken_before),
            own=bool(seat.flags & SeatFlag.OWN),
        )  # fmt: skip
