"""Messages as they come, for whom looks on: no publisher ever waits for it, and what it lost is counted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from cfctl import _native
from cfctl.bus.bus import Bus
from cfctl.bus.config import BusConfig, Wait
from cfctl.clock.procedure import process_ns_per_tick

if TYPE_CHECKING:
    from cfctl.bus.subscription import Message

# So many messages are taken before any of them is shown, so that showing one does not delay the next.
_BATCH: Final = 256


@dataclass(frozen=True, slots=True)
class Heard:
    """A message and how long it took from being published to being taken here; None for one of the history.

    At least 0: the two stamps may be of CPUs whose counters differ by some ns.
    """

    message: Message
    delay_ns: float | None


class Listener:
    """A lossy subscription of cfctl's own to topics, or to a pattern; without either to all topics. Not thread-safe.

    It sleeps between messages, so a delay holds the wake-up of this process. Raises as Bus.subscribe.
    """

    def __init__(
        self, directory: Path, topics: tuple[str, ...] = (), pattern: str | None = None, history: int = 0
    ) -> None:
        if not topics and pattern is None:
            pattern = "*"
        self.ns_per_tick = process_ns_per_tick()
        self._bus = Bus(BusConfig(directory=directory, wait=Wait.PARK, ordered=True), own=True)
        self._began_tick = _native.ticks()
        try:
            self._subscription = self._bus.subscribe(
                *topics, pattern=pattern, history=history, lossy=True, held=False
            )
        except BaseException:
            self._bus.close()
            raise

    def __enter__(self) -> Self:
        """Return the listener."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the subscription."""
        self._bus.close()

    @property
    def lost(self) -> int:
        """Return how many messages were overwritten before they were taken."""
        return int(self._subscription.counts()["dropped"])

    def hear(self, timeout_s: float, most: int = _BATCH) -> list[Heard]:
        """Return the messages that are there, at most `most`; waits for the first one, [] at the time-out."""
        message = self._subscription.recv_message(timeout_s)
        heard: list[Heard] = []
        while message is not None:
            heard.append(Heard(message, self._delay_ns(message)))
            message = self._subscription.try_recv_message() if len(heard) < min(most, _BATCH) else None
        return heard

    def _delay_ns(self, message: Message) -> float | None:
        if message.published_tick < self._began_tick:
            return None
        return max(0, message.received_tick - message.published_tick) * self.ns_per_tick
