"""What the message bus does on this machine: latency, loss, throughput, and what it stands on.

Latency is counted from the moment a message was due, so that a publisher that falls behind can not hide
it (Tene, "coordinated omission"). Beside each figure stand the cache-line floor and the time the CPUs
lost, of the same run: the host alone makes a difference of 2 to 4 (bus.md, 2.1).
"""

from __future__ import annotations

import itertools
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

from cfctl.bench.crew import run_plans
from cfctl.bench.endpoint import HEAD, Plan
from cfctl.bus import Wait
from cfctl.errors import InputError, UnobservableError
from cfctl.probe.conversion import Conversion, conversion_at_hand
from cfctl.probe.core_to_core import measure_core_to_core
from cfctl.probe.distribution import Distribution, from_native, merged
from cfctl.probe.jitter import measure_jitter
from cfctl.probe.threads import Progress, usable_cpus
from cfctl.records import Document, Measurement

if TYPE_CHECKING:
    from cfctl.host.fingerprint import Fingerprint

DEFAULT_RATE_HZ: Final = 100_000.0
DEFAULT_SCHEDULED_RATE_HZ: Final = 1_000.0
DEFAULT_DURATION_NS: Final = 2_000_000_000
MAX_RATE_HZ: Final = 10_000_000.0
MAX_SIZE: Final = 1 << 19
MAX_SUBSCRIBERS: Final = 32
MAX_DURATION_NS: Final = 3_600_000_000_000
# bus.md, 2.1: both CPUs on one last-level cache, or on two.
NEAR_NS: Final = 70.0
FAR_NS: Final = 120.0
_BATCH: Final = 256
_FLOOR_SAMPLES: Final = 200
_JITTER_NS: Final = 150_000_000
_MOST_SHORT_PHASE_NS: Final = 1_000_000_000
_COUNTER: Final = itertools.count()


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The ground under a run: the cache-line floor of its two CPUs, and the share of time each CPU lost."""

    floor: Measurement
    lost: tuple[tuple[int, Measurement], ...]


@dataclass(frozen=True, slots=True)
class EndpointCpu:
    """The CPU a side took, 0..1 of one CPU.

    `spinning`: what is left of it after each message's own service time, so what waiting burnt;
    `idle`: while nothing came at all. None for the publisher, which spins for its clock.
    """

    role: str
    used: float
    spinning: float | None
    idle: float | None


@dataclass(frozen=True, slots=True)
class BusBench(Document):
    """What a bus benchmark measured. `pair` is near, far, between or unknown, by the floor.

    `one_way`: due to received, as the receiving program sees it; `calm`: the same of messages that no
    stall of a CPU touched (over 5 us without a receipt, `stalls` of them, and as long again), which in park mode
    leaves those that found the subscriber awake, as a wake-up takes longer than that; `transfer`: published to
    received, by the stamps of the C core; `round_trip`: there and back. `loss` = (dropped + never accepted +
    missing) / copies offered. `refused`: tries that found the ring full, most of them accepted later.
    `temporal` is the dispatcher's account of a scheduled run.
    """

    SCHEMA: ClassVar[str] = "cfctl.bus-bench"
    VERSION: ClassVar[int] = 1

    mode: str
    wait: str
    scheduled: bool
    size_bytes: int
    subscribers: int
    cpus: tuple[int, ...]
    rate_hz: float
    duration_ns: int
    floor: Measurement
    pair: str
    before: Surroundings
    after: Surroundings
    one_way: Distribution
    calm: Distribution
    transfer: Distribution
    round_trip: Distribution | None
    one_way_per_floor: Measurement
    stalls: int
    stalled: Measurement
    offered: int
    refused: int
    never_accepted: int
    delivered: int
    dropped: int
    loss: Measurement
    achieved_rate: Measurement
    per_call: Measurement
    batched: Measurement
    cpu: tuple[EndpointCpu, ...]
    temporal: Mapping[str, Any] | None
    clock: Conversion
    host: Fingerprint | None = None


def bench(
    *,
    threads: bool = False,
    size: int = 64,
    subscribers: int = 1,
    rate_hz: float | None = None,
    duration_ns: int = DEFAULT_DURATION_NS,
    wait: str | Wait = Wait.SPIN,
    scheduled: bool = False,
    cpus: Sequence[int] | None = None,
    on_progress: Progress | None = None,
) -> BusBench:
    """Return latency, loss and throughput of the bus between two processes, or threads of one.

    Processes of their own do the work, the publisher on the first of the CPUs (None: all usable ones),
    subscribers on the others in turn. `rate_hz` messages a second (None: 100 000, scheduled 1 000) of
    `size` bytes are published for `duration_ns`, whether or not they can be taken; then, for a second
    or less each, messages as fast as they go, by call and by 256, and round trips. `scheduled` sends
    all through the dispatcher, with deadlines. Takes about `duration_ns` and 6 s, and both CPUs whole.

    Raises InputError for values that can not be used, StateError when a side fails, CalibrationError.
    """
    default_rate_hz = DEFAULT_SCHEDULED_RATE_HZ if scheduled else DEFAULT_RATE_HZ
    run = _Run(
        threads, size, subscribers, default_rate_hz if rate_hz is None else rate_hz,
        duration_ns, Wait(wait), scheduled, usable_cpus(cpus), conversion_at_hand(),
    )  # fmt: skip
    run.check()
    tell = on_progress or (lambda _: None)
    before = surroundings(run.pair_cpus, run.clock)
    tell(0.1)
    paced = run.phase("send_paced", "receive_paced")
    tell(0.6)
    per_call = batched = Measurement.missing("msg/s", "a scheduled run has a rate of its own")
    round_trip = None
    if not scheduled:
        per_call = throughput(run.phase("send_flood", "receive_flood", short=True)[1:])
        tell(0.7)
        batched = throughput(run.phase("send_flood", "receive_flood", short=True, batch=_BATCH)[1:])
        tell(0.8)
        round_trip = run.distribution(run.phase("ping", "pong", short=True, subscribers=1)[0]["round_trip"])
        tell(0.9)
    after = surroundings(run.pair_cpus, run.clock)
    tell(1.0)
    return _document(run, before, after, paced, (per_call, batched, round_trip))


@dataclass(frozen=True, slots=True)
class _Run:
    threads: bool
    size: int
    subscribers: int
    rate_hz: float
    duration_ns: int
    wait: Wait
    scheduled: bool
    cpus: tuple[int, ...]
    clock: Conversion

    def check(self) -> None:
        for holds, what, allowed in (
            (HEAD.size <= self.size <= MAX_SIZE, "The size", f"It is {HEAD.size} B to 512 KiB."),
            (1 <= self.subscribers <= MAX_SUBSCRIBERS, "The number of subscribers", "It is 1 to 32."),
            (1 <= self.rate_hz <= MAX_RATE_HZ, "The rate", "It is 1 to 10 000 000 messages a second."),
            (10_000_000 <= self.duration_ns <= MAX_DURATION_NS, "The duration", "It is 10 ms to 1 h."),
        ):
            if not holds:
                raise InputError(f"{what} can not be used.", allowed)

    @property
    def pair_cpus(self) -> tuple[int, ...]:
        return self.cpus[:2]

    def cpu_of(self, receiver: int) -> int:
        others = self.cpus[1:] or self.cpus
        return others[receiver % len(others)]

    def phase(
        self,
        sender: str,
        receiver: str,
        *,
        short: bool = False,
        batch: int = 0,
        subscribers: int | None = None,
    ) -> list[dict[str, Any]]:
        """Run a sender and its receivers; return what they found, the sender first."""
        count = subscribers or self.subscribers
        topic = f"cfctl bench {os.getpid()} {next(_COUNTER)}"
        duration_ns = min(self.duration_ns, _MOST_SHORT_PHASE_NS) if short else self.duration_ns

        def plan(role: str, index: int, cpu: int) -> Plan:
            return Plan(
                role, index, topic, self.wait, self.size, self.rate_hz, duration_ns, count, cpu,
                self.clock.ns_per_tick, self.threads, self.scheduled, batch,
            )  # fmt: skip

        plans = [plan(sender, 0, self.cpus[0])]
        plans += [plan(receiver, index, self.cpu_of(index)) for index in range(count)]
        return run_plans(plans, threads=self.threads, timeout_s=duration_ns * 1e-9 + 60)

    def distribution(self, *raws: Mapping[str, Any]) -> Distribution:
        clock = self.clock
        step = (clock.tick_step_ns or clock.ns_per_tick) / clock.ns_per_tick
        return from_native(merged(raws), "tick", clock.ns_per_tick, step)


def surroundings(cpus: Sequence[int], clock: Conversion) -> Surroundings:
    """Return the cache-line floor between the first two CPUs and the time each loses; about 0.2 s."""
    try:
        pairs = measure_core_to_core(cpus, ("load-store",), _FLOOR_SAMPLES, conversion=clock).pairs
        floor = pairs[0].one_way
    except UnobservableError as error:
        floor = Measurement.missing("ns", f"{error.what} {error.why}")
    jitter = measure_jitter(cpus, _JITTER_NS, attribution="off", conversion=clock)
    return Surroundings(floor, tuple((each.cpu, each.lost) for each in jitter.cpus))


def pair_of(floor_ns: float | None) -> str:
    """Return near for a floor up to 70 ns, far from 120 ns on; bus.md, 2.1."""
    if floor_ns is None:
        return "unknown"
    return "near" if floor_ns <= NEAR_NS else "far" if floor_ns >= FAR_NS else "between"


def floor_of(before: Measurement, after: Measurement) -> Measurement:
    """Return the floor of a run: the mean of before and after, whose distance is its error."""
    if before.value is None or after.value is None:
        return before if before.value is None else after
    middle, half = (before.value + after.value) / 2, abs(before.value - after.value) / 2
    return Measurement(middle, "ns", half, 2, "cache-line transfer, mean of before and after the run")


def throughput(receivers: Sequence[Mapping[str, Any]]) -> Measurement:
    """Return the messages a second of the slowest receiver."""
    rates = [each["received"] / each["elapsed_ns"] * 1e9 for each in receivers if each["elapsed_ns"] > 0]
    if not rates:
        return Measurement.missing("msg/s", "nothing was received")
    return Measurement(min(rates), "msg/s", None, min(each["received"] for each in receivers),
                       "received / time from the first to the last, slowest receiver")  # fmt: skip


def loss_of(offered: int, never_accepted: int, receivers: Sequence[Mapping[str, Any]]) -> Measurement:
    """Return the share of the offered copies that no receiver got: refused for good, dropped, or missing."""
    copies = offered * len(receivers)
    delivered = sum(each["delivered"] for each in receivers)
    if copies == 0:
        return Measurement.missing("1", "nothing was offered")
    refused = never_accepted * len(receivers)
    lost = max(copies - delivered, refused + sum(each["dropped"] for each in receivers))
    return Measurement(
        lost / copies, "1", None, copies, "(dropped + never accepted + missing) / copies offered"
    )


def endpoint_cpu(receiver: Mapping[str, Any]) -> EndpointCpu:
    """Return a receiver's CPU; what its messages did not need was spinning."""
    wall_ns = max(1.0, receiver["wall_ns"])
    spun_ns = max(0.0, receiver["cpu_ns"] - receiver["delivered"] * receiver["service_ns"])
    return EndpointCpu(
        f"subscriber {receiver['index']}", receiver["cpu_ns"] / wall_ns, spun_ns / wall_ns, receiver["idle_ratio"]
    )  # fmt: skip


