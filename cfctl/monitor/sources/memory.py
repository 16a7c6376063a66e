"""Memory of the machine, and how long tasks wait for CPU, memory and I/O."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Final

from cfctl.host.cgroup import cpu_throttling
from cfctl.host.counters import stall_totals_us
from cfctl.host.view import HostView, UnreadableError
from cfctl.monitor.metric import Metric, Subject
from cfctl.monitor.rates import Rates
from cfctl.monitor.snapshot import Found, Moment, Series
from cfctl.records import Measurement

_RESOURCES: Final = ("cpu", "memory", "io")
_US_NS: Final = 1000.0


class Memory:
    """Reads /proc/meminfo, /proc/pressure and the CPU quota's counters."""

    METRICS: ClassVar[tuple[Metric, ...]] = (
        Metric("memory_used", "B", "Memory of the machine that is neither free nor easily reclaimed."),
        Metric("memory_available", "B", "Memory that new work can take without swapping."),
        Metric(
            "pressure",
            "ratio",
            "Share of the time in which some task waited for the resource.",
            ("resource",),
        ),
        Metric("cpu_throttled", "ratio", "Time a CPU quota stopped the group, per time that went by."),
    )

    def __init__(self, subject: Subject) -> None:
        self._pid = subject.pids[0] if subject.pids and len(subject.pids) == 1 else None
        self._rates = Rates()

    def collect(self, moment: Moment) -> Iterable[Found]:
        """Return the memory now, and the shares of the time since the last call."""
        import psutil

        memory = psutil.virtual_memory()
        used = memory.total - memory.available
        yield Series("memory_used", _size(used, "MemTotal - MemAvailable of /proc/meminfo"))
        yield Series(
            "memory_available", _size(memory.available, "MemAvailable of /proc/meminfo, an estimate")
        )
        view = HostView()
        for resource, waited in self._pressure(view, moment):
            yield Series("pressure", waited, (("resource", resource),))
        yield Series("cpu_throttled", self._throttled(view, moment))

    def _pressure(self, view: HostView, moment: Moment) -> Iterable[tuple[str, Measurement]]:
        try:
            totals_us = stall_totals_us(view)
        except UnreadableError as error:
            return [(resource, Measurement.missing("ratio", str(error))) for resource in _RESOURCES]
        return [
            (resource, self._rates.share(resource, moment.monotonic_ns, total_us * _US_NS, _US_NS))
            for resource, total_us in totals_us.items()
        ]

    def _throttled(self, view: HostView, moment: Moment) -> Measurement:
        try:
            spent_ns = cpu_throttling(view, self._pid).throttled_ns
        except UnreadableError as error:
            return Measurement.missing("ratio", str(error))
        return self._rates.share("throttled", moment.monotonic_ns, spent_ns, _US_NS)


SOURCE = Memory


def _size(size_bytes: int, method: str) -> Measurement:
    # The kernel sums per-CPU counters that lag by pages; a MB is beyond all of them.
    return Measurement(float(size_bytes), "B", 1e6, 1, method)
