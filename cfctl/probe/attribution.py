"""What the time lost in gaps was spent on: pure functions over gaps and what is known about the run.

With kernel tracepoints a gap's cause is what the kernel did in it. Without them it is what can be
proved from outside: the thread's own switches and faults, and the learnt phase of the tick. What
remains was either an interrupt of another kind or nothing of this kernel at all; the interrupt
counters bound how many gaps the first can have made, and only what is beyond that bound is given
to the hypervisor or firmware.
"""

from __future__ import annotations

import enum
import statistics
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cfctl.probe.timer_tick import TickPhase, ticks_among

if TYPE_CHECKING:
    from cfctl.probe.gaps import Gap
    from cfctl.probe.kernel_spans import Span

# A gap may begin a moment before the loop's last read is visible, and a stamp is known to 0.2 us.
_TOLERANCE_NS: Final = 500
# The longest an interrupt takes from its arrival to the kernel's handler: 8 to 50 us were seen in
# a guest, under 1 us on bare metal. What is beyond it is no part of the interrupt.
_DELIVERY_NS: Final = 100_000


class Cause(enum.StrEnum):
    """The classes a gap's time is given to."""

    TIMER_TICK = "timer tick"
    TICK_SOFTIRQ = "tick + softirq"
    SOFTIRQ = "softirq"
    DEVICE_IRQ = "device IRQ"
    IPI = "interprocessor interrupt"
    SCHEDULED_OUT = "scheduled out"
    PAGE_FAULT = "page fault"
    HYPERVISOR = "hypervisor or firmware"
    UNEXPLAINED = "unexplained"


@dataclass(frozen=True, slots=True)
class Part:
    """Time of one gap given to one cause; the largest part of a gap comes first and is its main one."""

    cause: Cause
    ns: int


@dataclass(frozen=True, slots=True)
class Share:
    """The time lost to one cause, in how many gaps (some of which hold two), and how that is known.

    `before_handler_ns`: what of it passed before the kernel's handler began (delivery by the
    hypervisor or CPU); None where that was not observed.
    """

    cause: Cause
    gap_count: int
    lost_ns: int
    share_ratio: float
    median_ns: float
    longest_ns: int
    before_handler_ns: int | None
    method: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known about a run without tracepoints; None for what could not be observed.

    `switches_out_ns`: moments at which the thread was switched off its CPU, sorted.
    `other_interrupts`: at most how many interrupts of this CPU were no tick that `tick` finds.
    """

    tick: TickPhase | None
    switches_out_ns: Sequence[int] | None
    other_interrupts: int | None


def by_evidence(gaps: Sequence[Gap], evidence: Evidence) -> list[tuple[Part, ...]]:
    """Return the parts of each gap (sorted, on the clock of the evidence) as far as they can be proved."""
    found: list[Cause | None] = [_own_cause(gap, evidence.switches_out_ns) for gap in gaps]
    ticks = ticks_among(gaps, evidence.tick) if evidence.tick is not None else set()
    for index in ticks:
        found[index] = found[index] or Cause.TIMER_TICK
    typical_ns = _median_ns([gaps[i].duration_ns for i in ticks if found[i] is Cause.TIMER_TICK])
    rest = [index for index, cause in enumerate(found) if cause is None]
    for index in _beyond_interrupts(gaps, rest, evidence.other_interrupts):
        found[index] = Cause.HYPERVISOR
    return [
        _split(gap, cause or Cause.UNEXPLAINED, typical_ns) for gap, cause in zip(gaps, found, strict=True)
    ]


def _own_cause(gap: Gap, switches_out_ns: Sequence[int] | None) -> Cause | None:
    """Return what the thread's own records or counters prove.

    The records come first: a switch while a gap is noted is counted to the next one.
    """
    if switches_out_ns is None:
        switched = gap.involuntary_switches > 0
    else:
        index = bisect_left(switches_out_ns, gap.start_ns - _TOLERANCE_NS)
        switched = index < len(switches_out_ns) and switches_out_ns[index] <= gap.end_ns
    if switched:
        return Cause.SCHEDULED_OUT
    return Cause.PAGE_FAULT if gap.minor_faults else None


def _median_ns(durations: list[int]) -> int:
    return round(statistics.median(durations)) if durations else 0


def _split(gap: Gap, cause: Cause, typical_tick_ns: int) -> tuple[Part, ...]:
    """Return a gap's parts: a tick explains no more than one usually takes and its delivery."""
    rest_ns = gap.duration_ns - typical_tick_ns
    if cause is not Cause.TIMER_TICK or rest_ns <= _DELIVERY_NS:
        return (Part(cause, gap.duration_ns),)
    return _largest_first(Part(Cause.TIMER_TICK, typical_tick_ns), Part(Cause.UNEXPLAINED, rest_ns))


