"""Verifying a recorded trace of the bus: each ring's own order, stamps, declared causes, and the lines themselves.

What decides is the order on the rings (`sequence`) and the tick counter. The order in which a recorder took
messages from different rings is its own and decides nothing: it may take an effect before its cause. Deadlines
are not judged, and neither is `unix_ns` of the header nor the `pid` of a ring.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Final

from cfctl.bus.packet import is_ticket, split_id
from cfctl.bus.trace_file import Trace, TracedMessage, TracedRing, read_trace
from cfctl.records import Document, Judgement, JudgementLevel, Verdict
from cfctl.temporal.causality import TraceEvent, verify

if TYPE_CHECKING:
    from pathlib import Path

# A trace that is wrong throughout names this many violations of a kind one by one.
_MAX_NAMED: Final = 100
_PROGRESS_EVERY: Final = 8192
# The shares of the whole that reading and looking at the lines take; the rest is the replay.
_READ: Final = 0.5
_LOOKED: Final = 0.75
# By the name that the replay gives it.
_REPLAY_KINDS: Final = {"hlc_order": "hlc_order", "unsent": "circular", "resent": "duplicate"}
_CIRCULAR: Final = "one of the messages it depends on depends on it, in turn or through others"


@dataclass(frozen=True, slots=True)
class TraceViolation:
    """One contradiction in a trace, by the line of the file that shows it.

    Kinds: "fifo" (a message's place in its ring is not after that of the one before it), "duplicate" (an id
    twice on one ring), "receipt" (received before it was sent, by the tick counter), "effect_first"
    (published before a message it depends on), "self" (depends on itself), "circular" (in a circle of
    dependencies), "hlc_order" (its stamp is not above that of an event that happened before it),
    "contradiction" (two values of the trace exclude each other).
    """

    kind: str
    line: int
    ring: str
    message: int
    text: str


@dataclass(frozen=True, slots=True)
class TraceReport(Document):
    """What a trace shows. `violations` names the first 100 of each kind; `counts` has all.

    `dropped` and `rejected` are the recorder's counts: overwritten before it took them (`damaged` of them
    could not be read), and refused by full rings while it recorded, None where publishers did not wait for it.
    `missing`: gaps in the rings' sequences. `outside`: dependencies on messages that are not in the trace.
    `concurrent_pairs`: pairs of messages where neither happened before the other. `cut_off` says why the
    trace is not whole. A trace that is not whole, or lost messages, never passes.
    """

    SCHEMA: ClassVar[str] = "cfctl.bus.verification"
    VERSION: ClassVar[int] = 1
    ROWS: ClassVar[str | None] = "violations"
    trace: str
    verdict: Verdict
    verdict_reason: str
    messages: int
    rings: int
    topics: tuple[str, ...]
    dropped: int
    damaged: int
    missing: int
    rejected: int | None
    dependencies: int
    outside: int
    concurrent_pairs: int
    cut_off: str | None
    counts: dict[str, int]
    violations: tuple[TraceViolation, ...]

    def judgements(self) -> tuple[Judgement, ...]:
        """Return the verdict over the trace."""
        level = JudgementLevel.ERROR if self.verdict is Verdict.FAIL else JudgementLevel.WARNING
        text = self.verdict_reason
        return (Judgement("CAUSALITY", "bus", self.verdict, self.verdict, level, text),)


def verify_trace(path: Path, on_progress: Callable[[float], None] = lambda _share: None) -> TraceReport:
    """Return what a trace shows; linear in messages * rings at worst. Raises InputError as read_trace.

    `on_progress` gets the share (0..1) that is done.
    """
    trace = read_trace(path, lambda share: on_progress(share * _READ))
    return judge(str(path), trace, on_progress)


def judge(name: str, trace: Trace, on_progress: Callable[[float], None] = lambda _share: None) -> TraceReport:
    """Return the report of a trace that was read."""
    notes = _Notes()
    lines = _Lines(trace, notes)
    lines.look(lambda share: on_progress(_READ + share * (_LOOKED - _READ)))
    causes = _Causes(trace, lines, notes)
    replay = verify(causes.events(), lambda share: on_progress(_LOOKED + share * (1.0 - _LOOKED)))
    for violation in replay.violations:
        text = _CIRCULAR if violation.kind == "unsent" else violation.text
        notes.name(_REPLAY_KINDS[violation.kind], trace.messages[violation.event], text)
    for kind, count in replay.counts.items():
        if count:
            notes.counts[_REPLAY_KINDS[kind]] += count
    verdict, reason = _verdict(trace, notes.counts, lines.missing)
    end = trace.end
    return TraceReport(
        trace=name,
        verdict=verdict,
        verdict_reason=reason,
        messages=len(trace.messages),
        rings=len(lines.processes),
        topics=tuple(sorted({message.topic for message in trace.messages})),
        dropped=end.dropped if end else 0,
        damaged=end.damaged if end else 0,
        missing=lines.missing,
        rejected=end.rejected if end else None,
        dependencies=causes.dependencies,
        outside=causes.outside,
        concurrent_pairs=replay.concurrent_pairs,
        cut_off=trace.problem,
        counts=notes.counts,
        violations=tuple(sorted(notes.violations, key=lambda each: each.line)),
    )


def _verdict(trace: Trace, counts: dict[str, int], missing: int) -> tuple[Verdict, str]:
    wrong = {kind: count for kind, count in counts.items() if count}
    size, dropped = len(trace.messages), trace.end.dropped if trace.end else 0
    if wrong:
        total = sum(wrong.values())
        kinds = ", ".join(f"{count} {kind}" for kind, count in wrong.items())
        return Verdict.FAIL, f"{total} violation{'s' * (total > 1)}: {kinds}"
    if trace.problem is not None:
        return Verdict.INCONCLUSIVE, f"no violation found, but {trace.problem}"
    if not size:
        return Verdict.INCONCLUSIVE, "the trace holds no message"
    if dropped:
        more = f"{dropped} more were dropped before they were recorded"
        return Verdict.INCONCLUSIVE, f"no violation found in {size} messages, but {more}"
    if missing:
        more = f"{missing} more are missing from the sequences of their rings"
        return Verdict.INCONCLUSIVE, f"no violation found in {size} messages, but {more}"
    return Verdict.PASS, f"no violation in {size} message{'s' * (size > 1)}"


class _Notes:
    """The violations that were found: all are counted, and the first of each kind are named."""

    def __init__(self) -> None:
        self.counts = dict.fromkeys(
            (
                "fifo",
                "duplicate",
                "receipt",
                "effect_first",
                "self",
                "circular",
                "hlc_order",
                "contradiction",
            ),
            0,
        )
        self.violations: list[TraceViolation] = []

    def add(self, kind: str, message: TracedMessage, text: str) -> None:
        self.counts[kind] += 1
        if self.counts[kind] <= _MAX_NAMED:
            self.name(kind, message, text)

    def name(self, kind: str, message: TracedMessage, text: str) -> None:
        self.violations.append(TraceViolation(kind, message.line, message.ring, message.id, text))

    def of_line(self, line: int, text: str) -> None:
        self.counts["contradiction"] += 1
        if self.counts["contradiction"] <= _MAX_NAMED:
            self.violations.append(TraceViolation("contradiction", line, "", 0, text))


@dataclass(slots=True)
class _Process:
    """A ring while its messages are looked at; a number's later ring is another process."""

    index: int
    last_sequence: int | None = None
    last_tick: int = 0
    # What does not contradict the header, the end line and the ring's line: a topic, and whether by ticket.
    agreed: tuple[str, bool] | None = None
    # Of a ring without tickets: the sequences of its messages and their places in the trace.
    sequences: list[int] = field(default_factory=list)
    places: list[int] = field(default_factory=list)


