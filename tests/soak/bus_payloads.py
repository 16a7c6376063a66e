"""Numbered payloads whose content follows from their number, and who checks a stream of them.

A table holds payloads for numbers modulo its size, which is much more than any ring holds: comparing
lists of them costs some ten nanoseconds a message, so that a billion can be checked.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

SIZE = 1 << 16
# A prime number of them, so that each place of a ring sees all.
REST = [random.Random(each).randbytes(each * 7 % 85) for each in range(1009)]
LARGE = random.Random(1009).randbytes(1 << 13)
LARGE_EVERY = 61


class WrongError(Exception):
    """What was received is not what was sent."""


def payload(number: int, tag: int = 0) -> bytes:
    """Return 8 bytes with the tag and the number modulo SIZE, then what follows from them.

    Most stay in their slot; every 61st goes through the arena.
    """
    number %= SIZE
    head = (tag << 32 | number).to_bytes(8, "little")
    if number % LARGE_EVERY == 0:
        return head + LARGE[number % 997 : number % 997 + 100 + number * 31 % 3000]
    return head + REST[number % len(REST)]


def table(tag: int = 0) -> list[bytes]:
    """Return the payloads of numbers 0 .. 2 * SIZE: any SIZE that follow each other are one slice."""
    once = [payload(number, tag) for number in range(SIZE)]
    return once + once


def number_of(data: bytes) -> int:
    """Return a payload's number modulo SIZE."""
    return int.from_bytes(data[:4], "little")


def tag_of(data: bytes) -> int:
    """Return a payload's tag."""
    return int.from_bytes(data[4:8], "little")


class Follower:
    """Checks that payloads are whole, in order and not repeated; counts those that are missing.

    `next` is the number that is expected next, once the first one came: right modulo SIZE. `lossless`: a gap
    is wrong. With gaps, whoever follows has to compare `missing` with what was counted as lost.
    """

    def __init__(self, expected: list[bytes], *, lossless: bool) -> None:
        self._table = expected
        self.lossless = lossless
        self.next: int | None = None
        self.received = self.missing = 0

    def follow(self, payloads: Sequence[bytes]) -> None:
        """Check what was received next; raises WrongError."""
        if not payloads:
            return
        if self.next is None:
            self.next = number_of(payloads[0])
        start = self.next % SIZE
        if list(payloads) == self._table[start : start + len(payloads)]:
            self.next += len(payloads)
        else:
            for each in payloads:
                self._follow_one(each)
        self.received += len(payloads)

    def _follow_one(self, data: bytes) -> None:
        assert self.next is not None
        number = number_of(data)
        if data != self._table[number % SIZE]:
            raise WrongError(f"torn: message {self.next} is {data[:24]!r}, {len(data)} bytes")
        gap = (number - self.next) % SIZE
        if gap and self.lossless:
            what = "repeated" if gap > SIZE // 2 else "lost"
            raise WrongError(f"{what}: number {number} came where {self.next % SIZE} was due")
        self.missing += gap
        self.next += gap + 1
