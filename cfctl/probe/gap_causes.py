"""The attribution of one run's gaps: what follows from what was observed of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from cfctl.host import counters
from cfctl.host.environment import NONE
from cfctl.probe.attribution import (
    Agreement,
    Cause,
    Evidence,
    Share,
    Unkept,
    agreement,
    before_handler_ns,
    by_evidence,
    by_trace,
    shares,
)
from cfctl.probe.gap_observation import UNPRIVILEGED, Observed
from cfctl.probe.gaps import unpack
from cfctl.probe.kernel_spans import Span, spans_of
from cfctl.probe.timer_tick import USUAL_HZ, NoTick, TickPhase, learn
from cfctl.records import Measurement

TRACEPOINTS: Final = "kernel tracepoints"
# The counter and the trace do not begin and end at the same moment.
_TRUSTED_SHARE: Final = 0.95
_NS_PER_STEAL_TICK: Final = 1_000_000_000 // counters.USER_HZ


@dataclass(frozen=True, slots=True)
class Attribution:
    """The share of the lost time by cause, by what method, and how much of it is not explained.

    `analysed_gaps` of all gaps were kept (the largest); the time of the others is unexplained.
    `steal` is the hypervisor's own account. The counts of interrupts and softirqs are this CPU's over the run,
    None where they can not be read. `agreement` compares the unprivileged method with the
    tracepoints on these very gaps; None without tracepoints.
    """

    method: str
    shares: tuple[Share, ...]
    unexplained_ratio: float
    analysed_gaps: int
    total_gaps: int
    tracepoints: str
    tick: TickPhase | None
    tick_reason: str
    recorded_switches: int | None
    recorded_switches_reason: str
    interrupts: Mapping[str, int] | None
    softirqs: Mapping[str, int] | None
    steal: Measurement
    agreement: Agreement | None


def attribute(raw: Mapping[str, Any], observed: Observed) -> tuple[Attribution, list[Cause]]:
    """Return the attribution of the gaps a native run kept, and the main cause of each in order of time."""
    gaps = unpack(raw["kept"], observed.monotonic)
    start_ns, end_ns = (observed.monotonic.ns_of(raw[key]) for key in ("start_tick", "end_tick"))
    tick = learn(gaps, start_ns, end_ns, _frequencies(observed))
    claimed = by_evidence(gaps, _evidence(observed, tick))
    classified, methods = claimed, _unprivileged_methods(observed, tick)
    before_ns: list[int] | None = None
    compared: Agreement | None = None
    spans, distrust = _trusted_spans(raw, observed)
    if spans is not None:
        on_raw = unpack(raw["kept"], observed.raw)
        classified, methods = by_trace(on_raw, spans), _traced_methods(observed)
        before_ns = before_handler_ns(on_raw, spans)
        compared = agreement(on_raw, classified, claimed)
    lost_ns = observed.monotonic.ns_of(raw["start_tick"] + raw["gaps"]["sum"]) - start_ns
    unkept = Unkept(raw["gaps"]["count"] - len(gaps), max(0, lost_ns - sum(gap.duration_ns for gap in gaps)))
    found = _attribution(raw, observed, tick, shares(classified, methods, before_ns, unkept), compared)
    return replace(
        found,
        analysed_gaps=len(gaps),
        method=UNPRIVILEGED if spans is None else TRACEPOINTS,
        tracepoints=distrust or "used",
    ), [parts[0].cause for parts in classified]


def _trusted_spans(raw: Mapping[str, Any], observed: Observed) -> tuple[list[Span] | None, str]:
    """Return what the tracepoints saw, or None and why they are not used.

    A trace that misses what the thread's own counter saw would give it to the hypervisor: perf drops
    events in silence when it is throttled, and in a PID namespace the filter matches nobody.
    """
    if observed.events is None:
        return None, observed.no_events
    spans = spans_of(observed.events, observed.tid)
    switched = sum(span.cause is Cause.SCHEDULED_OUT for span in spans)
    counted = raw["load"]["involuntary_switches"]
    if switched < _TRUSTED_SHARE * counted - 1:
        return None, f"not trusted: {switched} of {counted} switches of the thread were seen"
    if not spans and raw["gaps"]["count"]:
        return None, "not trusted: no event was seen (the thread has another id outside its PID namespace)"
    return spans, ""


def _attribution(
    raw: Mapping[str, Any],
    observed: Observed,
    tick: TickPhase | NoTick,
    found: tuple[Share, ...],
    compared: Agreement | None,
) -> Attribution:
    before, after = observed.before, observed.after
    return Attribution(
        UNPRIVILEGED,
        found,
        next(share.share_ratio for share in found if share.cause is Cause.UNEXPLAINED),
        0,
        raw["gaps"]["count"],
        observed.no_events,
        tick if isinstance(tick, TickPhase) else None,
        "" if isinstance(tick, TickPhase) else tick.reason,
        None if observed.switches_out_ns is None else len(observed.switches_out_ns),
        "" if observed.switches_out_ns is not None else observed.no_switches,
        _grown(before.interrupts if before else None, after.interrupts if after else None),
        _grown(before.softirqs if before else None, after.softirqs if after else None),
        _steal(before.steal if before else None, after.steal if after else None),
        compared,
    )


def _grown(before: Mapping[str, int] | None, after: Mapping[str, int] | None) -> dict[str, int] | None:
    """Return the counts that grew, by name; None when one side is not known."""
    if before is None or after is None:
        return None
    return {name: count - before.get(name, 0) for name, count in after.items() if count > before.get(name, 0)}


def _steal(before: int | None, after: int | None) -> Measurement:
    if before is None or after is None:
        return Measurement.missing("ns", "/proc/stat does not tell")
    if after <= before:
        return Measurement.missing("ns", f"below resolution ({_NS_PER_STEAL_TICK // 1_000_000} ms)")
    return Measurement(
        (after - before) * _NS_PER_STEAL_TICK, "ns", _NS_PER_STEAL_TICK, method="steal of /proc/stat"
    )


def _frequencies(observed: Observed) -> tuple[int, ...]:
    """Return CONFIG_HZ where the kernel tells, else the usual ones that the timer's count allows."""
    if observed.sources.known_hz is not None:
        return (observed.sources.known_hz,)
    before, after = observed.before, observed.after
    if before is None or after is None or before.ticks is None or after.ticks is None:
        return USUAL_HZ
    # A busy CPU has a tick in every period; other timers only add to the count.
    most_hz = (after.ticks - before.ticks + 1) * 1e9 / max(1, after.monotonic_ns - before.monotonic_ns)
    return tuple(hz for hz in USUAL_HZ if hz <= most_hz)