def _largest_first(*parts: Part) -> tuple[Part, ...]:
    return tuple(sorted(parts, key=lambda part: -part.ns))


def _beyond_interrupts(gaps: Sequence[Gap], rest: list[int], other_interrupts: int | None) -> list[int]:
    """Return which of the remaining gaps no interrupt of this kernel can have made.

    An interrupt makes one gap at most. They are given the longest gaps, so that the time that is
    left is a lower bound.
    """
    if other_interrupts is None:
        return []
    return sorted(rest, key=lambda index: gaps[index].duration_ns, reverse=True)[other_interrupts:]


def by_trace(gaps: Sequence[Gap], spans: Sequence[Span]) -> list[tuple[Part, ...]]:
    """Return the parts of each gap by what the kernel did in it; both sorted, on the same clock."""
    starts = [span.start_ns for span in spans]
    longest = max((span.end_ns - span.start_ns for span in spans), default=0)
    found = []
    for gap in gaps:
        first = bisect_left(starts, gap.start_ns - longest - _TOLERANCE_NS)
        last = bisect_right(starts, gap.end_ns + _TOLERANCE_NS)
        inside = [span for span in spans[first:last] if span.end_ns >= gap.start_ns - _TOLERANCE_NS]
        found.append(_parts(gap, inside))
    return found


def _parts(gap: Gap, spans: Sequence[Span]) -> tuple[Part, ...]:
    """Return a gap's cause by precedence, and what no span and no delivery accounts for."""
    cause = _traced_cause({span.cause for span in spans})
    if cause is Cause.HYPERVISOR:
        return (Part(cause, gap.duration_ns),)
    outside_ns = gap.duration_ns - covered_ns(gap, spans)
    if outside_ns <= _DELIVERY_NS:
        return (Part(cause, gap.duration_ns),)
    return _largest_first(Part(cause, gap.duration_ns - outside_ns), Part(Cause.HYPERVISOR, outside_ns))


def _traced_cause(seen: set[Cause]) -> Cause:
    if Cause.TIMER_TICK in seen and Cause.SOFTIRQ in seen and Cause.SCHEDULED_OUT not in seen:
        return Cause.TICK_SOFTIRQ
    # A switch also explains the interrupt that led to it; a softirq runs on the end of one.
    for cause in (
        Cause.SCHEDULED_OUT, Cause.PAGE_FAULT, Cause.TIMER_TICK, Cause.DEVICE_IRQ, Cause.SOFTIRQ, Cause.IPI,
    ):  # fmt: skip
        if cause in seen:
            return cause
    return Cause.HYPERVISOR


def covered_ns(gap: Gap, spans: Sequence[Span]) -> int:
    """Return how much of a gap the union of the spans (sorted by start) covers.

    A switch to another task lasts until the gap ends: the loop goes on as soon as it is back.
    """
    covered, covered_to_ns = 0, gap.start_ns
    for span in spans:
        end_ns = gap.end_ns if span.cause is Cause.SCHEDULED_OUT else min(span.end_ns, gap.end_ns)
        covered += max(0, end_ns - max(span.start_ns, covered_to_ns))
        covered_to_ns = max(covered_to_ns, end_ns)
    return covered


