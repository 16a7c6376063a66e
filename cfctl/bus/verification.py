"""Reading a trace of the bus, which is hostile until each value is checked, and verifying its causality."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, Final

from cfctl.bus.packet import MAX_DEPENDENCIES, is_ticket, split_id
from cfctl.bus.trace import SCHEMA, VERSION
from cfctl.errors import InputError, os_error_reason
from cfctl.records import Document, Judgement, JudgementLevel, Verdict
from cfctl.temporal.causality import CausalityReport, TraceEvent, verify

if TYPE_CHECKING:
    from pathlib import Path

MAX_LINE_BYTES: Final = 4 << 20
# Verifying takes so many words: a vector clock with a place per ring for each message.
MAX_WORDS: Final = 20_000_000
MAX_MESSAGES: Final = 2_000_000
_U64: Final = 1 << 64
_RECORDER: Final = 0


@dataclass(frozen=True, slots=True)
class TracedMessage:
    """A message of a trace; `ring` says which of a number's rings sent it, "" when it was not found."""

    id: int
    topic: str
    ring: str
    hlc: int
    published_tick: int
    received_tick: int
    received_hlc: int
    dependencies: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Trace:
    """The messages of a trace in the order of receipt; `problem` says why it is not whole, None when it is."""

    messages: tuple[TracedMessage, ...]
    dropped: int
    problem: str | None


@dataclass(frozen=True, slots=True)
class TraceReport(Document):
    """The causality of a trace. Each ring is a process, and the recorder one that received all.

    A dependency on a message of the trace is a receipt at its dependent's publisher. `outside`: dependencies on
    messages that are not in the trace, of which nothing is said; `effects_first`: published before a message they depend on, by
    the CPU's tick counter. `cut_off` says why the trace is not whole: a pass is then inconclusive.
    """

    SCHEMA: ClassVar[str] = "cfctl.bus.verification"
    VERSION: ClassVar[int] = 1
    ROWS: ClassVar[str | None] = None
    trace: str
    verdict: Verdict
    verdict_reason: str
    messages: int
    rings: int
    topics: tuple[str, ...]
    dropped: int
    dependencies: int
    outside: int
    effects_first: int
    cut_off: str | None
    causality: CausalityReport

    def judgements(self) -> tuple[Judgement, ...]:
        """Return the verdict over the trace."""
        level = JudgementLevel.ERROR if self.verdict is Verdict.FAIL else JudgementLevel.WARNING
        text = self.verdict_reason
        return (Judgement("CAUSALITY", "bus", self.verdict, self.verdict, level, text),)


