"""From what was observed to an attribution: trust, bounds, steal, and what was not kept."""

from __future__ import annotations

import struct
from typing import Any

from cfctl.probe.attribution import Cause
from cfctl.probe.conversion import Line, Stamp
from cfctl.probe.gap_causes import TRACEPOINTS, attribute
from cfctl.probe.gap_observation import UNPRIVILEGED, CpuCounters, Observed, Sources
from cfctl.probe.tracing import Event, Tracepoint

S = 1_000_000_000
MS = 1_000_000
TID = 77
TIMER_IN = Tracepoint("irq_vectors/local_timer_entry", 1, {})
TIMER_OUT = Tracepoint("irq_vectors/local_timer_exit", 2, {})
SWITCH = Tracepoint("sched/sched_switch", 3, {"prev_pid": (8, 4), "next_comm": (12, 16)})
# A tick is a ns here, and both clocks agree.
LINE = Line(Stamp(0, 0), Stamp(2 * S, 2 * S))


def native(
    gaps: list[tuple[int, int]], *, counted: int | None = None, switches: int = 0, own: int = 0
) -> dict[str, Any]:
    """Return what the loop gives: kept gaps of (start, length), `counted` in all."""
    return {
        "start_tick": 0,
        "end_tick": S,
        "gaps": {"count": counted or len(gaps), "sum": sum(n for _, n in gaps) + ((counted or len(gaps)) - len(gaps)) * 100},
        "kept": b"".join(struct.pack("=QQII", at, length, own, 0) for at, length in gaps),
        "load": {"involuntary_switches": switches},
    }  # fmt: skip


def counters_at(ns: int, interrupts: dict[str, int] | None, steal: int | None = 5) -> CpuCounters:
    return CpuCounters(
        ns, interrupts, None if interrupts is None else interrupts.get("LOC", 0), {"RCU": 1}, steal
    )


def observed(
    events: list[Event] | None = None,
    before: CpuCounters | None = None,
    after: CpuCounters | None = None,
    virtualisation: str | None = "kvm",
    switches_out_ns: tuple[int, ...] | None = (),
    raw: Line = LINE,
) -> Observed:
    return Observed(
        LINE, raw, before, after, switches_out_ns, "", None if events is None else tuple(events), "no root", TID,
        Sources((), "", None, virtualisation),
    )  # fmt: skip


def event(ns: int, tracepoint: Tracepoint, prev: int = TID) -> Event:
    return Event(ns, TID, tracepoint, struct.pack("=HBBii16s", tracepoint.id, 0, 0, TID, prev, b"thief"))


TICKS = [(at, 20_000) for at in range(MS, S, 4 * MS)]


def test_a_trace_that_saw_the_ticks_is_used() -> None:
    events = [event(at + d, t) for at, _ in TICKS for d, t in ((5_000, TIMER_IN), (15_000, TIMER_OUT))]
    found, causes = attribute(native(TICKS), observed(events))
    assert (found.method, found.tracepoints) == (TRACEPOINTS, "used")
    assert set(causes) == {Cause.TIMER_TICK}
    assert found.shares[0].before_handler_ns == 5_000 * len(TICKS)
    assert found.agreement is not None
    assert found.agreement.agreement == 1.0


def test_a_trace_that_misses_the_threads_switches_is_not_trusted() -> None:
    events = [event(5_000, TIMER_IN), event(6_000, TIMER_OUT), event(9_000, SWITCH)]
    found, _ = attribute(native([(1_000, 90_000)], switches=40), observed(events))
    assert found.method == UNPRIVILEGED
    assert found.tracepoints == "not trusted: 1 of 40 switches of the thread were seen"


def test_an_empty_trace_is_not_trusted() -> None:
    found, causes = attribute(native([(1_000, 90_000)]), observed([]))
    assert found.method == UNPRIVILEGED
    assert "PID namespace" in found.tracepoints
    assert causes == [Cause.UNEXPLAINED]


