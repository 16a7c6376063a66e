"""Verifying traces of the bus: each planted fault is found, and verdicts agree with a reference by definition."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from cfctl.bus.packet import join_id, split_id, ticket_id
from cfctl.bus.trace_file import (
    Trace,
    TracedMessage,
    TracedRing,
    TraceEnd,
)
from cfctl.bus.verification import TraceReport, judge, verify_trace
from cfctl.records import Verdict
from tests.bus_traces import A1, A2, A3, B1, B2, RINGS, T3, T4, end, message, ring, written


def verified(path: Path, messages: list[dict[str, Any]], *last: dict[str, Any]) -> TraceReport:
    return verify_trace(written(path / "trace", messages, *last))


def kinds(report: TraceReport) -> dict[str, int]:
    return {kind: count for kind, count in report.counts.items() if count}


def test_a_trace_in_order_passes(tmp_path: Path) -> None:
    found = verified(tmp_path, [message(A1, 1), message(A2, 2), message(B1, 3, A1)])
    assert (found.verdict, found.messages, found.rings, found.dependencies) == (Verdict.PASS, 3, 2, 1)
    assert kinds(found) == {}
    # A2 and B1.
    assert found.concurrent_pairs == 1


@pytest.mark.parametrize(
    ("messages", "kind"),
    [
        ([message(A2, 1), message(A1, 2)], "fifo"),
        ([message(A1, 1), message(A1, 2)], "fifo"),
        ([message(A1, 1), message(A1, 2)], "duplicate"),
        ([message(T3, 1, sequence=1), message(T3, 2, sequence=2)], "duplicate"),
        ([message(A1, 1, A1)], "self"),
        ([message(T3, 1, T3, sequence=1)], "self"),
        ([message(A1, 1, published_tick=3)], "receipt"),
        ([message(A1, 2), message(B1, 3, A1, published_tick=1)], "effect_first"),
        # Also when the effect was taken first, and within a ring.
        ([message(B1, 1, A1), message(A1, 2)], "effect_first"),
        ([message(A1, 1, A2), message(A2, 2)], "effect_first"),
        # Its publisher had not merged the stamp of its cause.
        ([message(A1, 5), message(B1, 6, A1, hlc=100)], "hlc_order"),
        ([message(A1, 5), message(A2, 6, hlc=100)], "hlc_order"),
        ([message(A1, 5, received_hlc=160)], "hlc_order"),
        ([message(A1, 1, B1), message(B1, 2, A1)], "circular"),
    ],
)  # fmt: skip
def test_each_planted_violation_is_found_and_fails(tmp_path: Path, messages: list[Any], kind: str) -> None:
    found = verified(tmp_path, messages)
    assert found.counts[kind] > 0
    assert {each.kind for each in found.violations} == set(kinds(found))
    assert found.verdict is Verdict.FAIL


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        ([message(A1, 2), message(B1, 1, received_hlc=100)], "received before the line above it"),
        ([message(A1, 1), message(B1, 2, hlc=40, received_hlc=48)], "received_hlc"),
        ([message(A1, 5), message(A2, 6, published_tick=4)], "published_tick goes back"),
        ([message(A1, 1, sequence=2)], "its id says sequence 1, not 2"),
        ([message(A1, 1, bytes=4, payload="QUJD")], "its payload has 3 bytes, and bytes is 4"),
        ([ring("b"), message(A1, 1, ring="b")], "its id names publisher 1"),
        ([ring("a", of_topic="u"), message(A1, 1)], "its topic is not its ring's"),
        ([ring("a", scheduled=True), message(A1, 1)], "its ring is for a dispatcher's messages"),
        ([message(A1, 1), ring("a")], "no line before it describes its ring"),
        ([message(A1, 1, ring="dead")], "no line before it describes its ring"),
        ([ring("a"), ring("a"), ring("a", pid=8, of_topic="u"), message(A1, 1)], "describes a ring again"),
    ],
)
def test_values_that_exclude_each_other_fail(tmp_path: Path, messages: list[Any], text: str) -> None:
    found = verified(tmp_path, messages)
    assert kinds(found) == {"contradiction": 1}
    assert text in found.violations[0].text
    assert found.verdict is Verdict.FAIL


def test_a_topic_that_was_not_asked_for_or_is_not_in_the_end_line_is_a_contradiction(tmp_path: Path) -> None:
    messages = [message(A1, 1)]
    found = verified(tmp_path, messages, end(messages, topics=["u"]))
    assert [each.text for each in found.violations] == ["its topic is not among those of the end line"]
    path = written(tmp_path / "trace", messages)
    path.write_text(path.read_text().replace('"topics": []', '"topics": ["u"]'))
    assert [each.text for each in verify_trace(path).violations] == [
        "its topic is not among those of the header"
    ]


def test_the_order_in_which_rings_were_taken_is_the_recorders_and_no_violation(tmp_path: Path) -> None:
    """The recorder looked at the cause's topic, both were published, and it took the effect's first."""
    cause = message(A1, 1, received_tick=20, received_hlc=2000)
    effect = message(T3, 2, A1, sequence=1, received_tick=19, received_hlc=1900)
    found = verified(tmp_path, [effect, cause])
    assert (found.verdict, kinds(found), found.dependencies) == (Verdict.PASS, {}, 1)


@pytest.mark.parametrize("count", [2, 3, 7, 20_000])
def test_a_circle_of_dependencies_of_any_length_is_found(tmp_path: Path, count: int) -> None:
    """All ticks are equal, so that only the circle itself shows."""
    width = count if count < 8 else 2
    ids = [join_id(each % width + 1, each // width + 1) for each in range(count)]
    at = {"published_tick": 1, "received_tick": 1}
    messages = [ring(name, scheduled=False) for name in RINGS[:width]]
    messages += [message(name, each + 1, ids[each - 1], **at) for each, name in enumerate(ids)]
    found = verified(tmp_path, messages)
    assert found.counts["circular"] >= 1
    assert found.verdict is Verdict.FAIL


def test_a_cause_outside_the_trace_is_counted_and_not_judged(tmp_path: Path) -> None:
    found = verified(tmp_path, [message(A2, 2, A1), message(B1, 3, join_id(7, 1), ticket_id(9, 1))])
    assert (found.outside, found.verdict) == (3, Verdict.PASS)


def test_a_cause_after_the_recording_that_must_have_been_published_later_is_found(tmp_path: Path) -> None:
    # A3 comes after A2, which was published after B1.
    found = verified(tmp_path, [message(B1, 1, A3), message(A1, 2), message(A2, 3)])
    assert (found.outside, kinds(found)) == (1, {"effect_first": 1})
    assert verified(tmp_path, [message(A1, 1), message(B1, 2, A3)]).verdict is Verdict.PASS


def test_an_id_that_came_again_on_another_ring_means_the_message_that_was_known(tmp_path: Path) -> None:
    again = ring("d", publisher=1, opened_unix_ns=32 * 50)
    old, new = message(A1, 1), message(A1, 60, ring="d")
    first, second = message(B1, 2, A1), message(B2, 70, A1)
    found = verified(tmp_path, [again, old, first, new, second])
    assert (found.verdict, found.outside, found.rings) == (Verdict.PASS, 0, 3)
    # The older ring was not recorded: its message is outside, and the newer ring's was not meant.
    found = verified(tmp_path, [again, first, new, second])
    assert (found.verdict, found.outside) == (Verdict.PASS, 1)
    # A message of the newer ring depends on the older one's of its own id.
    found = verified(tmp_path, [again, old, message(A1, 60, A1, ring="d")])
    assert (found.verdict, kinds(found)) == (Verdict.PASS, {})
    # Both were published later.
    again["opened_unix_ns"] = 0
    found = verified(tmp_path, [again, message(B1, 1, A1), message(A1, 2), message(A1, 3, ring="d")])
    assert kinds(found) == {"effect_first": 1, "hlc_order": 1}


def test_tickets_come_in_any_order_and_their_places_in_the_ring_do_not(tmp_path: Path) -> None:
    tickets = [message(T4, 1, sequence=1), message(T3, 2, sequence=2)]
    assert verified(tmp_path, tickets).verdict is Verdict.PASS
    swapped = [message(T4, 1, sequence=2), message(T3, 2, sequence=1)]
    assert kinds(verified(tmp_path, swapped)) == {"fifo": 1}


def test_a_trace_that_lost_messages_is_inconclusive_and_says_how_many(tmp_path: Path) -> None:
    messages = [message(A1, 1), message(A3, 2)]
    found = verified(tmp_path, messages, end(messages, dropped=500, damaged=3))
    assert (found.verdict, found.dropped, found.damaged, found.missing) == (Verdict.INCONCLUSIVE, 500, 3, 1)
    assert "500 more were dropped before they were recorded" in found.verdict_reason
    found = verified(tmp_path, messages)
    assert (found.verdict, found.missing) == (Verdict.INCONCLUSIVE, 1)
    assert "1 more are missing" in found.verdict_reason
    wrong = [*messages, message(A2, 3)]
    assert verified(tmp_path, wrong, end(wrong, dropped=500)).verdict is Verdict.FAIL


def test_rejects_while_recording_are_shown_and_say_nothing_of_causality(tmp_path: Path) -> None:
    messages = [message(A1, 1)]
    found = verified(tmp_path, messages, end(messages, rejected=7))
    assert (found.verdict, found.rejected) == (Verdict.PASS, 7)


def test_progress_is_given_from_reading_to_the_end_and_only_grows(tmp_path: Path) -> None:
    shares: list[float] = []
    messages = [message(join_id(1, each), each) for each in range(1, 20_000)]
    verify_trace(written(tmp_path / "trace", messages), shares.append)
    assert shares == sorted(shares)
    assert shares[0] < 0.5 < shares[-1] <= 1.0


def test_a_trace_that_is_wrong_throughout_names_a_hundred_of_a_kind_and_counts_all(tmp_path: Path) -> None:
    found = verified(
        tmp_path, [message(join_id(1, each), each, published_tick=each + 5) for each in range(1, 301)]
    )
    assert kinds(found) == {"receipt": 300}
    assert [each.line for each in found.violations] == list(range(3, 103))


def test_what_is_wrong_in_a_part_fails_although_the_rest_is_missing(tmp_path: Path) -> None:
    path = written(tmp_path / "trace", [message(A2, 1), message(A1, 2)])
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b'{"end"')])
    assert verify_trace(path).verdict is Verdict.FAIL


@st.composite
def histories(draw: st.DrawFn) -> list[TracedMessage]:
    """Messages of three rings, taken in any order, with any stamps, ticks and causes."""
    count = draw(st.integers(1, 7))
    numbers = dict.fromkeys(range(3), 0)
    messages: list[TracedMessage] = []
    rings = draw(st.lists(st.integers(0, 2), min_size=count, max_size=count))
    ids = []
    for each in rings:
        numbers[each] += 1
        ids.append(join_id(each + 1, numbers[each]))
    for place, each in enumerate(rings):
        known = ids if draw(st.booleans()) else ids[:place]
        causes = draw(st.lists(st.sampled_from(known), max_size=2, unique=True)) if known else []
        tick = draw(st.integers(1, 20)) if draw(st.booleans()) else 100 + 10 * place
        stamp = draw(st.integers(1, 20)) if draw(st.booleans()) else 100 + 10 * place
        messages.append(
            TracedMessage(
                line=2 + place, id=ids[place], topic="t", ring=str(each), sequence=split_id(ids[place])[1], hlc=stamp,
                published_tick=tick, received_tick=0, received_hlc=0, bytes=0, dependencies=tuple(causes),
            )
        )  # fmt: skip
    taken = draw(st.permutations(messages)) if draw(st.booleans()) else messages
    return [
        each._replace(line=2 + place, received_tick=1000 + place, received_hlc=1000 + 2 * place)
        for place, each in enumerate(taken)
    ]


def reference(messages: list[TracedMessage]) -> dict[str, bool]:
    """Say what is wrong by definition: the closure of "before it in its ring" and "declared, of another ring"."""
    by_id = {each.id: each for each in messages}
    direct = {
        each.id: {other.id for other in messages[:place] if other.ring == each.ring}
        | {cause for cause in each.dependencies if by_id[cause].ring != each.ring}
        for place, each in enumerate(messages)
    }
    past = {identity: set(before) for identity, before in direct.items()}
    for _ in messages:
        for identity in past:
            past[identity] |= {more for each in past[identity] for more in past[each]}
    pairs = [
        (by_id[cause], each) for each in messages for cause in each.dependencies if by_id[cause] is not each
    ]
    return {
        "self": any(each.id in each.dependencies for each in messages),
        "circular": any(identity in before for identity, before in past.items()),
        "fifo": any(
            earlier.id > later.id and earlier.ring == later.ring
            for place, later in enumerate(messages)
            for earlier in messages[:place]
        ),
        "effect_first": any(
            cause.sequence > each.sequence
            if cause.ring == each.ring
            else cause.published_tick > each.published_tick
            for cause, each in pairs
        ),
        "hlc_order": any(by_id[cause].hlc >= each.hlc for each in messages for cause in past[each.id]),
    }


@hypothesis.settings(max_examples=300)
@hypothesis.given(messages=histories())
def test_verdicts_agree_with_a_reference_by_definition(messages: list[TracedMessage]) -> None:
    expected = reference(messages)
    rings = {each.ring: TracedRing(1, split_id(each.id)[0], "t", False, 0) for each in messages}
    trace = Trace(messages, rings, end=TraceEnd(len(messages), 0, 0, None, ("t",)))
    found = judge("trace", trace)
    for kind in ("self", "circular", "fifo", "effect_first"):
        assert (found.counts[kind] > 0) == expected[kind], kind
    if not expected["circular"]:
        assert (found.counts["hlc_order"] > 0) == expected["hlc_order"]