def read_trace(path: Path) -> Trace:
    """Return a trace; what is cut off, or ends in nonsense after a good part, gives that part and the problem.

    Raises InputError for what can not be opened or is no trace.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except (OSError, ValueError) as error:
        why = os_error_reason(error) if isinstance(error, OSError) else f"Its path is unusable: {error}."
        raise InputError(
            f"The trace {path} can not be read.", why, "Name a file of cfctl bus record."
        ) from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise _no_trace(path, "It is no regular file.")
    with os.fdopen(fd, "rb") as file:
        try:
            return _read(path, file)
        except OSError as error:
            raise _no_trace(path, os_error_reason(error)) from error


def _no_trace(path: Path, why: str) -> InputError:
    return InputError(f"{path} is no trace of the bus.", why, "Make one: cfctl bus record -o FILE")


def _read(path: Path, file: BinaryIO) -> Trace:
    lines = _records(file)
    number, header = next(lines, (1, None))
    if not isinstance(header, dict) or header.get("schema") != SCHEMA:
        raise _no_trace(path, f"Its first line is no header of {SCHEMA}.")
    if header.get("version") != VERSION:
        raise _no_trace(path, f"It is of version {str(header.get('version'))[:20]}; {VERSION} is known.")
    messages: list[TracedMessage] = []
    rings: set[str] = set()
    for number, record in lines:
        if not isinstance(record, dict):
            return Trace(tuple(messages), 0, f"line {number} is cut off or no JSON")
        if "end" in record:
            return _ended(record, messages, number, next(lines, None) is not None)
        if "of_topic" in record:
            continue
        try:
            message = _message(record)
        except (KeyError, TypeError, ValueError):
            return Trace(tuple(messages), 0, f"line {number} holds no message")
        messages.append(message)
        rings.add(message.ring)
        if len(messages) >= MAX_MESSAGES or len(messages) * len(rings) >= MAX_WORDS:
            return Trace(tuple(messages), 0, f"it is verified to line {number} only, for want of memory")
    return Trace(tuple(messages), 0, f"it has no end line after line {number}")


def _ended(record: dict[str, Any], messages: list[TracedMessage], number: int, goes_on: bool) -> Trace:
    dropped = record.get("dropped")
    if record.get("messages") != len(messages):
        return Trace(tuple(messages), 0, f"the end tells {str(record.get('messages'))[:20]} messages")
    if goes_on:
        return Trace(tuple(messages), 0, f"it goes on after its end, line {number}")
    return Trace(tuple(messages), dropped if isinstance(dropped, int) and _is_word(dropped) else 0, None)


def _records(file: BinaryIO) -> Iterator[tuple[int, Any]]:
    """Yield the lines as JSON with their numbers; None for one that is none, is too long, or has no end."""
    number = 0
    while line := file.readline(MAX_LINE_BYTES):
        number += 1
        if not line.endswith(b"\n"):
            yield number, None
            return
        try:
            yield number, json.loads(line)
        except (ValueError, RecursionError):
            yield number, None


def _is_word(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _U64


def _message(record: dict[str, Any]) -> TracedMessage:
    numbers = [record[name] for name in ("id", "hlc", "published_tick", "received_tick", "received_hlc")]
    dependencies = record.get("dependencies", [])
    topic, ring = record["topic"], record["ring"]
    if not (
        all(map(_is_word, numbers))
        and isinstance(dependencies, list)
        and len(dependencies) <= MAX_DEPENDENCIES
        and all(map(_is_word, dependencies))
        and isinstance(topic, str)
        and isinstance(ring, str)
        and len(topic) <= 1024
        and len(ring) <= 16
    ):
        raise ValueError("a value is out of its range")
    identity, hlc, published_tick, received_tick, received_hlc = numbers
    return TracedMessage(
        identity, topic, ring, hlc, published_tick, received_tick, received_hlc, tuple(dependencies)
    )


def verify_trace(path: Path) -> TraceReport:
    """Return what a trace says of causality; linear in messages * rings. Raises InputError as read_trace."""
    trace = read_trace(path)
    return judge(str(path), trace)


def judge(name: str, trace: Trace) -> TraceReport:
    """Return the report of a trace."""
    events = _Events(trace.messages)
    causality = verify(events.all)
    wrong = {kind: count for kind, count in causality.counts.items() if count}
    if events.effects_first:
        wrong["published before a cause"] = events.effects_first
    if wrong:
        verdict, reason = Verdict.FAIL, ", ".join(f"{count} {kind}" for kind, count in wrong.items())
    elif trace.problem is not None:
        verdict, reason = Verdict.INCONCLUSIVE, f"no violation, but {trace.problem}"
    elif not trace.messages:
        verdict, reason = Verdict.INCONCLUSIVE, "the trace holds no message"
    else:
        verdict, reason = Verdict.PASS, f"no violation in {len(trace.messages)} messages"
    return TraceReport(
        name, verdict, reason, len(trace.messages), len(events.processes),
        tuple(sorted({message.topic for message in trace.messages})), trace.dropped, events.dependencies,
        events.outside, events.effects_first, trace.problem, causality,
    )  # fmt: skip


class _Events:
    """A trace's messages as events: a sending at their ring, a receipt at the recorder, one for each cause."""

    def __init__(self, messages: tuple[TracedMessage, ...]) -> None:
        self.all: list[TraceEvent] = []
        self.processes: dict[tuple[int, str], int] = {}
        self.dependencies = self.outside = self.effects_first = 0
        # Packets of a dispatcher leave by deadline, so that their tickets come in any order: by receipt.
        self._places = {message.id: place for place, message in enumerate(messages) if is_ticket(message.id)}
        # The last message of an id, as a dependency names it: numbers come again with another ring.
        by_id = {message.id: message for message in messages}
        for message in messages:
            self._add(message, by_id)

    def _add(self, message: TracedMessage, by_id: dict[int, TracedMessage]) -> None:
        process, key = self._key(message)
        causes = []
        for dependency in message.dependencies:
            self.dependencies += 1
            cause = by_id.get(dependency)
            if cause is None:
                self.outside += 1
                continue
            self.effects_first += cause.published_tick > message.published_tick
            causes.append(cause)
        for cause in causes:
            other, cause_key = self._key(cause)
            if other != process:
                self.all.append(TraceEvent("receive", process, cause_key, None))
        keys = tuple(self._key(cause)[1] for cause in causes)
        self.all.append(TraceEvent("send", process, key, message.hlc))
        self.all.append(TraceEvent("receive", _RECORDER, key, message.received_hlc, keys))

    def _key(self, message: TracedMessage) -> tuple[int, tuple[int, int]]:
        """Return a message's process and its name among that process's: its number, or its place by ticket."""
        publisher, number = split_id(message.id)
        process = self.processes.setdefault((publisher, message.ring), len(self.processes) + 1)
        return process, (process, self._places.get(message.id, number))
