"""Several runs of one measurement as one: noise of a shared machine becomes uncertainty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import median
from typing import TYPE_CHECKING

from cfctl.diagnose.order_statistics import quantile_ranks
from cfctl.monitor.snapshot import Snapshot
from cfctl.records import Measurement

if TYPE_CHECKING:
    from cfctl.monitor.metric import Labels
    from cfctl.monitor.snapshot import Series


def combined(runs: Sequence[Snapshot]) -> Snapshot:
    """Return one snapshot of several: of each gauge the median, which a single disturbed run can not move.

    Its uncertainty covers the runs' spread, see `median_of`. Processes of different runs are the same
    by their names; the last run's pid and subject are kept.
    """
    if len(runs) == 1:
        return runs[0]
    found: dict[tuple[str, Labels], list[Series]] = {}
    for run in runs:
        for series in run.series:
            found.setdefault((series.metric, _without_pid(series.labels)), []).append(series)
    return Snapshot(
        runs[-1].unix_ns,
        sum(run.window_ns for run in runs),
        tuple(
            replace(group[-1], measurement=median_of([s.measurement for s in group]))
            for group in found.values()
        ),
        problems=tuple(dict.fromkeys(problem for run in runs for problem in run.problems)),
    )


def median_of(measured: Sequence[Measurement]) -> Measurement:
    """Return the median of several measurements of one thing; missing when half of them or more are.

    The uncertainty is the larger of the median own one and of the distance to the farther end of the
    median's distribution-free 95 % interval (Hahn and Meeker 1991, 5.2), which below six values is
    their whole range.
    """
    if len(measured) == 1:
        return measured[0]
    known = [m for m in measured if m.value is not None]
    values = sorted(m.value for m in known if m.value is not None)
    if 2 * len(values) <= len(measured):
        return next(m for m in measured if m.value is None)
    middle = median(values)
    low, high = quantile_ranks(len(values), 0.5)
    ends = values[max(low, 1) - 1], values[min(high, len(values)) - 1]
    spread = max(middle - ends[0], ends[1] - middle)
    own = [m.uncertainty for m in known if m.uncertainty is not None]
    return Measurement(
        middle, known[0].unit, max(median(own), spread) if own else None, len(values),
        f"median of {len(values)} runs; +- covers their spread; each: {known[0].method}",
    )  # fmt: skip


def _without_pid(labels: Labels) -> Labels:
    return tuple(label for label in labels if label[0] != "pid")
