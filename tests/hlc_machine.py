"""Hybrid logical clocks under random histories; `python -m tests.hlc_histories` drives many.

A history is up to five nodes with manual clocks that drift, stand still and step, which tick, send, receive
and refuse. At each event: strict growth, order along happened-before (vector clocks), the bound on stamp -
physical time, agreement with the textbook's clock of two fields, and refusal without a trace.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from cfctl import _native
from cfctl.errors import ClockOffsetError

GRAIN_NS = 16
START_NS = 1_795_000_000_000_000_000
MAX_OFFSET_NS = 2_000


@dataclass
class Textbook:
    """The clock of Kulkarni et al., figure 5: l and c apart; physical time in grains."""

    logical: int = 0
    count: int = 0

    def tick(self, physical: int) -> tuple[int, int]:
        before = self.logical
        self.logical = max(before, physical)
        self.count = self.count + 1 if self.logical == before else 0
        return self.logical, self.count

    def receive(self, physical: int, message: tuple[int, int]) -> tuple[int, int]:
        before = self.logical
        self.logical = max(before, message[0], physical)
        if self.logical == before == message[0]:
            self.count = max(self.count, message[1]) + 1
        elif self.logical == before:
            self.count += 1
        elif self.logical == message[0]:
            self.count = message[1] + 1
        else:
            self.count = 0
        return self.logical, self.count


@dataclass
class Node:
    """A node of the simulation."""

    number: int
    clock: _native.Hlc
    now_ns: int
    vector: list[int]
    textbook: Textbook = field(default_factory=Textbook)


@dataclass(frozen=True)
class Event:
    """An event that happened: its stamp, vector clock and the textbook's stamp."""

    stamp: int
    vector: tuple[int, ...]
    textbook: tuple[int, int]
    node: int


class History:
    """One history, driven by choices; every step checks what has to hold."""

    def __init__(self, nodes: int) -> None:
        self.nodes = [Node(n, _native.Hlc(n + 1, MAX_OFFSET_NS), START_NS, [0] * nodes) for n in range(nodes)]
        self.events: list[Event] = []
        self.refused = 0
        self.highest_ns = START_NS
        self.carried = False

    def elapse(self, node: int, by_ns: int) -> None:
        """Move a node's clock, also backwards."""
        self.nodes[node].now_ns += by_ns
        self.highest_ns = max(self.highest_ns, self.nodes[node].now_ns)

    def tick(self, node: int) -> None:
        """Let a node have a local event."""
        at = self.nodes[node]
        before = at.clock.last
        stamp = at.clock.tick(at.now_ns)
        self._happened(at, before, stamp, at.textbook.tick(at.now_ns // GRAIN_NS))

    def receive(self, node: int, event: int) -> None:
        """Let a node receive the message sent at an event of anyone."""
        at, sent = self.nodes[node], self.events[event]
        before = at.clock.last
        refusal = ""
        try:
            stamp = at.clock.receive(sent.stamp, sent.node + 1, at.now_ns)
        except ClockOffsetError as error:
            refusal = error.what
        if refusal:
            self.refused += 1
            assert sent.stamp > at.now_ns + MAX_OFFSET_NS
            assert at.clock.last == before
            assert f"node {sent.node + 1} " in refusal
            return
        assert sent.stamp <= at.now_ns + MAX_OFFSET_NS
        assert stamp > sent.stamp
        at.vector = [max(pair) for pair in zip(at.vector, sent.vector, strict=True)]
        self._happened(at, before, stamp, at.textbook.receive(at.now_ns // GRAIN_NS, sent.textbook))

    def _happened(self, at: Node, before: int, stamp: int, textbook: tuple[int, int]) -> None:
        assert stamp > before
        assert at.clock.last == stamp
        assert stamp >= at.now_ns // GRAIN_NS * GRAIN_NS
        at.vector[at.number] += 1
        event = Event(stamp, tuple(at.vector), textbook, at.number)
        for earlier in self.events:
            if all(a <= b for a, b in zip(earlier.vector, event.vector, strict=True)):
                assert earlier.stamp < event.stamp
                assert earlier.textbook < event.textbook
        self.events.append(event)
        # No clock ever showed more, and each stamp adds at most one.
        assert stamp <= self.highest_ns + len(self.events)
        logical, count = textbook
        self.carried |= count >= GRAIN_NS
        if not self.carried:
            assert stamp == logical * GRAIN_NS + count


def drive(choices: random.Random, steps: int) -> History:
    """Return a random history of up to five nodes."""
    history = History(choices.randint(1, 5))
    for _ in range(steps):
        node = choices.randrange(len(history.nodes))
        match choices.randrange(6):
            case 0:
                history.elapse(node, choices.choice((1, 7, 16, 100, 1000, -5, -500, -5000)))
            case 1 | 2:
                history.tick(node)
            case 3:
                for _ in range(choices.randint(17, 20) if choices.random() < 0.2 else 2):
                    history.tick(node)
            case _ if history.events:
                history.receive(node, choices.randrange(len(history.events)))
            case _:
                history.tick(node)
    return history
