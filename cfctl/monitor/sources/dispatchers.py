"""The dispatchers of the bus: how regular, how busy, how late; messages against the order of causes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar, Final

from cfctl.bus.statistics import missed_of
from cfctl.monitor.metric import Labels, Metric, MetricKind, Subject
from cfctl.monitor.rates import Rates
from cfctl.monitor.shares import share_with_error
from cfctl.monitor.snapshot import FIRST_READING, Found, Moment, Series, Total
from cfctl.records import Measurement
from cfctl.temporal.coherence import DispatcherTime, PhaseSum

if TYPE_CHECKING:
    from cfctl.monitor.segments import LiveSegment
    from cfctl.segment.records import Entry

KIND: Final = "bus_dispatcher"
_LABELS = ("pid", "process", "bus")
_VIOLATIONS: Final = ("fifo", "dependency", "hlc_order")
_DEADLINES: Final = ("late", "expired", "refused", "with_deadline", "received_due")
_IDLE: Final = "the dispatcher had nothing to do in the window"
# What a stamp of the dispatcher can be off: the grain of its clock, native/hlc.h.
_STAMP_NS: Final = 16
_Values = Mapping[str, float]
_Key = tuple[int, int, str]


class Dispatchers:
    """Reads the dispatchers of the live segments; some microseconds each."""

    METRICS: ClassVar[tuple[Metric, ...]] = (
        Metric(
            "phase_coherence",
            "ratio",
            "How regular dispatch is: mean resultant length of its phases in the quantum, 30 or more of them.",
            _LABELS,
        ),
        Metric("schedule_utilization", "ratio", "Time a dispatcher spent on messages per time.", _LABELS),
        Metric(
            "scheduling_efficiency",
            "ratio",
            "Time on messages per time a dispatcher worked, or had work and slept.",
            _LABELS,
        ),
        Metric(
            "deadline_misses",
            "ratio",
            "Share of the messages with a deadline that missed it; refused ones among them.",
            _LABELS,
        ),
        Metric("deadline_violations", "1", "Messages late or expired.", _LABELS, MetricKind.COUNTER),
        Metric("temporal_violations", "1", "Refused: past their deadline.", _LABELS, MetricKind.COUNTER),
        Metric(
            "causality_violations",
            "1",
            "Messages against the order of their causes: fifo, dependency, hlc_order.",
            (*_LABELS, "order"),
            MetricKind.COUNTER,
        ),
    )

    def __init__(self, subject: Subject) -> None:  # noqa: ARG002 - the segments are the subject's already
        self._before: dict[_Key, _Values] = {}
        self._rates = Rates()

    def collect(self, moment: Moment) -> Iterable[Found]:
        """Return what the dispatchers did since the last call."""
        seen: dict[_Key, _Values] = {}
        for segment in moment.segments:
            for entry in segment.entries(KIND):
                key = (segment.pid, segment.start_time, entry.name)
                seen[key] = _numbers(entry)
                yield from self._of(segment, key, seen[key], moment)
        self._before = seen
        self._rates.forget_all_but(set(seen))

    def _of(self, segment: LiveSegment, key: _Key, now: _Values, moment: Moment) -> Iterator[Found]:
        labels: Labels = (*segment.labels, ("bus", key[-1]))
        who = f"dispatcher of {key[-1]} in process {segment.pid}"
        before = self._before.get(key, {})
        part = {name: value - before.get(name, 0) for name, value in now.items()}
        busy = self._rates.share(key, moment.monotonic_ns, now.get("busy", 0), 1.0)
        missed, due = missed_of({name: round(part.get(name, 0)) for name in _DEADLINES})
        yield Series("phase_coherence", coherence(part, now.get("quantum_ns", 0)), labels, who)
        yield Series("schedule_utilization", busy, labels, who)
        yield Series("scheduling_efficiency", efficiency(part), labels, who)
        share = share_with_error(missed, due, "messages with a deadline")
        yield Series("deadline_misses", share, labels, who)
        yield Total("deadline_violations", now.get("late", 0) + now.get("expired", 0), labels)
        yield Total("temporal_violations", now.get("refused", 0), labels)
        for order in _VIOLATIONS:
            violations = now.get(f"{order}_violations", 0)
            yield Total("causality_violations", violations, (*labels, ("order", order)))


SOURCE = Dispatchers


def _numbers(entry: Entry) -> _Values:
    return {name: value for name, value in entry.values.items() if isinstance(value, (int, float))}


def coherence(part: _Values, quantum_ns: float) -> Measurement:
    """Return the phase coherence of the dispatches of a window, missing below 30 of them.

    Uncertainty: two standard errors, 2 (1 - R^2) / sqrt(2 N), as for a wrapped normal jitter, and at
    least 1 / N (Mardia and Jupp, Directional Statistics, 2000).
    """
    if quantum_ns <= 0:
        return Measurement.missing("ratio", "nothing was dispatched yet")
    count = round(part.get("dispatches", 0))
    found = PhaseSum(round(quantum_ns), count, part.get("cosines", 0.0), part.get("sines", 0.0)).coherence()
    if found.score is None:
        return Measurement.missing("ratio", found.reason or FIRST_READING)
    error = max(2 * (1 - found.score**2) / (2 * count) ** 0.5, 1 / count)
    return Measurement(
        found.score, "ratio", error, count, "mean resultant length of the phases; +- is 2 standard errors"
    )


def efficiency(part: _Values) -> Measurement:
    """Return the useful share of a dispatcher's time in a window; missing when it had nothing to do."""
    spent = DispatcherTime(*(round(part.get(name, 0)) for name in ("busy", "overhead", "idle_pending")))
    share = spent.efficiency()
    if share is None:
        return Measurement.missing("ratio", _IDLE)
    dispatches = max(1, round(part.get("dispatches", 0)))
    whole_ns = spent.busy_ns + spent.overhead_ns + spent.idle_pending_ns
    error = min(1.0, 2 * _STAMP_NS * dispatches / whole_ns)
    return Measurement(share, "ratio", error, dispatches, "busy / (busy + overhead + idle with work due)")
