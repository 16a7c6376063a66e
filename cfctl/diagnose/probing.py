"""The probes of a diagnosis: the latency of the use, where time goes, what settings and calls cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, TypeVar

from cfctl.diagnose.effects import (
    WAKEUP_INTERVAL_NS,
    WakeupEffects,
    effect_cpus,
    socket_effect,
    wakeup_effects,
)
from cfctl.diagnose.impact import COSTS, IDLE, JITTER, PER_SECOND, PM_QOS, SLACK, SOCKET, THROTTLED, WAKEUP
from cfctl.diagnose.latency import CpuLatency, UseLatency
from cfctl.diagnose.measurements import LostTime, Measurements
from cfctl.errors import CfctlError, InputError, UnobservableError
from cfctl.host.cgroup import Throttling, cpu_throttling
from cfctl.host.view import HostView
from cfctl.records import Measurement
from cfctl.text import safe_text
from cfctl.units import format_quantity

if TYPE_CHECKING:
    from cfctl.host.syscalls import Syscalls
    from cfctl.probe.cost import Costs
    from cfctl.probe.jitter import CpuJitter, Jitter
    from cfctl.probe.wakeup import Wakeup

T = TypeVar("T")

LATENCY: Final = "latency"
DEFAULT_DURATION_NS: Final = 5_000_000_000
MIN_DURATION_NS: Final = 100_000_000
# Long enough for the causes to show their shares, short beside the use's own run.
_ATTRIBUTION_NS: Final = 2_000_000_000
_NAMES_OF_COSTS: Final = (
    "page_fault", "futex_same_cpu", "futex_cross_cpu", "pipe_same_cpu", "pipe_cross_cpu", "context_switch",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ProbePlan:
    """Which probes to run: `wanted` by the names in `cfctl.diagnose.impact` and latency, for which use.

    `cpus` None is every CPU this process may run on. A PM QoS limit is held only in the runs that
    show its effect, and only when one is given. `storage` is the directory in which fsync may be measured.
    """

    use: str
    wanted: frozenset[str]
    duration_ns: int = DEFAULT_DURATION_NS
    cpus: tuple[int, ...] | None = None
    pm_qos_us: int | None = None
    storage: str | None = None


@dataclass(frozen=True, slots=True)
class Probes:
    """The probes of `cfctl.probe` that a diagnosis runs; replaced in tests."""

    wakeup: Callable[..., Wakeup]
    jitter: Callable[..., Jitter]
    costs: Callable[..., Costs]
    syscalls: Syscalls
    loopback: Callable[..., UseLatency]
    timed: Mapping[str, Callable[[Sequence[int], str | None], dict[str, Measurement]]]
    throttling: Callable[[], Throttling] = field(default=lambda: cpu_throttling(HostView(), None))


def real_probes() -> Probes:
    """Return the probes of this machine; raises ImportError without the C core."""
    from cfctl.diagnose.loopback import measure_loopback
    from cfctl.diagnose.timed import TIMED
    from cfctl.host.syscalls import RealSyscalls
    from cfctl.probe.cost import measure_costs
    from cfctl.probe.jitter import measure_jitter
    from cfctl.probe.wakeup import measure_wakeup

    return Probes(measure_wakeup, measure_jitter, measure_costs, RealSyscalls(), measure_loopback, TIMED)


def probe_host(
    plan: ProbePlan,
    measured: Measurements,
    progress: Callable[[str], None] = lambda _: None,
    find: Callable[[], Probes] = real_probes,
) -> Measurements:
    """Return the measurements with what the plan's probes add; what fails has its reason. Nothing is saved.

    Raises InputError for CPUs or a duration that can not be used, KeyboardInterrupt after Ctrl-C: what half
    of the probes measured is no diagnosis.
    """
    if plan.duration_ns < MIN_DURATION_NS:
        raise InputError("The duration can not be used.", "It must be 100 ms or more.", "5s is the default.")
    run = _Run(plan, progress, dict(measured.reasons))
    probes = run.attempt("probes", find)
    if probes is None:
        missing = dict.fromkeys(plan.wanted, run.reasons["probes"])
        return replace(measured, reasons={**run.reasons, **missing})
    throttled = _Throttled(run, probes)
    latency, jitter, costs = _use_latency(run, probes)
    if JITTER in plan.wanted and jitter is None:
        progress(f"watching a busy loop for {format_quantity(_attribution_ns(plan), 'ns')}")
        jitter = run.attempt(JITTER, lambda: probes.jitter(plan.cpus, _attribution_ns(plan)))
    if COSTS in plan.wanted and costs is None:
        progress("measuring costs")
        costs = run.attempt(COSTS, lambda: probes.costs(plan.cpus))
    effects = _effects(run, probes)
    if jitter is None and JITTER in run.reasons:
        run.reasons["lost"] = run.reasons[JITTER]
    found = {**(_costs(costs) if costs else {}), **effects.costs, **_timed(run, probes), **throttled.ended()}
    return replace(
        measured,
        latency=latency,
        lost=lost_time(jitter) if jitter else (),
        effects=effects.effects,
        costs={**measured.costs, **found},
        reasons=run.reasons,
    )


@dataclass(frozen=True, slots=True)
class _Run:
    """One run of a plan: where progress is shown and reasons are kept."""

    plan: ProbePlan
    progress: Callable[[str], None]
    reasons: dict[str, str]

    def attempt(self, name: str, measure: Callable[[], T]) -> T | None:
        """Return a measurement; None with its reason when the host does not allow it."""
        try:
            found = measure()
        except InputError:
            raise
        except (CfctlError, OSError, ImportError) as error:
            self.reasons[name] = safe_text(error, 300)
            return None
        # A probe ends with what it has by then; who pressed Ctrl-C does not wait for the next one.
        if getattr(found, "interrupted", False):
            raise KeyboardInterrupt
        return found


class _Throttled:
    """How long this program's group is stopped for its quota while the probes run."""

    def __init__(self, run: _Run, probes: Probes) -> None:
        self._run, self._probes = run, probes
        self._before = self._read()
        self._start_ns = time.monotonic_ns()

    def _read(self) -> Throttling | None:
        if THROTTLED not in self._run.plan.wanted:
            return None
        return self._run.attempt(THROTTLED, self._probes.throttling)

    def ended(self) -> dict[str, Measurement]:
        """Return the time stopped in each second since the start; {} when it was not wanted or can not be read."""
        after = self._read()
        if self._before is None or after is None:
            return {}
        seconds = max(time.monotonic_ns() - self._start_ns, 1) / 1e9
        lost = max(0, after.throttled_ns - self._before.throttled_ns) / seconds
        periods = max(0, after.periods - self._before.periods)
        method = f"throttled time of the group over {seconds:.1f} s of probes (cpu.stat)"
        return {THROTTLED: Measurement(lost, PER_SECOND, None, periods, method)}


