"""Recording a bounded trace of the messages of some topics, as they lie on the rings; trace_file has its form."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from cfctl.bus.bus import Bus
from cfctl.bus.config import BusConfig, Wait
from cfctl.bus.names import PRIVATE
from cfctl.bus.packet import Extension, decode, split_id, ticket_id
from cfctl.bus.rings import Ring, list_rings
from cfctl.bus.trace_file import SCHEMA, VERSION, trace_line
from cfctl.errors import SegmentError
from cfctl.temporal.hlc import global_hlc

if TYPE_CHECKING:
    from pathlib import Path

    from cfctl import _native
    from cfctl.bus.subscription import Subscription

# A recording polls its topics in turn; this long it sleeps when none has a message.
_PAUSE_S: Final = 0.0005
# It looks at the rings of the directory this often, and spends at most a tenth of its time on it.
_LOOK_NS: Final = 100_000_000
_LOOK_SHARE: Final = 10
_PLAIN: Final = Extension(None, 0, (), 0)


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a recording holds.

    `dropped`: overwritten before they were taken, so that they are not in it; `damaged` of them could not be
    read. `rejected`: what publishers refused while it recorded, None of a recording they do not wait for.
    """

    messages: int
    dropped: int
    damaged: int
    rejected: int | None
    topics: tuple[str, ...]
    is_full: bool


@dataclass(frozen=True, slots=True)
class Limits:
    """Where a recording ends: after so many messages, or so much time."""

    messages: int
    duration_ns: int | None


class Source(Protocol):
    """What a recording takes the messages of a topic from, in the order of each ring."""

    def take(self) -> _native.Message | None:
        """Return the next message as it lies on its ring, extension included; None when there is none."""

    def counts(self) -> dict[str, int]:
        """Return `dropped`, what was overwritten before it was taken, and `damaged` of it."""


class _RingSource:
    """A subscription to a topic as it lies on the rings."""

    def __init__(self, subscription: Subscription) -> None:
        self.take: Callable[[], _native.Message | None] = subscription.try_recv_raw
        self.counts = subscription.counts


def subscribe(bus: Bus, topic: str, lossless: bool) -> Source:
    """Return the messages of a topic; publishers wait for them only when `lossless`."""
    return _RingSource(bus.raw_subscription(topic, lossy=not lossless))


