"""What can be measured: metrics by name, and the sources that measure them."""

from __future__ import annotations

import enum
import pkgutil
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, Protocol

from cfctl.segment.directory import user_directories

if TYPE_CHECKING:
    from pathlib import Path

    from cfctl.monitor.snapshot import Found, Moment

Labels = tuple[tuple[str, str], ...]


class MetricKind(enum.StrEnum):
    """A gauge is a value of the moment or of the window; the others only grow while a process lives."""

    GAUGE = "gauge"
    COUNTER = "counter"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric: its name, base unit, what it means, and the labels that tell its series apart.

    Targets are about gauges. Counters and histograms are totals, for systems that keep the history.
    """

    name: str
    unit: str
    meaning: str
    labels: tuple[str, ...] = ()
    kind: MetricKind = MetricKind.GAUGE


@dataclass(frozen=True, slots=True)
class Subject:
    """What is looked at: processes (none is cfctl itself), whose segments, and whether it may wait.

    `pids` None stands for the segments of all live processes; `all_users` is for root; `directories`
    are where the segments are, when not the user's. `settle` lets a source wait for what can be
    judged only later, such as the age of a calibration.
    """

    pids: tuple[int, ...] | None = None
    all_users: bool = False
    settle: bool = False
    directories: tuple[Path, ...] = ()
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False)

    def segment_directories(self) -> tuple[Path, ...]:
        """Return where the subject's segments and rings are; raises SegmentError when that is not allowed."""
        return self.directories or user_directories(self.all_users)


class Source(Protocol):
    """Measures some metrics again and again; a module of `cfctl.monitor.sources` has one `SOURCE`."""

    METRICS: ClassVar[tuple[Metric, ...]]

    def __init__(self, subject: Subject) -> None:
        """Prepare to observe a subject."""

    def collect(self, moment: Moment) -> Iterable[Found]:
        """Return what is found now; a rate is of the time since the last call, and has none at the first."""


@cache
def sources() -> tuple[type[Source], ...]:
    """Return the sources of all modules of `cfctl.monitor.sources`."""
    package = import_module("cfctl.monitor.sources")
    return tuple(
        import_module(f"{package.__name__}.{module.name}").SOURCE
        for module in pkgutil.iter_modules(package.__path__)
    )


@cache
def all_metrics() -> Mapping[str, Metric]:
    """Return every metric by name."""
    return MappingProxyType({metric.name: metric for source in sources() for metric in source.METRICS})


def gauges() -> Mapping[str, Metric]:
    """Return the metrics that a target can name."""
    return {name: metric for name, metric in all_metrics().items() if metric.kind is MetricKind.GAUGE}
