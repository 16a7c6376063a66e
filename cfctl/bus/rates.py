"""How often messages come, by topic: rate, gaps and delays of the last ones."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Final

from cfctl.bus.latency import LOW_N
from cfctl.bus.packet import is_ticket, split_id
from cfctl.records import Document, Measurement

if TYPE_CHECKING:
    from cfctl.bus.listening import Heard

# So many messages of a topic are looked at unless another number is asked for, as `ros2 topic hz` does.
WINDOW_MESSAGES: Final = 10_000
# More topics than this are somebody's mistake; their messages are counted, and no more.
MAX_TOPICS: Final = 1000
# Below so many gaps there is no interval of the rate, and no percentile that needs more.
_LEAST_GAPS: Final = 20
_CONFIDENCE: Final = 0.95
# A topic is silent when nothing came for so many times its longest gap.
_SILENT_GAPS: Final = 3


@dataclass(frozen=True, slots=True)
class TopicRate:
    """A topic's last messages. `received` and `lost` count since the start, `window` are the messages looked at.

    `lost` came too fast for this reader; None where numbers do not tell: messages that went through a dispatcher.
    `rate` is what was published, lost messages among them; its uncertainty is the half of a 95 % interval.
    Gaps are between the publishers' stamps of messages that followed one another. `silent_ns`: since the last message.
    """

    topic: str
    received: int
    lost: int | None
    window: int
    rate: Measurement
    gap_min: Measurement
    gap_max: Measurement
    gap_std: Measurement
    delay_p50: Measurement
    delay_p99: Measurement
    silent_ns: float


@dataclass(frozen=True, slots=True)
class RateReport(Document):
    """The rates of topics at a moment. `lost`: messages of all topics that came too fast for this reader."""

    SCHEMA: ClassVar[str] = "cfctl.bus.rates"
    VERSION: ClassVar[int] = 1
    ROWS: ClassVar[str | None] = "topics"
    unix_ns: int
    elapsed_ns: int
    window_messages: int
    received: int
    lost: int
    topics: tuple[TopicRate, ...]


@dataclass(slots=True)
class _Topic:
    """`gaps`: ticks since the message before, and how many messages it spans: 1, more where some were lost."""

    gaps: deque[tuple[int, int]]
    delays_ns: deque[float]
    received: int = 0
    lost: int = 0
    numbered: bool = True
    last_tick: int = 0
    reported: int = 0
    # By publisher, the number of its last message.
    numbers: dict[int, int] = field(default_factory=dict)


class Rates:
    """Takes note of messages and reports their rates. Not thread-safe."""

    def __init__(self, ns_per_tick: float, window: int = WINDOW_MESSAGES) -> None:
        self._ns_per_tick = ns_per_tick
        self._window = window
        self._topics: dict[str, _Topic] = {}
        self.received = 0

    def add(self, heard: Iterable[Heard]) -> None:
        """Take note of messages, in the order they came."""
        for each in heard:
            self.received += 1
            topic = self._topics.get(each.message.topic)
            if topic is None:
                if len(self._topics) >= MAX_TOPICS:
                    continue
                topic = self._topics[each.message.topic] = _Topic(
                    deque(maxlen=self._window), deque(maxlen=self._window)
                )
            _note(topic, each)

    def report(self, unix_ns: int, elapsed_ns: int, now_tick: int, lost: int) -> RateReport:
        """Return the rates now. `now_tick`: of the counter that messages are stamped with."""
        found = [self._rate_of(name, topic, now_tick) for name, topic in sorted(self._topics.items())]
        return RateReport(unix_ns, elapsed_ns, self._window, self.received, lost, tuple(found))

    def _rate_of(self, name: str, topic: _Topic, now_tick: int) -> TopicRate:
        scale = self._ns_per_tick
        silent_ticks = max(0, now_tick - topic.last_tick)
        # A slow topic is not silent between two of its messages.
        longest = max((ticks for ticks, _ in topic.gaps), default=0)
        is_silent = topic.received == topic.reported and silent_ticks > _SILENT_GAPS * longest
        topic.reported = topic.received
        single = [ticks for ticks, steps in topic.gaps if steps == 1]
        gaps = _Spread([ticks * scale for ticks in single])
        delays = sorted(topic.delays_ns)
        return TopicRate(
            topic=name, received=topic.received, lost=topic.lost if topic.numbered else None,
            window=min(topic.received, self._window),
            rate=Measurement.missing("Hz", "no new message") if is_silent else _rate(topic.gaps, gaps, scale),
            gap_min=gaps.of(min), gap_max=gaps.of(max), gap_std=gaps.of(statistics.pstdev),
            delay_p50=_quantile(delays, 0.5, scale), delay_p99=_quantile(delays, 0.99, scale),
            silent_ns=silent_ticks * scale,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Spread:
    gaps_ns: Sequence[float]

    def of(self, figure: object) -> Measurement:
        assert callable(figure)
        if not self.gaps_ns:
            return Measurement.missing("ns", LOW_N)
        return Measurement(figure(self.gaps_ns), "ns", None, len(self.gaps_ns), "between publishers' stamps")


def _note(topic: _Topic, heard: Heard) -> None:
    message = heard.message
    topic.received += 1
    publisher, number = split_id(message.id)
    missed = 0
    if is_ticket(message.id):
        topic.numbered = False
    else:
        missed = max(0, number - topic.numbers.get(publisher, number - 1) - 1)
        topic.numbers[publisher] = number
    topic.lost += missed
    if heard.delay_ns is not None:
        topic.delays_ns.append(heard.delay_ns)
    if topic.received > 1:
        # Of several publishers, one may have stamped before another and come after it.
        topic.gaps.append((max(0, message.published_tick - topic.last_tick), 1 + missed))
    topic.last_tick = max(topic.last_tick, message.published_tick)


def _rate(gaps: Iterable[tuple[int, int]], single: _Spread, ns_per_tick: float) -> Measurement:
    """Return messages a second, with the interval of the mean gap: normal, gaps taken for independent."""
    ticks = steps = 0
    for gap, spanned in gaps:
        ticks += gap
        steps += spanned
    if ticks == 0:
        return Measurement.missing("Hz", LOW_N)
    mean_ns = ticks * ns_per_tick / steps
    error = None
    count = len(single.gaps_ns)
    if count >= _LEAST_GAPS:
        reach = statistics.NormalDist().inv_cdf((1 + _CONFIDENCE) / 2)
        error_ns = max(reach * statistics.stdev(single.gaps_ns) / math.sqrt(count), ns_per_tick / steps)
        error = error_ns / mean_ns * 1e9 / mean_ns
    return Measurement(
        1e9 / mean_ns, "Hz", error, steps, "messages over the time between the publishers' stamps"
    )


def _quantile(ascending: Sequence[float], quantile: float, step_ns: float) -> Measurement:
    """Return a quantile, missing below 10 / (1 - q) samples."""
    count = len(ascending)
    if count == 0 or count < round(10 / (1 - quantile)):
        return Measurement.missing("ns", LOW_N if count else "no messages")
    value = ascending[math.ceil(quantile * count) - 1]
    return Measurement(value, "ns", step_ns, count, "from publishing to receipt by this process")
