"""The hybrid logical clocks: how far they run ahead of the wall clock."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import TYPE_CHECKING, ClassVar, Final

from cfctl.monitor.durations import Durations, durations_of
from cfctl.monitor.metric import Labels, Metric, MetricKind, Subject
from cfctl.monitor.snapshot import Found, Moment, Series, Total
from cfctl.records import Measurement

if TYPE_CHECKING:
    from cfctl.monitor.segments import LiveSegment
    from cfctl.segment.records import Entry

KIND: Final = "hlc"
_LABELS = ("pid", "process", "node")


class HybridClocks:
    """Reads the hybrid logical clocks of the live segments."""

    METRICS: ClassVar[tuple[Metric, ...]] = (
        Metric(
            "hlc_drift", "ns", "How far a clock's stamps ran ahead of its host's clock, the most.", _LABELS
        ),
        Metric("hlc_refused", "1", "Messages refused: stamped too far ahead.", _LABELS, MetricKind.COUNTER),
        Metric("hlc_steps_back", "1", "Backward steps of the wall clock.", _LABELS, MetricKind.COUNTER),
    )

    def __init__(self, subject: Subject) -> None:  # noqa: ARG002 - the segments are the subject's already
        self._before: dict[Hashable, Durations] = {}

    def collect(self, moment: Moment) -> Iterable[Found]:
        """Return how far the clocks ran ahead since the last call."""
        seen: dict[Hashable, Durations] = {}
        for segment in moment.segments:
            for entry in segment.entries(KIND):
                ahead = durations_of(entry, "drift_ns", "stamps")
                if ahead is not None:
                    key = (segment.pid, segment.start_time, entry.name)
                    seen[key] = ahead
                    yield from self._of(segment, entry, ahead.since(self._before.get(key)))
        self._before = seen

    def _of(self, segment: LiveSegment, entry: Entry, part: Durations) -> Iterable[Found]:
        labels: Labels = (*segment.labels, ("node", entry.name.removeprefix("node ")))
        who = f"hybrid logical clock {entry.name} of process {segment.pid}"
        yield Series("hlc_drift", drift(part), labels, who)
        for metric, field in (("hlc_refused", "refused"), ("hlc_steps_back", "steps_back")):
            value = entry.values.get(field)
            yield Total(metric, value if isinstance(value, int) else 0, labels)


SOURCE = HybridClocks


def drift(part: Durations) -> Measurement:
    """Return the largest drift of a window; 0 when no stamp was ahead of the host's clock."""
    lowest, highest = (part.at_ranks(part.in_range)[0] if part.in_range else None) or (0, 0)
    return Measurement(
        (lowest + highest) / 2, "ns", (highest - lowest) / 2 + 1, part.in_range,
        "largest stamp - wall clock of the window, to its bucket",
    )  # fmt: skip