class Recorder:
    """Subscribes to topics, or to all that there are and come but requests and replies, and writes what it takes.

    Publishers do not wait for it: what they overwrite before it is taken is counted. When `lossless`, they
    wait for it as for any subscription, and what their full rings refuse meanwhile is counted.
    """

    def __init__(
        self,
        directory: Path,
        topics: Iterable[str],
        *,
        with_payload: bool = False,
        lossless: bool = False,
        subscribe: Callable[[Bus, str, bool], Source] = subscribe,
    ) -> None:
        self._directory = directory
        self._topics = tuple(topics)
        self._with_payload = with_payload
        self._lossless = lossless
        self._subscribe_to = subscribe
        self._sources: dict[str, Source] = {}
        self._rings = _Rings(directory)
        self._rejects = _Rejects()
        self._count = self._undecodable = 0
        self._next_look_ns = 0

    def record(
        self, write: Callable[[str], object], limits: Limits, stopped: Callable[[], bool] = lambda: False
    ) -> Recorded:
        """Record until a limit is reached or `stopped` says so; `write` takes a line at a time."""
        header = {
            "schema": SCHEMA,
            "version": VERSION,
            "topics": list(self._topics),
            "unix_ns": time.time_ns(),
        }
        with Bus(BusConfig(directory=self._directory, wait=Wait.PARK), own=True) as bus:
            self._look(bus)
            write(trace_line(header | {"lossless": self._lossless}))
            self._receive(bus, write, limits, stopped)
            counts = [each.counts() for each in self._sources.values()]
            self._count_rejects()
        found = Recorded(
            messages=self._count,
            dropped=sum(each["dropped"] for each in counts) + self._undecodable,
            damaged=sum(each["damaged"] for each in counts) + self._undecodable,
            rejected=self._rejects.total(self._sources) if self._lossless else None,
            topics=tuple(sorted(self._sources)),
            is_full=self._count >= limits.messages,
        )
        write(
            trace_line(
                {
                    "end": True,
                    "messages": found.messages,
                    "dropped": found.dropped,
                    "damaged": found.damaged,
                    "rejected": found.rejected,
                    "topics": list(found.topics),
                }
            )
        )
        return found

    def _receive(
        self, bus: Bus, write: Callable[[str], object], limits: Limits, stopped: Callable[[], bool]
    ) -> None:
        began_ns = time.monotonic_ns()
        while self._count < limits.messages and not stopped():
            found = False
            for topic, source in self._sources.items():
                raw = source.take()
                if raw is not None and self._count < limits.messages:
                    found = True
                    for record in self._lines(topic, raw):
                        write(trace_line(record))
            now_ns = time.monotonic_ns()
            if limits.duration_ns is not None and now_ns - began_ns >= limits.duration_ns:
                return
            if now_ns >= self._next_look_ns:
                self._look(bus)
            if not found:
                time.sleep(_PAUSE_S)

    def _look(self, bus: Bus) -> None:
        """Subscribe to the topics that have come, and count what was rejected."""
        began_ns = time.monotonic_ns()
        topics = self._topics
        if not topics:
            live = {ring.topic for ring in self._rings.look() if ring.live}
            topics = tuple(topic for topic in live if not topic.startswith(PRIVATE))
        for topic in topics:
            if topic not in self._sources:
                self._sources[topic] = self._subscribe_to(bus, topic, self._lossless)
        if self._lossless:
            self._count_rejects()
        ended_ns = time.monotonic_ns()
        self._next_look_ns = ended_ns + max(_LOOK_NS, _LOOK_SHARE * (ended_ns - began_ns))

    def _count_rejects(self) -> None:
        if self._lossless:
            self._rejects.add(self._rings.look())

    def _lines(self, topic: str, raw: _native.Message) -> Iterator[dict[str, Any]]:
        """Yield a message's line, and before a ring's first message the ring's; none for one that is damaged."""
        publisher, _ = split_id(raw.id)
        decoded = decode(raw.payload) if raw.extended else (_PLAIN, raw.payload)
        if decoded is None:
            self._undecodable += 1
            return
        extension, payload = decoded
        line = self._rings.line_of(topic, raw)
        if line is not None:
            yield line
        self._count += 1
        record: dict[str, Any] = {
            "id": ticket_id(publisher, extension.ticket) if raw.extended else raw.id,
            "topic": topic,
            "ring": f"{raw.ring_id:016x}",
            "sequence": raw.sequence,
            "hlc": raw.hlc,
            "published_tick": raw.published_tick,
            "received_tick": raw.received_tick,
            "received_hlc": global_hlc().tick(),
            "bytes": len(payload),
        }
        if extension.dependencies:
            record["dependencies"] = list(extension.dependencies)
        if extension.deadline_unix_ns is not None:
            record["deadline_unix_ns"] = extension.deadline_unix_ns
        if self._with_payload:
            record["payload"] = base64.b64encode(payload).decode("ascii")
        yield record


class _Rings:
    """The rings of a directory, by id, and which of them stand in the trace."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._known: dict[int, Ring] = {}
        self._described: set[int] = set()

    def look(self) -> tuple[Ring, ...]:
        """Return the rings that are there now; none when the directory cannot be read."""
        try:
            rings, _ = list_rings(self._directory)
        except SegmentError:
            return ()
        for ring in rings:
            self._known[ring.ring_id] = ring
        return rings

    def line_of(self, topic: str, raw: _native.Message) -> dict[str, Any] | None:
        """Return the line of a message's ring when that is met for the first time, else None."""
        if raw.ring_id in self._described:
            return None
        self._described.add(raw.ring_id)
        if raw.ring_id not in self._known:
            self.look()
        # A ring whose publisher has closed may have gone by now.
        ring = self._known.get(raw.ring_id)
        return {
            "ring": f"{raw.ring_id:016x}",
            "publisher": split_id(raw.id)[0],
            "pid": None if ring is None else ring.pid,
            "of_topic": topic,
            "scheduled": raw.extended,
            "opened_unix_ns": None if ring is None else ring.opened_unix_ns,
        }


class _Rejects:
    """What the publishers of rings rejected since the first look."""

    def __init__(self) -> None:
        # By ring id: the topic, and the counts at the first look and at the last one; the ring may have gone.
        self._rings: dict[int, tuple[str, int, int]] = {}
        self._has_looked = False

    def add(self, rings: Iterable[Ring]) -> None:
        for ring in rings:
            # What a ring that came meanwhile rejected, it rejected meanwhile.
            new = (ring.topic, 0 if self._has_looked else ring.rejected, 0)
            topic, first, _ = self._rings.get(ring.ring_id, new)
            self._rings[ring.ring_id] = topic, first, ring.rejected
        self._has_looked = True

    def total(self, topics: Container[str]) -> int:
        """Return the sum over the rings of some topics."""
        return sum(last - first for topic, first, last in self._rings.values() if topic in topics)
