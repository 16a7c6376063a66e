"""Traces of the bus: written, read back, verified against a reference; hostile files are named."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from cfctl.bus.packet import join_id, ticket_id
from cfctl.bus.trace import SCHEMA
from cfctl.bus.verification import MAX_LINE_BYTES, Trace, TracedMessage, judge, read_trace, verify_trace
from cfctl.errors import InputError
from cfctl.records import Verdict

HEADER = {"schema": SCHEMA, "version": 1, "topics": [], "unix_ns": 0}


def message(
    identity: int, at: int, *dependencies: int, ring: str = "a", hlc: int | None = None
) -> dict[str, Any]:
    """Return the line of a message whose ticks and stamps are all of one moment."""
    return {
        "id": identity, "topic": "t", "ring": ring, "hlc": at * 32 if hlc is None else hlc, "published_tick": at,
        "received_tick": at + 1, "received_hlc": at * 32 + 16, "bytes": 0, "dependencies": list(dependencies),
    }  # fmt: skip


def written(path: Path, messages: list[dict[str, Any]], end: bool = True) -> Path:
    lines = [HEADER, *messages, *([{"end": True, "messages": len(messages), "dropped": 0}] if end else [])]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


A1, A2, B1 = join_id(1, 1), join_id(1, 2), join_id(2, 1)


def test_a_trace_in_order_passes(tmp_path: Path) -> None:
    found = verify_trace(
        written(tmp_path / "t", [message(A1, 1), message(A2, 2), message(B1, 3, A1, ring="b")])
    )
    assert (found.verdict, found.messages, found.rings, found.dependencies) == (Verdict.PASS, 3, 2, 1)
    assert not any(found.causality.counts.values())


@pytest.mark.parametrize(
    ("messages", "kind"),
    [
        ([message(A2, 1), message(A1, 2)], "fifo"),
        ([message(A1, 1), message(A1, 2)], "fifo"),
        ([message(A1, 1), message(A1, 2)], "resent"),
        # The effect came first, at the subscriber too.
        ([message(B1, 2, A1, ring="b"), message(A1, 1)], "dependency"),
        ([message(B1, 2, A1, ring="b"), message(A1, 1)], "causal_order"),
        # Its publisher had not merged the stamp of its cause.
        ([message(A1, 5, hlc=500), message(B1, 6, A1, ring="b", hlc=400)], "hlc_order"),
        ([message(A1, 1, B1), message(B1, 2, A1, ring="b")], "unsent"),
    ],
)  # fmt: skip
def test_each_planted_violation_is_found_and_fails(tmp_path: Path, messages: list[Any], kind: str) -> None:
    found = verify_trace(written(tmp_path / "t", messages))
    assert found.causality.counts[kind] > 0
    assert found.verdict is Verdict.FAIL


def test_an_effect_that_was_published_before_its_cause_is_found_by_its_tick(tmp_path: Path) -> None:
    cause, effect = message(A1, 5, hlc=10), message(B1, 4, A1, ring="b", hlc=400)
    found = verify_trace(written(tmp_path / "t", [cause, effect]))
    assert found.effects_first == 1
    assert found.verdict is Verdict.FAIL


def test_a_cause_outside_of_the_trace_is_counted_and_nothing_is_said_of_it(tmp_path: Path) -> None:
    found = verify_trace(written(tmp_path / "t", [message(A2, 2, A1)]))
    assert (found.outside, found.verdict) == (1, Verdict.PASS)


def test_tickets_come_in_any_order_and_numbers_of_another_ring_begin_anew(tmp_path: Path) -> None:
    tickets = [
        message(ticket_id(3, 9), 1),
        message(ticket_id(3, 4), 2),
        message(A2, 3),
        message(A1, 4, ring="b"),
    ]
    assert verify_trace(written(tmp_path / "t", tickets)).verdict is Verdict.PASS


def test_a_trace_that_is_cut_off_or_empty_is_inconclusive_and_says_why(tmp_path: Path) -> None:
    whole = [message(A1, 1), message(A2, 2)]
    cut = verify_trace(written(tmp_path / "t", whole, end=False))
    assert (cut.verdict, cut.messages) == (Verdict.INCONCLUSIVE, 2)
    assert "no end line" in cut.verdict_reason
    data = written(tmp_path / "t", whole).read_bytes()
    (tmp_path / "half").write_bytes(data[: data.index(b"received_hlc") + 3])
    half = verify_trace(tmp_path / "half")
    assert (half.verdict, half.messages) == (Verdict.INCONCLUSIVE, 0)
    assert "line 2 is cut off" in half.verdict_reason
    assert verify_trace(written(tmp_path / "t", [])).verdict is Verdict.INCONCLUSIVE
    (tmp_path / "t").write_bytes(data + b"{}\n")
    assert "goes on after its end" in verify_trace(tmp_path / "t").verdict_reason
    (tmp_path / "t").write_bytes(data.replace(b'"messages": 2', b'"messages": 3'))
    assert "the end tells 3" in verify_trace(tmp_path / "t").verdict_reason


def test_what_is_wrong_in_a_part_fails_although_the_rest_is_missing(tmp_path: Path) -> None:
    assert (
        verify_trace(written(tmp_path / "t", [message(A2, 1), message(A1, 2)], end=False)).verdict
        is Verdict.FAIL
    )


@pytest.mark.parametrize(
    "data",
    [b"", b"\n", b"\0" * 5000, b"[]\n", b"{}\n", b'{"schema":"cfctl.bus.trace","version":2}\n', b"[" * 100_000 + b"\n",
     b"x" * (MAX_LINE_BYTES + 5), b'{"schema":"cfctl.profile","version":1}\n', b"\xff\xfe\n"],
    ids=["empty", "newline", "zeros", "list", "no schema", "newer", "deep", "long line", "other", "no utf-8"],
)  # fmt: skip
def test_what_is_no_trace_is_an_input_error_that_names_it(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "t").write_bytes(data)
    with pytest.raises(InputError, match="is no trace of the bus"):
        verify_trace(tmp_path / "t")


@pytest.mark.parametrize("path", ["/nowhere", "/dev/zero", "/", "nul\0l"])
def test_what_can_not_be_opened_is_an_input_error(path: str) -> None:
    with pytest.raises(InputError):
        verify_trace(Path(path))


@pytest.mark.parametrize(
    "wrong",
    [{"id": -1}, {"id": 1 << 64}, {"id": True}, {"id": 1.5}, {"hlc": "1"}, {"dependencies": 5}, {"dependencies": [-1]},
     {"dependencies": [1] * 1001}, {"topic": 5}, {"topic": "x" * 2000}, {"ring": None}, {"ring": "x" * 20}, {"published_tick": None}],
)  # fmt: skip
def test_a_value_out_of_its_range_ends_the_trace_there(tmp_path: Path, wrong: dict[str, Any]) -> None:
    found = read_trace(written(tmp_path / "t", [message(A1, 1), message(A2, 2) | wrong]))
    assert len(found.messages) == 1
    assert found.problem == "line 3 holds no message"


@hypothesis.settings(max_examples=60)
@hypothesis.given(position=st.integers(0, 10**6), byte=st.integers(0, 255), cut=st.integers(0, 10**6))
def test_a_damaged_trace_is_read_or_named_and_never_a_crash(
    tmp_path_factory: pytest.TempPathFactory, position: int, byte: int, cut: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged"
    data = bytearray(
        written(path, [message(A1, 1), message(B1, 3, A1, ring="b"), message(A2, 4, B1)]).read_bytes()
    )
    data[position % len(data)] = byte
    path.write_bytes(data[: len(data) - cut % 50 if cut % 3 else len(data)])
    with contextlib.suppress(InputError):
        verify_trace(path)


@st.composite
def histories(draw: st.DrawFn) -> tuple[TracedMessage, ...]:
    """Messages of three rings in any order of receipt, with any stamps and causes."""
    count = draw(st.integers(1, 7))
    numbers = dict.fromkeys(range(3), 0)
    messages: list[TracedMessage] = []
    for place in range(count):
        ring = draw(st.integers(0, 2))
        numbers[ring] += 1
        others = [each.id for each in messages]
        causes = draw(st.lists(st.sampled_from(others), max_size=2, unique=True)) if others else []
        stamp = draw(st.integers(1, 20)) if draw(st.booleans()) else 100 + 10 * place
        messages.append(
            TracedMessage(join_id(ring + 1, numbers[ring]), "t", str(ring), stamp, place, place + 1, 1000 + 2 * place, tuple(causes))
        )  # fmt: skip
    received = draw(st.permutations(messages)) if draw(st.booleans()) else messages
    return tuple(replace(each, received_hlc=1000 + 2 * place) for place, each in enumerate(received))


def reference(messages: tuple[TracedMessage, ...]) -> dict[str, bool]:
    """Say what is wrong by definition: the closure of "sent before in its ring" and "declared as a cause elsewhere"."""
    by_id = {each.id: each for each in messages}
    sent_before = {
        each.id: {other.id for other in messages[:place] if other.ring == each.ring}
        | {cause for cause in each.dependencies if by_id[cause].ring != each.ring}
        for place, each in enumerate(messages)
    }
    past = {identity: set(before) for identity, before in sent_before.items()}
    for _ in messages:
        for identity in past:
            past[identity] |= {more for each in past[identity] for more in past[each]}
    circular = any(identity in before for identity, before in past.items())
    received = [each.id for each in messages]
    return {
        "circular": circular,
        "fifo": any(
            earlier.id > later.id and earlier.ring == later.ring
            for place, later in enumerate(messages)
            for earlier in messages[:place]
        ),
        "dependency": any(
            received.index(cause) > received.index(each.id)
            for each in messages
            for cause in each.dependencies
        ),
        "hlc_order": any(by_id[cause].hlc >= each.hlc for each in messages for cause in past[each.id]),
    }


@hypothesis.settings(max_examples=150)
@hypothesis.given(messages=histories())
def test_verdicts_agree_with_a_reference_by_definition(messages: tuple[TracedMessage, ...]) -> None:
    expected = reference(messages)
    found = judge("trace", Trace(messages, 0, None))
    counts = found.causality.counts
    assert (counts["unsent"] > 0) == expected["circular"]
    assert (counts["fifo"] > 0) == expected["fifo"]
    assert (counts["dependency"] > 0) == expected["dependency"]
    if not expected["circular"]:
        assert (counts["hlc_order"] > 0) == expected["hlc_order"]
    if not any(expected.values()):
        assert counts["causal_order"] == 0
