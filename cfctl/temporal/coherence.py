"""How regular dispatch is, and how much of its time is useful: phase coherence, utilization, efficiency.

Definitions and limits: a schedule of period T dispatches a publisher at its own slot. The angles of
the dispatches on a circle of one period, less the slot, would all be equal on a machine without
jitter. Their mean resultant length R is the phase coherence (Mardia and Jupp, "Directional
Statistics", 2000, chapter 2).
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

# Below this the bias floor of R, sqrt(pi / 4 N), is above 0.16 and says little.
MIN_SAMPLES: Final = 30


@dataclass(frozen=True, slots=True)
class Coherence:
    """Phase coherence of the dispatches in a window; values are None with a `reason` where there are too few.

    `score`: R, 0 to 1 (1: every dispatch at the same phase). `p_value`: the chance of such an R when
    the phases are random (Rayleigh). `bias_floor`: the R expected then. `mean_phase_ns`: the mean lag behind the
    slot, in -T/2 to T/2; a constant one is a fixable offset. `jitter_ns`: the standard deviation of a normal
    jitter with this R; None when R is 0.
    """

    period_ns: int
    samples: int
    score: float | None
    p_value: float | None
    bias_floor: float | None
    mean_phase_ns: float | None
    jitter_ns: float | None
    reason: str | None


@dataclass(slots=True)
class PhaseSum:
    """The phases of a schedule's dispatches, summed; two sums of one schedule subtract to a window.

    Not for several threads at once.
    """

    period_ns: int
    count: int = 0
    cosines: float = 0.0
    sines: float = 0.0

    def __post_init__(self) -> None:
        if self.period_ns <= 0:
            raise ValueError("the period of a schedule is above 0")

    def add(self, dispatched_ns: int, slot_ns: int = 0) -> None:
        """Add a dispatch at `dispatched_ns` whose slot is `slot_ns` after the start of each period."""
        # Reduced as integers: a float of Unix ns is good to 256 ns only.
        angle = math.tau * ((dispatched_ns - slot_ns) % self.period_ns) / self.period_ns
        self.count += 1
        self.cosines += math.cos(angle)
        self.sines += math.sin(angle)

    def since(self, earlier: PhaseSum) -> PhaseSum:
        """Return what was added after `earlier` was copied."""
        return PhaseSum(
            self.period_ns,
            self.count - earlier.count,
            self.cosines - earlier.cosines,
            self.sines - earlier.sines,
        )

    def coherence(self) -> Coherence:
        """Return the coherence of what was added."""
        if self.count < MIN_SAMPLES:
            why = f"{self.count} dispatches; {MIN_SAMPLES} are needed"
            return Coherence(self.period_ns, self.count, None, None, None, None, None, why)
        score = min(1.0, math.hypot(self.cosines, self.sines) / self.count)
        turn = cmath.phase(complex(self.cosines, self.sines)) / math.tau
        return Coherence(
            period_ns=self.period_ns,
            samples=self.count,
            score=score,
            p_value=math.exp(-self.count * score * score),
            bias_floor=math.sqrt(math.pi / (4 * self.count)),
            mean_phase_ns=turn * self.period_ns,
            jitter_ns=jitter_of(score, self.period_ns),
            reason=None,
        )


def jitter_of(score: float, period_ns: int) -> float | None:
    """Return the standard deviation of a normal jitter, ns: T / 2 pi * sqrt(-2 ln R). None for R = 0."""
    if score <= 0.0:
        return None
    return period_ns / math.tau * math.sqrt(max(0.0, -2.0 * math.log(score)))


def coherence(dispatched_ns: Iterable[int], period_ns: int, slot_ns: int = 0) -> Coherence:
    """Return the phase coherence of dispatch times, ns, of one slot."""
    total = PhaseSum(period_ns)
    for moment in dispatched_ns:
        total.add(moment, slot_ns)
    return total.coherence()


@dataclass(frozen=True, slots=True)
class Demand:
    """What one recurring message costs: handler time, period, and deadline after its release, ns."""

    cost_ns: float
    period_ns: float
    deadline_ns: float


def planned_utilization(demands: Iterable[Demand]) -> float:
    """Return sum C / min(D, T): earliest deadline first can meet all deadlines if it is at most 1.

    For preemptive handlers and D >= T the condition is exact (Liu and Layland 1973); a dispatcher does not
    preempt, so a handler may besides be blocked by the longest other one.
    """
    return sum(each.cost_ns / min(each.deadline_ns, each.period_ns) for each in demands)


@dataclass(slots=True)
class DispatcherTime:
    """How a dispatcher spent its time, ns: in handlers, on its own work, and idle while work was due.

    Only sums; a window is the difference of two.
    """

    busy_ns: int = 0
    overhead_ns: int = 0
    idle_pending_ns: int = 0

    def utilization(self, window_ns: int, dispatchers: int = 1) -> float | None:
        """Return the share of the window spent in handlers; None for an empty window.

        Above 0.8 shed load or add a dispatcher; below 0.1 there is more capacity than needed.
        """
        return self.busy_ns / (window_ns * dispatchers) if window_ns > 0 else None

    def efficiency(self) -> float | None:
        """Return busy / (busy + overhead + idle with work pending), 0 to 1; None when there was no work.

        Low: wake-ups or lock waits eat the time.
        """
        spent_ns = self.busy_ns + self.overhead_ns + self.idle_pending_ns
        return self.busy_ns / spent_ns if spent_ns > 0 else None
