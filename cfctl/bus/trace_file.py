"""The file of a recorded trace: its lines, and reading them, which are hostile until each value is checked.

JSON lines: a header, a line per ring before its first message, a line per message in the order of receipt,
and a last line with the totals. A trace without its last line was cut off.
"""

from __future__ import annotations

import binascii
import json
import os
import stat
from base64 import b64decode
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from operator import itemgetter
from typing import TYPE_CHECKING, Any, BinaryIO, Final, NamedTuple

from cfctl.bus.packet import MAX_DEPENDENCIES
from cfctl.errors import InputError, os_error_reason

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA: Final = "cfctl.bus.trace"
VERSION: Final = 1
MAX_LINE_BYTES: Final = 4 << 20
MAX_MESSAGES: Final = 2_000_000
# Each message with dependencies may need a vector clock with a place per ring.
MAX_CLOCK_WORDS: Final = 20_000_000
_U64: Final = 1 << 64
_TOPIC_CHARACTERS: Final = 1024
_RING_DIGITS: Final = 16
_PROGRESS_EVERY: Final = 4096
_NUMBERS: Final = ("id", "sequence", "hlc", "published_tick", "received_tick", "received_hlc", "bytes")
_numbers: Final = itemgetter(*_NUMBERS)
_INTEGERS: Final = frozenset({int})
_REQUIRED: Final = frozenset({*_NUMBERS, "topic", "ring"})
_KNOWN: Final = _REQUIRED | {"dependencies", "deadline_unix_ns", "payload"}


class TracedMessage(NamedTuple):
    """A message of a trace and its line in the file.

    `sequence`: its place in its ring, from 1. `ring`: the id of that ring, "" when it had gone before the
    recorder could look. `payload_bytes`: length of the payload that was recorded with it, None without one.
    """

    line: int
    id: int
    topic: str
    ring: str
    sequence: int
    hlc: int
    published_tick: int
    received_tick: int
    received_hlc: int
    bytes: int
    dependencies: tuple[int, ...] = ()
    payload_bytes: int | None = None


class TracedRing(NamedTuple):
    """A ring of a trace and its line in the file; publisher numbers are used again, ring ids are not.

    `opened_unix_ns`: 0 where it is not known.
    """

    line: int
    publisher: int
    topic: str
    scheduled: bool
    opened_unix_ns: int


class TraceEnd(NamedTuple):
    """The totals of a trace. `rejected`: by publishers while it was recorded, None where none waited for it."""

    messages: int
    dropped: int
    damaged: int
    rejected: int | None
    topics: tuple[str, ...]


@dataclass(slots=True)
class Trace:
    """The messages of a trace in the order of receipt; `problem` says why it is not whole, None when it is.

    `topics`: those that were asked for, () for all. `repeated_rings`: lines that describe a ring again, in
    other words.
    """

    messages: list[TracedMessage] = field(default_factory=list)
    rings: dict[str, TracedRing] = field(default_factory=dict)
    topics: tuple[str, ...] = ()
    end: TraceEnd | None = None
    problem: str | None = None
    repeated_rings: list[int] = field(default_factory=list)


def trace_line(record: dict[str, Any]) -> str:
    """Return a record as a line of a trace."""
    return json.dumps(record, separators=(",", ":")) + "\n"