def test_the_learnt_tick_and_the_counted_interrupts_bound_the_hypervisor() -> None:
    stolen = [(at + 2 * MS, 7_000) for at, _ in TICKS[:50]]
    before = counters_at(0, {"LOC": 100, "36": 10})
    after = counters_at(S, {"LOC": 350, "36": 13})
    found, _ = attribute(native(sorted([*TICKS, *stolen])), observed(None, before, after))
    by_cause = {share.cause: share for share in found.shares}
    assert found.tick is not None
    assert found.tick.hz == 250
    assert by_cause[Cause.TIMER_TICK].gap_count == len(TICKS)
    # Three device interrupts could each have made one of the 50.
    assert by_cause[Cause.HYPERVISOR].gap_count == 47
    assert by_cause[Cause.UNEXPLAINED].gap_count == 3
    assert found.interrupts == {"LOC": 250, "36": 3}


def test_without_interrupt_counts_nothing_is_given_to_the_hypervisor() -> None:
    found, causes = attribute(native([(1_000, 9_000)]), observed())
    assert causes == [Cause.UNEXPLAINED]
    assert found.unexplained_ratio == 1.0
    assert found.interrupts is None


def test_a_switch_record_is_placed_by_ticks_whenever_the_clocks_were_read() -> None:
    # The RAW clock reads 5 s more, and its stamps were taken 80 us later than the other's.
    raw = Line(Stamp(80_000, 5 * S + 80_000), Stamp(2 * S + 20_000, 7 * S + 20_000))
    gap = (S - 50_000, 6_000)
    seen = observed(switches_out_ns=(5 * S + S - 47_000,), raw=raw)
    assert attribute(native([gap]), seen)[1] == [Cause.SCHEDULED_OUT]


def test_switch_records_come_before_the_counter_which_lags_by_a_gap() -> None:
    gap = [(1_000, 9_000)]
    assert attribute(native(gap, own=1), observed())[1] == [Cause.UNEXPLAINED]
    assert attribute(native(gap, own=1), observed(switches_out_ns=None))[1] == [Cause.SCHEDULED_OUT]


def test_frequencies_above_the_timers_own_count_are_not_tried() -> None:
    slow, fast = range(MS, S, 10 * MS), range(2 * MS, S, S // 256)
    gaps = native(sorted((at, 7_000) for at in {*slow, *fast}))
    pair = counters_at(0, {"LOC": 0}), counters_at(S, {"LOC": 99})
    found = [attribute(gaps, observed(None, *views))[0].tick for views in ((None, None), pair)]
    assert [tick and tick.hz for tick in found] == [256, 100]


def test_steal_of_zero_ticks_is_below_the_resolution_and_no_zero() -> None:
    def steal(before: int | None, after: int | None) -> Any:
        pair = (counters_at(0, {}, before), counters_at(S, {}, after))
        return attribute(native([(1_000, 9_000)]), observed(None, *pair))[0].steal

    assert steal(5, 5).value is None
    assert steal(5, 5).reason == "below resolution (10 ms)"
    assert (steal(5, 7).value, steal(5, 7).uncertainty) == (20 * MS, 10 * MS)
    assert "does not tell" in steal(None, 7).reason


def test_gaps_that_were_not_kept_are_unexplained_time() -> None:
    found, _ = attribute(native([(1_000, 9_900)], counted=2), observed())
    assert (found.analysed_gaps, found.total_gaps) == (1, 2)
    assert found.shares[-1].gap_count == 2
    assert found.shares[-1].lost_ns == 10_000


def test_on_bare_metal_there_is_no_hypervisor_to_blame() -> None:
    pair = (counters_at(0, {"LOC": 0}), counters_at(S, {"LOC": 0}))
    found, causes = attribute(native([(1_000, 9_000)]), observed(None, *pair, virtualisation="none"))
    assert causes == [Cause.HYPERVISOR]
    assert "firmware (SMI) or the CPU" in found.shares[0].method
    assert "hypervisor (" not in found.shares[0].method
