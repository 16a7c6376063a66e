"""Causality among messages: three counters while a program runs, vector clocks over a recorded trace.

Online, cause is what messages declare (dependencies) and what their sequences and stamps show.
Offline, cause is Lamport's happened-before over the trace: the order within each process, and each
sending before its receipts. Sources: Lamport 1978; Fidge 1988 and Mattern 1989 (vector clocks);
Birman, Schiper, Stephenson 1991 (causal delivery).
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Final, Literal

from cfctl.records import Document

if TYPE_CHECKING:
    from cfctl.temporal.awaited import MessageId

_REMEMBERED: Final = 4096
# A trace that is wrong throughout names this many violations of a kind one by one.
_MAX_NAMED: Final = 100


@dataclass(slots=True)
class CausalityCounts:
    """Violations seen by one subscriber.

    `fifo`: a sequence that went back or came twice (a ring's fault, or a publisher began anew).
    `dependency`: delivered before a message it depends on (a time-out too short). `hlc_order`: stamped
    not after a message it depends on (its sender did not merge its clock, or a clock was set).
    `unknown`: dependencies delivered too long ago to know their stamp.
    """

    fifo: int = 0
    dependency: int = 0
    hlc_order: int = 0
    unknown: int = 0

    @property
    def violations(self) -> int:
        """Return the sum of the three kinds."""
        return self.fifo + self.dependency + self.hlc_order


class CausalityMonitor:
    """The three counters of one subscriber; remembers the stamps of the last 4096 deliveries.

    `received` is told each message as it leaves the ring, `delivered` as the program gets it: the
    temporal queue may change the order in between. Not for several threads at once.
    """

    def __init__(self, remembered: int = _REMEMBERED) -> None:
        self.counts = CausalityCounts()
        self._remembered = remembered
        self._last: dict[int, int] = {}
        self._stamps: OrderedDict[MessageId, int] = OrderedDict()
        # Per publisher, the highest delivered sequence that was forgotten: at and below it, a message
        # may have been delivered.
        self._forgotten: dict[int, int] = {}

    def received(self, message: MessageId) -> bool:
        """Note a message's arrival; return whether its sequence is a new one in order."""
        publisher, sequence = message
        last = self._last.get(publisher)
        if last is not None and sequence <= last:
            self.counts.fifo += 1
            return False
        self._last[publisher] = sequence
        return True

    def delivered(self, message: MessageId, hlc: int, dependencies: Iterable[MessageId] = ()) -> None:
        """Note a message's delivery and judge it against the messages it depends on."""
        for dependency in dependencies:
            stamp = self._stamps.get(dependency)
            if stamp is not None:
                self.counts.hlc_order += hlc <= stamp
            elif dependency[1] <= self._forgotten.get(dependency[0], -1):
                self.counts.unknown += 1
            else:
                self.counts.dependency += 1
        self._stamps[message] = hlc
        self._stamps.move_to_end(message)
        if len(self._stamps) > self._remembered:
            (publisher, sequence), _ = self._stamps.popitem(last=False)
            self._forgotten[publisher] = max(sequence, self._forgotten.get(publisher, -1))


@dataclass(frozen=True, slots=True)
class TraceEvent:
    """An event of a trace: a process sent or received a message, and the stamp its clock gave then.

    Events of one process stand in its own order; the order between processes does not matter. `hlc` is None
    for a receipt that is only known from a declared dependency: it is after its sending, and not judged itself.
    """

    kind: Literal["send", "receive"]
    process: int
    message: MessageId
    hlc: int | None
    dependencies: tuple[MessageId, ...] = ()


@dataclass(frozen=True, slots=True)
class Violation:
    """One contradiction in a trace. `event` is the number of the event in the trace as it was given.

    Kinds: "fifo" (a publisher's sequence went back or came twice at a receiver), "causal_order" (received
    after a message that it happened before), "dependency" (received before a message it depends on),
    "hlc_order" (stamped not after an event that happened before it), "unsent" (received and never sent,
    or only after what came of it), "resent" (sent twice).
    """

    kind: str
    event: int
    process: int
    message: MessageId
    text: str


@dataclass(frozen=True, slots=True)
class CausalityReport(Document):
    """What a trace shows. `violations` names the first 100 of each kind; `counts` has all.

    `concurrent_pairs`: pairs of events of which neither happened before the other. `unsent` receipts
    are taken as events without a cause, so that a trace that begins in the middle can be read.
    """

    SCHEMA: ClassVar[str] = "cfctl.bus.causality"
    VERSION: ClassVar[int] = 1
    ROWS: ClassVar[str | None] = "violations"

    events: int
    processes: int
    sent: int
    received: int
    concurrent_pairs: int
    counts: dict[str, int]
    violations: tuple[Violation, ...]


def verify(events: Iterable[TraceEvent]) -> CausalityReport:
    """Return every contradiction of a trace, in time and space linear in events * processes."""
    return _Verifier(list(events)).run()


@dataclass(slots=True)
class _Process:
    """A process while its events are replayed."""

    index: int
    clock: list[int]
    # Of all messages received so far, the component-wise largest clock at their sending.
    seen: list[int]
    waiting: deque[int] = field(default_factory=deque)
    last_hlc: int = -1
    last_sequence: dict[int, int] = field(default_factory=dict)
    received: set[MessageId] = field(default_factory=set)


@dataclass(slots=True)
class _Sending:
    process: int
    clock: tuple[int, ...]
    hlc: int


class _Verifier:
    """One replay of a trace: each process as far as the messages it receives have been sent."""

    def __init__(self, events: list[TraceEvent]) -> None:
        self.events = events
        names = dict.fromkeys(event.process for event in events)
        size = len(names)
        self.processes = {name: _Process(index, [0] * size, [0] * size) for index, name in enumerate(names)}
        self.sent: dict[MessageId, _Sending] = {}
        self.blocked: dict[MessageId, list[_Process]] = {}
        self.counts = dict.fromkeys(
            ("fifo", "causal_order", "dependency", "hlc_order", "unsent", "resent"), 0
        )
        self.violations: list[Violation] = []
        self.ordered_pairs = 0
        for number, event in enumerate(events):
            self.processes[event.process].waiting.append(number)

    def run(self) -> CausalityReport:
        runnable = deque(self.processes.values())
        while runnable:
            while runnable:
                runnable.extend(self._replay(runnable.popleft()))
            # Everybody waits for a message that was never sent, or only after what came of it.
            stuck = next((each for each in self.processes.values() if each.waiting), None)
            if stuck is not None:
                number = stuck.waiting.popleft()
                self.blocked[self.events[number].message].remove(stuck)
                self._note("unsent", number, "its sending is not before it in the trace")
                self._step(stuck, number, None)
                runnable.append(stuck)
        total = len(self.events)
        return CausalityReport(
            events=total,
            processes=len(self.processes),
            sent=sum(event.kind == "send" for event in self.events),
            received=sum(event.kind == "receive" for event in self.events),
            concurrent_pairs=total * (total - 1) // 2 - self.ordered_pairs,
            counts=self.counts,
            violations=tuple(sorted(self.violations, key=lambda each: each.event)),
        )

    def _replay(self, process: _Process) -> Iterator[_Process]:
        """Replay a process until it has to wait; yield those that its sendings let go on."""
        while process.waiting:
            number = process.waiting[0]
            event = self.events[number]
            sending = self.sent.get(event.message) if event.kind == "receive" else None
            if event.kind == "receive" and sending is None:
                self.blocked.setdefault(event.message, []).append(process)
                return
            process.waiting.popleft()
            self._step(process, number, sending)
            if event.kind == "send":
                yield from self.blocked.pop(event.message, ())

    def _step(self, process: _Process, number: int, sending: _Sending | None) -> None:
        event = self.events[number]
        if sending is not None:
            process.clock = [max(pair) for pair in zip(process.clock, sending.clock, strict=True)]
        process.clock[process.index] += 1
        # Each component counts the events of one process that are in this one's past, itself included.
        self.ordered_pairs += sum(process.clock) - 1
        if event.hlc is None:
            process.last_hlc = max(process.last_hlc, -1 if sending is None else sending.hlc)
        else:
            if event.hlc <= process.last_hlc:
                self._note("hlc_order", number, f"stamped {event.hlc}, after {process.last_hlc} here")
            if sending is not None and event.hlc <= sending.hlc:
                self._note("hlc_order", number, f"stamped {event.hlc}, its sending {sending.hlc}")
            process.last_hlc = max(process.last_hlc, event.hlc)
        if event.kind == "send":
            self._send(process, number)
        elif event.hlc is not None:
            self._receive(process, number, sending)

    def _send(self, process: _Process, number: int) -> None:
        event = self.events[number]
        if event.message in self.sent:
            self._note("resent", number, "a message of this publisher and sequence was sent before")
            return
        self.sent[event.message] = _Sending(process.index, tuple(process.clock), event.hlc or 0)

    def _receive(self, process: _Process, number: int, sending: _Sending | None) -> None:
        event = self.events[number]
        publisher, sequence = event.message
        last = process.last_sequence.get(publisher, -1)
        if sequence <= last:
            self._note("fifo", number, f"received after sequence {last} of the same publisher")
        elif sending is not None and process.seen[sending.process] >= sending.clock[sending.process]:
            self._note("causal_order", number, "received after a message that it happened before")
        process.last_sequence[publisher] = max(last, sequence)
        process.received.add(event.message)
        for dependency in event.dependencies:
            if dependency not in process.received:
                self._note("dependency", number, f"received before {dependency}, which it depends on")
        if sending is not None:
            process.seen = [max(pair) for pair in zip(process.seen, sending.clock, strict=True)]

    def _note(self, kind: str, number: int, text: str) -> None:
        self.counts[kind] += 1
        if self.counts[kind] <= _MAX_NAMED:
            event = self.events[number]
            self.violations.append(Violation(kind, number, event.process, event.message, text))