class _Lines:
    """The checks of each line by itself, against its ring's line, and against the line before it."""

    def __init__(self, trace: Trace, notes: _Notes) -> None:
        self.trace = trace
        self.notes = notes
        self.missing = 0
        self.processes: dict[tuple[int, str], _Process] = {}
        # By place in the trace.
        self.process_of: list[_Process] = []
        self._topics = frozenset(trace.topics)
        self._end_topics = None if trace.end is None else frozenset(trace.end.topics)

    def look(self, on_progress: Callable[[float], None]) -> None:
        for line in self.trace.repeated_rings:
            self.notes.of_line(line, "it describes a ring again, in other words")
        last_tick = last_hlc = -1
        for place, message in enumerate(self.trace.messages):
            if message.received_tick < last_tick:
                self.notes.add(
                    "contradiction", message, "received before the line above it, by received_tick"
                )
            if message.received_hlc <= last_hlc:
                self.notes.add(
                    "contradiction", message, "received_hlc is not above that of the line above it"
                )
            last_tick, last_hlc = message.received_tick, message.received_hlc
            if message.received_tick < message.published_tick:
                ticks = message.published_tick - message.received_tick
                self.notes.add("receipt", message, f"received {ticks} ticks before it was published")
            if message.received_hlc <= message.hlc:
                self.notes.add(
                    "hlc_order", message, f"received at {message.received_hlc}, stamped {message.hlc}"
                )
            self._look_at_ring(message, place)
            if place % _PROGRESS_EVERY == 0:
                on_progress(place / len(self.trace.messages))

    def _look_at_ring(self, message: TracedMessage, place: int) -> None:
        publisher, number = split_id(message.id)
        process = self.processes.get((publisher, message.ring))
        if process is None:
            process = self.processes[publisher, message.ring] = _Process(len(self.processes))
        self.process_of.append(process)
        sequence, last = message.sequence, process.last_sequence
        if last is not None and sequence <= last:
            self.notes.add("fifo", message, f"its place in its ring is {sequence}, after {last}")
        else:
            if message.published_tick < process.last_tick:
                self.notes.add(
                    "contradiction", message, "published_tick goes back while the ring's sequence goes on"
                )
            self.missing += 0 if last is None else sequence - last - 1
            process.last_sequence, process.last_tick = sequence, message.published_tick
        ticket = is_ticket(message.id)
        if not ticket:
            process.sequences.append(sequence)
            process.places.append(place)
            if number != sequence:
                self.notes.add("contradiction", message, f"its id says sequence {number}, not {sequence}")
        if message.payload_bytes is not None and message.payload_bytes != message.bytes:
            text = f"its payload has {message.payload_bytes} bytes, and bytes is {message.bytes}"
            self.notes.add("contradiction", message, text)
        if process.agreed != (message.topic, ticket):
            contradictions = list(self._against_others(message, publisher, ticket))
            for text in contradictions:
                self.notes.add("contradiction", message, text)
            if not contradictions:
                process.agreed = message.topic, ticket

    def _against_others(self, message: TracedMessage, publisher: int, is_ticket: bool) -> Iterator[str]:
        """Yield how a message contradicts the header, the end line and its ring's line."""
        if self._topics and message.topic not in self._topics:
            yield "its topic is not among those of the header"
        if self._end_topics is not None and message.topic not in self._end_topics:
            yield "its topic is not among those of the end line"
        if message.ring:
            text = _against_ring(message, publisher, is_ticket, self.trace.rings.get(message.ring))
            if text is not None:
                yield text


