"""Causality: the three counters, and the offline check against a brute-force happened-before."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cfctl.records import to_json
from cfctl.temporal import CausalityMonitor, TraceEvent, verify


def send(process: int, sequence: int, hlc: int, dependencies: tuple[tuple[int, int], ...] = ()) -> TraceEvent:
    return TraceEvent("send", process, (process, sequence), hlc, dependencies)


def receive(
    process: int, message: tuple[int, int], hlc: int, dependencies: tuple[tuple[int, int], ...] = ()
) -> TraceEvent:
    return TraceEvent("receive", process, message, hlc, dependencies)


def test_a_sequence_that_goes_back_or_comes_twice_is_a_fifo_violation() -> None:
    monitor = CausalityMonitor()
    assert [monitor.received((1, each)) for each in (0, 1, 5, 5, 3, 6)] == [
        True,
        True,
        True,
        False,
        False,
        True,
    ]
    assert monitor.received((2, 0))
    assert monitor.counts.fifo == 2


def test_a_dependent_before_its_dependency_is_a_violation_and_after_it_is_none() -> None:
    monitor = CausalityMonitor()
    monitor.delivered((1, 0), 10)
    monitor.delivered((2, 0), 20, [(1, 0)])
    assert monitor.counts.violations == 0
    monitor.delivered((2, 1), 30, [(1, 1)])
    monitor.delivered((1, 1), 40)
    assert (monitor.counts.dependency, monitor.counts.violations) == (1, 1)


def test_a_stamp_not_after_that_of_the_dependency_is_a_violation() -> None:
    monitor = CausalityMonitor()
    monitor.delivered((1, 0), 10)
    monitor.delivered((2, 0), 10, [(1, 0)])
    assert (monitor.counts.hlc_order, monitor.counts.violations) == (1, 1)


def test_what_was_forgotten_is_unknown_and_no_violation() -> None:
    monitor = CausalityMonitor(remembered=2)
    for sequence in range(4):
        monitor.delivered((1, sequence), sequence)
    monitor.delivered((2, 0), 100, [(1, 0)])
    assert (monitor.counts.unknown, monitor.counts.violations) == (1, 0)


def test_a_clean_trace_has_no_violation_and_counts_its_concurrency() -> None:
    events = [send(1, 0, 10), send(2, 0, 11), receive(2, (1, 0), 12), receive(3, (1, 0), 13), send(3, 0, 14)]
    report = verify(events)
    assert report.violations == ()
    # Concurrent: (s1, s2), and each of process 3's two with each of process 2's two.
    assert report.concurrent_pairs == 5
    assert (report.events, report.processes, report.sent, report.received) == (5, 3, 3, 2)
    assert '"schema": "cfctl.bus.causality"' in to_json(report)


# Each trace holds exactly one fault.
SEEDED = {
    "fifo": [send(1, 0, 10), send(1, 1, 11), receive(2, (1, 1), 20), receive(2, (1, 0), 21)],
    "causal_order": [
        send(1, 0, 10),
        receive(2, (1, 0), 20),
        send(2, 0, 21),
        receive(3, (2, 0), 30),
        receive(3, (1, 0), 31),
    ],
    "dependency": [send(1, 0, 10), send(2, 0, 11), receive(3, (2, 0), 20, ((1, 0),)), receive(3, (1, 0), 21)],
    "hlc_order": [send(1, 0, 10), receive(2, (1, 0), 10)],
    "unsent": [send(1, 0, 10), receive(2, (3, 0), 20)],
    "resent": [send(1, 0, 10), send(1, 0, 11)],
}


@pytest.mark.parametrize("kind", SEEDED)
def test_a_seeded_fault_is_found_and_nothing_else(kind: str) -> None:
    report = verify(SEEDED[kind])
    assert {name for name, count in report.counts.items() if count} == {kind}
    assert [each.kind for each in report.violations] == [kind]


def test_a_duplicate_receipt_is_a_fifo_violation() -> None:
    events = [send(1, 0, 10), receive(2, (1, 0), 20), receive(2, (1, 0), 21)]
    assert verify(events).counts["fifo"] == 1


def test_two_processes_that_wait_for_each_other_are_reported_and_not_waited_for() -> None:
    events = [receive(1, (2, 0), 1), send(1, 0, 2), receive(2, (1, 0), 1), send(2, 0, 2)]
    report = verify(events)
    assert report.counts["unsent"] == 1
    assert report.events == 4


@pytest.mark.parametrize(("length", "processes"), [(2, 2), (3, 3), (300, 300), (50_000, 3)])
def test_a_circle_of_declared_causes_of_any_length_is_reported_once(length: int, processes: int) -> None:
    names = [(each % processes, each // processes) for each in range(length)]
    events = [send(*name, 10 + each, (names[each - 1],)) for each, name in enumerate(names)]
    # Downstream of the circle, and in the past of nobody in it.
    events.append(send(processes, 0, 10**9, (names[0],)))
    report = verify(events)
    assert report.counts["unsent"] == 1
    assert [each.kind for each in report.violations if each.process == processes] == []


def test_what_only_waits_for_a_circle_is_no_part_of_it() -> None:
    # The first process waits for the circle of the two others.
    events = [send(9, 0, 100, ((1, 0),)), send(1, 0, 10, ((2, 0),)), send(2, 0, 11, ((1, 0),))]
    (violation, *others) = (each for each in verify(events).violations if each.kind == "unsent")
    assert (violation.process, others) == (1, [])


def test_a_cause_that_was_never_sent_is_told_from_one_that_was() -> None:
    report = verify([send(1, 0, 10), send(2, 0, 20, ((1, 0), (7, 7)))])
    assert [(each.kind, each.event) for each in report.violations] == [("unsent", 1)]
    assert report.concurrent_pairs == 0


def test_the_progress_of_a_long_trace_is_given_and_only_grows() -> None:
    shares: list[float] = []
    verify((send(1, each, each + 1) for each in range(50_000)), shares.append)
    assert len(shares) >= 5
    assert shares == sorted(shares)
    assert 0.0 < shares[0] < shares[-1] <= 1.0


def test_a_trace_that_is_wrong_throughout_names_a_hundred_and_counts_all() -> None:
    events = [TraceEvent("receive", 1, (2, 0), 5)] * 500
    report = verify(events)
    assert report.counts["hlc_order"] == 499
    assert sum(each.kind == "hlc_order" for each in report.violations) == 100


def random_trace(seed: int, processes: int, length: int) -> list[TraceEvent]:
    """Return a trace of broadcasts received in any order, with random stamps: faults of all kinds."""
    rng = random.Random(seed)
    events: list[TraceEvent] = []
    sequences = [0] * processes
    sent: list[tuple[int, int]] = []
    for _ in range(length):
        process, hlc = rng.randrange(processes), rng.randrange(50) + len(events)
        if sent and rng.random() < 0.6:
            chosen = rng.choice(sent)
            events.append(receive(process, chosen, hlc, (rng.choice(sent),) if rng.random() < 0.2 else ()))
        else:
            sent.append((process, sequences[process]))
            sequences[process] += 1
            causes = tuple(rng.sample(sent[:-1], min(2, len(sent) - 1))) if rng.random() < 0.4 else ()
            events.append(send(process, sent[-1][1], hlc, causes))
    return events


def happened_before(events: list[TraceEvent]) -> set[tuple[int, int]]:
    """Return the transitive closure, by the definition."""
    edges: dict[int, set[int]] = {number: set() for number in range(len(events))}
    sends = {event.message: number for number, event in enumerate(events) if event.kind == "send"}
    latest: dict[int, int] = {}
    for number, event in enumerate(events):
        if event.process in latest:
            edges[number].add(latest[event.process])
        if event.kind == "receive":
            edges[number].add(sends[event.message])
        else:
            edges[number] |= {sends[each] for each in event.dependencies}
        latest[event.process] = number
    past: dict[int, set[int]] = {}
    for number in range(len(events)):
        past[number] = set(edges[number]).union(*(past[each] for each in edges[number]))
    return {(each, number) for number, found in past.items() for each in found}


@settings(max_examples=150)
@given(seed=st.integers(0, 10**6), processes=st.integers(1, 4), length=st.integers(0, 30))
def test_the_vector_clocks_agree_with_the_definition_of_happened_before(
    seed: int, processes: int, length: int
) -> None:
    events = random_trace(seed, processes, length)
    report, before = verify(events), happened_before(events)
    assert report.concurrent_pairs == length * (length - 1) // 2 - len(before)
    # Stamps are in order along every pair exactly when they are along the direct ones.
    assert (report.counts["hlc_order"] > 0) == any(events[a].hlc >= events[b].hlc for a, b in before)
    sends = {event.message: number for number, event in enumerate(events) if event.kind == "send"}
    broken = 0
    for process in range(processes):
        received = [e.message for e in events if e.process == process and e.kind == "receive"]
        for position, message in enumerate(received):
            earlier = received[:position]
            broken += any(sends[message] == sends[e] or (sends[message], sends[e]) in before for e in earlier)
    assert report.counts["fifo"] + report.counts["causal_order"] == broken


@settings(max_examples=50)
@given(seed=st.integers(0, 10**6))
def test_how_the_processes_are_interleaved_in_the_file_makes_no_difference(seed: int) -> None:
    events = random_trace(seed, 3, 25)
    by_process = [event for name in (2, 0, 1) for event in events if event.process == name]
    ours, theirs = verify(events), verify(by_process)
    assert (ours.counts, ours.concurrent_pairs) == (theirs.counts, theirs.concurrent_pairs)
    assert sorted((v.kind, v.process, v.message) for v in ours.violations) == sorted(
        (v.kind, v.process, v.message) for v in theirs.violations
    )


def test_a_long_stream_is_checked_whole() -> None:
    events = list(
        itertools.chain.from_iterable((send(1, k, 2 * k), receive(2, (1, k), 2 * k + 1)) for k in range(3000))
    )
    report = verify(events)
    assert report.violations == ()
    # A receipt happened before no sending: each is concurrent with all later sendings.
    assert report.concurrent_pairs == 3000 * 2999 // 2
