"""One measurement of a process, or of a segment, for a check."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Final

from cfctl.monitor.metric import MetricKind, Subject, all_metrics
from cfctl.monitor.repeats import combined
from cfctl.monitor.segments import LiveSegments, segment_of
from cfctl.monitor.snapshot import Collector, Series, Snapshot
from cfctl.monitor.targets import NoData
from cfctl.records import Measurement
from cfctl.segment.file import describe_segment

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from cfctl.monitor.targets import Target

_ENDED: Final = "The process of the segment has ended."


def of_process(pid: int, window_s: float, repeat: int = 1, settle: bool = False) -> Snapshot:
    """Return what is measured of a process and the machine in a window, or the medians of several."""
    collector = Collector(Subject((pid,), settle=settle), LiveSegments())
    return combined(list(islice(collector.snapshots(window_s), repeat)))


def of_segment(path: Path, window_s: float, repeat: int = 1, settle: bool = False) -> Snapshot:
    """Return what a segment's process does in a window; of one that has ended, what it did in its life.

    Then the window is 0, and what is not in the segment, such as its memory, is missing. Raises SegmentError.
    """
    file = describe_segment(path)
    subject = Subject((file.header.pid,), settle=settle)
    collector = Collector(subject, lambda _subject: ((segment_of(path),), ()))
    if file.liveness.live:
        return combined(list(islice(collector.snapshots(window_s), repeat)))
    return of_its_life(collector.collect())


def of_its_life(snapshot: Snapshot) -> Snapshot:
    """Return what a first reading says of an ended process: what its segment holds, and no more."""
    metrics = all_metrics()
    kept = [series for series in snapshot.series if "process" in metrics[series.metric].labels]
    missing = [
        Series(name, Measurement.missing(metric.unit, _ENDED), subject="an ended process")
        for name, metric in metrics.items()
        if metric.kind is MetricKind.GAUGE and "process" not in metric.labels
    ]
    return replace(snapshot, series=(*kept, *missing))


def of_its_segment(targets: Iterable[Target]) -> tuple[Target, ...]:
    """Return targets for an ended process: to those of what is not in a segment it is not applicable."""
    metrics = all_metrics()
    return tuple(
        target if "process" in metrics[target.metric].labels else replace(target, no_data=NoData.OK)
        for target in targets
    )


def live_pid(snapshot: Snapshot) -> int | None:
    """Return the process that a window is of; None when it has ended, or nothing names one."""
    if snapshot.window_ns == 0:
        return None
    pids = (dict(series.labels).get("pid", "") for series in snapshot.series)
    return next((int(pid) for pid in pids if pid.isdecimal()), None)
