"""Totals over all processes that were ever seen: a process that ends takes nothing away."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cfctl.monitor.snapshot import Distribution

if TYPE_CHECKING:
    from cfctl.monitor.metric import Labels
    from cfctl.monitor.snapshot import Snapshot

# More series than this are not kept apart: what they held when they were dropped stays counted.
_MOST: Final = 100_000


class Ledger:
    """Adds up counters and histograms over processes, so that their sums only grow. Not thread-safe.

    A counter of one process that falls was made anew: what it had before stays counted.
    """

    def __init__(self) -> None:
        self._counters: dict[tuple[str, Labels], float] = {}
        self._past: dict[str, float] = {}
        self._histograms: dict[tuple[str, Labels], Distribution] = {}
        self._past_histograms: dict[str, Distribution] = {}

    def update(self, snapshot: Snapshot) -> None:
        """Take in a snapshot."""
        seen = {(total.metric, total.labels): total.value for total in snapshot.totals}
        for key, value in self._counters.items():
            if seen.get(key, -1.0) < value:
                self._past[key[0]] = self._past.get(key[0], 0.0) + value
        self._counters = dict(list(seen.items())[:_MOST])
        found = {(each.metric, each.labels): each for each in snapshot.distributions}
        for key, each in self._histograms.items():
            now = found.get(key)
            if now is None or now.count < each.count:
                self._past_histograms[key[0]] = _added(self._past_histograms.get(key[0]), each)
        self._histograms = dict(list(found.items())[:_MOST])

    def total(self, metric: str) -> float:
        """Return a counter over all processes since the ledger began."""
        return self._past.get(metric, 0.0) + sum(
            value for (name, _), value in self._counters.items() if name == metric
        )

    def distribution(self, metric: str) -> Distribution | None:
        """Return a histogram over all processes since the ledger began, None when there was none."""
        whole = self._past_histograms.get(metric)
        for (name, _), each in self._histograms.items():
            if name == metric:
                whole = _added(whole, each)
        return whole


def _added(whole: Distribution | None, part: Distribution) -> Distribution:
    """Return the sum of two histograms of the same edges."""
    if whole is None:
        return Distribution(part.metric, part.cumulative, part.count, part.sum_ns)
    cumulative = tuple(
        (edge, seen + more) for (edge, seen), (_, more) in zip(whole.cumulative, part.cumulative, strict=True)
    )
    return Distribution(whole.metric, cumulative, whole.count + part.count, whole.sum_ns + part.sum_ns)
