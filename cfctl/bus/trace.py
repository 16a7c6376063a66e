"""A bounded trace of the messages of some topics, as one subscriber received them, and its file.

JSON lines: a header, a line per ring that a message came from, a line per message in the order of receipt,
and a last line with the totals, without which the trace is cut off. Payloads are left out unless asked for.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from cfctl.bus.bus import Bus
from cfctl.bus.config import BusConfig, Wait
from cfctl.bus.packet import split_id
from cfctl.bus.rings import list_rings
from cfctl.errors import SegmentError
from cfctl.temporal.hlc import global_hlc

if TYPE_CHECKING:
    from pathlib import Path

    from cfctl.bus.subscription import Message, Subscription

SCHEMA: Final = "cfctl.bus.trace"
VERSION: Final = 1
# A recording polls its topics in turn; this long it sleeps when none has a message.
_PAUSE_S: Final = 0.0005
_LOOK_NS: Final = 100_000_000


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a recording holds. `dropped`: overwritten before they were taken, so that they are not in it."""

    messages: int
    dropped: int
    topics: tuple[str, ...]
    full: bool


@dataclass(frozen=True, slots=True)
class Limits:
    """Where a recording ends: after so many messages, or so much time."""

    messages: int
    duration_ns: int | None


class Recorder:
    """Subscribes to topics, or to all that there are and come, and writes what it receives as lines.

    It is a subscriber like any other: publishers wait for it when it is slow, and dependencies are
    awaited for 100 ms, as BusConfig has them.
    """

    def __init__(self, directory: Path, topics: Iterable[str], *, with_payload: bool = False) -> None:
        self._directory = directory
        self._topics = tuple(topics)
        self._with_payload = with_payload
        self._subscriptions: dict[str, Subscription] = {}
        # By publisher number: the ring it is now, and the last message number seen.
        self._rings: dict[int, tuple[str, int]] = {}
        self._count = 0

    def record(
        self, write: Callable[[str], object], limits: Limits, stopped: Callable[[], bool] = lambda: False
    ) -> Recorded:
        """Record until a limit is reached or `stopped` says so; `write` takes a line at a time."""
        with Bus(BusConfig(directory=self._directory, wait=Wait.PARK)) as bus:
            self._subscribe(bus)
            write(
                _line(
                    {
                        "schema": SCHEMA,
                        "version": VERSION,
                        "topics": list(self._topics),
                        "unix_ns": time.time_ns(),
                    }
                )
            )
            self._receive(bus, write, limits, stopped)
            dropped = sum(each.counts()["dropped"] for each in self._subscriptions.values())
            topics = tuple(sorted(self._subscriptions))
        write(_line({"end": True, "messages": self._count, "dropped": dropped, "topics": list(topics)}))
        return Recorded(self._count, dropped, topics, self._count >= limits.messages)

    def _receive(
        self, bus: Bus, write: Callable[[str], object], limits: Limits, stopped: Callable[[], bool]
    ) -> None:
        began_ns = looked_ns = time.monotonic_ns()
        while self._count < limits.messages and not stopped():
            found = False
            for topic, subscription in self._subscriptions.items():
                message = subscription.try_recv_message()
                if message is not None and self._count < limits.messages:
                    found = True
                    self._count += 1
                    for record in self._lines(topic, message):
                        write(_line(record))
            now_ns = time.monotonic_ns()
            if limits.duration_ns is not None and now_ns - began_ns >= limits.duration_ns:
                return
            if now_ns - looked_ns >= _LOOK_NS:
                looked_ns = now_ns
                self._subscribe(bus)
            if not found:
                time.sleep(_PAUSE_S)

    def _subscribe(self, bus: Bus) -> None:
        topics = self._topics
        if not topics:
            rings, _ = list_rings(self._directory)
            topics = tuple({ring.topic for ring in rings if ring.live})
        for topic in topics:
            if topic not in self._subscriptions:
                self._subscriptions[topic] = bus.subscribe(topic)

    def _lines(self, topic: str, message: Message) -> Iterator[dict[str, Any]]:
        publisher, number = split_id(message.id)
        ring, last = self._rings.get(publisher, ("", -1))
        if not ring or number <= last:
            found = self._ring_of(publisher)
            if found is not None and found["ring"] != ring:
                ring = found["ring"]
                yield found
        self._rings[publisher] = ring, number
        record: dict[str, Any] = {
            "id": message.id,
            "topic": topic,
            "ring": ring,
            "hlc": message.hlc,
            "published_tick": message.published_tick,
            "received_tick": message.received_tick,
            "received_hlc": global_hlc().tick(),
            "bytes": len(message.payload),
        }
        if message.dependencies:
            record["dependencies"] = list(message.dependencies)
        if message.unmet:
            record["unmet"] = sorted(message.unmet)
        if message.deadline_unix_ns is not None:
            record |= {"deadline_unix_ns": message.deadline_unix_ns, "late": message.late}
        if self._with_payload:
            record["payload"] = base64.b64encode(message.payload).decode("ascii")
        yield record

    def _ring_of(self, publisher: int) -> dict[str, Any] | None:
        """Return the newest ring of a publisher's number: numbers are used again when a ring has gone."""
        try:
            rings, _ = list_rings(self._directory)
        except SegmentError:
            return None
        own = [ring for ring in rings if ring.publisher == publisher]
        if not own:
            return None
        ring = max(own, key=lambda each: each.opened_unix_ns)
        return {
            "ring": f"{ring.ring_id:016x}", "publisher": publisher, "pid": ring.pid, "of_topic": ring.topic,
            "scheduled": ring.scheduled,
        }  # fmt: skip


def _line(record: dict[str, Any]) -> str:
    return json.dumps(record, separators=(",", ":")) + "\n"
