"""What the bus did, from outside: publishers, subscriptions, dispatchers and clocks, and whether it is healthy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from cfctl.records import Document

if TYPE_CHECKING:
    from cfctl.bus.latency import Latency
    from cfctl.records import Measurement
    from cfctl.temporal.coherence import Coherence


@dataclass(frozen=True, slots=True)
class PublisherStatistics:
    """A ring and its publisher. `state`: live, ended (it said that no more comes), or killed.

    `pending`: messages its slowest living reader has yet to take, the oldest since `oldest_age_ns`; a reader
    tells its place every 32 messages and when it finds the ring empty. `high_water`: most that waited when
    the publisher looked for room. What only the ring or only the segment tells is None where that is gone.
    `rate` is over the window, else between the first message and the last. `rejected_now` counts the window.
    """

    topic: str
    pid: int
    state: str
    ring: str
    publisher: int | None
    priority: int
    scheduled: bool | None
    overwrite: bool | None
    capacity: int | None
    published: int
    rejected: int
    bytes: int | None
    orphaned: int
    readers: int
    dead_readers: int
    pending: int
    high_water: int | None
    oldest_age_ns: float | None
    rate: Measurement
    published_now: int | None
    rejected_now: int | None
    arena_bytes: int | None = None

    @property
    def is_live(self) -> bool:
        """Return whether it publishes."""
        return self.state == "live"


@dataclass(frozen=True, slots=True)
class SubscriptionStatistics:
    """A subscription over all rings of its topic. copies = delivered + dropped + pending; loss = dropped / copies.

    Only messages published after it joined a ring are its copies: what a late joiner did not see is not lost.
    `active`: it reads a ring whose publisher may still publish, or has messages left to take; a subscription of a live process that reads none has ended, or waits for a publisher.
    """

    topic: str
    pid: int
    state: str
    subscription: str
    active: bool
    rings: int
    copies: int
    delivered: int
    dropped: int
    pending: int
    bytes: int | None
    high_water: int | None
    oldest_age_ns: float | None
    loss: Measurement
    rate: Measurement
    latency: Latency
    window_latency: Latency | None
    delivered_now: int | None
    dropped_now: int | None


@dataclass(frozen=True, slots=True)
class TopicStatistics:
    """The publishers and subscriptions of a topic together; those that live are counted."""

    topic: str
    publishers: int
    subscriptions: int
    published: int
    rejected: int
    delivered: int
    dropped: int
    pending: int
    loss: Measurement
    publish_rate: Measurement
    delivery_rate: Measurement


@dataclass(frozen=True, slots=True)
class DispatcherStatistics:
    """A bus: its subscriptions and what went through its temporal queues.

    `queued` wait for their slot, `held` were received and wait for dependencies, the oldest of both since
    `oldest_age_ns`. Coherence, utilization (busy / time) and efficiency (busy / (busy + overhead + idle with
    work due)) are of the window where it has 30 dispatches, else since the start. `miss_ratio` is (late + expired)
    / messages with a deadline that were sent or received here. `counts` are by name as in the segment, `counts_now` of the window.
    """

    pid: int
    state: str
    bus: str
    quantum_ns: int
    open_subscriptions: int
    queued: int
    held: int
    high_water: int
    oldest_age_ns: float | None
    counts: dict[str, int]
    counts_now: dict[str, int] | None
    coherence: Coherence | None
    coherence_of: str
    utilization: Measurement
    efficiency: Measurement
    miss_ratio: Measurement
    lateness: Latency


@dataclass(frozen=True, slots=True)
class ClockStatistics:
    """A process's hybrid logical clock: how far its stamps ran ahead of the wall clock, and who drove it.

    `drift` holds the stamps that were ahead; `drift_max_ns` is of all since the start.
    """

    pid: int
    state: str
    node: str
    stamps: int
    received: int
    refused: int
    steps_back: int
    drift: Latency
    drift_max_ns: int
    refused_node: int
    ahead_node: int
    refused_now: int | None = None


@dataclass(frozen=True, slots=True)
class Condition:
    """One thing health asks for: whether it holds, None where nothing lives to tell, and why."""

    name: str
    holds: bool | None
    why: str


@dataclass(frozen=True, slots=True)
class BusReport(Document):
    """The bus of a directory as its files tell. `window_ns` is the time rates are over, None for one reading.

    `healthy`: all of `conditions` hold (clock known, rings joined, consumers alive, no overrun); None where nothing
    lives. `problems` name what could not be read.
    """

    SCHEMA: ClassVar[str] = "cfctl.bus"
    VERSION: ClassVar[int] = 1
    ROWS: ClassVar[str | None] = "topics"
    directory: str
    which: str | None
    window_ns: int | None
    unix_ns: int
    healthy: bool | None
    conditions: tuple[Condition, ...]
    topics: tuple[TopicStatistics, ...]
    publishers: tuple[PublisherStatistics, ...]
    subscriptions: tuple[SubscriptionStatistics, ...]
    dispatchers: tuple[DispatcherStatistics, ...]
    clocks: tuple[ClockStatistics, ...]
    problems: tuple[str, ...]

    @property
    def empty(self) -> bool:
        """Return whether there is no trace of a bus."""
        return not (self.publishers or self.subscriptions or self.dispatchers)

    @property
    def live(self) -> bool:
        """Return whether anything of it lives."""
        states = {each.state for each in self.publishers} | {each.state for each in self.subscriptions}
        return "live" in states | {each.state for each in self.dispatchers}
