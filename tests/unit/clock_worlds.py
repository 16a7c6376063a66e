"""Synthetic clocks for the tests: a known line, sampled as the machine would, without any machine."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from cfctl.clock.calibration import Calibration, ClusterPoint

# The reference guest's rate: ns = ticks * 6462360 >> 24.
TRUE_SLOPE = 6462360 / (1 << 24)
TRUE_HZ = 1e9 / TRUE_SLOPE


def line_points(
    ticks: list[int],
    slope: float = TRUE_SLOPE,
    *,
    noise_ns: float = 0.0,
    step_at: int | None = None,
    step_ns: float = 0.0,
    seed: int = 1,
) -> list[ClusterPoint]:
    """Return cluster centres on a line, with noise and a step before the point `step_at`."""
    chance = random.Random(seed)
    points = []
    for index, tick in enumerate(ticks):
        ns = 5e9 + (tick - ticks[0]) * slope + chance.gauss(0, noise_ns)
        if step_at is not None and index >= step_at:
            ns += step_ns
        points.append(ClusterPoint(tick, int(ns), ns - int(ns), 0.008))
    return points


def spread_ticks(span_ticks: int, start: int = 10**12) -> list[int]:
    """Return the ticks of eight clusters as the procedure spaces them."""
    return [start + round(p * span_ticks) for p in (0.0, 0.03, 0.06, 0.35, 0.65, 0.94, 0.97, 1.0)]


@dataclass
class FakeTimeline:
    """A clock that only sleeping moves."""

    now: int = 1_000_000_000
    sleeps: list[int] = field(default_factory=list)

    def now_ns(self) -> int:
        return self.now

    def sleep_until(self, deadline_ns: int) -> None:
        self.sleeps.append(deadline_ns - self.now)
        self.now = max(self.now, deadline_ns)


@dataclass
class FakeSampler:
    """Clusters on a known line of a FakeTimeline; `step_ns` per sampling in `steps` moves the clock.

    `noise_ns`: standard deviation of a centre, per attempt of eight clusters, the last one for all that follow.
    """

    timeline: FakeTimeline
    noise_ns: tuple[float, ...] = (0.008,)
    steps: dict[int, float] = field(default_factory=dict)
    error_ns: float = 0.008
    seed: int = 1
    sampled: int = 0
    offset_ns: float = 0.0
    slots: dict[int, tuple[int, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)

    def sample(self, index: int, clock_id: int, /) -> None:
        self.offset_ns += self.steps.get(self.sampled, 0.0)
        attempt = min(self.sampled // 8, len(self.noise_ns) - 1)
        self.sampled += 1
        tick = round(self.timeline.now / TRUE_SLOPE)
        self.slots[index] = (
            tick,
            tick * TRUE_SLOPE + self.offset_ns + self.chance.gauss(0, self.noise_ns[attempt]),
        )

    def narrowest(self, index: int, /) -> tuple[int, int, int]:
        tick, ns = self.slots[index]
        return tick, int(ns), 104

    def centre(self, index: int, ns_per_tick: float, /) -> tuple[int, int, float, float, int, int, int, int]:
        tick, ns = self.slots[index]
        return tick, int(ns), ns - int(ns), self.error_ns, 1500, 0, 104, 0


def calibration(**changes: object) -> Calibration:
    """Return a valid calibration with round numbers: one tick is half a nanosecond."""
    values: dict[str, object] = {
        "source": "tsc", "source_reason": "", "reference": "raw", "independence": "none",
        "independence_reason": "one counter", "method": "clustered", "verdict": "valid", "verdict_reason": "8 of 8",
        "frequency_hz": 2e9, "frequency_uncertainty_ppb": 0.07, "frequency_bound_ppb": 400.0, "estimate_hz": 2e9,
        "snapped": False, "snap_reason": "not wanted", "stated_hz": 2e9, "stated_ppb": 0.1, "stated_reason": "log",
        "residual_ns": 0.005, "offset_bound_ns": 30.0, "tick_step_ns": 10.0, "base_tick": 10**12, "base_ns": 5 * 10**11,
        "mult": 1 << 62, "shift": 63, "boot_id": "boot", "clocksource": "tsc", "time_namespace_offset_ns": 0,
        "suspended_ns": 0, "disruption_marker": None, "created_realtime_ns": 1_700_000_000_000_000_000,
        "duration_ns": 100_000_000, "cpu_time_ns": 3_000_000, "attempts": 1, "clusters_used": 8, "clusters_taken": 8,
        "pairs_kept": 12_000, "cpu_changes": 0,
    }  # fmt: skip
    values.update(changes)
    return Calibration(**values)  # type: ignore[arg-type]
