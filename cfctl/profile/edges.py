"""Which operation ran directly inside of which, how often and how long: the edges of the call tree.

Only neighbours are known, not whole paths: of an operation with two parents it is known how much
of it ran inside of each, and not which of its own children belong to which of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cfctl.profile.tally import Labels
from cfctl.records import Measurement

if TYPE_CHECKING:
    from cfctl.profile.statistics import TimeScale
    from cfctl.segment.records import Entry

KIND: Final = "edge"
_PARENT: Final = "parent"
_PARENT_LABEL: Final = "parent."
_CHILD_LABEL: Final = "child."

Key = tuple[str, Labels]


@dataclass(frozen=True, slots=True)
class Edge:
    """Samples of a child that ended directly inside of a parent; `sum_ticks` is their time."""

    parent: Key
    child: Key
    count: int
    sum_ticks: int


@dataclass(frozen=True, slots=True)
class EdgeStatistics:
    """An edge as the report says it. `ticks` is the exact sum that `total` follows from."""

    parent: str
    parent_labels: Labels
    child: str
    child_labels: Labels
    count: int
    total: Measurement
    clock: int
    ticks: int


def edge_of(entry: Entry) -> Edge | None:
    """Return the edge of an entry of kind "edge", None when it names no parent or has other fields.

    The writer's form is in native/edge.h.
    """
    count, ticks = entry.values.get("count"), entry.values.get("sum")
    if not isinstance(count, int) or not isinstance(ticks, int):
        return None
    if not entry.labels or entry.labels[0][0] != _PARENT:
        return None
    parent_labels = _labels(entry.labels[1:], _PARENT_LABEL)
    child_labels = _labels(entry.labels[1:], _CHILD_LABEL)
    return Edge((entry.labels[0][1], parent_labels), (entry.name, child_labels), count, ticks)


def _labels(labels: Labels, prefix: str) -> Labels:
    return tuple((key.removeprefix(prefix), value) for key, value in labels if key.startswith(prefix))


def merge_edges(edges: Iterable[Edge]) -> list[Edge]:
    """Return one edge for each pair of operations, the longest first. All must be of one clock."""
    sums: dict[tuple[Key, Key], tuple[int, int]] = {}
    for edge in edges:
        count, ticks = sums.get((edge.parent, edge.child), (0, 0))
        sums[edge.parent, edge.child] = (count + edge.count, ticks + edge.sum_ticks)
    merged = [Edge(*pair, *numbers) for pair, numbers in sums.items()]
    return sorted(merged, key=lambda edge: (-edge.sum_ticks, edge.parent, edge.child))


def edge_statistics(edge: Edge, scale: TimeScale, clock: int) -> EdgeStatistics:
    """Return an edge on a time scale."""
    total = Measurement.missing(scale.unit, "no samples")
    if edge.count:
        error = (scale.rate.uncertainty_ppb or 0.0) * 1e-9
        value = edge.sum_ticks * scale.per_tick
        total = Measurement(
            value, scale.unit, value * error + scale.resolution * edge.count**0.5, edge.count, "exact sum"
        )
    return EdgeStatistics(*edge.parent, *edge.child, edge.count, total, clock, edge.sum_ticks)