def _against_ring(
    message: TracedMessage, publisher: int, is_ticket: bool, ring: TracedRing | None
) -> str | None:
    if ring is None or ring.line > message.line:
        return "no line before it describes its ring"
    if publisher != ring.publisher:
        return f"its id names publisher {publisher}, and its ring is of publisher {ring.publisher}"
    if message.topic != ring.topic:
        return "its topic is not its ring's"
    if is_ticket != ring.scheduled:
        return "its ring is for a dispatcher's messages, or its id is, but not both"
    return None


class _Causes:
    """The declared dependencies of a trace, and its messages as events for the replay."""

    def __init__(self, trace: Trace, lines: _Lines, notes: _Notes) -> None:
        self.messages = trace.messages
        self.rings = trace.rings
        self.process_of = lines.process_of
        self.notes = notes
        self.dependencies = self.outside = 0
        # Places in the trace, by id: a publisher number, and with it an id, can come again on another ring.
        self._first: dict[int, int] = {}
        self._again: dict[int, list[int]] = {}
        for place, message in enumerate(self.messages):
            if self._first.setdefault(message.id, place) != place:
                self._again.setdefault(message.id, []).append(place)
        self._by_publisher: dict[int, list[tuple[str, _Process]]] = {}
        for (publisher, ring), process in lines.processes.items():
            self._by_publisher.setdefault(publisher, []).append((ring, process))

    def events(self) -> Iterator[TraceEvent]:
        """Yield each message as the sending of its ring, after the causes that are in the trace."""
        for place, message in enumerate(self.messages):
            process = self.process_of[place]
            causes: tuple[tuple[int, int], ...] = ()
            if message.dependencies:
                # Within a ring its own order says it all.
                others = [(self.process_of[each], each) for each in self._causes(place)]
                causes = tuple(
                    (other.index, self.messages[each].id) for other, each in others if other is not process
                )
            yield TraceEvent("send", process.index, (process.index, message.id), message.hlc, causes)

    def _causes(self, place: int) -> Iterator[int]:
        """Yield the places of a message's causes, and note what is wrong with its dependencies."""
        message = self.messages[place]
        for dependency in message.dependencies:
            self.dependencies += 1
            cause = self._meant(place, dependency)
            if cause is None:
                self.outside += 1
                if self._comes_later(place, dependency):
                    self._note_later(message, dependency, "")
            elif cause == place:
                self.notes.add("self", message, "depends on itself")
            else:
                if not self._is_before(cause, place):
                    self._note_later(message, dependency, f" (line {self.messages[cause].line})")
                yield cause

    def _note_later(self, message: TracedMessage, dependency: int, where: str) -> None:
        self.notes.add("effect_first", message, f"depends on {dependency}{where}, which was published later")

    def _meant(self, place: int, dependency: int) -> int | None:
        """Return the place of the message that a dependency names: the last of its id published before."""
        first = self._first.get(dependency)
        if first is None:
            return None
        known: list[int] = [
            each
            for each in (first, *self._again.get(dependency, ()))
            if self._could_know(place, self.messages[each].ring)
        ]
        earlier = [each for each in known if self._is_before(each, place)]
        if earlier:
            return max(earlier, key=lambda each: self.messages[each].published_tick)
        # Of one id and one ring are a message and its duplicates: it names itself.
        others = [each for each in known if self.process_of[each] is not self.process_of[place]]
        if self.messages[place].id == dependency:
            return others[0] if others else place
        return known[0] if known else None

    def _could_know(self, place: int, ring: str) -> bool:
        """Return whether a ring was there when a message was published: else its id means an earlier ring's."""
        message, found = self.messages[place], self.rings.get(ring)
        return found is None or ring == message.ring or found.opened_unix_ns <= message.hlc

    def _is_before(self, cause: int, place: int) -> bool:
        earlier, later = self.messages[cause], self.messages[place]
        if self.process_of[cause] is self.process_of[place]:
            return earlier.sequence < later.sequence
        # Equal ticks are no order: a counter can be coarse.
        return earlier.published_tick <= later.published_tick

    def _comes_later(self, place: int, dependency: int) -> bool:
        """Return whether a message outside the trace was published later: after one of its ring that was."""
        publisher, number = split_id(dependency)
        rings = self._by_publisher.get(publisher, [])
        if is_ticket(dependency) or len(rings) != 1 or not self._could_know(place, rings[0][0]):
            return False
        process = rings[0][1]
        at = bisect_right(process.sequences, number) - 1
        if at < 0 or process.sequences[at] >= number:
            return False
        return not self._is_before(process.places[at], place)
