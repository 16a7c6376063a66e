"""The message bus as the checks see it, and the sizes they advise."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from cfctl.bus.config import MAX_CAPACITY
from cfctl.bus.reading import BusReader
from cfctl.bus.report import report_of
from cfctl.bus.rings import list_rings
from cfctl.bus.runs import RunWatch
from cfctl.diagnose.live import Live
from cfctl.diagnose.order_statistics import quantile_ranks
from cfctl.errors import SegmentError
from cfctl.profile.tally import bucket_bounds

if TYPE_CHECKING:
    from pathlib import Path

    from cfctl.bus.latency import Latency
    from cfctl.bus.reading import BusReading

# Bursts that are further apart than this are told apart.
_LEAST_STEP_S: Final = 0.01
_LOOK_SHARE: Final = 50
NO_BUS: Final = "no program of this user has a cfctl.bus.Bus, or its files are gone"


class BusWatch:
    """Looks at the bus of a directory at both ends of an interval, and for runs of losses between.

    `which` is a pid or a topic, None all.
    """

    def __init__(
        self, directory: Path, which: str | None = None, *, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._reader = BusReader(directory)
        self._which = which
        self._sleep = sleep
        self._before: BusReading | None = None
        self._directory = directory
        self._runs = RunWatch()
        self._reason = NO_BUS if which is None else f"nothing of the bus concerns '{which}'"

    def watch(self, seconds: float) -> None:
        """Let an interval pass."""
        self._before = self._read()
        if self._before is None:
            self._sleep(seconds)
            return
        self._runs.look(self._before.rings)
        # A look is to take hardly any of the time: it costs the bus cache lines.
        step_s = max(_LEAST_STEP_S, _LOOK_SHARE * self._before.took_ns * 1e-9)
        steps = max(1, math.ceil(seconds / step_s))
        for step in range(steps):
            if step > 0:
                self._look()
            self._sleep(seconds / steps)

    def _look(self) -> None:
        # What makes the directory unreadable is said at the end.
        with contextlib.suppress(SegmentError):
            self._runs.look(list_rings(self._directory)[0])

    def seen(self) -> Live:
        """Return what was seen, with the bus as it is now."""
        now = self._read()
        if now is not None:
            self._runs.look(now.rings)
        report = None if now is None else report_of(now, self._before, self._which, self._runs.runs)
        if report is not None and report.empty:
            report = None
        return Live((), self._reason, bus=report, which=self._which)

    def _read(self) -> BusReading | None:
        try:
            return self._reader.read()
        except SegmentError as error:
            self._reason = str(error)
            return None


def channel_size(messages: float) -> int:
    """Return the channel_buffer_size that holds so many messages: the next power of two, at most 1048576."""
    return min(MAX_CAPACITY, 1 << max(1, round(messages) - 1).bit_length())


def waiting_messages(rate_per_s: float, wait_ns: float) -> float:
    """Return how many messages wait on average when they come at a rate and stay so long.

    Little's law, L = lambda W (Little, Operations Research 9, 1961).
    """
    return rate_per_s * wait_ns / 1e9


def quantile_interval(latency: Latency, quantile: float) -> tuple[float, float] | None:
    """Return the 95 % interval of a quantile, ns, by order statistics; the end that no sample bounds is infinite."""
    if latency.ns_per_unit is None or latency.count == 0:
        return None
    low, high = quantile_ranks(latency.count, quantile)
    below, above = _at_rank(latency, low), _at_rank(latency, high)
    return (
        0.0 if low == 0 or below is None else below[0] * latency.ns_per_unit,
        float("inf") if above is None else (above[1] + 1) * latency.ns_per_unit,
    )


def _at_rank(latency: Latency, rank: int) -> tuple[int, int] | None:
    """Return the bounds of the bucket with the sample of a rank; None beyond all."""
    seen = 0
    for bucket, samples in latency.buckets:
        seen += samples
        if rank <= seen:
            return bucket_bounds(bucket)
    return None
