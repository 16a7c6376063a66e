"""Costs: what a program pays for the clock, the kernel, a page, another thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

from cfctl import _native
from cfctl.errors import InputError
from cfctl.probe.conversion import Conversion, conversion_at_hand
from cfctl.probe.distribution import Distribution, from_native
from cfctl.probe.load import ThreadLoad, thread_load, total
from cfctl.probe.scheduling import PmQos, Scheduling, pm_qos
from cfctl.probe.threads import Lane, Progress, run_pinned, usable_cpus
from cfctl.records import Document, Measurement

if TYPE_CHECKING:
    from cfctl.host.fingerprint import Fingerprint

DEFAULT_SAMPLES: Final = 2000
MIN_SAMPLES: Final = 20
MAX_SAMPLES: Final = 10_000_000
ONE_CPU: Final = "it needs a second CPU; only one was named or is usable"
INTERRUPTED: Final = "interrupted before it was measured"


@dataclass(frozen=True, slots=True)
class Cost:
    """What one operation costs; a sample is the mean of `operations_a_sample` of them."""

    name: str
    cost: Measurement
    distribution: Distribution | None
    operations_a_sample: int
    load: ThreadLoad | None


@dataclass(frozen=True, slots=True)
class Costs(Document):
    """The costs on one CPU, and across to a second one where there is one."""

    SCHEMA: ClassVar[str] = "cfctl.probe.cost"
    VERSION: ClassVar[int] = 1

    cpu: int
    other_cpu: int | None
    costs: tuple[Cost, ...]
    scheduling: Scheduling
    pm_qos: PmQos
    clock: Conversion
    contaminated: bool
    interrupted: bool
    host: Fingerprint | None = None


@dataclass(frozen=True, slots=True)
class _Operation:
    """How one cost is measured: by one thread (`kind`) or by a pair on the same or two CPUs."""

    name: str
    kind: int
    method: str
    pair: bool = False
    across: bool = False


_OPERATIONS: Final = (
    _Operation("syscall", _native.COST_SYSCALL, "getppid, mean of 16"),
    _Operation("sched_yield", _native.COST_YIELD, "sched_yield with nobody to yield to, mean of 16"),
    _Operation("page_fault", _native.COST_MINOR_FAULT, "first write to a base page of fresh memory"),
    _Operation("pipe_write_read", _native.COST_PIPE, "one byte through a pipe by one thread, mean of 16"),
    _Operation("futex_same_cpu", _native.PAIR_FUTEX, "round trip between two threads on one CPU", pair=True),
    _Operation("futex_cross_cpu", _native.PAIR_FUTEX, "round trip between threads on two CPUs", True, True),
    _Operation("pipe_same_cpu", _native.PAIR_PIPE, "round trip between two threads on one CPU", pair=True),
    _Operation("pipe_cross_cpu", _native.PAIR_PIPE, "round trip between threads on two CPUs", True, True),
)
_CLOCKS: Final = {
    "tick": "clock_tick",
    "raw": "clock_monotonic_raw",
    "monotonic": "clock_monotonic",
    "realtime": "clock_realtime",
}


@dataclass(frozen=True, slots=True)
class _Sampled:
    operation: _Operation
    raw: Mapping[str, Any]
    operations: int
    load: Mapping[str, Any]
    ticks: int


def measure_costs(
    cpus: Sequence[int] | None = None,
    samples: int = DEFAULT_SAMPLES,
    *,
    scheduling: Scheduling | None = None,
    pm_qos_us: int | None = None,
    conversion: Conversion | None = None,
    clock_costs: Callable[[], Mapping[str, Measurement]] | None = None,
    on_progress: Progress | None = None,
) -> Costs:
    """Return the costs on the first of the CPUs, and between it and the second one.

    About 0.5 s with the default samples. Ctrl-C ends the run early; what was measured is returned.
    Raises InputError for values that can not be used, UnobservableError when a policy or a PM QoS
    limit is refused, CalibrationError. `clock_costs` gives the clocks' read costs (default: cfctl.clock's).
    """
    chosen = usable_cpus(cpus)
    if not MIN_SAMPLES <= samples <= MAX_SAMPLES:
        raise InputError(
            "The number of samples can not be used.", f"It must be {MIN_SAMPLES} to {MAX_SAMPLES}."
        )
    if clock_costs is None:
        from cfctl.clock.costs import read_costs

        clock_costs = read_costs
    read_clocks = clock_costs
    conversion = conversion or conversion_at_hand()
    scheduling = scheduling or Scheduling()
    other = chosen[1] if len(chosen) > 1 else None
    wanted = [each for each in _OPERATIONS if not each.across or other is not None]
    sampled: dict[str, _Sampled] = {}
    clocks: dict[str, Measurement] = {}

    def measure(lane: Lane) -> None:
        clocks.update(read_clocks())
        for done, operation in enumerate(wanted):
            result = _sample(operation, chosen[0], other, samples, lane.stop)
            if lane.stop[0]:
                return
            sampled[operation.name] = result
            if on_progress:
                on_progress((done + 1) / len(wanted))

    with pm_qos(pm_qos_us) as held:
        outcome = run_pinned([chosen[0]], measure, scheduling=scheduling)
    costs = [_clock_cost(name, clocks.get(kind)) for kind, name in _CLOCKS.items()]
    costs += [_cost(each, sampled.get(each.name), other, conversion) for each in _OPERATIONS]
    costs.append(_context_switch(costs))
    return Costs(
        chosen[0], other, tuple(costs), scheduling, held, conversion,
        any(cost.load is not None and cost.load.contaminated for cost in costs), outcome.interrupted,
    )  # fmt: skip


def _sample(operation: _Operation, cpu: int, other: int | None, samples: int, stop: memoryview) -> _Sampled:
    start_tick = _native.ticks()
    if not operation.pair:
        raw = _native.probe_cost(operation.kind, samples, stop)
        return _Sampled(operation, raw["ticks"], raw["batch"], raw["load"], _native.ticks() - start_tick)
    partner = other if operation.across and other is not None else cpu
    raw = _native.probe_pair(operation.kind, cpu, partner, samples, 1, samples, stop)
    load = total([raw["load_a"], raw["load_b"]])
    return _Sampled(operation, raw["batch"], 1, load, 2 * (_native.ticks() - start_tick))


def _clock_cost(name: str, measured: Measurement | None) -> Cost:
    return Cost(name, measured or Measurement.missing("ns", INTERRUPTED), None, 1, None)


def _cost(operation: _Operation, sampled: _Sampled | None, other: int | None, conversion: Conversion) -> Cost:
    if sampled is None:
        reason = ONE_CPU if operation.across and other is None else INTERRUPTED
        return Cost(operation.name, Measurement.missing("ns", reason), None, 1, None)
    per = sampled.operations
    unit = "tick" if per == 1 else f"tick/{per}"
    step_ticks = (conversion.tick_step_ns or conversion.ns_per_tick) / conversion.ns_per_tick
    distribution = from_native(sampled.raw, unit, conversion.ns_per_tick / per, step_ticks)
    load = thread_load(sampled.load, round(sampled.ticks * conversion.ns_per_tick))
    return Cost(operation.name, distribution.median(f"median; {operation.method}"), distribution, per, load)


def _context_switch(costs: Sequence[Cost]) -> Cost:
    """Return the switch in a pipe's round trip on one CPU: two of them, beside two writes and reads.

    Source of the method: lmbench's lat_ctx, which takes the pipe's own cost off.
    """
    by_name = {cost.name: cost.cost for cost in costs}
    trip, own = by_name["pipe_same_cpu"], by_name["pipe_write_read"]
    if trip.value is None or own.value is None:
        missing = Measurement.missing("ns", trip.reason or own.reason or INTERRUPTED)
        return Cost("context_switch", missing, None, 1, None)
    error = (trip.uncertainty or 0.0) / 2 + (own.uncertainty or 0.0)
    method = "half of pipe_same_cpu without two pipe_write_read"
    value = trip.value / 2 - own.value
    measured = (
        Measurement(value, "ns", error, trip.sample_count, method)
        if value > 0
        else Measurement.missing("ns", "the round trip cost no more than its reads and writes: too noisy")
    )
    return Cost("context_switch", measured, None, 1, None)