def before_handler_ns(gaps: Iterable[Gap], spans: Sequence[Span]) -> list[int]:
    """Return how long after each gap's start the first span in it began; 0 where there is none."""
    starts = [span.start_ns for span in spans]
    found = []
    for gap in gaps:
        index = bisect_left(starts, gap.start_ns - _TOLERANCE_NS)
        inside = index < len(starts) and starts[index] <= gap.end_ns
        found.append(max(0, starts[index] - gap.start_ns) if inside else 0)
    return found


@dataclass(frozen=True, slots=True)
class Unkept:
    """The gaps that were counted but not kept for analysis: how many and how long together."""

    gap_count: int = 0
    lost_ns: int = 0


def shares(
    classified: Sequence[tuple[Part, ...]],
    methods: dict[Cause, str],
    before_ns: Sequence[int] | None = None,
    unkept: Unkept = Unkept(),
) -> tuple[Share, ...]:
    """Return the share of each cause that occurred, the largest first, the unexplained always and last.

    `before_ns` belongs to a gap of one cause; in another it is a part of its own. What was not kept
    is unexplained.
    """
    times: dict[Cause, list[int]] = {Cause.UNEXPLAINED: []}
    before: dict[Cause, int] = {}
    for index, parts in enumerate(classified):
        for part in parts:
            times.setdefault(part.cause, []).append(part.ns)
        cause = next((p.cause for p in parts if p.cause not in {Cause.HYPERVISOR, Cause.UNEXPLAINED}), None)
        if before_ns is not None and cause is not None:
            before[cause] = before.get(cause, 0) + (before_ns[index] if len(parts) == 1 else 0)
    total = sum(map(sum, times.values())) + unkept.lost_ns
    found = [
        _share(cause, lost, total, before.get(cause), methods.get(cause, ""), unkept)
        for cause, lost in times.items()
    ]
    return tuple(sorted(found, key=lambda share: (share.cause is Cause.UNEXPLAINED, -share.lost_ns)))


def _share(
    cause: Cause, lost: list[int], total: int, before_ns: int | None, method: str, unkept: Unkept
) -> Share:
    rest = unkept if cause is Cause.UNEXPLAINED else Unkept()
    lost_ns = sum(lost) + rest.lost_ns
    return Share(
        cause,
        len(lost) + rest.gap_count,
        lost_ns,
        lost_ns / total if total else 0.0,
        statistics.median(lost) if lost else 0.0,
        max(lost, default=0),
        before_ns,
        method,
    )


@dataclass(frozen=True, slots=True)
class Agreement:
    """How the unprivileged classes compare with the tracepoints' for gaps of `least_ns` and more.

    Compared are the main causes: tick (with or without softirq), switch, fault and the rest. `agreement` is the
    share of equal answers; `false_positives` the share of the gaps called tick, switch or fault
    that are none. Both are None without such a gap.
    """

    least_ns: int
    gap_count: int
    agreement: float | None
    false_positives: float | None


_COMPARED: Final = {
    Cause.TIMER_TICK: "tick",
    Cause.TICK_SOFTIRQ: "tick",
    Cause.SCHEDULED_OUT: "switch",
    Cause.PAGE_FAULT: "fault",
}


def agreement(
    gaps: Sequence[Gap],
    traced: Sequence[tuple[Part, ...]],
    claimed: Sequence[tuple[Part, ...]],
    least_ns: int = 5000,
) -> Agreement:
    """Return how the claimed main causes compare with the traced ones."""
    pairs = [
        (_COMPARED.get(truth[0].cause), _COMPARED.get(claim[0].cause))
        for gap, truth, claim in zip(gaps, traced, claimed, strict=True)
        if gap.duration_ns >= least_ns
    ]
    claims = [(truth, claim) for truth, claim in pairs if claim is not None]
    return Agreement(
        least_ns,
        len(pairs),
        sum(truth == claim for truth, claim in pairs) / len(pairs) if pairs else None,
        sum(truth != claim for truth, claim in claims) / len(claims) if claims else None,
    )
