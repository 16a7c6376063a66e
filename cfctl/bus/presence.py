"""Who is there: the publishers and subscriptions of topics, and who came and went."""

from __future__ import annotations

import enum
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cfctl.bus.files import RING_SUFFIX, TOPIC_SUFFIX, topic_hash
from cfctl.bus.leases import Leases
from cfctl.bus.names import PRIVATE
from cfctl.bus.rings import read_ring
from cfctl.bus.topic_pages import ListedRing, Seat, SeatFlag, SeatKind, TopicPage, list_topics, read_topic
from cfctl.errors import SegmentError

# How often it is looked for changes while somebody waits for them.
POLL_S: Final = 0.05


class Role(enum.StrEnum):
    """What a peer does at a topic."""

    PUBLISHER = "publisher"
    SUBSCRIBER = "subscriber"


@dataclass(frozen=True, slots=True)
class Peer:
    """A living publisher or subscription of a topic; a member of a group is a subscriber with its `group`.

    `id` is its ring's or subscription's and never comes again. `pid` is as its process sees itself, in
    `pid_namespace`. `lossy`: publishers never wait for it; of a publisher: it overwrites. `own`: of cfctl's own
    commands.
    """

    topic: str
    role: Role
    id: int
    pid: int
    start_time: int
    pid_namespace: int
    since_unix_ns: int
    group: str | None
    lossy: bool
    own: bool


@dataclass(frozen=True, slots=True)
class Arrival:
    """A publisher or subscription that came."""

    peer: Peer


@dataclass(frozen=True, slots=True)
class Departure:
    """A publisher or subscription that went.

    `died`: True when its process ended without closing it, as by SIGKILL; False when it was closed; None when
    its process has ended too and another one had cleared its place before it was looked at.
    """

    peer: Peer
    died: bool | None


_Key = tuple[str, Role, int]


