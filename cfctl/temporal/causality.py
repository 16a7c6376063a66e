"""Causality among messages: three counters while a program runs, vector clocks over a recorded trace.

Online, cause is what messages declare (dependencies) and what their sequences and stamps show.
Offline, cause is Lamport's happened-before over the trace: the order within each process, and each
sending before its receipts. Sources: Lamport 1978; Fidge 1988 and Mattern 1989 (vector clocks);
Birman, Schiper, Stephenson 1991 (causal delivery).
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Final, Literal, NamedTuple

from cfctl.records import Document

if TYPE_CHECKING:
    from cfctl.temporal.awaited import MessageId

_REMEMBERED: Final = 4096
# A trace that is wrong throughout names this many violations of a kind one by one.
_MAX_NAMED: Final = 100
_PROGRESS_EVERY: Final = 8192


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

    Call `received` for each message as it leaves the ring, `delivered` as the program gets it: the
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


class TraceEvent(NamedTuple):
    """An event of a trace: a process sent or received a message, and the stamp its clock gave then.

    Events of one process stand in its own order; the order between processes does not matter.
    `dependencies` of a receipt are messages that its process must have received before; those of a
    sending are messages that it declares as its causes, so that they happened before it.
    """

    kind: Literal["send", "receive"]
    process: int
    message: MessageId
    hlc: int
    dependencies: tuple[MessageId, ...] = ()


@dataclass(frozen=True, slots=True)
class Violation:
    """One contradiction in a trace. `event` is the number of the event in the trace as it was given.

    Kinds: "fifo" (a publisher's sequence went back or came twice at a receiver), "causal_order" (received
    after a message that it happened before), "dependency" (received before a message it depends on),
    "hlc_order" (its stamp is not above that of an event that happened before it), "unsent" (a message that
    it received or depends on was never sent, or only after it), "resent" (sent twice).
    """

    kind: str
    event: int
    process: int
    message: MessageId
    text: str


@dataclass(frozen=True, slots=True)
class CausalityReport(Document):
    """What a trace shows. `violations` names the first 100 of each kind; `counts` has all.

    `concurrent_pairs`: pairs of events where neither happened before the other. An `unsent` cause is
    left out, so that a trace that begins in the middle can be read.
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


def verify(
    events: Iterable[TraceEvent], on_progress: Callable[[float], None] = lambda _share: None
) -> CausalityReport:
    """Return every contradiction of a trace.

    Time and space are linear in events * processes at worst, and linear in the events where the
    processes hear of few others. `on_progress` gets the share (0..1) that is done.
    """
    return _Verifier(list(events), on_progress).run()


class _Clock:
    """A vector clock with a place for each process that was heard of.

    `version` changes whenever `counts` does, so that what was merged once is not looked through again.
    """

    __slots__ = ("counts", "is_shared", "merged", "total", "version")

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}
        self.total = self.version = 0
        # A sending refers to `counts` as they are now: the next change makes a copy.
        self.is_shared = False
        # By process: the version of its clock that is contained in this one.
        self.merged: dict[int, int] = {}

    def merge(self, sending: _Sending, own: int) -> None:
        """Take in the past of a sending; `own` is the process whose place is counted elsewhere, -1 for none."""
        sender, count = sending.process, sending.position
        if sender == own or self.counts.get(sender, 0) >= count:
            return
        if self.is_shared:
            self.counts, self.is_shared = dict(self.counts), False
        counts, total = self.counts, self.total
        if self.merged.get(sender) != sending.version:
            for index, other in sending.past.items():
                known = counts.get(index, 0)
                if known < other and index != own:
                    counts[index] = other
                    total += other - known
            self.merged[sender] = sending.version
        self.total = total + count - counts.get(sender, 0)
        counts[sender] = count
        self.version += 1


@dataclass(slots=True)
class _Process:
    """A process while its events are replayed."""

    index: int
    # How many of its events were replayed, and what it knows of the other processes.
    count: int = 0
    clock: _Clock = field(default_factory=_Clock)
    # Of all messages received so far, the component-wise largest clock at their sending.
    seen: _Clock = field(default_factory=_Clock)
    waiting: deque[int] = field(default_factory=deque)
    # Of the first waiting event: how many of its causes are merged, the highest of their stamps, and
    # for a receipt its sending, None when there is none before it.
    causes: int = 0
    cause_hlc: int = -1
    arrival: _Sending | None = None
    last_hlc: int = -1
    last_sequence: dict[int, int] = field(default_factory=dict)
    received: set[MessageId] = field(default_factory=set)


class _Sending(NamedTuple):
    process: int
    position: int
    past: dict[int, int]
    version: int
    hlc: int


