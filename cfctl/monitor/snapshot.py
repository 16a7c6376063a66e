"""One record of everything that is measured, and the collector that makes one after the other."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Final

from cfctl.errors import CfctlError
from cfctl.monitor.metric import Labels, MetricKind, Source, Subject, sources
from cfctl.records import Document, Measurement

if TYPE_CHECKING:
    from cfctl.monitor.segments import LiveSegment

FIRST_READING: Final = "a rate needs two readings"


@dataclass(frozen=True, slots=True)
class Series:
    """A gauge's value: what it was measured on, and the resolution of its instrument where it has one."""

    metric: str
    measurement: Measurement
    labels: Labels = ()
    subject: str = "this machine"
    resolution: Measurement | None = None


@dataclass(frozen=True, slots=True)
class Total:
    """A counter since its process, or the machine, started."""

    metric: str
    value: float
    labels: Labels = ()


@dataclass(frozen=True, slots=True)
class Distribution:
    """A histogram since its process started: (upper edge in ns, samples at or below it), ascending.

    `count` includes samples beyond the last edge; `sum_ns` is of all samples.
    """

    metric: str
    cumulative: tuple[tuple[int, int], ...]
    count: int
    sum_ns: float
    labels: Labels = ()


Found = Series | Total | Distribution


@dataclass(frozen=True, slots=True)
class Moment:
    """When a collection happens, and the live segments as they were read then."""

    monotonic_ns: int
    unix_ns: int
    segments: tuple[LiveSegment, ...] = ()


@dataclass(frozen=True, slots=True)
class Snapshot(Document):
    """What was measured in a window that ends at `unix_ns`; `window_ns` is 0 for the first reading."""

    SCHEMA: ClassVar[str] = "cfctl.snapshot"
    VERSION: ClassVar[int] = 1
    ROWS: ClassVar[str | None] = "series"
    unix_ns: int
    window_ns: int
    series: tuple[Series, ...]
    totals: tuple[Total, ...] = ()
    distributions: tuple[Distribution, ...] = ()
    problems: tuple[str, ...] = ()

    def of(self, metric: str) -> tuple[Series, ...]:
        """Return the series of a metric."""
        return tuple(series for series in self.series if series.metric == metric)


@dataclass
class Collector:
    """Makes snapshots of a subject; the time between two of them is the later one's window.

    A source that fails is one sentence in `problems`, and its gauges are missing with that reason.
    Not thread-safe.
    """

    subject: Subject
    read_segments: Callable[[Subject], tuple[tuple[LiveSegment, ...], tuple[str, ...]]]
    source_types: Sequence[type[Source]] = field(default_factory=sources)
    monotonic_ns: Callable[[], int] = time.monotonic_ns
    unix_ns: Callable[[], int] = time.time_ns
    _last_ns: int | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._sources = [source(self.subject) for source in self.source_types]

    def collect(self) -> Snapshot:
        """Return what is measured now."""
        segments, problems = self.read_segments(self.subject)
        moment = Moment(self.monotonic_ns(), self.unix_ns(), segments)
        failed = list(problems)
        found = [item for source in self._sources for item in _collected(source, moment, failed)]
        window_ns = 0 if self._last_ns is None else moment.monotonic_ns - self._last_ns
        self._last_ns = moment.monotonic_ns
        return Snapshot(
            moment.unix_ns,
            window_ns,
            tuple(item for item in found if isinstance(item, Series)),
            tuple(item for item in found if isinstance(item, Total)),
            tuple(item for item in found if isinstance(item, Distribution)),
            tuple(failed),
        )

    def snapshots(self, interval_s: float, sleep: Callable[[float], None] = time.sleep) -> Iterator[Snapshot]:
        """Yield a snapshot each interval, for ever; the first one after one interval.

        The schedule is kept: what a collection takes does not lengthen the interval, and a moment
        that was slept through (suspend) is skipped, not made up for.
        """
        self.collect()
        due_ns = self.monotonic_ns()
        interval_ns = round(interval_s * 1e9)
        while True:
            due_ns = max(due_ns + interval_ns, self.monotonic_ns())
            sleep(max(0, due_ns - self.monotonic_ns()) / 1e9)
            yield self.collect()


def _collected(source: Source, moment: Moment, problems: list[str]) -> Iterable[Found]:
    try:
        return list(source.collect(moment))
    except CfctlError as error:
        problems.append(str(error))
        return [
            Series(metric.name, Measurement.missing(metric.unit, str(error)))
            for metric in source.METRICS
            if metric.kind is MetricKind.GAUGE and not metric.labels
        ]


class History:
    """The values of the latest snapshots' gauges, at most `most` snapshots.

    Only the values: sixty whole snapshots of thirty operations would be 11 MB.
    """

    def __init__(self, most: int = 60) -> None:
        self._values: deque[dict[tuple[str, Labels], float | None]] = deque(maxlen=most)

    def add(self, snapshot: Snapshot) -> None:
        """Keep a snapshot's values; the oldest ones make room."""
        self._values.append({(s.metric, s.labels): s.measurement.value for s in snapshot.series})

    def __len__(self) -> int:
        return len(self._values)

    def values(self, metric: str, labels: Labels = ()) -> tuple[float | None, ...]:
        """Return a series' values over time, None where it was not measured."""
        return tuple(values.get((metric, labels)) for values in self._values)
