"""Packets that were accepted and wait for their slot, for a cause of the same bus, or for room on the ring."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cfctl.bus.packet import Extension, encode, split_id, ticket_of
from cfctl.errors import ResourceExhausted
from cfctl.temporal.coherence import PhaseSum
from cfctl.temporal.deadlines import Message, TemporalQueue
from cfctl.temporal.stagger import next_slot_ns

if TYPE_CHECKING:
    from cfctl.bus.packet import Packet

# How soon a full ring is tried again while somebody waits for the queue to empty.
_RETRY_NS: Final = 100_000

Publish = Callable[[bytes], int]


@dataclass(slots=True)
class Scheduled:
    """A message as it goes to the ring. `in_slot`: it was not tried outside of its slot."""

    encoded: bytes
    slot_ns: int
    publish: Publish
    in_slot: bool = True


def scheduled(
    packet: Packet, message_id: int, slot_ns: int, deadline_unix_ns: int | None, publish: Publish
) -> Scheduled:
    """Return a packet as it goes to the ring; of its payload a copy."""
    extension = Extension(deadline_unix_ns, ticket_of(message_id), packet.dependencies, packet.priority)
    return Scheduled(encode(extension, packet.data), slot_ns, publish)


class ScheduledPackets:
    """What a bus accepted to publish later, in a queue. Not for several threads at once.

    `phases`: of the dispatches in their slots. While `hurries` is above 0, full rings are tried again soon and
    not in the next quantum. `failed` takes the error of a message that could not be published.
    """

    def __init__(self, queue: TemporalQueue, quantum_ns: int, failed: Callable[[Exception], None]) -> None:
        self.queue = queue
        self.phases = PhaseSum(quantum_ns)
        self.hurries = 0
        self._failed = failed

    def add(
        self, entry: Scheduled, packet: Packet, message_id: int, deadline_unix_ns: int | None,
        stamp: int, now_ns: int,
    ) -> None:  # fmt: skip
        """Queue a message; raises TemporalViolation when its deadline has passed."""
        # Of others and of what has left, subscribers see to the order.
        waits_for = tuple(key for key in map(split_id, packet.dependencies) if self.queue.is_queued(key))
        release_ns = next_slot_ns(now_ns, entry.slot_ns, self.phases.period_ns)
        message = Message(
            split_id(message_id), stamp, entry, deadline_unix_ns, release_ns, waits_for, packet.priority
        )
        self.queue.add(message, now_ns)

    def send(self, now_ns: int, clock_ns: Callable[[], int]) -> tuple[int, int]:
        """Publish the messages whose turn it is; return how many, and the time after the last."""
        done = 0
        full: set[Publish] = set()
        while (dispatch := self.queue.take(now_ns)) is not None:
            entry: Scheduled = dispatch.message.payload
            if entry.publish in full:
                # Behind one that found no room none goes to the same ring: it would overtake.
                self._put_back(entry, now_ns)
                continue
            try:
                entry.publish(entry.encoded)
            except ResourceExhausted:
                full.add(entry.publish)
                self._put_back(entry, now_ns)
                continue
            except Exception as error:  # noqa: BLE001 - counted and named, and the others go on
                self._failed(error)
                self.queue.fail(now_ns)
                continue
            self.queue.deliver(dispatch)
            if entry.in_slot:
                self.phases.add(now_ns, entry.slot_ns)
            now_ns = clock_ns()
            done += 1
        return done, now_ns

    def leave_slots(self, now_ns: int) -> None:
        """Let all go without waiting for their slots, and hurry from now on."""
        self.hurries += 1
        for message in self.queue.release_all(now_ns):
            message.payload.in_slot = False

    def _put_back(self, entry: Scheduled, now_ns: int) -> None:
        if self.hurries:
            entry.in_slot = False
            self.queue.put_back(now_ns + _RETRY_NS, now_ns)
        else:
            self.queue.put_back(next_slot_ns(now_ns + 1, entry.slot_ns, self.phases.period_ns), now_ns)