class _Verifier:
    """One replay of a trace: each process as far as the causes of its events have been sent."""

    def __init__(self, events: list[TraceEvent], on_progress: Callable[[float], None]) -> None:
        self.events = events
        self.on_progress = on_progress
        names = dict.fromkeys(event.process for event in events)
        self.processes = {name: _Process(index) for index, name in enumerate(names)}
        self.by_index = list(self.processes.values())
        self.senders: dict[MessageId, _Process] = {}
        # How many events still need a sending: it is dropped after the last of them.
        self.needed: dict[MessageId, int] = {}
        self.sent: dict[MessageId, _Sending | None] = {}
        self.blocked: dict[MessageId, list[_Process]] = {}
        self.counts = dict.fromkeys(
            ("fifo", "causal_order", "dependency", "hlc_order", "unsent", "resent"), 0
        )
        self.violations: list[Violation] = []
        self.ordered_pairs = self.done = 0
        for number, event in enumerate(events):
            process = self.processes[event.process]
            process.waiting.append(number)
            if event.kind == "send":
                self.senders.setdefault(event.message, process)
                causes = event.dependencies
            else:
                causes = (event.message,)
            for cause in causes:
                self.needed[cause] = self.needed.get(cause, 0) + 1

    def run(self) -> CausalityReport:
        runnable = deque(self.by_index)
        while runnable:
            while runnable:
                runnable.extend(self._replay(runnable.popleft()))
            stuck = next((each for each in self.by_index if each.waiting), None)
            if stuck is not None:
                runnable.append(self._break_circle(stuck))
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

    def _break_circle(self, stuck: _Process) -> _Process:
        """Let one of the processes that wait for each other in a circle go on; return it."""
        passed: set[int] = set()
        while stuck.index not in passed:
            passed.add(stuck.index)
            stuck = self.senders[self._awaited(stuck)]
        cause = self._awaited(stuck)
        self.blocked[cause].remove(stuck)
        self._skip(stuck, cause)
        return stuck

    def _awaited(self, process: _Process) -> MessageId:
        return _causes(self.events[process.waiting[0]])[process.causes]

    def _skip(self, process: _Process, cause: MessageId) -> None:
        """Leave out a cause of a process's next event that was not sent before it."""
        number = process.waiting[0]
        if self.events[number].kind == "receive":
            self._note("unsent", number, "its sending is not before it in the trace")
        else:
            self._note("unsent", number, f"its cause {cause} was sent only after it, or never")
        process.causes += 1

    def _replay(self, process: _Process) -> Iterator[_Process]:
        """Replay a process until it has to wait; yield those that its sendings let go on."""
        while process.waiting:
            number = process.waiting[0]
            event = self.events[number]
            is_sending = event.kind == "send"
            # Most sendings depend on nothing.
            if (event.dependencies or not is_sending) and not self._merge_causes(process, event):
                return
            process.waiting.popleft()
            self._step(process, number)
            process.causes, process.cause_hlc, process.arrival = 0, -1, None
            if is_sending and event.message in self.blocked:
                yield from self.blocked.pop(event.message)

    def _merge_causes(self, process: _Process, event: TraceEvent) -> bool:
        """Merge the causes of an event that were sent; False when the process has to wait for one."""
        causes = _causes(event)
        while process.causes < len(causes):
            cause = causes[process.causes]
            sending = self.sent.get(cause)
            if sending is None:
                if cause in self.senders:
                    self.blocked.setdefault(cause, []).append(process)
                    return False
                self._skip(process, cause)
                continue
            process.causes += 1
            process.clock.merge(sending, process.index)
            process.cause_hlc = max(process.cause_hlc, sending.hlc)
            process.arrival = sending
            self.needed[cause] -= 1
            if not self.needed[cause]:
                self.sent[cause] = None
        return True

    def _step(self, process: _Process, number: int) -> None:
        event = self.events[number]
        process.count += 1
        # Each component counts the events of one process that are in this one's past, itself included.
        self.ordered_pairs += process.clock.total + process.count - 1
        if event.hlc <= process.last_hlc:
            self._note("hlc_order", number, f"stamped {event.hlc}, after {process.last_hlc} here")
        if event.hlc <= process.cause_hlc:
            what = "its sending" if event.kind == "receive" else "a message it depends on"
            self._note("hlc_order", number, f"stamped {event.hlc}, {what} {process.cause_hlc}")
        process.last_hlc = max(process.last_hlc, event.hlc)
        if event.kind == "send":
            self._send(process, number)
        else:
            self._receive(process, number)
        self.done += 1
        if self.done % _PROGRESS_EVERY == 0:
            self.on_progress(self.done / len(self.events))

    def _send(self, process: _Process, number: int) -> None:
        event = self.events[number]
        if event.message in self.sent:
            self._note("resent", number, "a message of this publisher and sequence was sent before")
            return
        sending = None
        if event.message in self.needed:
            clock = process.clock
            clock.is_shared = True
            sending = _Sending(process.index, process.count, clock.counts, clock.version, event.hlc)
        self.sent[event.message] = sending

    def _receive(self, process: _Process, number: int) -> None:
        event, sending = self.events[number], process.arrival
        publisher, sequence = event.message
        last = process.last_sequence.get(publisher, -1)
        if sequence <= last:
            self._note("fifo", number, f"received after sequence {last} of the same publisher")
        elif sending is not None and process.seen.counts.get(sending.process, 0) >= sending.position:
            self._note("causal_order", number, "received after a message that it happened before")
        process.last_sequence[publisher] = max(last, sequence)
        process.received.add(event.message)
        for dependency in event.dependencies:
            if dependency not in process.received:
                self._note("dependency", number, f"received before {dependency}, which it depends on")
        if sending is not None:
            process.seen.merge(sending, -1)

    def _note(self, kind: str, number: int, text: str) -> None:
        self.counts[kind] += 1
        if self.counts[kind] <= _MAX_NAMED:
            event = self.events[number]
            self.violations.append(Violation(kind, number, event.process, event.message, text))


def _causes(event: TraceEvent) -> tuple[MessageId, ...]:
    """Return the messages that were sent before an event."""
    return (event.message,) if event.kind == "receive" else event.dependencies
