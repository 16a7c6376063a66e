"""Core to core: how long a cache line takes from one CPU to another, for every pair."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

from cfctl import _native
from cfctl.errors import InputError, UnobservableError
from cfctl.host.topology import Topology, topology
from cfctl.host.view import HostView
from cfctl.probe.conversion import Conversion, conversion_at_hand
from cfctl.probe.distribution import Distribution, from_native, merged
from cfctl.probe.load import ThreadLoad, thread_load, total
from cfctl.probe.scheduling import Scheduling
from cfctl.probe.threads import Lane, Progress, run_pinned, usable_cpus
from cfctl.records import Document, Measurement

if TYPE_CHECKING:
    from cfctl.host.fingerprint import Fingerprint

VARIANTS: Final = {"cas": _native.PAIR_CAS, "load-store": _native.PAIR_LOAD_STORE}
DEFAULT_SAMPLES: Final = 1000
MAX_SAMPLES: Final = 1_000_000
# One sample: enough round trips that the counter's step is nothing, few enough to be undisturbed.
_ROUND_TRIPS: Final = 50
# Fresh pages for each pair, by turns at home on either side: one page's place is no result.
_PAGES: Final = 20
UNKNOWN: Final = "unknown"


@dataclass(frozen=True, slots=True)
class PairLatency:
    """The one-way latency between two CPUs by one variant; a sample is the mean of 50 round trips.

    `relation` is "SMT sibling", "same L3", "same node", "remote" or "unknown".
    """

    cpu_a: int
    cpu_b: int
    relation: str
    variant: str
    one_way: Measurement
    distribution: Distribution
    load: ThreadLoad


@dataclass(frozen=True, slots=True)
class CoreToCore(Document):
    """The one-way latency of a cache line for every pair of the measured CPUs."""

    SCHEMA: ClassVar[str] = "cfctl.probe.core-to-core"
    VERSION: ClassVar[int] = 1

    cpus: tuple[int, ...]
    pairs: tuple[PairLatency, ...]
    round_trips_a_sample: int
    pages_a_pair: int
    method: str
    scheduling: Scheduling
    clock: Conversion
    contaminated: bool
    interrupted: bool
    host: Fingerprint | None = None


def measure_core_to_core(
    cpus: Sequence[int] | None = None,
    variants: Sequence[str] = tuple(VARIANTS),
    samples: int = DEFAULT_SAMPLES,
    *,
    scheduling: Scheduling | None = None,
    conversion: Conversion | None = None,
    on_progress: Progress | None = None,
) -> CoreToCore:
    """Return the one-way latency of a cache line between every two of the CPUs (None: all usable ones).

    Each pair takes both CPUs whole for about `samples` x 50 round trips and variant. Ctrl-C ends the
    run early; the pairs measured by then are returned. Raises InputError for values that can not be
    used, UnobservableError with less than two CPUs or when a policy is refused, CalibrationError.
    """
    chosen = usable_cpus(cpus)
    if len(chosen) < 2:
        raise UnobservableError(
            "Core-to-core latency does not apply.",
            f"It needs two CPUs; CPU {chosen[0]} is the only one named or usable.",
            "Name two of a machine that has them, or widen the affinity or cpuset.",
        )
    if not variants or set(variants) - set(VARIANTS):
        raise InputError(
            f"The variants {', '.join(variants)} can not be used.", f"There are: {', '.join(VARIANTS)}."
        )
    if not _PAGES <= samples <= MAX_SAMPLES:
        raise InputError("The number of samples can not be used.", f"It must be {_PAGES} to {MAX_SAMPLES}.")
    conversion = conversion or conversion_at_hand()
    scheduling = scheduling or Scheduling()
    wanted = list(itertools.product(itertools.combinations(chosen, 2), variants))
    found: list[_Measured] = []

    def measure(lane: Lane) -> None:
        for done, (pair, variant) in enumerate(wanted):
            measured = _measure_pair(pair, variant, samples, lane.stop)
            # A pair that Ctrl-C cut short may lack the pages of one side.
            if measured is None:
                return
            found.append(measured)
            if on_progress:
                on_progress((done + 1) / len(wanted))

    # The pairs pin threads of their own; this one waits for them wherever it is.
    outcome = run_pinned([None], measure, scheduling=scheduling)
    cpus_known = topology(HostView())
    pairs = tuple(_pair_latency(each, conversion, cpus_known) for each in found)
    return CoreToCore(
        chosen, pairs, _ROUND_TRIPS, _PAGES,
        "two pinned threads pass a cache line to and fro; half of a round trip; pages by turns at home on either side",
        scheduling, conversion, any(pair.load.contaminated for pair in pairs), outcome.interrupted,
    )  # fmt: skip


def relation(cpu_a: int, cpu_b: int, known: Topology) -> str:
    """Return the closest thing two CPUs share."""
    for groups, name in ((known.cores, "SMT sibling"), (known.caches, "same L3"), (known.nodes, "same node")):
        if any(cpu_a in group and cpu_b in group for group in groups):
            return name
    return "remote" if known.cores and (known.caches or known.nodes) else UNKNOWN


@dataclass(frozen=True, slots=True)
class _Measured:
    pair: tuple[int, int]
    variant: str
    batch: Mapping[str, Any]
    load: Mapping[str, Any]
    ticks: int


def _measure_pair(pair: tuple[int, int], variant: str, samples: int, stop: memoryview) -> _Measured | None:
    runs = []
    start_tick = _native.ticks()
    for (cpu_a, cpu_b), count in _sides(pair, samples):
        runs.append(
            _native.probe_pair(
                VARIANTS[variant], cpu_a, cpu_b, count, _ROUND_TRIPS, max(1, count * 2 // _PAGES), stop
            )
        )
        if stop[0]:
            return None
    load = total([run[side] for run in runs for side in ("load_a", "load_b")])
    return _Measured(pair, variant, merged(run["batch"] for run in runs), load, _native.ticks() - start_tick)


def _sides(pair: tuple[int, int], samples: int) -> Iterator[tuple[tuple[int, int], int]]:
    yield pair, samples - samples // 2
    yield (pair[1], pair[0]), samples // 2


def _pair_latency(measured: _Measured, conversion: Conversion, known: Topology) -> PairLatency:
    one_way_ticks = 2 * _ROUND_TRIPS
    distribution = from_native(
        measured.batch, f"tick/{one_way_ticks}", conversion.ns_per_tick / one_way_ticks,
        (conversion.tick_step_ns or conversion.ns_per_tick) / conversion.ns_per_tick,
    )  # fmt: skip
    cpu_a, cpu_b = measured.pair
    # The load is that of two threads.
    wall_ns = round(2 * measured.ticks * conversion.ns_per_tick)
    return PairLatency(
        cpu_a,
        cpu_b,
        relation(cpu_a, cpu_b, known),
        measured.variant,
        distribution.median(f"median of the means of {_ROUND_TRIPS} round trips"),
        distribution,
        thread_load(measured.load, wall_ns),
    )
