"""Attribution: precedence of causes, what evidence proves, and the agreement of the two methods."""

from __future__ import annotations

import pytest

from cfctl.probe.attribution import (
    Cause,
    Evidence,
    Part,
    agreement,
    before_handler_ns,
    by_evidence,
    by_trace,
    shares,
)
from cfctl.probe.gaps import Gap
from cfctl.probe.kernel_spans import Span

NOTHING_KNOWN = Evidence(None, None, None)


def span(cause: Cause, start_ns: int = 2_000, end_ns: int = 9_000) -> Span:
    return Span(start_ns, end_ns, cause, "")


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        ([], Cause.HYPERVISOR),
        ([Cause.TIMER_TICK], Cause.TIMER_TICK),
        ([Cause.TIMER_TICK, Cause.SOFTIRQ], Cause.TICK_SOFTIRQ),
        ([Cause.TIMER_TICK, Cause.SOFTIRQ, Cause.SCHEDULED_OUT], Cause.SCHEDULED_OUT),
        ([Cause.DEVICE_IRQ, Cause.SOFTIRQ], Cause.DEVICE_IRQ),
        ([Cause.IPI], Cause.IPI),
        ([Cause.SOFTIRQ], Cause.SOFTIRQ),
        ([Cause.PAGE_FAULT, Cause.TIMER_TICK], Cause.PAGE_FAULT),
    ],
)
def test_a_traced_gap_has_the_cause_that_explains_the_others(seen: list[Cause], expected: Cause) -> None:
    spans = sorted((span(cause) for cause in seen), key=lambda s: s.start_ns)
    assert by_trace([Gap(1_000, 10_000)], spans)[0] == (Part(expected, 9_000),)


def test_a_span_of_another_gap_is_no_cause() -> None:
    classified = by_trace([Gap(0, 1_000), Gap(50_000, 60_000)], [span(Cause.TIMER_TICK, 52_000, 58_000)])
    assert [parts[0].cause for parts in classified] == [Cause.HYPERVISOR, Cause.TIMER_TICK]


def test_a_long_span_is_found_behind_many_short_ones() -> None:
    spans = [
        span(Cause.DEVICE_IRQ, 0, 500_000),
        *(span(Cause.IPI, at, at + 1) for at in range(1_000, 9_000, 100)),
    ]
    assert by_trace([Gap(400_000, 410_000)], spans)[0][0].cause is Cause.DEVICE_IRQ


def test_without_any_evidence_everything_is_unexplained() -> None:
    classified = by_evidence([Gap(0, 100), Gap(200, 900)], NOTHING_KNOWN)
    found = shares(classified, {})
    assert [share.cause for share in found] == [Cause.UNEXPLAINED]
    assert found[0].lost_ns == 800
    assert found[0].share_ratio == 1.0


def test_the_threads_own_counters_are_proof() -> None:
    gaps = [Gap(0, 9_000, involuntary_switches=1, minor_faults=1), Gap(10_000, 12_000, minor_faults=2)]
    causes = [parts[0].cause for parts in by_evidence(gaps, NOTHING_KNOWN)]
    assert causes == [Cause.SCHEDULED_OUT, Cause.PAGE_FAULT]


def test_a_recorded_switch_is_proof_for_the_gap_it_lies_in() -> None:
    gaps = [Gap(0, 9_000), Gap(20_000, 30_000), Gap(40_000, 50_000)]
    causes = [parts[0].cause for parts in by_evidence(gaps, Evidence(None, [25_000], None))]
    assert causes == [Cause.UNEXPLAINED, Cause.SCHEDULED_OUT, Cause.UNEXPLAINED]


def test_interrupts_that_were_counted_are_given_the_longest_gaps() -> None:
    gaps = [Gap(0, 500), Gap(1_000, 9_000), Gap(20_000, 21_000)]
    causes = [parts[0].cause for parts in by_evidence(gaps, Evidence(None, None, 1))]
    assert causes == [Cause.HYPERVISOR, Cause.UNEXPLAINED, Cause.HYPERVISOR]


def test_the_time_before_the_handler_is_from_the_gaps_start_to_the_first_span() -> None:
    gaps = [Gap(1_000, 10_000), Gap(20_000, 21_000)]
    spans = [span(Cause.TIMER_TICK, 3_500, 8_000), span(Cause.SOFTIRQ, 8_100, 9_000)]
    assert before_handler_ns(gaps, spans) == [2_500, 0]


def test_agreement_counts_only_gaps_that_are_long_enough() -> None:
    gaps = [Gap(0, 6_000), Gap(10_000, 11_000), Gap(20_000, 26_000)]
    tick, rest, wrong = (
        (Part(Cause.TICK_SOFTIRQ, 1),),
        (Part(Cause.DEVICE_IRQ, 1),),
        (Part(Cause.TIMER_TICK, 1),),
    )
    result = agreement(gaps, [tick, rest, rest], [wrong, wrong, wrong])
    assert (result.gap_count, result.agreement, result.false_positives) == (2, 0.5, 0.5)


def test_agreement_over_no_gap_is_not_a_number() -> None:
    result = agreement([], [], [])
    assert (result.gap_count, result.agreement, result.false_positives) == (0, None, None)
