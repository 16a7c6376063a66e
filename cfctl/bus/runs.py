"""Runs of rejected and of overwritten messages: how large a burst was that its ring had no room for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from cfctl.bus.rings import Ring


@dataclass(frozen=True, slots=True)
class Runs:
    """The most messages that were rejected by a ring, or overwritten before a subscription, in one run.

    A run is what came while the slowest reader, or the subscription, took nothing. By ring id, and by subscription.
    """

    rejected: dict[int, int] = field(default_factory=dict)
    dropped: dict[int, int] = field(default_factory=dict)


NO_RUNS: Final = Runs()


class RunWatch:
    """Follows runs from look to look; two of them that lie between two looks count as one. Not thread-safe."""

    def __init__(self) -> None:
        self.runs = Runs()
        # What was counted and where the reader was, at the last look; and the run that goes on.
        self._rings: dict[int, tuple[int, int, int]] = {}
        self._readers: dict[tuple[int, int], tuple[int, int, int]] = {}

    def look(self, rings: Iterable[Ring]) -> None:
        """Take note of the rings as they are now."""
        for ring in rings:
            places = [each.position for each in ring.readers if each.alive and each.waits_for]
            now = ring.rejected, min(places, default=ring.published)
            self._rings[ring.ring_id] = _follow(
                self._rings.get(ring.ring_id), now, self.runs.rejected, ring.ring_id
            )
            for reader in ring.readers:
                key = ring.ring_id, reader.subscription
                # What it passed by without taking is no progress.
                taken = reader.dropped, reader.delivered
                self._readers[key] = _follow(
                    self._readers.get(key), taken, self.runs.dropped, reader.subscription
                )


def _follow(
    before: tuple[int, int, int] | None, now: tuple[int, int], most: dict[int, int], key: int
) -> tuple[int, int, int]:
    """Return what is to be compared at the next look, and keep the longest run."""
    count, place = now
    if before is None:
        return count, place, 0
    run = before[2] + max(0, count - before[0])
    most[key] = max(most.get(key, 0), run)
    return count, place, run if place == before[1] else 0
