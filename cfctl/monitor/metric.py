"""What a target can name: a metric, what it is measured on, and the register of all of them."""

from __future__ import annotations

import pkgutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cfctl.records import Measurement


@dataclass(frozen=True, slots=True)
class Subject:
    """What a check looks at: a process (None is cfctl itself), for how long, and whether it may wait."""

    pid: int | None = None
    window_ns: int = 1_000_000_000
    settle: bool = False
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False)


@dataclass(frozen=True, slots=True)
class Reading:
    """A metric's measurement, what it was measured on, and the resolution of its instrument."""

    measurement: Measurement
    subject: str
    resolution: Measurement | None = None


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric: its name, base unit, and the function that measures it; the docstring is its meaning."""

    name: str
    unit: str
    measure: Callable[[Subject], Reading]

    @property
    def meaning(self) -> str:
        """Return the first line of the measuring function's docstring."""
        return (self.measure.__doc__ or "").strip().partition("\n")[0]


_registered: dict[str, Metric] = {}


def metric(name: str, unit: str) -> Callable[[Callable[[Subject], Reading]], Callable[[Subject], Reading]]:
    """Return a decorator that registers a measuring function under a name, with its base unit."""

    def register(measure: Callable[[Subject], Reading]) -> Callable[[Subject], Reading]:
        _registered[name] = Metric(name, unit, measure)
        return measure

    return register


@cache
def all_metrics() -> Mapping[str, Metric]:
    """Return every metric by name: those of the modules of `cfctl.monitor.metrics`."""
    package = import_module("cfctl.monitor.metrics")
    for module in pkgutil.iter_modules(package.__path__):
        import_module(f"{package.__name__}.{module.name}")
    return MappingProxyType(dict(sorted(_registered.items())))
