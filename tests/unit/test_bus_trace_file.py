"""Reading traces of the bus: what is cut off, hostile or nonsense is named, and is never a crash."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from cfctl.bus.trace_file import MAX_LINE_BYTES, read_trace
from cfctl.bus.verification import verify_trace
from cfctl.errors import InputError
from cfctl.records import Verdict
from tests.bus_traces import A1, A2, B1, end, message, ring, written


def test_a_trace_that_is_cut_off_or_empty_is_inconclusive_and_says_why(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    whole = [message(A1, 1), message(A2, 2)]
    data = written(path, whole).read_bytes()
    path.write_bytes(data[: data.index(b'{"end"')])
    cut = verify_trace(path)
    assert (cut.verdict, cut.messages) == (Verdict.INCONCLUSIVE, 2)
    assert "no end line" in cut.verdict_reason
    path.write_bytes(data[: data.index(b"received_hlc") + 3])
    half = verify_trace(path)
    assert (half.verdict, half.messages) == (Verdict.INCONCLUSIVE, 0)
    assert "line 3 is cut off" in half.verdict_reason
    assert verify_trace(written(path, [])).verdict is Verdict.INCONCLUSIVE
    path.write_bytes(data + b"{}\n")
    assert "goes on after its end" in verify_trace(path).verdict_reason
    path.write_bytes(data.replace(b'"messages": 2', b'"messages": 3'))
    assert "its end line counts 3 messages and it holds 2" in verify_trace(path).verdict_reason


@pytest.mark.parametrize(
    "wrong",
    [{"dropped": -1}, {"dropped": None}, {"damaged": 5}, {"rejected": "7"}, {"topics": "t"}, {"topics": [1]}, {"end": 1},
     {"topics": None}],
)  # fmt: skip
def test_an_end_line_of_nonsense_is_no_end(tmp_path: Path, wrong: dict[str, Any]) -> None:
    found = verify_trace(written(tmp_path / "trace", [message(A1, 1)], end([message(A1, 1)], **wrong)))
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "line 4 does not hold a valid end" in found.verdict_reason


@pytest.mark.parametrize(
    "data",
    [b"", b"\n", b"\0" * 5000, b"[]\n", b"{}\n", b'{"schema":"cfctl.bus.trace","version":2}\n',
     b'{"schema":"cfctl.bus.trace","version":1,"topics":5}\n', b"[" * 100_000 + b"\n",
     b"x" * (MAX_LINE_BYTES + 5), b'{"schema":"cfctl.profile","version":1}\n', b"\xff\xfe\n"],
    ids=["empty", "newline", "zeros", "list", "no schema", "newer", "no topics", "deep", "long line", "other", "no utf-8"],
)  # fmt: skip
def test_what_is_no_trace_is_an_input_error_that_names_it(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "t").write_bytes(data)
    with pytest.raises(InputError, match="is not a trace of the bus"):
        verify_trace(tmp_path / "t")


@pytest.mark.parametrize("path", ["/nowhere", "/dev/zero", "/", "nul\0l"])
def test_what_cannot_be_opened_is_an_input_error(path: str) -> None:
    with pytest.raises(InputError):
        verify_trace(Path(path))


@pytest.mark.parametrize(
    "wrong",
    [{"id": -1}, {"id": 1 << 64}, {"id": True}, {"id": 1.5}, {"hlc": "1"}, {"dependencies": 5}, {"dependencies": [-1]},
     {"dependencies": [1] * 1001}, {"topic": 5}, {"topic": "x" * 2000}, {"ring": None}, {"ring": "x" * 20}, {"published_tick": None}, {"ring": []}, {"sequence": -1},
     {"bytes": "0"}, {"unmet": [1]}, {"payload": "?"}, {"payload": 5}, {"deadline_unix_ns": -5}],
)  # fmt: skip
def test_a_value_out_of_its_range_ends_the_trace_there(tmp_path: Path, wrong: dict[str, Any]) -> None:
    found = read_trace(written(tmp_path / "t", [message(A1, 1), message(A2, 2) | wrong]))
    assert len(found.messages) == 1
    assert found.problem == "line 4 does not hold a valid message"


@pytest.mark.parametrize(
    "wrong",
    [
        {"publisher": -1},
        {"pid": "9"},
        {"of_topic": 5},
        {"scheduled": 1},
        {"opened_unix_ns": None},
        {"ring": ""},
    ],
)
def test_a_ring_line_of_nonsense_ends_the_trace_there(tmp_path: Path, wrong: dict[str, Any]) -> None:
    found = read_trace(written(tmp_path / "t", [ring("a", **wrong), message(A1, 1)]))
    assert found.problem is not None
    assert "does not hold a valid ring" in found.problem


@hypothesis.settings(max_examples=60)
@hypothesis.given(position=st.integers(0, 10**6), byte=st.integers(0, 255), cut=st.integers(0, 10**6))
def test_a_damaged_trace_is_read_or_named_and_never_a_crash(
    tmp_path_factory: pytest.TempPathFactory, position: int, byte: int, cut: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged"
    data = bytearray(written(path, [message(A1, 1), message(B1, 3, A1), message(A2, 4, B1)]).read_bytes())
    data[position % len(data)] = byte
    path.write_bytes(data[: len(data) - cut % 50 if cut % 3 else len(data)])
    with contextlib.suppress(InputError):
        verify_trace(path)
