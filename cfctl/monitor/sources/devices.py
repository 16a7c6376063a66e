"""Bytes through network interfaces and disks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from cfctl.monitor.metric import Metric, Subject
from cfctl.monitor.rates import Rates
from cfctl.monitor.snapshot import Found, Moment, Series


class Devices:
    """Reads /proc/net/dev and /proc/diskstats. Idle devices that never moved a byte are left out."""

    METRICS: ClassVar[tuple[Metric, ...]] = (
        Metric("network_received", "B/s", "Bytes received by an interface per second.", ("interface",)),
        Metric("network_sent", "B/s", "Bytes sent by an interface per second.", ("interface",)),
        Metric("disk_read", "B/s", "Bytes read from a disk per second.", ("disk",)),
        Metric("disk_written", "B/s", "Bytes written to a disk per second.", ("disk",)),
    )

    def __init__(self, subject: Subject) -> None:  # noqa: ARG002 - a machine's devices are everybody's
        self._rates = Rates()

    def collect(self, moment: Moment) -> Iterable[Found]:
        """Return the rates since the last call."""
        import psutil

        for name, link in psutil.net_io_counters(pernic=True).items():
            if link.bytes_recv or link.bytes_sent:
                yield self._series("network_received", "interface", name, link.bytes_recv, moment)
                yield self._series("network_sent", "interface", name, link.bytes_sent, moment)
        # None in a container without /proc/diskstats.
        for name, disk in (psutil.disk_io_counters(perdisk=True) or {}).items():
            if disk.read_bytes or disk.write_bytes:
                yield self._series("disk_read", "disk", name, disk.read_bytes, moment)
                yield self._series("disk_written", "disk", name, disk.write_bytes, moment)

    def _series(self, metric: str, label: str, device: str, value: int, moment: Moment) -> Series:
        rate = self._rates.per_second((metric, device), moment.monotonic_ns, value, "B/s")
        return Series(metric, rate, ((label, device),))


SOURCE = Devices
