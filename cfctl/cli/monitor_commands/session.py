"""One run of the monitor: what it reads, whom it tells, and how it ends."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cfctl.cli.output import message
from cfctl.errors import CfctlError

if TYPE_CHECKING:
    from cfctl.monitor.targets import Target
    from cfctl.monitor.watch import Observation


class Ended(BaseException):
    """Raised by SIGTERM, so that everything is closed on the way out."""


@contextlib.contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end what runs inside, quietly."""

    def end(_number: int, _frame: Any) -> None:
        raise Ended

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    except Ended:
        pass
    finally:
        signal.signal(signal.SIGTERM, before)


@dataclass
class Reloading:
    """The targets in force: SIGHUP reads them anew; a file that can not be used leaves the old ones."""

    load: Callable[[], tuple[Target, ...]]
    current: bool = True
    _asked: bool = field(default=False, init=False)

    def listen(self) -> None:
        """Let SIGHUP ask for a reload, which the next snapshot carries out."""
        signal.signal(signal.SIGHUP, lambda _number, _frame: setattr(self, "_asked", True))

    def __call__(self) -> tuple[Target, ...] | None:
        """Return the targets read anew, None when nobody asked or they can not be used."""
        if not self._asked:
            return None
        self._asked = False
        try:
            targets = self.load()
        except CfctlError as error:
            self.current = False
            message(f"cfctl: {error} The targets before it stay in force.")
            return None
        self.current = True
        message(f"cfctl: {len(targets)} targets read.")
        return targets


def limited(
    observations: Iterator[Observation], duration_s: float | None, clock: Callable[[], float] = time.monotonic
) -> Iterator[Observation]:
    """Yield observations until a time is over."""
    end = None if duration_s is None else clock() + duration_s
    for observation in observations:
        yield observation
        # Half a millisecond: the schedule's own rounding must not cost the last one.
        if end is not None and clock() >= end - 0.0005:
            return


def alert_log(dashboard: bool) -> Callable[[Observation], None]:
    """Return a listener that writes a line to stderr for each alert that fires or ends.

    Not onto a terminal that shows the dashboard: there it would tear the picture, which has them too.
    """
    silent = dashboard and sys.stderr.isatty()

    def log(observation: Observation) -> None:
        from cfctl.render.monitor import alert_line

        for change in observation.transitions:
            word = "alert" if change.fired else "ended"
            cause = change.alert.cause
            why = f" Cause: {cause.check}: {cause.found} {cause.solution}" if cause and change.fired else ""
            if not silent:
                message(f"cfctl: {word}: {alert_line(change.alert)}.{why}")

    return log
