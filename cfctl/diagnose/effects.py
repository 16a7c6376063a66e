"""What one setting does to an event: runs with it and without it, by turns, so that a drift hits both."""

from __future__ import annotations

import contextlib
import math
import os
import statistics
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final

from cfctl.diagnose.impact import IDLE, PER_ROUND_TRIP, PER_WAKEUP, PM_QOS, SLACK
from cfctl.diagnose.measurements import Effect
from cfctl.diagnose.order_statistics import quantile_ranks
from cfctl.errors import UnobservableError
from cfctl.records import Measurement

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from cfctl.diagnose.latency import UseLatency
    from cfctl.probe.distribution import Distribution
    from cfctl.probe.wakeup import Wakeup

WAKEUP_INTERVAL_NS: Final = 200_000
ROUNDS: Final = 7
RUN_NS: Final = 100_000_000
# Every CPU that is measured takes a thread, and one that keeps it awake.
MAX_CPUS: Final = 4
_TAIL: Final = 0.99
# Ten samples above the percentile, as in the probes.
_TAIL_SAMPLES: Final = 1000
_AS_STARTED: Final = "as started"


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to run the wake-up probe: its arguments, and what surrounds the run."""

    what: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    around: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext


@dataclass(frozen=True, slots=True)
class WakeupEffects:
    """The wake-up as programs started here have it (median and 99th percentile), and effects by name."""

    costs: dict[str, Measurement]
    effects: dict[str, Effect]


def effect_cpus(cpus: Sequence[int] | None) -> tuple[int, ...]:
    """Return the CPUs on which effects are measured: the first few of those named or usable."""
    return tuple(sorted(os.sched_getaffinity(0)) if cpus is None else cpus)[:MAX_CPUS]


def wakeup_effects(
    wanted: frozenset[str], cpus: Sequence[int], pm_qos_us: int | None, wakeup: Callable[..., Wakeup]
) -> WakeupEffects:
    """Return the wake-up as started and the wanted effects on it; 0.7 s for each way to run.

    Raises UnobservableError when a way is refused, KeyboardInterrupt after Ctrl-C.
    """
    from cfctl.diagnose.awake import spinners
    from cfctl.probe.scheduling import Scheduling

    exact = Scheduling(timer_slack_ns=1)
    ways = {_AS_STARTED: Variant("as started")}
    if wanted & {SLACK, IDLE}:
        ways[SLACK] = Variant("a slack of 1 ns", {"scheduling": exact})
    if PM_QOS in wanted and pm_qos_us is not None:
        ways[PM_QOS] = Variant(f"a PM QoS limit of {pm_qos_us} us", {"pm_qos_us": pm_qos_us})
    with contextlib.ExitStack() as stack:
        if IDLE in wanted:
            what = "the CPU kept awake (a task of the idle policy)"
            ways[IDLE] = Variant(what, {"scheduling": exact}, stack.enter_context(spinners(cpus)))
        rounds = [{name: _run(way, cpus, wakeup) for name, way in ways.items()} for _ in range(ROUNDS)]
    # Without slack the idle state's part is not hidden behind a longer wait.
    bases = {SLACK: _AS_STARTED, PM_QOS: _AS_STARTED, IDLE: SLACK}
    effects = {
        name: effect_of(
            [(_median_ns(each[base]), _median_ns(each[name])) for each in rounds],
            sum(_count(each[name]) + _count(each[base]) for each in rounds),
            PER_WAKEUP,
            f"median wake-up with {ways[base].what} less that with {ways[name].what}"
            if base != _AS_STARTED
            else f"median wake-up as started less that with {ways[name].what}",
            1e9 / WAKEUP_INTERVAL_NS,
        )
        for name, base in bases.items()
        if name in ways and name in wanted
    }
    return WakeupEffects(_as_started([each[_AS_STARTED] for each in rounds]), effects)


def socket_effect(cpus: Sequence[int], loopback: Callable[..., UseLatency]) -> Effect:
    """Return what sleeping in recv adds to a round trip over the loopback, beside polling: 2 s.

    Raises UnobservableError with less than two CPUs: both ends poll.
    """
    if len(cpus) < 2:
        raise UnobservableError("it needs a second CPU; only one was named or is usable")
    pairs = []
    count = 0
    for _ in range(ROUNDS):
        runs = [loopback(RUN_NS, polls=polls).cpus[0].distribution for polls in (False, True)]
        medians = [run.median().value for run in runs]
        if None in medians:
            raise UnobservableError("too few round trips for a median")
        pairs.append((medians[0] or 0.0, medians[1] or 0.0))
        count += sum(run.sample_count for run in runs)
    method = "median UDP round trip over the loopback with receivers that sleep less that with ones that poll"
    return effect_of(pairs, count, PER_ROUND_TRIP, method, 1e9 / WAKEUP_INTERVAL_NS)


def effect_of(
    pairs: Sequence[tuple[float, float]], count: int, unit: str, method: str, events_per_s: float
) -> Effect:
    """Return the effect in pairs of (without, with) in ns: the median of their differences.

    The error is half the range of the differences without the smallest and the largest: of 7 runs
    that interval holds the median with 87.5 % (order statistics), and one disturbed run spoils nothing.
    """
    gains = sorted(before - after for before, after in pairs)
    middle = gains[1:-1] if len(gains) > 4 else gains
    gain = Measurement(
        statistics.median(gains), unit, (middle[-1] - middle[0]) / 2, count,
        f"{method}, {len(pairs)} runs of each in turn; half their range without the ends",
    )  # fmt: skip
    return Effect(
        statistics.median(before for before, _ in pairs),
        statistics.median(after for _, after in pairs),
        gain,
        events_per_s,
    )


def _run(way: Variant, cpus: Sequence[int], wakeup: Callable[..., Wakeup]) -> Wakeup:
    with way.around():
        run = wakeup(cpus, RUN_NS, WAKEUP_INTERVAL_NS, **way.arguments)
    if run.interrupted:
        raise KeyboardInterrupt
    return run


def _median_ns(run: Wakeup) -> float:
    values = [cpu.latency.value for cpu in run.cpus if cpu.latency.value is not None]
    if not values:
        raise UnobservableError("too few wake-ups for a median")
    return max(values)


def _count(run: Wakeup) -> int:
    return sum(cpu.distribution.sample_count for cpu in run.cpus)


def _as_started(runs: Sequence[Wakeup]) -> dict[str, Measurement]:
    """Return the median and the 99th percentile of the wake-up over the runs, of the CPU where they are largest."""
    medians = [_median_ns(run) for run in runs]
    count = sum(map(_count, runs))
    method = f"median wake-up by a timer as started, {len(runs)} runs; half their range"
    found = {
        "wakeup": Measurement(
            statistics.median(medians), "ns", (max(medians) - min(medians)) / 2, count, method
        )
    }
    lanes = zip(*(run.cpus for run in runs), strict=True)
    tails = [tail for tail in (_tail([cpu.distribution for cpu in lane]) for lane in lanes) if tail]
    if tails:
        found["wakeup_p99"] = max(tails, key=lambda tail: tail.value or 0.0)
    return found


def _tail(runs: Sequence[Distribution]) -> Measurement | None:
    """Return the 99th percentile over some runs; None when their samples are too few."""
    counts: Counter[int] = Counter()
    for run in runs:
        counts.update(dict(run.histogram.buckets))
    total = counts.total()
    if total < _TAIL_SAMPLES:
        return None
    ends = list(accumulate(count for _, count in sorted(counts.items())))
    buckets = [bucket for bucket, _ in sorted(counts.items())]

    def at(rank: int) -> float:
        return sum(runs[0].histogram.bounds_ns(buckets[bisect_left(ends, min(max(rank, 1), total))])) / 2

    low, high = quantile_ranks(total, _TAIL)
    method = "99th percentile of the wake-up by a timer as started; half its 95 % interval"
    return Measurement(at(math.ceil(_TAIL * total)), "ns", (at(high) - at(low)) / 2, total, method)
