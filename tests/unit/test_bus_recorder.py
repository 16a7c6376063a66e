"""The recorder on sources that a test fills: what it takes is what stands in the trace, in that order."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cfctl.bus import Bus
from cfctl.bus import trace as recording
from cfctl.bus.packet import Extension, encode, join_id, ticket_id
from cfctl.bus.trace import Limits, Recorded, Recorder
from cfctl.bus.verification import verify_trace
from cfctl.records import Verdict


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CFCTL_SEGMENT_DIR", str(tmp_path / "bus"))
    return tmp_path / "bus"


@dataclass
class Raw:
    """What a ring gives, as _native.Message."""

    id: int
    payload: bytes = b"x"
    extended: bool = False
    hlc: int = 0
    published_tick: int = 5
    received_tick: int = 9
    ring_id: int = 1

    @property
    def sequence(self) -> int:
        return self.id & ((1 << 48) - 1)


@dataclass
class Lossy:
    """A source that nobody waits for: it gives some messages, and lost some."""

    messages: Iterator[Raw]
    dropped: int = 0
    damaged: int = 0

    def take(self) -> Any:
        return next(self.messages, None)

    def counts(self) -> dict[str, int]:
        return {"dropped": self.dropped, "damaged": self.damaged}


def recorded(
    path: Path, directory: Path, messages: Iterable[Raw], dropped: int = 0, damaged: int = 0, **options: Any
) -> tuple[Recorded, list[dict[str, Any]], list[bool]]:
    """Record all of a source on topic t; return the totals, the lines, and how it was asked for."""
    given = list(messages)
    asked: list[bool] = []

    def subscribe(bus: Bus, topic: str, lossless: bool) -> Lossy:
        asked.append(lossless)
        return Lossy(iter(given), dropped, damaged)

    recorder = Recorder(directory, ["t"], subscribe=subscribe, **options)
    polls = iter(range(len(given) + 1))
    with path.open("w") as file:
        found = recorder.record(file.write, Limits(10**6, None), lambda: next(polls, None) is None)
    return found, [json.loads(line) for line in path.read_text().splitlines()], asked


def extended(
    sequence: int, ticket: int, *dependencies: int, payload: bytes = b"x", deadline: int | None = None
) -> Raw:
    stamp = time.time_ns() - 10**6 + sequence * 16
    return Raw(
        join_id(3, sequence), encode(Extension(deadline, ticket, dependencies, 0), payload), True, stamp
    )


def test_a_message_that_waits_for_another_keeps_its_place_on_the_ring(
    directory: Path, tmp_path: Path
) -> None:
    never = join_id(7, 1)
    taken = [extended(1, 40, never, payload=b"first", deadline=9), extended(2, 30, payload=b"second!")]
    _, lines, _ = recorded(tmp_path / "trace", directory, taken)
    first, second = (line for line in lines if "id" in line)
    assert (first["id"], first["sequence"], first["bytes"]) == (ticket_id(3, 40), 1, 5)
    assert (first["dependencies"], first["deadline_unix_ns"]) == ([never], 9)
    assert (second["id"], second["sequence"], second["bytes"]) == (ticket_id(3, 30), 2, 7)
    assert verify_trace(tmp_path / "trace").verdict is Verdict.PASS


def test_nobody_waits_for_a_recording_unless_asked_and_its_losses_stand_in_the_end_line(
    directory: Path, tmp_path: Path
) -> None:
    found, lines, asked = recorded(tmp_path / "trace", directory, [Raw(join_id(1, 4))], dropped=3, damaged=1)
    assert asked == [False]
    assert (found.dropped, found.damaged, found.rejected) == (3, 1, None)
    assert lines[0]["lossless"] is False
    assert lines[-1] == {
        "end": True, "messages": 1, "dropped": 3, "damaged": 1, "rejected": None, "topics": ["t"]
    }  # fmt: skip
    report = verify_trace(tmp_path / "trace")
    assert report.verdict is Verdict.INCONCLUSIVE
    assert "3 more were dropped" in report.verdict_reason


def test_a_message_that_cannot_be_decoded_is_counted_as_damaged_and_dropped(
    directory: Path, tmp_path: Path
) -> None:
    broken = Raw(join_id(3, 1), b"short", extended=True)
    found, lines, _ = recorded(tmp_path / "trace", directory, [broken, extended(2, 1)])
    assert (found.messages, found.dropped, found.damaged) == (1, 1, 1)
    assert [line["sequence"] for line in lines if "id" in line] == [2]


def test_a_bus_is_asked_for_a_lossy_subscription_exactly_when_nobody_shall_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[dict[str, Any]] = []
    plain = Bus.raw_subscription

    def subscribe(bus: Bus, topic: str, **options: Any) -> Any:
        asked.append(options)
        return plain(bus, topic, **options)

    monkeypatch.setattr(Bus, "raw_subscription", subscribe)
    with Bus() as bus:
        for lossless in (False, True):
            source = recording.subscribe(bus, "t", lossless)
            assert source.take() is None
            assert source.counts()["dropped"] == 0
    assert asked == [{"lossy": True}, {"lossy": False}]


@dataclass
class FoundRing:
    """What the recorder reads of a ring file."""

    ring_id: int
    topic: str
    rejected: int = 0
    opened_unix_ns: int = 1
    publisher: int = 1
    pid: int = 9
    scheduled: bool = False
    live: bool = True


def test_what_was_rejected_while_publishers_waited_for_a_recording_is_reported(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = [
        (FoundRing(1, "t", 5), FoundRing(2, "t", 100), FoundRing(3, "other", 0)),
        # The first rejected 7 and is gone afterwards, one came that rejected 4, another topic's 50.
        (FoundRing(1, "t", 12), FoundRing(2, "t", 100), FoundRing(4, "t", 4), FoundRing(3, "other", 50)),
        (FoundRing(2, "t", 101), FoundRing(4, "t", 6), FoundRing(3, "other", 60)),
    ]
    monkeypatch.setattr(recording, "list_rings", lambda _: (looks.pop(0) if len(looks) > 1 else looks[0], ()))
    monkeypatch.setattr(recording, "_LOOK_NS", 0)
    monkeypatch.setattr(recording, "_LOOK_SHARE", 0)
    found, lines, asked = recorded(tmp_path / "trace", directory, [Raw(join_id(1, 1))], lossless=True)
    assert asked == [True]
    assert found.rejected == lines[-1]["rejected"] == 7 + 1 + 6
    assert lines[0]["lossless"] is True


def test_a_number_that_comes_again_is_another_ring(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rings() -> Iterator[tuple[FoundRing, ...]]:
        yield (FoundRing(1, "t"),)
        while True:
            yield (FoundRing(99, "t", opened_unix_ns=2),)

    looks = rings()
    monkeypatch.setattr(recording, "list_rings", lambda _: (next(looks), ()))
    taken = [
        Raw(join_id(1, number), hlc=hlc, ring_id=ring)
        for hlc, (number, ring) in enumerate(((1, 1), (2, 1), (1, 99), (2, 99)))
    ]
    _, lines, _ = recorded(tmp_path / "trace", directory, taken)
    assert [line["ring"] for line in lines if "of_topic" in line] == [f"{1:016x}", f"{99:016x}"]
    assert [line["ring"] for line in lines if "id" in line] == [f"{1:016x}"] * 2 + [f"{99:016x}"] * 2
    assert verify_trace(tmp_path / "trace").verdict is Verdict.PASS


def test_all_topics_are_those_that_publish_but_for_requests_and_replies(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rings = (FoundRing(1, "b"), FoundRing(2, "a"), FoundRing(3, "rpc:a"), FoundRing(4, "ended", live=False))
    monkeypatch.setattr(recording, "list_rings", lambda _: (rings, ()))
    recorder = Recorder(directory, (), subscribe=lambda *_: Lossy(iter(())))
    with (tmp_path / "trace").open("w") as file:
        found = recorder.record(file.write, Limits(1, None), lambda: True)
    assert found.topics == ("a", "b")
