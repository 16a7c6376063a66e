"""Saved profiles of simulated runs: samples drawn from a distribution, and a luck of its own for each run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cfctl.profile.report import RecordedProcess, Recording, ReportClock, build_report
from cfctl.profile.tally import Tally
from cfctl.records import to_plain
from cfctl.segment.tick_rate import TickRate

CLOCK = ReportClock("boot", "tsc", TickRate(0.5, 1.0, "test"), 0, 10**18, 20.0)
# Between processes of one program: memory layout, hash seeds, neighbours.
RUN_SPREAD = 0.02

Values = NDArray[np.int64]


def bimodal(random: np.random.Generator, count: int) -> Values:
    """Ticks of an operation with a fast and a slow path and a tail: a cache that hits nine times in ten."""
    fast = random.lognormal(8.0, 0.25, count)
    slow = random.lognormal(10.0, 0.4, count)
    return np.where(random.random(count) < 0.9, fast, slow).astype(np.int64)


def slower_tail(values: Values, ratio: float) -> Values:
    """The samples with the slowest 2 % slowed down, so that p99 moves by exactly this ratio."""
    limit = np.quantile(values, 0.98)
    return np.where(values > limit, values * ratio, values).astype(np.int64)


def tally(name: str, values: Values, errors: int = 0) -> Tally:
    shift = np.maximum(np.log2(np.maximum(values, 1)).astype(np.int64) - 7, 0)
    numbers = np.where(values < 128, values, (shift + 1) * 128 + (values >> shift) % 128)
    buckets, counts = np.unique(numbers, return_counts=True)
    return Tally(
        name, (), len(values), errors, int(values.sum()), 0, 1,
        tuple(zip(buckets.tolist(), counts.tolist(), strict=True)), int(values.min()), int(values.max()), 1, 2,
    )  # fmt: skip


def document(operations: Mapping[str, Values], errors: int = 0) -> dict[str, Any]:
    """One saved run."""
    process = RecordedProcess(1, ("app",), "ended", 1, "", 0, 0)
    tallies = tuple(tally(name, values, errors) for name, values in operations.items())
    return dict(to_plain(build_report([Recording(CLOCK, tallies, (process,))])))


def side(
    seed: int, runs: int, samples: int, tail_ratio: float = 1.0, draw: Any = bimodal
) -> list[dict[str, Any]]:
    """Saved runs of one side; with `tail_ratio` its p99 is that much larger."""
    random = np.random.default_rng(seed)
    documents = []
    for _ in range(runs):
        luck = random.lognormal(0.0, RUN_SPREAD)
        values = (draw(random, samples) * luck).astype(np.int64)
        documents.append(document({"serve": slower_tail(values, tail_ratio)}))
    return documents
