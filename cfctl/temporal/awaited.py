"""Who waits for which message: dependents by dependency, and how far each publisher's messages came.

Generic in what waits, which is known by its number. Not for several threads at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush
from typing import Generic, TypeVar

# (publisher, sequence): the name of a message on one topic.
MessageId = tuple[int, int]
Waiter = TypeVar("Waiter")


class Awaited(Generic[Waiter]):
    """The messages that others wait for, and a watermark per publisher. O(log n)."""

    def __init__(self) -> None:
        self._dependents: dict[MessageId, dict[int, Waiter]] = {}
        # Per publisher a heap of the sequences that are waited for.
        self._sequences: dict[int, list[int]] = {}
        self._watermarks: dict[int, int] = {}

    def add(self, dependency: MessageId, number: int, waiter: Waiter) -> None:
        """Let a waiter of this number wait for a message."""
        dependents = self._dependents.get(dependency)
        if dependents is None:
            dependents = self._dependents[dependency] = {}
            heappush(self._sequences.setdefault(dependency[0], []), dependency[1])
        dependents[number] = waiter

    def remove(self, dependency: MessageId, number: int) -> None:
        """Let the waiter of this number wait for a message no longer."""
        dependents = self._dependents[dependency]
        del dependents[number]
        if not dependents:
            self._forget_sequence(dependency)
            del self._dependents[dependency]

    def pop(self, dependency: MessageId) -> list[Waiter]:
        """Return who waits for a message, in the order they came, and forget that they do."""
        self._forget_sequence(dependency)
        return list(self._dependents.pop(dependency, {}).values())

    def advance(self, publisher: int, sequence: int) -> Iterator[MessageId]:
        """Raise a publisher's watermark; yield what was waited for below it."""
        if sequence <= self._watermarks.get(publisher, -1):
            return
        self._watermarks[publisher] = sequence
        sequences = self._sequences.get(publisher, [])
        while sequences and sequences[0] <= sequence:
            yield publisher, heappop(sequences)
        if not sequences:
            self._sequences.pop(publisher, None)

    def _forget_sequence(self, dependency: MessageId) -> None:
        # Of a publisher of one message (a ticket) nothing must stay; of others the watermark takes it.
        if self._sequences.get(dependency[0]) == [dependency[1]]:
            del self._sequences[dependency[0]]

    def is_below(self, message: MessageId) -> bool:
        """Return whether a message is not above its publisher's watermark."""
        return self._watermarks.get(message[0], -1) >= message[1]

    def forget(self, publisher: int) -> None:
        """Forget a publisher's watermark."""
        self._watermarks.pop(publisher, None)
