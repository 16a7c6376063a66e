"""The monitor: a snapshot each interval, judged against targets, recorded, and told to who asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from cfctl.monitor.alerts import (  # noqa: TC001 - a replay reads the annotations
    AlertBook,
    PerformanceAlert,
    Transition,
)
from cfctl.monitor.snapshot import Collector, History, Snapshot
from cfctl.records import Document

if TYPE_CHECKING:
    from cfctl.monitor.targets import Target


@dataclass(frozen=True, slots=True)
class Observation(Document):
    """A snapshot, the alerts that stand after it, and those that just changed.

    `targets_current` is False while a changed configuration can not be read and the old one is in force.
    """

    SCHEMA: ClassVar[str] = "cfctl.monitor"
    VERSION: ClassVar[int] = 1
    snapshot: Snapshot
    alerts: tuple[PerformanceAlert, ...]
    transitions: tuple[Transition, ...]
    targets_current: bool = True


@dataclass
class Monitor:
    """Observes for as long as it is iterated. Listeners are called with each observation, in order.

    `reload` is asked before each snapshot for other targets: None leaves them as they are. Not
    thread-safe.
    """

    collector: Collector
    book: AlertBook
    interval_s: float
    listeners: list[Callable[[Observation], None]] = field(default_factory=list)
    reload: Callable[[], tuple[Target, ...] | None] = lambda: None
    targets_current: Callable[[], bool] = lambda: True
    history: History = field(default_factory=History)

    def observations(self) -> Iterator[Observation]:
        """Yield an observation each interval, for ever."""
        for snapshot in self.collector.snapshots(self.interval_s):
            targets = self.reload()
            if targets is not None:
                self.book.adopt(targets)
            transitions = self.book.update(snapshot)
            self.history.add(snapshot)
            found = Observation(snapshot, self.book.alerts(), transitions, self.targets_current())
            for listener in self.listeners:
                listener(found)
            yield found
