"""The operations of a report as a tree, with the time in each itself.

What is recorded are neighbours: a parent, a child, how often and how long. So a branch goes on below
an operation only where all its samples ran inside of that one parent. An operation that ran in
several places stands in each with what it had there, and once more at the root with all of it;
there goes on what ran inside of it. Nothing is split by guessed proportions, as gprof does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from cfctl.profile.tally import NS

if TYPE_CHECKING:
    from cfctl.profile.edges import EdgeStatistics, Key
    from cfctl.profile.report import ProfileReport
    from cfctl.profile.statistics import OperationStatistics


@dataclass(frozen=True, slots=True)
class TreeRow:
    """A line of the tree, below the line before it that is one less deep.

    `total` and `own` are in `unit`, None where they are not known here; shares are of the time in
    all operations themselves. `elsewhere`: what ran inside of it stands at the root. `places` is in
    how many places the samples of a root ran, 0 for any other line. `recursions` are samples inside
    of others of the same operation, which are neither in `count` nor, twice, in `total`.
    """

    depth: int
    name: str
    labels: tuple[tuple[str, str], ...]
    count: int
    unit: str
    total: float | None
    total_share: float | None
    own: float | None
    own_share: float | None
    elsewhere: bool
    places: int
    recursions: int


def tree_rows(report: ProfileReport) -> list[TreeRow]:
    """Return the lines of the tree of all operations, the longest first in each branch."""
    whole = sum(operation.self_total.value or 0.0 for operation in report.operations)
    units = {operation.total.unit for operation in report.operations}
    rows: list[TreeRow] = []
    for clock in range(len(report.clocks)):
        operations = [o for o in report.operations if o.clock == clock]
        edges = [edge for edge in report.edges if edge.clock == clock]
        rows += _Tree(operations, edges, whole if len(units) == 1 else 0.0).rows()
    return rows


def chosen_rows(
    rows: Sequence[TreeRow], patterns: Iterable[str] = (), top: int | None = None
) -> list[TreeRow]:
    """Return the branches of operations that match a pattern (fnmatch), and of these the `top` longest lines."""
    wanted = list(patterns)
    paths = list(_paths(rows))
    found = [
        index
        for index, path in enumerate(paths)
        if not wanted or any(fnmatchcase(rows[step].name, pattern) for step in path for pattern in wanted)
    ]
    longest = sorted(found, key=lambda index: -(rows[index].total or 0.0))[:top]
    keep = {step for index in longest for step in paths[index]} & set(found)
    return [rows[index] for index in sorted(keep)]


def _paths(rows: Sequence[TreeRow]) -> Iterator[tuple[int, ...]]:
    """Yield for each line the numbers of the lines from its root to itself."""
    path: tuple[int, ...] = ()
    for index, row in enumerate(rows):
        path = (*path[: row.depth], index)
        yield path


class _Tree:
    def __init__(
        self, operations: Sequence[OperationStatistics], edges: Sequence[EdgeStatistics], whole: float
    ) -> None:
        # Of a name that has times both in ticks and given in ns, only the former nest.
        ordered = sorted(operations, key=lambda operation: operation.ticks.unit != NS)
        self._operations: dict[Key, OperationStatistics] = {(o.name, o.labels): o for o in ordered}
        self._loose = [o for o in operations if self._operations[o.name, o.labels] is not o]
        self._whole = whole
        self._children: dict[Key, list[EdgeStatistics]] = {}
        self._parents: dict[Key, list[EdgeStatistics]] = {}
        self._itself: dict[Key, EdgeStatistics] = {}
        for edge in edges:
            parent, child = (edge.parent, edge.parent_labels), (edge.child, edge.child_labels)
            if child not in self._operations:
                continue
            if parent == child:
                self._itself[child] = edge
                continue
            self._children.setdefault(parent, []).append(edge)
            self._parents.setdefault(child, []).append(edge)
        self._shown: set[Key] = set()

    def rows(self) -> Iterator[TreeRow]:
        keys = sorted(self._operations, key=lambda key: (-self._outermost(key)[1], key))
        for key in keys:
            if self._is_root(key):
                yield from self._root(key)
        for operation in self._loose:
            yield self._row(operation, 0, operation.count, operation.total.value, operation.self_total.value)
        # Operations that called each other in a ring which has not ended yet.
        for key in keys:
            if key not in self._shown and self._operations[key].count:
                yield from self._root(key)

    def _outermost(self, key: Key) -> tuple[int, float]:
        """Return the (samples, time) of an operation that were not inside of itself."""
        operation, inner = self._operations[key], self._itself.get(key)
        count, total = operation.count, operation.total.value or 0.0
        if inner is None:
            return count, total
        return max(0, count - inner.count), max(0.0, total - (inner.total.value or 0.0))

    def _at_top(self, key: Key) -> tuple[int, float]:
        """Return the (samples, time) of an operation that were inside of no other."""
        count, total = self._outermost(key)
        for edge in self._parents.get(key, ()):
            count, total = count - edge.count, total - (edge.total.value or 0.0)
        return max(0, count), max(0.0, total)

    def _is_shared(self, key: Key) -> bool:
        parents = len(self._parents.get(key, ()))
        return parents > 1 or (parents == 1 and self._at_top(key)[0] > 0)

    def _is_root(self, key: Key) -> bool:
        if not self._parents.get(key):
            return bool(self._operations[key].count or self._children.get(key))
        return self._is_shared(key) and bool(self._children.get(key) or self._at_top(key)[0])

    def _root(self, key: Key) -> Iterator[TreeRow]:
        operation = self._operations[key]
        self._shown.add(key)
        if self._is_shared(key) and not self._children.get(key):
            count, total = self._at_top(key)
            yield self._row(operation, 0, count, total, None if key in self._itself else total)
            return
        count, total = self._outermost(key)
        known = operation.total.value is not None
        places = len(self._parents.get(key, ())) + (self._at_top(key)[0] > 0) if self._is_shared(key) else 0
        own = operation.self_total.value
        yield self._row(operation, 0, count, total if known else None, own, places=places)
        yield from self._below(key, 1, frozenset({key}))

    def _below(self, key: Key, depth: int, path: frozenset[Key]) -> Iterator[TreeRow]:
        for edge in self._children.get(key, ()):
            child: Key = (edge.child, edge.child_labels)
            operation, leaf = self._operations[child], not self._children.get(child)
            self._shown.add(child)
            goes_on = not self._is_shared(child) and child not in path
            own = operation.self_total.value if goes_on else None
            if leaf and child not in self._itself:
                own = edge.total.value
            elsewhere = not goes_on and not leaf
            yield self._row(
                operation, depth, edge.count, edge.total.value, own, elsewhere=elsewhere, recursion=goes_on
            )
            if goes_on:
                yield from self._below(child, depth + 1, path | {child})

    def _row(
        self,
        operation: OperationStatistics,
        depth: int,
        count: int,
        total: float | None,
        own: float | None,
        elsewhere: bool = False,
        places: int = 0,
        recursion: bool = True,
    ) -> TreeRow:
        inner = self._itself.get((operation.name, operation.labels))
        return TreeRow(
            depth, operation.name, operation.labels, count, operation.total.unit, total, self._share(total), own,
            self._share(own), elsewhere, places, inner.count if inner is not None and recursion else 0,
        )  # fmt: skip

    def _share(self, time: float | None) -> float | None:
        return time / self._whole if time is not None and self._whole else None