def _evidence(observed: Observed, tick: TickPhase | NoTick) -> Evidence:
    phase = tick if isinstance(tick, TickPhase) else None
    return Evidence(phase, _on_monotonic(observed), _other_interrupts(observed, phase))


def _on_monotonic(observed: Observed) -> list[int] | None:
    """Return the switches' times, which are CLOCK_MONOTONIC_RAW, on CLOCK_MONOTONIC."""
    if observed.switches_out_ns is None:
        return None
    # Through the ticks: the stamps of the two lines are not of the same moments.
    return [observed.monotonic.ns_of(observed.raw.tick_of(ns)) for ns in observed.switches_out_ns]


def _other_interrupts(observed: Observed, tick: TickPhase | None) -> int | None:
    """Return at most how many interrupts other than the ticks of `tick` the CPU took."""
    before, after = observed.before, observed.after
    grown = _grown(before.interrupts if before else None, after.interrupts if after else None)
    if before is None or after is None or grown is None:
        return None
    total = sum(grown.values())
    if tick is None:
        return total
    assert before.ticks is not None
    assert after.ticks is not None
    timer = after.ticks - before.ticks
    periods = (after.monotonic_ns - before.monotonic_ns) // tick.period_ns
    return total - min(timer, periods)


def _unprivileged_methods(observed: Observed, tick: TickPhase | NoTick) -> dict[Cause, str]:
    switches = "the thread's own counter of involuntary switches"
    if observed.switches_out_ns is not None:
        switches += " and its switch records"
    unexplained = (
        "no proof of a cause: an interrupt of a device or another CPU, or the hypervisor or firmware"
    )
    if isinstance(tick, NoTick):
        unexplained += f"; ticks are among them ({tick.reason})"
    return {
        Cause.SCHEDULED_OUT: switches,
        Cause.PAGE_FAULT: "the thread's own counter of minor faults",
        Cause.TIMER_TICK: "phase of the tick learnt from the gaps, with the softirqs that run on its end",
        Cause.HYPERVISOR: f"by elimination: {_outside(observed)}; gaps beyond the number of interrupts, a lower bound",
        Cause.UNEXPLAINED: unexplained,
    }


def _traced_methods(observed: Observed) -> dict[Cause, str]:
    return {
        Cause.SCHEDULED_OUT: "sched_switch away from the measuring thread",
        Cause.PAGE_FAULT: "page_fault of the measuring thread",
        Cause.TIMER_TICK: "local_timer entry in the gap",
        Cause.TICK_SOFTIRQ: "local_timer and softirq entries in the gap",
        Cause.SOFTIRQ: "softirq entry in the gap",
        Cause.DEVICE_IRQ: "irq_handler entry or NMI in the gap",
        Cause.IPI: "entry of an interrupt from another CPU in the gap",
        Cause.HYPERVISOR: f"by elimination: {_outside(observed)}",
        Cause.UNEXPLAINED: "what no class above holds",
    }


def _outside(observed: Observed) -> str:
    below = observed.sources.virtualisation
    if below == NONE:
        return "no event of this kernel in the gap, and no hypervisor is known: firmware (SMI) or the CPU"
    return f"no event of this kernel in the gap: hypervisor ({below or 'unknown'}), firmware or the CPU"
