"""The message bus: rates, latencies and losses by topic and process, and what waits on the rings."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar, Final

from cfctl.bus.rings import BusFiles, list_bus
from cfctl.bus.topic_pages import Seat, SeatFlag, SeatKind, TopicPage
from cfctl.monitor.durations import Durations, added, durations_of
from cfctl.monitor.latency import QUANTILES, distribution, window_mean, window_quantile
from cfctl.monitor.metric import Labels, Metric, MetricKind, Subject
from cfctl.monitor.rates import Rates
from cfctl.monitor.shares import share_with_error
from cfctl.monitor.snapshot import Found, Moment, Series, Total
from cfctl.records import Measurement

if TYPE_CHECKING:
    from cfctl.monitor.segments import LiveSegment
    from cfctl.segment.records import Entry

PUBLISHER: Final = "bus_publisher"
SUBSCRIBER: Final = "bus_subscriber"
_LABELS = ("pid", "process", "topic")


class Bus:
    """Reads publishers and subscriptions of the live segments, and the rings beside them.

    A process's subscriptions to a topic are one series, so that those that ended keep their counts.
    """

    METRICS: ClassVar[tuple[Metric, ...]] = (
        Metric("message_rate", "1/s", "Messages delivered per second.", _LABELS),
        Metric("publish_rate", "1/s", "Messages accepted per second.", _LABELS),
        Metric("message_latency_mean", "ns", "Mean time from publishing to receiving.", _LABELS),
        *(
            Metric(
                f"message_latency_{name}",
                "ns",
                f"Time from publishing to receiving that {quantile:.4g} of the messages do not exceed.",
                _LABELS,
            )
            for name, quantile, _ in QUANTILES
        ),
        Metric("packet_loss", "ratio", "Share of the copies for subscribers that were overwritten.", _LABELS),
        Metric("pending_messages", "1", "Messages the slowest subscription has yet to take.", _LABELS),
        Metric(
            "active_subscriptions",
            "1",
            "Subscriptions whose processes live; cfctl's own are left out.",
            ("topic",),
        ),
        Metric("messages_published", "1", "Messages accepted.", _LABELS, MetricKind.COUNTER),
        Metric("messages_rejected", "1", "Messages refused: the ring was full.", _LABELS, MetricKind.COUNTER),
        Metric("messages_delivered", "1", "Messages received.", _LABELS, MetricKind.COUNTER),
        Metric("messages_dropped", "1", "Messages lost after acceptance.", _LABELS, MetricKind.COUNTER),
        Metric("message_latency", "ns", "From publishing to receiving.", _LABELS, MetricKind.HISTOGRAM),
    )

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._rates = Rates()
        # The messages received and dropped by then.
        self._before: dict[Hashable, tuple[Durations, int]] = {}

    def collect(self, moment: Moment) -> Iterable[Found]:
        """Return what the bus did since the last call, and what waits now."""
        published: set[Hashable] = set()
        received: dict[Hashable, tuple[Durations, int]] = {}
        for segment in moment.segments:
            for topic, entries in _by_topic(segment.entries(PUBLISHER)):
                yield from self._published(segment, topic, entries, moment, published)
            for topic, entries in _by_topic(segment.entries(SUBSCRIBER)):
                yield from self._received(segment, topic, entries, moment, received)
        self._rates.forget_all_but(published | received.keys())
        self._before = received
        yield from self._rings(moment)

    def _published(
        self, segment: LiveSegment, topic: str, entries: list[Entry], moment: Moment, seen: set[Hashable]
    ) -> Iterator[Found]:
        labels: Labels = (*segment.labels, ("topic", topic))
        key = (PUBLISHER, segment.pid, segment.start_time, topic)
        seen.add(key)
        published = total(entries, "published")
        rate = self._rates.per_second(key, moment.monotonic_ns, published, "1/s")
        yield Series("publish_rate", rate, labels, f"publishers on '{topic}' in process {segment.pid}")
        yield Total("messages_published", published, labels)
        yield Total("messages_rejected", total(entries, "rejected"), labels)

    def _received(
        self, segment: LiveSegment, topic: str, entries: list[Entry], moment: Moment,
        seen: dict[Hashable, tuple[Durations, int]],
    ) -> Iterator[Found]:  # fmt: skip
        labels: Labels = (*segment.labels, ("topic", topic))
        who = f"subscriptions to '{topic}' in process {segment.pid}"
        key = (SUBSCRIBER, segment.pid, segment.start_time, topic)
        parts = [durations_of(entry, count="delivered") for entry in entries]
        whole = added(part for part in parts if part is not None)
        if whole is None:
            return
        dropped = total(entries, "dropped")
        before, dropped_before = self._before.get(key, (None, 0))
        seen[key] = whole, dropped
        part, lost = whole.since(before), max(0, dropped - dropped_before)
        rate = self._rates.per_second(key, moment.monotonic_ns, whole.count, "1/s")
        yield Series("message_rate", rate, labels, who)
        yield Series("message_latency_mean", window_mean(part, segment.scale), labels, who)
        for name, quantile, needed in QUANTILES:
            measured = window_quantile(part, segment.scale, quantile, needed)
            yield Series(f"message_latency_{name}", measured, labels, who)
        yield Series("packet_loss", share_with_error(lost, part.count + lost, "messages"), labels, who)
        yield Total("messages_delivered", whole.count, labels)
        yield Total("messages_dropped", dropped, labels)
        found = distribution("message_latency", whole, segment.scale, labels)
        if found is not None:
            yield found

    def _rings(self, moment: Moment) -> Iterator[Found]:
        names = {segment.pid: segment.labels for segment in moment.segments}
        for directory in self._subject.segment_directories():
            # Files that cannot be read are no one's.
            files = list_bus(directory)
            yield from self._pending(files, names)
            for page in files.topics:
                if self._subject.pids is None or _pids(page, files) & names.keys():
                    ids = {seat.subscription for seat in page.seats if _listens(seat)}
                    yield Series(
                        "active_subscriptions",
                        _now(len(ids)),
                        (("topic", page.topic),),
                        f"topic '{page.topic}'",
                    )

    def _pending(self, files: BusFiles, names: Mapping[int, Labels]) -> Iterator[Found]:
        pending: dict[Labels, int] = {}
        for ring in files.rings:
            if ring.live and not ring.closed and ring.pid in names:
                labels: Labels = (*names[ring.pid], ("topic", ring.topic))
                waiting = max((each.pending for each in ring.readers if each.alive), default=0)
                pending[labels] = pending.get(labels, 0) + waiting
        for labels, waiting in pending.items():
            yield Series("pending_messages", _now(waiting), labels, f"rings of '{dict(labels)['topic']}'")


def _listens(seat: Seat) -> bool:
    return seat.alive and seat.kind is not SeatKind.GROUP and not seat.flags & SeatFlag.OWN


def _pids(page: TopicPage, files: BusFiles) -> set[int]:
    """Return the processes that publish on a topic or listen to it."""
    publishers = {ring.pid for ring in files.rings if ring.topic_hash == page.hash}
    return publishers | {seat.pid for seat in page.seats}


SOURCE = Bus


def total(entries: Iterable[Entry], field: str) -> int:
    """Return the sum of a counter over entries."""
    values = (entry.values.get(field) for entry in entries)
    return sum(value for value in values if isinstance(value, int))


def _by_topic(entries: Iterable[Entry]) -> Iterable[tuple[str, list[Entry]]]:
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(entry.name, []).append(entry)
    return groups.items()


def _now(count: int) -> Measurement:
    return Measurement(float(count), "1", 0.0, 1, "counted in the ring files")