def read_trace(path: Path, on_progress: Callable[[float], None] = lambda _share: None) -> Trace:
    """Return a trace; what is cut off, or ends in nonsense after a good part, gives that part and the problem.

    `on_progress` gets the share (0..1) that was read. Raises InputError for what cannot be opened or is no
    trace.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except (OSError, ValueError) as error:
        why = os_error_reason(error) if isinstance(error, OSError) else f"Its path is unusable: {error}."
        raise InputError(
            f"The trace {path} cannot be read.", why, "Name a file that cfctl bus record wrote."
        ) from error
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        os.close(fd)
        raise _no_trace(path, "It is not a regular file.")
    with os.fdopen(fd, "rb") as file:
        try:
            return _read(path, file, lambda at: on_progress(min(1.0, at / max(1, status.st_size))))
        except OSError as error:
            raise _no_trace(path, os_error_reason(error)) from error


def _no_trace(path: Path, why: str) -> InputError:
    return InputError(f"{path} is not a trace of the bus.", why, "Make one: cfctl bus record -o FILE")


def _read(path: Path, file: BinaryIO, on_bytes: Callable[[int], None]) -> Trace:
    lines = _records(file, on_bytes)
    _, header = next(lines, (1, None))
    if not isinstance(header, dict) or header.get("schema") != SCHEMA:
        raise _no_trace(path, f"Its first line is not a header of {SCHEMA}.")
    if header.get("version") != VERSION:
        raise _no_trace(
            path, f"It has version {str(header.get('version'))[:20]}; cfctl reads version {VERSION}."
        )
    try:
        trace = Trace(topics=_topics(header["topics"]))
    except (KeyError, ValueError) as error:
        raise _no_trace(path, "Its header does not say which topics were recorded.") from error
    trace.problem = _read_body(trace, lines)
    return trace


def _read_body(trace: Trace, lines: Iterator[tuple[int, Any]]) -> str | None:
    """Read all lines after the header; return why the trace is not whole, None when it is."""
    number, clocks = 1, 0
    places: dict[tuple[str, str], tuple[str, str]] = {}
    for number, record in lines:
        if not isinstance(record, dict):
            return f"line {number} is cut off or is not JSON"
        what = "message"
        try:
            if "end" in record:
                what = "end"
                trace.end = _end(record)
                return _what_is_missing(trace, trace.end, next(lines, None) is not None)
            if "of_topic" in record:
                what = "ring"
                _add_ring(trace, number, record)
                continue
            message = _message(number, record, places)
        except (KeyError, TypeError, ValueError):
            return f"line {number} does not hold a valid {what}"
        trace.messages.append(message)
        clocks += bool(message.dependencies)
        if len(trace.messages) >= MAX_MESSAGES or clocks * len(trace.rings) >= MAX_CLOCK_WORDS:
            return f"only the part up to line {number} was verified, to bound the memory"
    return f"it has no end line after line {number}"


def _what_is_missing(trace: Trace, end: TraceEnd, goes_on: bool) -> str | None:
    if goes_on:
        return "it goes on after its end line"
    if end.messages != len(trace.messages):
        return f"its end line counts {end.messages} messages and it holds {len(trace.messages)}"
    return None


def _records(file: BinaryIO, on_bytes: Callable[[int], None]) -> Iterator[tuple[int, Any]]:
    """Yield the lines as JSON with their numbers; None for one that is none, is too long, or has no end."""
    number = size = 0
    # Faster than json.loads, which first guesses an encoding and skips blanks.
    decode = json.JSONDecoder().raw_decode
    while line := file.readline(MAX_LINE_BYTES):
        number += 1
        size += len(line)
        if number % _PROGRESS_EVERY == 0:
            on_bytes(size)
        if not line.endswith(b"\n"):
            yield number, None
            return
        try:
            text = line.decode()
            record, end = decode(text)
        except (ValueError, RecursionError):
            yield number, None
        else:
            yield number, record if not text[end:].strip() else None


def _word(value: object) -> int:
    if type(value) is not int or not 0 <= value < _U64:
        raise ValueError("a number is out of its range")
    return value


def _text(value: object, most: int) -> str:
    if not isinstance(value, str) or len(value) > most:
        raise ValueError("a text is out of its range")
    return value


def _topics(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueError("topics are a list")  # noqa: TRY004 - one exception for all that is wrong in a line
    return tuple(_text(topic, _TOPIC_CHARACTERS) for topic in value)


def _add_ring(trace: Trace, number: int, record: dict[str, Any]) -> None:
    name = _text(record["ring"], _RING_DIGITS)
    publisher = _word(record["publisher"])
    pid, opened = record["pid"], record["opened_unix_ns"]
    # Of a ring that was gone before it was looked at, both are null.
    is_gone = pid is None and opened is None
    opened_unix_ns, _ = (0, 0) if is_gone else (_word(opened), _word(pid))
    topic, scheduled = _text(record["of_topic"], _TOPIC_CHARACTERS), record["scheduled"]
    if not name or not isinstance(scheduled, bool):
        raise ValueError("a ring has an id, and is scheduled or not")
    ring = TracedRing(number, publisher, topic, scheduled, opened_unix_ns)
    if trace.rings.setdefault(name, ring)[1:] != ring[1:]:
        trace.repeated_rings.append(number)


def _end(record: dict[str, Any]) -> TraceEnd:
    rejected = record["rejected"]
    end = TraceEnd(
        messages=_word(record["messages"]),
        dropped=_word(record["dropped"]),
        damaged=_word(record["damaged"]),
        rejected=None if rejected is None else _word(rejected),
        topics=_topics(record["topics"]),
    )
    if record["end"] is not True or end.damaged > end.dropped:
        raise ValueError("the damaged are among the dropped")
    return end


def _message(
    number: int, record: dict[str, Any], places: dict[tuple[str, str], tuple[str, str]]
) -> TracedMessage:
    """Return the message of a line; `places` has the texts that were checked, one object for all that are equal."""
    if not _REQUIRED <= record.keys() <= _KNOWN:
        raise ValueError("a field is missing or unknown")
    numbers = _numbers(record)
    # A bool is an int, and no number.
    if set(map(type, numbers)) != _INTEGERS or min(numbers) < 0 or max(numbers) >= _U64:
        raise ValueError("a number is out of its range")
    identity, sequence, hlc, published_tick, received_tick, received_hlc, size = numbers
    dependencies: tuple[int, ...] = ()
    payload_bytes = None
    if len(record) > len(_REQUIRED):
        dependencies, payload_bytes = _optional(record)
    topic, ring = record["topic"], record["ring"]
    where = places.get((topic, ring))
    if where is None:
        where = places[topic, ring] = _text(topic, _TOPIC_CHARACTERS), _text(ring, _RING_DIGITS)
    return TracedMessage(
        number, identity, *where, sequence, hlc, published_tick, received_tick, received_hlc, size, dependencies,
        payload_bytes,
    )  # fmt: skip


def _optional(record: dict[str, Any]) -> tuple[tuple[int, ...], int | None]:
    """Return the dependencies of a message's line and the length of its payload."""
    dependencies = record.get("dependencies", [])
    if not isinstance(dependencies, list) or len(dependencies) > MAX_DEPENDENCIES:
        raise ValueError("dependencies are a list of at most 1000")
    if "deadline_unix_ns" in record:
        _word(record["deadline_unix_ns"])
    payload_bytes = None
    if "payload" in record:
        try:
            payload_bytes = len(b64decode(record["payload"], validate=True))
        except binascii.Error as error:
            raise ValueError("the payload is not base64") from error
    return tuple(map(_word, dependencies)), payload_bytes
