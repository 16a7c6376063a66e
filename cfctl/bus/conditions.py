"""What health is judged by, as it is seen from outside: counted over what lives, without cfctl's own commands."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from cfctl.bus.health import Health, HealthCounts, judge, nothing_lives
from cfctl.bus.topic_pages import SeatFlag, SeatKind
from cfctl.segment.tick_rate import tick_rate
from cfctl.text import safe_text

if TYPE_CHECKING:
    from cfctl.bus.reading import BusReading
    from cfctl.bus.rings import Ring
    from cfctl.bus.statistics import BusReport
    from cfctl.bus.topic_pages import Seat, TopicPage

# Who is about to join a ring has its seat already.
_JOIN_NS: Final = 1_000_000_000


def health_of(report: BusReport, reading: BusReading) -> Health:
    """Return the health of what lives in a report."""
    pids = {each.pid for each in report.publishers if each.is_live and not each.own}
    pids |= {each.pid for each in report.subscriptions if each.active and not each.own}
    pids |= {each.pid for each in report.dispatchers if each.state == "live" and not each.own}
    known = {each.ring for each in report.publishers if each.is_live and not each.own}
    rings = [ring for ring in reading.rings if f"{ring.ring_id:016x}" in known]
    if not pids and not rings:
        return nothing_lives()
    live = [each for each in report.publishers if each.is_live and not each.own]
    readers = [each for each in report.subscriptions if each.state == "live" and not each.own]
    window = "since the start" if report.window_ns is None else f"in {report.window_ns / 1e9:.3g} s"
    return judge(
        HealthCounts(
            clock_error=_clock_error(reading, pids),
            rings=len(rings),
            subscriptions=sum(each.active for each in readers),
            unattached=tuple(_unattached(rings, reading)),
            gone=tuple(_gone(rings, report)),
            failed=_failed(report),
            rejected=sum(each.rejected if each.rejected_now is None else each.rejected_now for each in live),
            dropped=sum(each.dropped if each.dropped_now is None else each.dropped_now for each in readers),
            window=window,
        )
    )


def _clock_error(reading: BusReading, pids: set[int]) -> str | None:
    rates = {s.header.pid: tick_rate(s.header, reading.local) for s, state in reading.segments if state.live}
    unknown = sorted(pid for pid, rate in rates.items() if pid in pids and rate.ns_per_tick is None)
    if not unknown:
        return None
    return f"the rate of the ticks is not known in {', '.join(f'process {pid}' for pid in unknown[:3])}"


def _unattached(rings: list[Ring], reading: BusReading) -> Iterator[str]:
    """Yield the subscriptions that a living ring of their topic does not know of."""
    pages = {page.hash: page for page in reading.topics}
    for ring in rings:
        page = pages.get(ring.topic_hash)
        if page is None or reading.unix_ns - ring.opened_unix_ns < _JOIN_NS:
            continue
        joined = {reader.subscription for reader in ring.readers}
        for seat in page.seats:
            settled = reading.unix_ns - seat.taken_unix_ns >= _JOIN_NS
            if seat.kind is SeatKind.MEMBER or seat.flags & SeatFlag.OWN or not seat.alive or not settled:
                continue
            if seat.subscription not in joined:
                topic = safe_text(ring.topic, 60)
                yield f"{_reader(seat, page)} is not attached to the ring of process {ring.pid} on '{topic}'"


def _reader(seat: Seat, page: TopicPage) -> str:
    if seat.kind is SeatKind.GROUP:
        return f"the group '{safe_text(seat.group_name, 30)}' of {len(page.members(seat))}"
    return f"the subscription of process {seat.pid}"


def _gone(rings: list[Ring], report: BusReport) -> Iterator[str]:
    """Yield the consumers that a ring still has, or has found, to be dead."""
    pids = {each.subscription: each.pid for each in report.subscriptions}
    for ring in rings:
        topic = safe_text(ring.topic, 60)
        for reader in ring.readers:
            if reader.alive or reader.own:
                continue
            pid = reader.pid or pids.get(f"{reader.subscription:016x}", 0)
            yield f"process {pid} on '{topic}'" if pid else f"a subscriber of '{topic}'"
        if ring.orphaned and not ring.readers:
            yield (
                f"all {ring.orphaned} subscribers of '{topic}'"
                if ring.orphaned > 1
                else f"the subscriber of '{topic}'"
            )


def _failed(report: BusReport) -> tuple[str, ...] | None:
    running = [each for each in report.dispatchers if each.state == "live" and not each.own]
    failed = tuple(f"bus {each.bus} of process {each.pid}" for each in running if each.failed)
    if not failed and any(each.failed is None for each in running):
        return None
    return failed
