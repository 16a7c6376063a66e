"""Whether the bus is healthy as seen from outside, and what is not: DESIGN's four conditions.

As Bus.health() within a program, but for the clock: what counts here is that the reader can turn the
program's ticks into nanoseconds.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from cfctl.bus.statistics import Condition
from cfctl.segment.tick_rate import tick_rate

if TYPE_CHECKING:
    from cfctl.bus.reading import BusReading
    from cfctl.bus.rings import Ring
    from cfctl.bus.statistics import BusReport

# A subscription joins a new ring when it next looks for a message; one that does not for so long does not look.
_JOIN_NS: Final = 1_000_000_000
_READERS: Final = 63
_NAMED: Final = 3


def conditions(report: BusReport, reading: BusReading) -> tuple[Condition, ...]:
    """Return the four conditions over what lives in a report."""
    pids = {each.pid for each in report.publishers if each.state == "live"}
    pids |= {each.pid for each in report.subscriptions if each.state == "live"}
    known = {each.ring for each in report.publishers if each.is_live}
    rings = [ring for ring in reading.rings if f"{ring.ring_id:016x}" in known]
    if not pids and not rings:
        names = ("clock known", "rings joined", "consumers alive", "no overrun")
        return tuple(Condition(name, None, "nothing of it lives") for name in names)
    return (
        _clock(reading, pids),
        _joined(rings, reading.unix_ns),
        _consumers(rings),
        _overruns(report),
    )


def _clock(reading: BusReading, pids: set[int]) -> Condition:
    rates = {s.header.pid: tick_rate(s.header, reading.local) for s, _ in reading.segments}
    unknown = sorted(pid for pid, rate in rates.items() if pid in pids and rate.ns_per_tick is None)
    if unknown:
        return Condition("clock known", False, f"the ticks of process {_list(unknown)} have no known rate")
    errors = [rate.uncertainty_ppb for pid, rate in rates.items() if pid in pids and rate.uncertainty_ppb]
    error = f", to {max(errors):.3g} ppb" if errors else ""
    return Condition("clock known", True, f"the rate of the ticks is known{error}")


def _joined(rings: list[Ring], unix_ns: int) -> Condition:
    """Say which subscriptions have not joined a ring of their topic, and which rings have no room for one."""
    missing = []
    for ring in rings:
        if len(ring.readers) >= _READERS:
            missing.append(f"the ring of process {ring.pid} on '{ring.topic}' has no room for another reader")
        if unix_ns - ring.opened_unix_ns < _JOIN_NS:
            continue
        own = {reader.subscription for reader in ring.readers}
        others = {
            (reader.subscription, reader.pid)
            for other in rings
            if other.topic == ring.topic
            for reader in other.readers
            if reader.alive and reader.subscription not in own
        }
        missing += [
            f"the subscription of process {pid} to '{ring.topic}' has not joined the ring of process {ring.pid}"
            for _, pid in sorted(others)
        ]
    if missing:
        return Condition("rings joined", False, _list(missing, "; "))
    return Condition(
        "rings joined", True, f"{len(rings)} live rings, each joined by its topic's subscriptions"
    )


def _consumers(rings: list[Ring]) -> Condition:
    dead = [
        f"process {reader.pid} on '{ring.topic}'"
        for ring in rings
        for reader in ring.readers
        if not reader.alive
    ]
    alone = [
        f"'{ring.topic}' lost all {ring.orphaned} readers"
        for ring in rings
        if ring.orphaned and not ring.readers
    ]
    if dead:
        return Condition("consumers alive", False, f"dead readers that hold their ring: {_list(dead)}")
    if alone:
        return Condition("consumers alive", False, _list(alone, "; "))
    count = len({reader.subscription for ring in rings for reader in ring.readers})
    return Condition("consumers alive", True, f"{count} subscriptions, all alive")


def _overruns(report: BusReport) -> Condition:
    when = "since the start" if report.window_ns is None else f"in {report.window_ns / 1e9:.3g} s"
    live = [each for each in report.publishers if each.is_live]
    rejected = sum(each.rejected if each.rejected_now is None else each.rejected_now for each in live)
    readers = [each for each in report.subscriptions if each.state == "live"]
    dropped = sum(each.dropped if each.dropped_now is None else each.dropped_now for each in readers)
    text = f"{rejected} rejected and {dropped} dropped {when}"
    return Condition("no overrun", rejected + dropped == 0, text)


def _list(items: Iterable[object], separator: str = ", ") -> str:
    texts = [str(item) for item in items]
    more = f"{separator}and {len(texts) - _NAMED} more" if len(texts) > _NAMED else ""
    return separator.join(texts[:_NAMED]) + more
