"""Jitter: the gaps a busy loop sees on each CPU, and what they were spent on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

from cfctl import _native
from cfctl.errors import InputError
from cfctl.probe.conversion import Conversion, conversion_at_hand
from cfctl.probe.distribution import Distribution, from_native
from cfctl.probe.gap_causes import Attribution, attribute
from cfctl.probe.gap_observation import AUTO, MODES, OFF, Observed, Observer, Sources, prepare
from cfctl.probe.gaps import Gap, unpack
from cfctl.probe.load import ThreadLoad, thread_load
from cfctl.probe.scheduling import PmQos, Scheduling, pm_qos, refuse_starving_all_cpus
from cfctl.probe.threads import Lane, Progress, run_pinned, usable_cpus
from cfctl.records import Document, Measurement

if TYPE_CHECKING:
    from cfctl.host.fingerprint import Fingerprint

DEFAULT_DURATION_NS: Final = 5_000_000_000
DEFAULT_THRESHOLD_NS: Final = 200
MIN_DURATION_NS: Final = 1_000_000
MAX_DURATION_NS: Final = 3_600_000_000_000
# 4000 gaps of 200 ns and more were seen a second on a busy guest.
_GAPS_A_SECOND: Final = 20_000
_MOST_GAPS: Final = 1 << 18
_LEAST_GAPS: Final = 1 << 12
_SHOWN_GAPS: Final = 100
# A gap shorter than two steps can not be told from a turn.
_LEAST_THRESHOLD_STEPS: Final = 2


@dataclass(frozen=True, slots=True)
class LargestGap:
    """One of the largest gaps: when it began after the run's start, how long it was, and its cause.

    `cause` is None when causes were not asked for or the gap could not be kept among the analysed.
    """

    start_ns: int
    duration_ns: int
    involuntary_switches: int
    minor_faults: int
    cause: str | None


@dataclass(frozen=True, slots=True)
class CpuJitter:
    """What the loop on one CPU measured.

    `lost` is the share of the time spent in gaps, `lost_ns_per_s` the same in ns for each second;
    both hold what is beyond one normal turn. `handling_ratio` is the share spent noting gaps, which
    is neither measured nor lost. `largest` is ordered by length.
    """

    cpu: int
    duration_ns: int
    turns: int
    turn: Measurement
    lost: Measurement
    lost_ns_per_s: Measurement
    gap_rate: Measurement
    gaps: Distribution
    handling_ratio: float
    largest: tuple[LargestGap, ...]
    attribution: Attribution | None
    load: ThreadLoad


@dataclass(frozen=True, slots=True)
class Jitter(Document):
    """The jitter of the measured CPUs and everything that decides what the figures are worth."""

    SCHEMA: ClassVar[str] = "cfctl.probe.jitter"
    VERSION: ClassVar[int] = 1

    cpus: tuple[CpuJitter, ...]
    threshold_ns: float
    requested_duration_ns: int
    method: str
    scheduling: Scheduling
    pm_qos: PmQos
    clock: Conversion
    contaminated: bool
    interrupted: bool
    host: Fingerprint | None = None


@dataclass(frozen=True, slots=True)
class _Plan:
    duration_ticks: int
    threshold_ticks: int
    capacity: int
    attribution: str
    conversion: Conversion


def measure_jitter(
    cpus: Sequence[int] | None = None,
    duration_ns: int = DEFAULT_DURATION_NS,
    threshold_ns: float = DEFAULT_THRESHOLD_NS,
    *,
    scheduling: Scheduling | None = None,
    pm_qos_us: int | None = None,
    attribution: str = AUTO,
    conversion: Conversion | None = None,
    on_progress: Progress | None = None,
) -> Jitter:
    """Return the gaps over `threshold_ns` that a busy loop sees on each CPU (None: all usable ones).

    `attribution` is "auto" (kernel tracepoints where allowed), "unprivileged" or "off". Each loop
    takes its CPU whole for `duration_ns`; letting go of the tracepoints takes the kernel about a
    second more, a grace period for each. Ctrl-C ends the run early; what was measured is returned.
    Raises InputError for values that can not be used, UnobservableError when a policy, a PM QoS
    limit or a CPU is refused, CalibrationError when ticks can not be converted.
    """
    chosen = usable_cpus(cpus)
    scheduling = scheduling or Scheduling()
    refuse_starving_all_cpus(scheduling, chosen)
    if not MIN_DURATION_NS <= duration_ns <= MAX_DURATION_NS:
        raise InputError("The duration can not be used.", "It must be 1 ms to 1 h.", "5 s is the default.")
    if attribution not in MODES:
        raise InputError(f"There is no attribution '{attribution}'.", f"There are: {', '.join(MODES)}.")
    conversion = conversion or conversion_at_hand()
    plan = _Plan(
        conversion.to_ticks(duration_ns),
        _threshold_ticks(threshold_ns, conversion),
        _capacity(duration_ns),
        attribution,
        conversion,
    )
    sources = prepare(attribution)
    with pm_qos(pm_qos_us) as held:
        outcome = run_pinned(
            chosen,
            lambda lane: _run(lane, plan, sources),
            scheduling=scheduling,
            expected_ns=duration_ns,
            on_progress=on_progress,
            start_delay_ticks=conversion.to_ticks,
        )
    measured = tuple(_cpu_jitter(run, plan) for run in outcome.results)
    return Jitter(
        measured, plan.threshold_ticks * conversion.ns_per_tick, duration_ns,
        "busy loop of plain reads of the tick counter on a pinned thread",
        scheduling, held, conversion, any(cpu.load.contaminated for cpu in measured), outcome.interrupted,
    )  # fmt: skip


def _threshold_ticks(threshold_ns: float, conversion: Conversion) -> int:
    least_ns = _LEAST_THRESHOLD_STEPS * (conversion.tick_step_ns or conversion.ns_per_tick)
    # A step is itself only known to a fraction of a ns.
    if not math.isfinite(threshold_ns) or not least_ns * 0.99 <= threshold_ns <= 1e9:
        raise InputError(
            f"The threshold {threshold_ns:g} ns can not be used.",
            f"The clock advances in steps of {least_ns / 2:.1f} ns: {least_ns:.1f} ns to 1 s can be told from a turn.",
            "200 ns is the default.",
        )
    return conversion.to_ticks(threshold_ns)


def _capacity(duration_ns: int) -> int:
    return min(_MOST_GAPS, max(_LEAST_GAPS, duration_ns * _GAPS_A_SECOND // 1_000_000_000))


@dataclass(frozen=True, slots=True)
class _Run:
    cpu: int
    raw: Mapping[str, Any]
    observed: Observed


def _run(lane: Lane, plan: _Plan, sources: Sources) -> _Run:
    assert lane.cpu is not None
    inspect = plan.attribution != OFF
    with Observer(lane.cpu, sources, plan.conversion.ns_per_tick * plan.duration_ticks, inspect) as observer:
        start_tick = lane.ready()
        observer.begin()
        raw = _native.probe_jitter(
            start_tick, plan.duration_ticks, plan.threshold_ticks, inspect, plan.capacity, lane.stop
        )
        return _Run(lane.cpu, raw, observer.end())


def _cpu_jitter(run: _Run, plan: _Plan) -> CpuJitter:
    raw, ns_per_tick = run.raw, plan.conversion.ns_per_tick
    elapsed_ticks = raw["end_tick"] - raw["start_tick"]
    looking_ticks = max(1, elapsed_ticks - raw["handling_ticks"])
    count, gap_ticks = raw["gaps"]["count"], raw["gaps"]["sum"]
    normal_turns = max(1, raw["turns"] - count)
    turn_ticks = (looking_ticks - gap_ticks) / normal_turns
    lost_ticks = max(0.0, gap_ticks - count * turn_ticks)
    lost_ratio = lost_ticks / looking_ticks
    # A gap is known to one turn: it may have begun up to a turn after the last read.
    ratio_error = count * turn_ticks / looking_ticks
    seconds = looking_ticks * ns_per_tick / 1e9
    duration_ns = round(elapsed_ticks * ns_per_tick)
    gaps, attribution = _causes(run, plan)
    return CpuJitter(
        run.cpu,
        duration_ns,
        raw["turns"],
        Measurement(
            turn_ticks * ns_per_tick, "ns", (plan.conversion.tick_step_ns or ns_per_tick) / normal_turns,
            normal_turns, "mean of the turns that were no gap",
        ) if raw["turns"] > count else Measurement.missing("ns", "the loop made no turn"),
        Measurement(lost_ratio, "ratio", ratio_error, count, "sum of the gaps beyond a normal turn, over the time looked"),
        Measurement(lost_ratio * 1e9, "ns/s", ratio_error * 1e9, count, "as lost"),
        Measurement(count / seconds, "1/s", math.sqrt(count) / seconds, count, "gaps over the time looked; Poisson error"),
        from_native(raw["gaps"], "tick", ns_per_tick, turn_ticks),
        raw["handling_ticks"] / max(1, elapsed_ticks),
        gaps,
        attribution,
        thread_load(raw["load"], duration_ns),
    )  # fmt: skip


def _causes(run: _Run, plan: _Plan) -> tuple[tuple[LargestGap, ...], Attribution | None]:
    """Return the largest gaps with their causes, and the attribution of all."""
    raw, observed = run.raw, run.observed
    line = observed.monotonic
    gaps = unpack(raw["kept"], line)
    attribution: Attribution | None = None
    causes: list[str | None] = [None] * len(gaps)
    if plan.attribution != OFF and gaps:
        attribution, named = attribute(raw, observed)
        causes = [cause.value for cause in named]
    start_ns = line.ns_of(raw["start_tick"])
    order = sorted(range(len(gaps)), key=lambda i: gaps[i].duration_ns, reverse=True)[:_SHOWN_GAPS]
    return tuple(_largest(gaps[i], start_ns, causes[i]) for i in order), attribution


def _largest(gap: Gap, start_ns: int, cause: str | None) -> LargestGap:
    return LargestGap(
        gap.start_ns - start_ns, gap.duration_ns, gap.involuntary_switches, gap.minor_faults, cause
    )
