"""Attribution on synthetic runs whose truth is known."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cfctl.probe.attribution import (
    Cause,
    Evidence,
    Part,
    agreement,
    by_evidence,
    by_trace,
    covered_ns,
    shares,
)
from cfctl.probe.gaps import Gap
from cfctl.probe.kernel_spans import Span
from cfctl.probe.timer_tick import USUAL_HZ, NoTick, TickPhase, learn, period_of, ticks_among

START_NS = 1_700_000_123_456_789


@dataclass(frozen=True)
class Run:
    """A made-up run: gaps in order, what each is, and the spans a trace would have shown."""

    gaps: list[Gap]
    truth: list[Cause]
    spans: list[Span]
    end_ns: int


def make_run(
    hz: int, seed: int, *, seconds: float = 2.0, tick: bool = True, noise_a_second: float = 400.0
) -> Run:
    """Return a run with a tick of `hz` (0.7 us jitter), switches, faults, device interrupts and stolen time."""
    rng = random.Random(seed)
    end_ns = START_NS + round(seconds * 1e9)
    period_ns = period_of(hz)
    phase_ns = rng.randrange(period_ns)
    wanted: list[tuple[int, int, Cause]] = []
    if tick:
        first = START_NS // period_ns + 1
        for number in range(first, end_ns // period_ns):
            at = number * period_ns + phase_ns + rng.randrange(700)
            cause = Cause.SCHEDULED_OUT if rng.random() < 0.02 else Cause.TIMER_TICK
            wanted.append((at, rng.randrange(6_000, 60_000), cause))
    for rate, shortest, longest, cause in (
        (noise_a_second, 300, 3_000, Cause.HYPERVISOR),
        (noise_a_second / 8, 5_000, 60_000, Cause.HYPERVISOR),
        (20, 8_000, 40_000, Cause.DEVICE_IRQ),
        (20, 20_000, 2_000_000, Cause.SCHEDULED_OUT),
        (3, 1_000, 9_000, Cause.PAGE_FAULT),
    ):
        wanted.extend(
            (rng.randrange(START_NS, end_ns), rng.randrange(shortest, longest), cause)
            for _ in range(round(rate * seconds))
        )
    wanted.sort()
    gaps: list[Gap] = []
    truth, spans = [], []
    for at, length, cause in wanted:
        # A tick that comes while something else has the CPU is part of that gap.
        if gaps and at <= gaps[-1].end_ns + 1_000:
            continue
        gaps.append(Gap(at, at + length, int(cause is Cause.SCHEDULED_OUT), int(cause is Cause.PAGE_FAULT)))
        truth.append(cause)
        if cause is Cause.SCHEDULED_OUT:
            spans.append(Span(at + 1_000, at + 1_000, cause, "hog"))
        elif cause is Cause.PAGE_FAULT:
            spans.append(Span(at + 300, at + 300, cause, "page_fault_user"))
        elif cause is not Cause.HYPERVISOR:
            spans.append(Span(at + 2_000, at + length - 500, cause, "x"))
    return Run(gaps, truth, spans, end_ns)


def other_interrupts(run: Run) -> int:
    return sum(cause is Cause.DEVICE_IRQ for cause in run.truth)


@settings(max_examples=25, deadline=None)
@given(hz=st.sampled_from(USUAL_HZ), seed=st.integers(0, 2**32))
def test_the_ticks_of_every_usual_frequency_are_told_from_other_gaps(hz: int, seed: int) -> None:
    run = make_run(hz, seed)
    phase = learn(run.gaps, START_NS, run.end_ns)
    assert isinstance(phase, TickPhase)
    assert phase.hz == hz
    claimed = by_evidence(run.gaps, Evidence(phase, None, other_interrupts(run)))
    result = agreement(run.gaps, by_trace(run.gaps, run.spans), claimed)
    assert result.agreement is not None
    assert result.agreement >= 0.95
    assert result.false_positives is not None
    assert result.false_positives <= 0.02


@settings(max_examples=15, deadline=None)
@given(hz=st.sampled_from(USUAL_HZ), seed=st.integers(0, 2**32))
def test_no_phase_is_applied_where_there_is_no_tick(hz: int, seed: int) -> None:
    run = make_run(hz, seed, tick=False)
    phase = learn(run.gaps, START_NS, run.end_ns, [hz])
    assert isinstance(phase, NoTick)
    assert phase.reason
    claimed = by_evidence(run.gaps, Evidence(None, None, other_interrupts(run)))
    assert not any(parts[0].cause is Cause.TIMER_TICK for parts in claimed)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32), noise=st.floats(0, 5000))
def test_the_trace_names_each_gap_as_it_was_made(seed: int, noise: float) -> None:
    run = make_run(250, seed, seconds=0.5, noise_a_second=noise)
    assert [parts[0].cause for parts in by_trace(run.gaps, run.spans)] == run.truth


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_time_given_to_the_hypervisor_without_a_trace_is_a_lower_bound(seed: int) -> None:
    run = make_run(250, seed)
    phase = learn(run.gaps, START_NS, run.end_ns)
    assert isinstance(phase, TickPhase)
    claimed = by_evidence(run.gaps, Evidence(phase, None, other_interrupts(run)))
    given_ns = sum(p.ns for parts in claimed for p in parts if p.cause is Cause.HYPERVISOR)
    true_ns = sum(
        gap.duration_ns for gap, cause in zip(run.gaps, run.truth, strict=True) if cause is Cause.HYPERVISOR
    )
    assert 0 < given_ns <= true_ns


spans_strategy = st.lists(
    st.tuples(
        st.integers(0, 10_000),
        st.integers(0, 3_000),
        st.sampled_from([c for c in Cause if c != Cause.UNEXPLAINED]),
    ),
    max_size=30,
).map(lambda rows: sorted((Span(a, a + n, c, "") for a, n, c in rows), key=lambda s: s.start_ns))


def laid_out(rows: list[tuple[int, int]]) -> list[Gap]:
    """Return gaps of these (pause before, length), one after the other."""
    gaps, at = [], 0
    for pause, length in rows:
        gaps.append(Gap(at + pause, at + pause + length))
        at += pause + length
    return gaps


gaps_strategy = st.lists(st.tuples(st.integers(1, 500), st.integers(1, 400_000)), max_size=40).map(laid_out)


@given(gaps=gaps_strategy, spans=spans_strategy)
def test_no_time_is_lost_or_made_by_attribution(gaps: list[Gap], spans: list[Span]) -> None:
    for classified in (by_trace(gaps, spans), by_evidence(gaps, Evidence(None, None, len(spans)))):
        assert [sum(part.ns for part in parts) for parts in classified] == [g.duration_ns for g in gaps]
        assert all(part.ns >= 0 for parts in classified for part in parts)
        found = shares(classified, {})
        assert found[-1].cause is Cause.UNEXPLAINED
        assert sum(share.lost_ns for share in found) == sum(gap.duration_ns for gap in gaps)
        assert sum(share.share_ratio for share in found) == pytest.approx(1.0 if gaps else 0.0)


@given(gaps=gaps_strategy, spans=spans_strategy)
def test_covered_time_is_that_of_the_union(gaps: list[Gap], spans: list[Span]) -> None:
    spans = [span for span in spans if span.cause is not Cause.SCHEDULED_OUT]
    for gap in gaps[:3]:
        short = Gap(gap.start_ns, min(gap.end_ns, gap.start_ns + 2_000))
        union = {
            ns
            for span in spans
            for ns in range(max(span.start_ns, short.start_ns), min(span.end_ns, short.end_ns))
        }
        assert covered_ns(short, spans) == len(union)


@given(gaps=gaps_strategy, period=st.integers(10, 10_000), data=st.data())
def test_a_period_has_one_tick_at_most(gaps: list[Gap], period: int, data: st.DataObject) -> None:
    phase = TickPhase(
        period, data.draw(st.integers(0, period - 1)), data.draw(st.integers(0, period)), 1, 0, 0, 99
    )
    chosen = ticks_among(gaps, phase)
    assert chosen <= set(range(len(gaps)))
    last = max((gap.end_ns for gap in gaps), default=0)
    assert len(chosen) <= last // period + 2


def test_a_long_gap_in_the_ticks_phase_is_a_tick_and_something_unexplained() -> None:
    run = make_run(250, 7, noise_a_second=0)
    phase = learn(run.gaps, START_NS, run.end_ns)
    assert isinstance(phase, TickPhase)
    index = next(i for i, cause in enumerate(run.truth) if cause is Cause.TIMER_TICK)
    gap = run.gaps[index]
    longest = run.gaps[index + 1].start_ns - 1_000 - gap.start_ns
    gaps = [*run.gaps[:index], Gap(gap.start_ns, gap.start_ns + longest), *run.gaps[index + 1 :]]
    parts = by_evidence(gaps, Evidence(phase, None, 0))[index]
    assert [part.cause for part in parts] == [Cause.UNEXPLAINED, Cause.TIMER_TICK]
    assert sum(part.ns for part in parts) == longest
    assert parts[1].ns < 60_000


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_a_hypervisor_that_interrupts_as_regularly_is_not_taken_for_the_tick(seed: int) -> None:
    run = make_run(250, seed, noise_a_second=100)
    period_ns = period_of(100)
    regular = [Gap(at, at + 7_000) for at in range(START_NS, run.end_ns, period_ns)]
    gaps = sorted(
        gap for gap in (*run.gaps, *regular) if gap in run.gaps or not any(
            near.start_ns <= gap.end_ns and gap.start_ns <= near.end_ns for near in run.gaps)
    )  # fmt: skip
    phase = learn(gaps, START_NS, run.end_ns)
    assert isinstance(phase, TickPhase)
    assert phase.hz == 250


def test_a_stolen_stretch_before_the_handler_is_not_the_ticks() -> None:
    gap = Gap(0, 3_000_000)
    parts = by_trace([gap], [Span(2_980_000, 2_995_000, Cause.TIMER_TICK, "")])[0]
    assert parts == (Part(Cause.HYPERVISOR, 2_985_000), Part(Cause.TIMER_TICK, 15_000))