class Presence:
    """The peers of a topic, or of all topics; for one thread at a time. Made by Bus.presence.

    It reads the topics' pages and disturbs nobody. A look takes 0.1 ms for each topic and 10 us for each peer, about;
    `wait` looks every 50 ms, so that it tells of a change up to 50 ms late, and not of a peer that came and went in
    between. Endpoints of the own process are peers like others. Of all topics, those of requests are left out, and
    pages that cannot be read.
    """

    def __init__(
        self,
        directory: Path,
        topic: str | None = None,
        *,
        require_open: Callable[[], None] = lambda: None,
        clock_s: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.topic = topic
        self._directory = directory
        self._require_open = require_open
        self._clock_s = clock_s
        self._sleep = sleep
        self._publishers: dict[_Key, Peer] = {}
        self._known, _ = self._look()

    def peers(self) -> tuple[Peer, ...]:
        """Return the peers that live now, by topic and age.

        Raises StateError when the bus is closed, SegmentError when the topic's page cannot be read.
        """
        self._require_open()
        living, _ = self._look()
        return tuple(sorted(living.values(), key=lambda peer: (peer.topic, peer.since_unix_ns, peer.id)))

    def wait(self, timeout_s: float | None = None) -> tuple[Arrival | Departure, ...]:
        """Return who went and came since the last call, or since this was made; () at the time-out.

        Waits for a change; with a time-out of 0 it looks once. Raises as `peers`.
        """
        end_s = None if timeout_s is None else self._clock_s() + timeout_s
        while True:
            self._require_open()
            changes = self._changes()
            left_s = POLL_S if end_s is None else min(POLL_S, end_s - self._clock_s())
            if changes or left_s <= 0:
                return changes
            self._sleep(left_s)

    def _changes(self) -> tuple[Arrival | Departure, ...]:
        living, ended = self._look()
        before, self._known = self._known, living
        went = [
            Departure(peer, ended[key] if key in ended else _died_unseen(peer))
            for key, peer in before.items()
            if key not in living
        ]
        came = [Arrival(peer) for key, peer in living.items() if key not in before]
        return (*went, *came)

    def _look(self) -> tuple[dict[_Key, Peer], dict[_Key, bool]]:
        """Return the peers that live, and of those that are listed and do not, whether they died."""
        living: dict[_Key, Peer] = {}
        ended: dict[_Key, bool] = {}
        with Leases(self._directory) as leases:
            for page in self._pages(leases):
                for ring in page.rings:
                    key = page.topic, Role.PUBLISHER, ring.ring_id
                    if ring.closed or not ring.alive:
                        ended[key] = not ring.closed
                    elif (publisher := self._publisher(page, ring, key, leases)) is not None:
                        living[key] = publisher
                for seat in page.seats:
                    key = page.topic, Role.SUBSCRIBER, seat.subscription
                    if seat.kind is SeatKind.GROUP:
                        continue
                    if seat.alive:
                        living[key] = _subscriber(page.topic, seat)
                    else:
                        ended[key] = True
        self._publishers = {key: peer for key, peer in living.items() if peer.role is Role.PUBLISHER}
        return living, ended

    def _pages(self, leases: Leases) -> Iterator[TopicPage]:
        if self.topic is None:
            pages, _ = list_topics(self._directory, leases)
            yield from (page for page in pages if not page.topic.startswith(PRIVATE))
            return
        path = self._directory / f"{topic_hash(self.topic.encode()):016x}{TOPIC_SUFFIX}"
        try:
            page = read_topic(path, leases)
        except FileNotFoundError:
            return
        # Another topic may have the same hash; its publishers and subscriptions are none of this one's.
        if page is not None and page.topic == self.topic:
            yield page

    def _publisher(self, page: TopicPage, ring: ListedRing, key: _Key, leases: Leases) -> Peer | None:
        """Return a ring's publisher, which its header tells; None when the header cannot be read."""
        known = self._publishers.get(key)
        if known is not None:
            return known
        path = self._directory / f"{page.hash:016x}-{ring.ring_id:016x}{RING_SUFFIX}"
        try:
            found = read_ring(path, leases, {})
        except (FileNotFoundError, SegmentError):
            return None
        if found is None:
            return None
        return Peer(
            topic=page.topic, role=Role.PUBLISHER, id=ring.ring_id, pid=found.pid, start_time=found.start_time,
            pid_namespace=found.pid_namespace, since_unix_ns=found.opened_unix_ns, group=None, lossy=found.overwrite,
            own=found.own,
        )  # fmt: skip


def topic_names(directory: Path, role: Role | None = None) -> tuple[str, ...]:
    """Return the topics that somebody publishes on or subscribes to, with a role: that have such a peer.

    Those of requests are left out. Raises SegmentError for a directory that cannot be read.
    """
    with Leases(directory) as leases:
        pages, _ = list_topics(directory, leases)
    return tuple(page.topic for page in pages if not page.topic.startswith(PRIVATE) and _has(page, role))


def _has(page: TopicPage, role: Role | None) -> bool:
    published = any(ring.alive and not ring.closed for ring in page.rings)
    subscribed = any(seat.alive for seat in page.seats)
    if role is None:
        return published or subscribed
    return published if role is Role.PUBLISHER else subscribed


def _subscriber(topic: str, seat: Seat) -> Peer:
    return Peer(
        topic=topic, role=Role.SUBSCRIBER, id=seat.subscription, pid=seat.pid, start_time=seat.start_time,
        pid_namespace=seat.pid_namespace, since_unix_ns=seat.taken_unix_ns,
        group=seat.group_name if seat.kind is SeatKind.MEMBER else None,
        lossy=bool(seat.flags & SeatFlag.LOSSY), own=bool(seat.flags & SeatFlag.OWN),
    )  # fmt: skip


def _died_unseen(peer: Peer) -> bool | None:
    """Return False when the process of a peer that is no longer listed runs: it closed it. Else it is not known."""
    try:
        if Path("/proc/self/ns/pid").stat().st_ino != peer.pid_namespace:
            return None
        fields = Path(f"/proc/{peer.pid}/stat").read_bytes().rpartition(b")")[2].split()
        runs = fields[0] not in {b"Z", b"X"} and int(fields[19]) == peer.start_time
    except (OSError, ValueError, IndexError):
        return None
    return False if runs else None