_Rest = tuple[Measurement, Measurement, "Distribution | None"]


def _document(
    run: _Run, before: Surroundings, after: Surroundings, paced: list[dict[str, Any]], rest: _Rest
) -> BusBench:
    sender, *receivers = paced
    floor = floor_of(before.floor, after.floor)
    one_way = run.distribution(*(each["one_way"] for each in receivers))
    # Receivers that are threads of one process share one account of it.
    transfers = receivers[:1] if run.threads else receivers
    sender_cpu = EndpointCpu("publisher", sender["cpu_ns"] / max(1.0, sender["wall_ns"]), None, None)
    per_call, batched, round_trip = rest
    stalled_ns = statistics.fmean(each["stalled_ns"] / max(1.0, each["wall_ns"]) for each in receivers)
    stalls = sum(each["stalls"] for each in receivers)
    return BusBench(
        "threads" if run.threads else "processes", run.wait.value, run.scheduled, run.size, run.subscribers,
        run.cpus[: run.subscribers + 1], run.rate_hz, run.duration_ns, floor, pair_of(floor.value), before, after,
        one_way, run.distribution(*(each["calm"] for each in receivers)),
        run.distribution(*(each["transfer"] for each in transfers)), round_trip, _per_floor(one_way, floor),
        stalls, Measurement(stalled_ns, "1", None, stalls, "share of the run in stalls over 5 us"),
        sender["offered"], sender["refused"], sender["never_accepted"],
        sum(each["delivered"] for each in receivers), sum(each["dropped"] for each in receivers),
        loss_of(sender["offered"], sender["never_accepted"], receivers),
        Measurement(sender["offered"] / max(1.0, sender["wall_ns"]) * 1e9, "msg/s", None, sender["offered"],
                    "offered / time"),
        per_call, batched, (sender_cpu, *map(endpoint_cpu, receivers)), sender.get("temporal"), run.clock,
    )  # fmt: skip


def _per_floor(one_way: Distribution, floor: Measurement) -> Measurement:
    half = one_way.percentiles[0].value_ns
    if half is None or not floor.value:
        return Measurement.missing("x", floor.reason or "too few messages for a median")
    error = (floor.uncertainty or 0.0) / floor.value * half / floor.value
    return Measurement(half / floor.value, "x", error, one_way.sample_count, "median one way / floor")
