"""A latency budget: the target, what was measured against it, and what of the excess can be fixed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cfctl.diagnose.impact import PER_ROUND_TRIP, PER_SECOND, PER_WAKEUP
from cfctl.diagnose.latency import CpuLatency, Estimate, estimate
from cfctl.diagnose.record import Actor, CheckResult, Status
from cfctl.errors import InputError
from cfctl.records import Verdict
from cfctl.units import format_quantity, parse_time_ns

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cfctl.diagnose.measurements import Measurements

_TARGET: Final = re.compile(r"\s*[pP](\d{1,2}(?:\.\d{1,6})?)\s*(?:=|<=?)\s*(.+)")
# The unit of the impacts that are part of a use's latency.
_UNIT_OF_USE: Final = {
    "timer": PER_WAKEUP,
    "ipc": PER_ROUND_TRIP,
    "network": PER_ROUND_TRIP,
    "busy-poll": PER_SECOND,
}


@dataclass(frozen=True, slots=True)
class Target:
    """A quantile of the latency and its limit."""

    quantile: float
    limit_ns: int

    @classmethod
    def parse(cls, text: str) -> Target:
        """Return the target in "p99.9=50us"; raises InputError."""
        match = _TARGET.fullmatch(text)
        if match is None or float(match[1]) == 0:
            raise InputError(
                f"'{text}' is no target.",
                "A percentile and a time were expected.",
                "Write --target p99.9=50us.",
            )
        limit_ns = parse_time_ns(match[2])
        if limit_ns == 0:
            raise InputError("A target of 0 can not be met.", "Every wait takes some time.")
        return cls(float(match[1]) / 100, limit_ns)

    def __str__(self) -> str:
        return f"p{100 * self.quantile:.8g} <= {format_quantity(self.limit_ns, 'ns')}"


@dataclass(frozen=True, slots=True)
class Remedy:
    """The largest part of the excess that an issue of yours explains.

    `saving_ns` is what its fix takes off one event, `share_ratio` that over the excess, at most 1;
    for a busy loop both are of the time lost in a second.
    """

    check_id: str
    saving_ns: float
    unit: str
    share_ratio: float
    solution: str


@dataclass(frozen=True, slots=True)
class Budget:
    """The judgement over a target: pass when the whole interval is within it, fail when it is beyond.

    `estimate` is that of the CPU that decides; `remedy` is None with `remedy_reason`.
    """

    quantile: float
    limit_ns: int
    use: str
    verdict: Verdict
    reason: str
    what: str | None
    cpu: int | None
    estimate: Estimate | None
    remedy: Remedy | None
    remedy_reason: str | None

    @property
    def target(self) -> Target:
        """Return the target this judges."""
        return Target(self.quantile, self.limit_ns)

    def describe(self) -> str:
        """Return the judgement as a sentence: the value with its interval and count, and why."""
        return f"{self.target}: {self.measured()}; {self.reason}"

    def measured(self) -> str:
        """Return the measured value with its interval, count and place as words."""
        found = self.estimate
        if found is None:
            return "not measured"
        where = "" if self.cpu is None else f" on CPU {self.cpu}"
        if found.value_ns is None:
            return f"low n, {found.sample_count}{where}"
        above = "unbounded" if found.high_ns is None else format_quantity(found.high_ns, "ns")
        interval = f"{format_quantity(found.low_ns, 'ns')} to {above}"
        return f"{format_quantity(found.value_ns, 'ns')} ({interval}, n {found.sample_count}){where}"


def judge_budget(
    target: Target, use: str, measured: Measurements | None, why_not: str, results: Iterable[CheckResult]
) -> Budget:
    """Return the judgement over what was measured, `why_not` being the reason when nothing was."""
    latency = measured.latency if measured else None
    if measured is not None and latency is None:
        why_not = measured.reasons.get("latency", why_not)
    if latency is not None and latency.use != use:
        why_not = f"the capture holds the latency of {latency.use}, not of {use} (cfctl capture --for {use})"
        latency = None

    def budget(
        verdict: Verdict,
        reason: str,
        found: Estimate | None = None,
        cpu: int | None = None,
        remedy: Remedy | None = None,
        remedy_reason: str | None = None,
    ) -> Budget:
        what = latency.what if latency else None
        return Budget(
            target.quantile, target.limit_ns, use, verdict, reason, what, cpu, found, remedy, remedy_reason
        )

    if latency is None or not latency.cpus:
        return budget(Verdict.INCONCLUSIVE, f"nothing was measured: {why_not}", remedy_reason=why_not)
    judged = [(cpu, found, *_judge_cpu(cpu, found, target))
              for cpu in latency.cpus for found in (estimate(cpu, target.quantile),)]  # fmt: skip
    # One CPU that misses the target misses it for a program that may run there.
    order = (Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.PASS)
    cpu, found, verdict, reason = min(
        judged, key=lambda each: (order.index(each[2]), -(each[1].value_ns or 0))
    )
    if latency.interrupted and verdict is Verdict.PASS:
        verdict, reason = Verdict.INCONCLUSIVE, "the run was interrupted"
    lost = measured.lost_ns_per_s() if measured else None
    remedy, remedy_reason = _remedy(found, target, use, results, lost)
    return budget(verdict, reason, found, cpu.cpu, remedy, remedy_reason)


def _judge_cpu(cpu: CpuLatency, found: Estimate, target: Target) -> tuple[Verdict, str]:
    if found.value_ns is None:
        return Verdict.INCONCLUSIVE, f"{found.reason}; measure longer (--duration)"
    if cpu.contaminated:
        return Verdict.INCONCLUSIVE, f"other work disturbed the run: {cpu.contamination}"
    if found.high_ns is not None and found.high_ns <= target.limit_ns:
        return Verdict.PASS, "the whole interval is within the target"
    if found.low_ns > target.limit_ns:
        return Verdict.FAIL, "the whole interval is beyond the target"
    return Verdict.INCONCLUSIVE, "the interval holds the target; measure longer (--duration)"


def _remedy(
    found: Estimate, target: Target, use: str, results: Iterable[CheckResult], lost_ns_per_s: float | None
) -> tuple[Remedy | None, str | None]:
    if found.value_ns is None:
        return None, "by how much the target is exceeded, if it is, was not measured"
    if found.value_ns <= target.limit_ns:
        return None, "the measured value does not exceed the target"
    unit = _UNIT_OF_USE[use]
    savings = [
        (result.impact.value, result)
        for result in results
        if result.status is Status.ISSUE and result.actor is Actor.YOU
        and result.impact is not None and result.impact.value is not None
        # A bound is what several issues cost together: none of them alone would save it.
        and not result.impact_is_bound
        and result.impact.unit == unit and result.impact.value > (result.impact.uncertainty or 0.0)
    ]  # fmt: skip
    if not savings:
        return None, "no issue that you can fix has a measured part in it"
    saving, result = max(savings, key=lambda each: each[0])
    # A busy loop's loss is a share of its time, not a part of one delay.
    total = lost_ns_per_s if unit == PER_SECOND else found.value_ns - target.limit_ns
    share = min(1.0, saving / total) if total else 1.0
    return Remedy(result.id, saving, unit, share, result.solution or ""), None
