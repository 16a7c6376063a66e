"""The targets and the metrics as documents: what is asked for, what it means, what can cause a miss."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from cfctl.errors import InputError
from cfctl.monitor.explain import explaining
from cfctl.monitor.metric import Metric, gauges
from cfctl.records import Document

if TYPE_CHECKING:
    from cfctl.monitor.targets import Target


@dataclass(frozen=True, slots=True)
class TargetList(Document):
    """The targets in force."""

    SCHEMA: ClassVar[str] = "cfctl.targets"
    VERSION: ClassVar[int] = 1
    ROWS: ClassVar[str | None] = "targets"
    targets: tuple[Target, ...]


@dataclass(frozen=True, slots=True)
class ExplainedMetric:
    """A metric, the targets about it, and the checks of a diagnosis that can explain a miss."""

    metric: Metric
    targets: tuple[Target, ...]
    explained_by: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Explanation(Document):
    """Metrics that a target can name."""

    SCHEMA: ClassVar[str] = "cfctl.metrics"
    VERSION: ClassVar[int] = 1
    metrics: tuple[ExplainedMetric, ...]


def target_list(targets: Sequence[Target]) -> TargetList:
    """Return the targets as a document."""
    return TargetList(tuple(targets))


def explanation(targets: Sequence[Target], name: str | None = None) -> Explanation:
    """Return all metrics, or the one that is named or that a named target is about; raises InputError."""
    metric_of = {target.name: target.metric for target in targets}
    if name is None:
        wanted = list(gauges().values())
    else:
        found = gauges().get(metric_of.get(name, name))
        if found is None:
            near = difflib.get_close_matches(name, [*metric_of, *gauges()], 1)
            raise InputError(
                f"There is no target or metric '{name}'.", f"Is '{near[0]}' meant?" if near else "",
                "See: cfctl targets explain",
            )  # fmt: skip
        wanted = [found]
    return Explanation(
        tuple(
            ExplainedMetric(m, tuple(t for t in targets if t.metric == m.name), explaining(m.name))
            for m in wanted
        )
    )