def _attribution_ns(plan: ProbePlan) -> int:
    return min(plan.duration_ns, _ATTRIBUTION_NS)


def _use_latency(run: _Run, probes: Probes) -> tuple[UseLatency | None, Jitter | None, Costs | None]:
    """Return the latency of the use, with the records that serve other questions too."""
    plan = run.plan
    if LATENCY not in plan.wanted:
        return None, None, None
    run.progress(f"measuring {plan.use} for {format_quantity(plan.duration_ns, 'ns')}")
    if plan.use == "busy-poll":
        jitter = run.attempt(LATENCY, lambda: probes.jitter(plan.cpus, plan.duration_ns))
        return (_busy_poll(jitter) if jitter else None), jitter, None
    if plan.use == "ipc":
        samples = max(1000, plan.duration_ns // WAKEUP_INTERVAL_NS)
        costs = run.attempt(LATENCY, lambda: probes.costs(plan.cpus, samples))
        return (_round_trip(costs) if costs else None), None, costs
    if plan.use == "network":
        return run.attempt(LATENCY, lambda: probes.loopback(plan.duration_ns)), None, None
    wakeup = run.attempt(LATENCY, lambda: probes.wakeup(plan.cpus, plan.duration_ns, WAKEUP_INTERVAL_NS))
    return (_timer(wakeup, probes.syscalls) if wakeup else None), None, None


def _timer(wakeup: Wakeup, syscalls: Syscalls) -> UseLatency:
    slack = " and ".join(sorted({format_quantity(cpu.slack_ns, "ns") for cpu in wakeup.cpus}))
    try:
        policy = syscalls.policy(0)
    except UnobservableError:
        policy = "unknown"
    what = (
        f"wake-up by a timer each {format_quantity(wakeup.interval_ns, 'ns')}, policy {policy}, "
        f"slack {slack}, PM QoS {wakeup.pm_qos.describe()}"
    )
    cpus = tuple(
        CpuLatency(cpu.cpu, cpu.distribution, cpu.load.contaminated, cpu.load.contamination)
        for cpu in wakeup.cpus
    )
    return UseLatency("timer", what, cpus, wakeup.interrupted)


def _busy_poll(jitter: Jitter) -> UseLatency:
    cpus = tuple(
        CpuLatency(
            cpu.cpu, cpu.gaps, cpu.load.contaminated, cpu.load.contamination,
            max(1.0, cpu.duration_ns * (1 - cpu.handling_ratio)),
        )
        for cpu in jitter.cpus
    )  # fmt: skip
    what = f"delay of an event at a random moment in a busy loop, gaps from {format_quantity(jitter.threshold_ns, 'ns')}"
    return UseLatency("busy-poll", what, cpus, jitter.interrupted)


def _round_trip(costs: Costs) -> UseLatency:
    by_name = {cost.name: cost for cost in costs.costs}
    across = by_name["futex_cross_cpu"]
    cost, where = (across, "between threads on two CPUs") if across.distribution else (
        by_name["futex_same_cpu"], "between two threads on one CPU")  # fmt: skip
    if cost.distribution is None or cost.load is None:
        raise UnobservableError(cost.cost.reason or "no round trip was measured")
    latency = CpuLatency(None, cost.distribution, cost.load.contaminated, cost.load.contamination)
    what = f"futex round trip {where}, PM QoS {costs.pm_qos.describe()}"
    return UseLatency("ipc", what, (latency,), costs.interrupted)


def lost_time(jitter: Jitter) -> tuple[LostTime, ...]:
    """Return where the time of each CPU went, by cause."""
    return tuple(lost for cpu in jitter.cpus for lost in _lost_on(cpu))


def _lost_on(cpu: CpuJitter) -> list[LostTime]:
    if cpu.attribution is None or cpu.lost_ns_per_s.value is None:
        return []
    # The shares are of the gaps' whole length, the loss is what is beyond a normal turn.
    return [
        LostTime(
            cpu.cpu, share.cause.value, share.share_ratio * cpu.lost_ns_per_s.value, share.share_ratio,
            share.gap_count, share.method or cpu.attribution.method,
        )
        for share in cpu.attribution.shares
    ]  # fmt: skip


def _costs(costs: Costs) -> dict[str, Measurement]:
    return {cost.name: cost.cost for cost in costs.costs if cost.name in _NAMES_OF_COSTS}


def _effects(run: _Run, probes: Probes) -> WakeupEffects:
    """Return the wanted effects, and the wake-up as started beside them."""
    plan = run.plan
    cpus = effect_cpus(plan.cpus)
    found = WakeupEffects({}, {})
    if PM_QOS in plan.wanted and plan.pm_qos_us is None:
        run.reasons[PM_QOS] = "held only when asked for: --pm-qos 0 measures it"
    if wanted := plan.wanted & {WAKEUP, SLACK, IDLE} | ({PM_QOS} if plan.pm_qos_us is not None else set()):
        run.progress("measuring what settings do to a wake-up")
        effects = run.attempt(WAKEUP, lambda: wakeup_effects(wanted, cpus, plan.pm_qos_us, probes.wakeup))
        if effects is None:
            run.reasons.update(dict.fromkeys(wanted, run.reasons[WAKEUP]))
        found = effects or found
    if SOCKET in plan.wanted:
        run.progress("measuring what a sleeping receiver costs")
        if socket := run.attempt(SOCKET, lambda: socket_effect(cpus, probes.loopback)):
            found.effects[SOCKET] = socket
    return found


def _timed(run: _Run, probes: Probes) -> dict[str, Measurement]:
    found: dict[str, Measurement] = {}
    for name in sorted(run.plan.wanted & probes.timed.keys()):
        run.progress(f"measuring {name.replace('_', ' ')}")
        cpus = effect_cpus(run.plan.cpus)
        found |= run.attempt(name, lambda: probes.timed[name](cpus, run.plan.storage)) or {}  # noqa: B023
    return found
