"""What the bus did, from outside: publishers, subscriptions, dispatchers and clocks, and whether it is healthy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from cfctl.records import Document

if TYPE_CHECKING:
    from cfctl.bus.health import Condition
    from cfctl.bus.latency import Latency
    from cfctl.records import Measurement
    from cfctl.temporal.coherence import Coherence


@dataclass(frozen=True, slots=True)
class PublisherStatistics:
    """A ring and its publisher. `state`: live, ended (it said that no more comes), or killed.

    `pending`: messages its slowest living reader has yet to take, the oldest since `oldest_age_ns`; a reader
    stores its place every 32 messages and when it finds the ring empty. `high_water`: most that waited when
    the publisher looked for room. `pending_before`: at the window's start. What only the ring or only the segment shows is None where that is gone.
    `rate` is over the window, else between the first message and the last. `rejected_now` counts the window,
    `rejected_run` the most of them while its slowest reader took nothing, as far as readings tell them apart.
    `own`: of one of cfctl's own commands.
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
    rejected_run: int | None
    pending_before: int | None
    arena_bytes: int | None
    own: bool

    @property
    def is_live(self) -> bool:
        """Return whether it publishes."""
        return self.state == "live"


@dataclass(frozen=True, slots=True)
class SubscriptionStatistics:
    """A subscription over all rings of its topic. copies = delivered + dropped + pending; loss = dropped / copies.

    Only messages published after it joined a ring are its copies: what a late joiner did not see is not lost. What
    a slow reader has yet to pass and was overwritten is dropped. `active`: it is subscribed, and its process lives.
    `dropped_run`: the most that were overwritten in the window between two messages it took, as far as readings tell
    them apart. `stalled`: it took nothing in the window although messages waited for it. `group`: whose member it is; what
    waits is then the group's. `waits`: "spins" or "sleeps" where it finds nothing, None when its seat is gone.
    `pattern`: it subscribes to a pattern of topics. `lossy`: publishers do not wait for it. `own`: of one of cfctl's
    own commands.
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
    dropped_run: int | None
    stalled: bool
    group: str | None
    waits: str | None
    pattern: bool
    lossy: bool
    own: bool


@dataclass(frozen=True, slots=True)
class GroupStatistics:
    """Subscriptions that share a topic's messages, each of which goes to one of the `members` that live.

    `pending`: no member has taken them. `unfinished`: members work on them, or died meanwhile. `abandoned`: of dead
    members, in all; `redelivered`: of those, given to another one, where `redeliver` says so. `delivered`: taken.
    """

    topic: str
    group: str
    members: int
    redeliver: bool
    copies: int
    delivered: int
    dropped: int
    pending: int
    unfinished: int
    abandoned: int
    redelivered: int
    oldest_age_ns: float | None
    delivered_now: int | None
    own: bool


@dataclass(frozen=True, slots=True)
class TopicStatistics:
    """The publishers, subscriptions and groups of a topic together; those that live are counted, cfctl's own not.

    `groups` are among neither; their members are among the subscriptions. `wakeups_now`: how often sleeping
    subscriptions were woken in the window, None when that is not known. `nearest`: of a topic that nobody subscribes
    to, the topic with subscribers whose name is most like it.
    """

    topic: str
    publishers: int
    subscriptions: int
    groups: int
    published: int
    rejected: int
    delivered: int
    dropped: int
    pending: int
    loss: Measurement
    publish_rate: Measurement
    delivery_rate: Measurement
    published_now: int | None
    wakeups_now: int | None
    nearest: str | None


@dataclass(frozen=True, slots=True)
class DispatcherStatistics:
    """A bus: its subscriptions and what went through its temporal queues.

    `queued` wait for their slot, `held` were received and wait for dependencies, the oldest of both since
    `oldest_age_ns`. Coherence, utilization (busy / time) and efficiency (busy / (busy + overhead + idle with
    work due)) are of the window where it has 30 dispatches, else since the start. `miss_ratio` is (late + expired +
    refused) / messages with a deadline that were offered or received here. `counts` are by name as in the segment,
    `counts_now` of the window. `failed`: its thread has ended by an error and nothing leaves its queues; None when
    that is not known. `thread_id`: of the thread that dispatches, as the kernel numbers it. `own`: of one of cfctl's
    own commands.
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
    failed: bool | None
    thread_id: int | None
    own: bool


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
class BusReport(Document):
    """The bus of a directory as its files show it. `window_ns` is the time rates are over, None for one reading.

    `healthy`: all of `conditions` hold (cfctl.bus.health); None where nothing lives, or one cannot be known.
    cfctl's own commands are shown while they run and do not count. `problems` name what could not be read.
    """

    SCHEMA: ClassVar[str] = "cfctl.bus"
    VERSION: ClassVar[int] = 2
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
    groups: tuple[GroupStatistics, ...]
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


def missed_of(counts: Mapping[str, int]) -> tuple[int, int]:
    """Return how many messages with a deadline missed it, of how many that a bus was offered or received.

    What a bus sends and another receives is late there and expired here; what was refused had missed it already.
    """
    refused = counts["refused"]
    missed = counts["late"] + counts["expired"] + refused
    due = max(counts["with_deadline"], counts["received_due"] + counts["expired"]) + refused
    return missed, max(missed, due)
