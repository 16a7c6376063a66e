"""What processes that run with the preload library allocate, and hold."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import TYPE_CHECKING, ClassVar

from cfctl.alloc.recording import KIND, LiveMemory, live_memory
from cfctl.monitor.metric import Metric, MetricKind, Subject
from cfctl.monitor.rates import Rates
from cfctl.monitor.snapshot import Found, Moment, Series, Total
from cfctl.records import Measurement

if TYPE_CHECKING:
    from cfctl.monitor.segments import LiveSegment

_LABELS = ("pid", "process")


class Allocations:
    """Reads the counters of `cfctl alloc run`'s processes."""

    METRICS: ClassVar[tuple[Metric, ...]] = (
        Metric("allocation_live", "B", "Bytes that are allocated and not yet freed.", _LABELS),
        Metric("allocation_blocks", "1", "Blocks that are allocated and not yet freed.", _LABELS),
        Metric("allocation_rate", "1/s", "Allocations and reallocations per second.", _LABELS),
        Metric("allocation_throughput", "B/s", "Bytes allocated per second.", _LABELS),
        Metric("allocation_refusals", "1/s", "Requests per second that the allocator refused.", _LABELS),
        Metric("allocations", "1", "Allocations and reallocations.", _LABELS, MetricKind.COUNTER),
        Metric("deallocations", "1", "Blocks freed.", _LABELS, MetricKind.COUNTER),
        Metric("allocated", "B", "Bytes allocated.", _LABELS, MetricKind.COUNTER),
        Metric("allocations_failed", "1", "Requests the allocator refused.", _LABELS, MetricKind.COUNTER),
    )

    def __init__(self, subject: Subject) -> None:  # noqa: ARG002 - the segments are the subject's already
        self._rates = Rates()

    def collect(self, moment: Moment) -> Iterable[Found]:
        """Return what is held now and was allocated since the last call."""
        seen: set[Hashable] = set()
        for segment in moment.segments:
            held = live_memory(segment.segment) if segment.entries(KIND) else None
            if held is not None:
                yield from self._of(segment, held, moment, seen)
        self._rates.forget_all_but(seen)

    def _of(
        self, segment: LiveSegment, held: LiveMemory, moment: Moment, seen: set[Hashable]
    ) -> Iterable[Found]:
        labels, counts = segment.labels, held.counts
        who = f"allocations of process {segment.pid}"
        asked = counts.allocations + counts.reallocations

        def rate(metric: str, value: float, unit: str) -> Series:
            key = (segment.pid, segment.start_time, metric)
            seen.add(key)
            return Series(metric, self._rates.per_second(key, moment.monotonic_ns, value, unit), labels, who)

        live = Measurement(
            float(held.bytes), "B", float(held.error_bytes), 1, "counted; each thread tells in batches"
        )
        yield Series("allocation_live", live, labels, who)
        blocks = Measurement(float(held.blocks), "1", None, 1, "counted; each thread tells in batches")
        yield Series("allocation_blocks", blocks, labels, who)
        yield rate("allocation_rate", asked, "1/s")
        yield rate("allocation_throughput", counts.bytes_allocated, "B/s")
        yield rate("allocation_refusals", counts.failures, "1/s")
        yield Total("allocations", asked, labels)
        yield Total("deallocations", counts.deallocations, labels)
        yield Total("allocated", counts.bytes_allocated, labels)
        yield Total("allocations_failed", counts.failures, labels)


SOURCE = Allocations
