"""The bus between two processes beside its peers: latency, throughput, and what a call costs.

All transports take turns on the same two CPUs with the same payload, and each turn stands beside the
cache-line floor measured around it: the host alone makes a difference of 2 to 10. Half round trips, and
one way in an open loop, from the moment a message was due. The bus, iceoryx2 and the spinning pipe burn
both CPUs while they wait; the others sleep.
"""

from __future__ import annotations

import gc
import json
import math
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import timeit
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cfctl import _native
from tests.benchmarks.figure import Figure
from tests.benchmarks.transports import PAYLOAD_BYTES, Side, Transport, bus, peers

ROUNDS = 7
TRIPS, TRIPS_ASLEEP = 20_000, 2_000
PACED, PACED_INTERVAL_NS = 3_000, 50_000
BATCH = 256
LIMIT_S = 60
NEAR_NS, FAR_NS = 70.0, 120.0
C_TO_FLOOR, PYTHON_TO_FLOOR, PYTHON_BEYOND_TICKS, P99_NS = 2.2, 2.5, 2, 1000.0
DUE_TO_HALF, ASLEEP_TO_PIPE, VIEW_TO_EMPTY = 2.0, 0.9, 1.2
VIEW_BYTES = 64 << 10
CALL_GOAL, BATCH_GOAL = {"near": 15e6, "far": 5e6}, {"near": 35e6, "far": 6e6}
PEER_LATENCY, PEER_THROUGHPUT = {"near": 1 / 10, "far": 1 / 4}, 1 / 5
END = b"\xff" * PAYLOAD_BYTES
HERE = Path(__file__).parent
NATIVE = HERE.parents[1] / "cfctl" / "native"


@dataclass(frozen=True, slots=True)
class Reading:
    """What one turn of a transport showed. `call` and `batch` are messages a second."""

    floor_ns: float
    half_p50_ns: float
    half_p99_ns: float
    paced_p50_ns: float
    paced_p99_ns: float
    call: float
    batch: float | None

    @property
    def beyond_ns(self) -> float:
        """Return how far the half round trip is beyond what the floor allows it."""
        return self.half_p50_ns - PYTHON_TO_FLOOR * self.floor_ns


def run() -> Iterator[Figure]:
    """Yield the figures; needs two CPUs, and a C compiler for the C parts."""
    cpus = sorted(os.sched_getaffinity(0))[:2]
    if len(cpus) < 2:
        print("One CPU: nothing passes between two.", file=sys.stderr)
        return
    with tempfile.TemporaryDirectory(dir=_memory()) as directory:
        os.environ["CFCTL_SEGMENT_DIR"] = directory
        yield from _compiled_figures(Path(directory), cpus)
        yield from _calls()
        yield _views()
        yield _idle()
        makers: dict[str, Callable[[], Transport]] = {
            "cfctl, spin": lambda: bus("spin"),
            "cfctl, adaptive": lambda: bus("adaptive"),
            "cfctl, park": lambda: bus("park"),
        }
        readings = _turns(makers | peers(), cpus)
    yield from _own(readings)
    yield from _against(readings)


def _memory() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def _own(readings: dict[str, list[Reading]]) -> Iterator[Figure]:
    ours = readings["cfctl, spin"]
    floors = tuple(each.floor_ns for each in ours)
    floor = statistics.median(floors)
    pair = "near" if floor <= NEAR_NS else "far"
    yield Figure(f"cache-line floor, {pair} CPUs", floors, "ns", math.inf)
    half = tuple(each.half_p50_ns for each in ours)
    tick_ns = _tick_read_ns()
    goal_ns = PYTHON_TO_FLOOR * floor + PYTHON_BEYOND_TICKS * tick_ns
    yield Figure("a tick read", (tick_ns,), "ns", math.inf)
    yield Figure("Python, half round trip, p50", half, "ns", goal_ns, reference=floor, reference_name="floor")
    yield Figure(
        "the same, beyond 2.5 floors of its turn",
        tuple(each.beyond_ns for each in ours),
        "ns",
        PYTHON_BEYOND_TICKS * tick_ns,
    )
    due = tuple(each.paced_p50_ns / each.half_p50_ns for each in ours)
    yield Figure("Python, due to received p50 : half round trip", due, "x", DUE_TO_HALF)
    yield Figure("Python, half round trip, p99", tuple(each.half_p99_ns for each in ours), "ns", P99_NS)
    yield Figure("a message by call", tuple(1e9 / each.call for each in ours), "ns", 1e9 / CALL_GOAL[pair])
    batch = tuple(1e9 / each.batch for each in ours if each.batch)
    yield Figure(f"a message of {BATCH} at once", batch, "ns", 1e9 / BATCH_GOAL[pair])
    adaptive = tuple(each.half_p50_ns for each in readings["cfctl, adaptive"])
    yield Figure("adaptive wait, half round trip, p50", adaptive, "ns", 200.0)


def _against(readings: dict[str, list[Reading]]) -> Iterator[Figure]:
    ours = readings["cfctl, spin"]
    pair = "near" if statistics.median(each.floor_ns for each in ours) <= NEAR_NS else "far"
    for name, found in readings.items():
        half = tuple(each.half_p50_ns for each in found)
        own = statistics.median(each.half_p50_ns for each in ours)
        yield Figure(f"{name}: half round trip, p50", half, "ns", math.inf, "median", own, "ours")
        paced = tuple(each.paced_p50_ns for each in found)
        yield Figure(f"{name}: due to received, p50", paced, "ns", math.inf)
        yield Figure(
            f"{name}: due to received, p99", tuple(each.paced_p99_ns for each in found), "ns", math.inf
        )
        call = tuple(1e9 / max(each.call, each.batch or 0.0) for each in found)
        yield Figure(f"{name}: a message, at its best", call, "ns", math.inf)
    others = {name: found for name, found in readings.items() if not name.startswith("cfctl")}
    libraries = [name for name in others if not name.startswith("os.")]
    for names, kind, goal in (
        (libraries, "the fastest library", PEER_LATENCY[pair]),
        (list(others), "the fastest of all", math.inf),
    ):
        if not names:
            continue
        fastest = min(names, key=lambda name: statistics.median(each.half_p50_ns for each in others[name]))
        ratios = tuple(a.half_p50_ns / b.half_p50_ns for a, b in zip(ours, others[fastest], strict=True))
        yield Figure(f"half round trip : {fastest}, {kind}", ratios, "x", goal)
    densest = max(others, key=lambda name: statistics.median(each.call for each in others[name]))
    rates = tuple(b.call / a.call for a, b in zip(ours, others[densest], strict=True))
    yield Figure(f"messages by call, {densest} : ours", rates, "x", PEER_THROUGHPUT)
    # An echo comes before a parked subscriber sleeps: a message in 50 us finds it asleep.
    asleep = tuple(
        a.paced_p50_ns / b.paced_p50_ns
        for a, b in zip(readings["cfctl, park"], readings["os.pipe, blocking"], strict=True)
    )
    yield Figure("both asleep, due to received : os.pipe", asleep, "x", ASLEEP_TO_PIPE)


def _turns(makers: dict[str, Callable[[], Transport]], cpus: list[int]) -> dict[str, list[Reading]]:
    from cfctl.probe.conversion import conversion_at_hand
    from cfctl.probe.core_to_core import measure_core_to_core

    clock = conversion_at_hand()

    def floor_ns() -> float:
        found = measure_core_to_core(cpus, ("load-store",), 100, conversion=clock).pairs[0].one_way.value
        assert found is not None
        return found

    readings: dict[str, list[Reading]] = {name: [] for name in makers}
    for _ in range(ROUNDS):
        for name, maker in makers.items():
            before = floor_ns()
            found = _turn(maker(), cpus, clock.ns_per_tick)
            found["floor_ns"] = (before + floor_ns()) / 2
            readings[name].append(Reading(**found))
    return readings


def _turn(transport: Transport, cpus: list[int], ns_per_tick: float) -> dict[str, Any]:
    """Run both sides in processes of their own; return what they measured."""
    source, sink = os.pipe()
    children = [_fork(side, transport, cpus[side], ns_per_tick, sink) for side in range(2)]
    os.close(sink)
    with os.fdopen(source, encoding="utf-8") as lines:
        found: dict[str, Any] = {}
        for line in lines:
            found |= json.loads(line)
    for child in children:
        _, status = os.waitpid(child, 0)
        if status:
            raise SystemExit(f"{transport.name}: a side ended with status {status}")
    return found


def _fork(side: int, transport: Transport, cpu: int, ns_per_tick: float, sink: int) -> int:
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        # A side whose other side is gone ends, too.
        signal.alarm(LIMIT_S)
        os.sched_setaffinity(0, {cpu})
        gc.disable()
        with transport.open(side) as ends:
            found = (_lead if side == 0 else _follow)(ends, transport, ns_per_tick)
        os.write(sink, json.dumps(found).encode() + b"\n")
        status = 0
    except BaseException:  # noqa: BLE001 - a forked side has nobody above it
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def _trips(transport: Transport) -> int:
    return TRIPS if transport.spins else TRIPS_ASLEEP


def _lead(ends: Side, transport: Transport, ns_per_tick: float) -> dict[str, float | None]:
    from cfctl import _native

    ticks, send, receive = _native.ticks, ends.send, ends.receive
    data, trips = bytes(PAYLOAD_BYTES), []
    for _ in range(_trips(transport)):
        start = ticks()
        send(data)
        receive()
        trips.append(ticks() - start)
    trips.sort()
    interval = PACED_INTERVAL_NS / ns_per_tick
    padding, first = bytes(PAYLOAD_BYTES - 8), ticks() + 100 * interval
    for number in range(PACED):
        due = int(first + number * interval)
        stamped = due.to_bytes(8, "little") + padding
        while ticks() < due:
            pass
        send(stamped)
    receive()
    found: dict[str, float | None] = {
        "half_p50_ns": trips[len(trips) // 2] * ns_per_tick / 2,
        "half_p99_ns": trips[len(trips) * 99 // 100] * ns_per_tick / 2,
    }
    began = time.perf_counter()
    for _ in range(transport.flood):
        send(data)
    receive()
    found["call"] = transport.flood / (time.perf_counter() - began)
    if ends.send_many:
        batch, left = [data] * BATCH, transport.flood
        began = time.perf_counter()
        while left:
            left -= ends.send_many(batch[:left])
        receive()
        found["batch"] = transport.flood / (time.perf_counter() - began)
    else:
        found["batch"] = None
    return found


def _follow(ends: Side, transport: Transport, ns_per_tick: float) -> dict[str, float]:
    from cfctl import _native

    ticks, send, receive = _native.ticks, ends.send, ends.receive
    for _ in range(_trips(transport)):
        send(receive())
    latencies = []
    for _ in range(PACED):
        stamped = receive()
        now = ticks()
        latencies.append(now - int.from_bytes(stamped[:8], "little"))
    send(END)
    for _ in range(transport.flood):
        receive()
    send(END)
    if ends.receive_many:
        left = transport.flood
        while left:
            left -= len(ends.receive_many(min(left, BATCH)))
        send(END)
    latencies.sort()
    return {
        "paced_p50_ns": latencies[PACED // 2] * ns_per_tick, "paced_p99_ns": latencies[PACED * 99 // 100] * ns_per_tick
    }  # fmt: skip


def _calls() -> Iterator[Figure]:
    """What a call costs when nobody else is there; net of the loop."""
    from cfctl.bus import Bus, BusConfig, Wait

    with Bus(BusConfig(4096, payload_bytes=PAYLOAD_BYTES, wait=Wait.SPIN)) as endpoint:
        inbox, outbox = endpoint.subscribe("calls"), endpoint.publisher("calls")
        names = {"send": outbox.try_publish, "receive": inbox.try_recv, "data": bytes(PAYLOAD_BYTES)}
        timers = {
            each: timeit.Timer(each, globals=names).timeit for each in ("pass", "send(data)", "receive()")
        }
        rounds = []
        for _ in range(9):
            least = dict.fromkeys(timers, math.inf)
            for _ in range(60):
                for name, timer in timers.items():
                    least[name] = min(least[name], timer(2000) / 2000 * 1e9)
            rounds.append(least)
    for call, name in (("send(data)", "try_publish"), ("receive()", "try_recv")):
        yield Figure(f"{name}, net of the loop", tuple(r[call] - r["pass"] for r in rounds), "ns", 70.0)


def _tick_read_ns() -> float:
    """Return what reading the tick counter costs in C, the least of some rounds."""
    return min(_native.read_costs(0, 1000, 50)) / 1000


def _views() -> Figure:
    """What receiving 64 KiB in place costs beside an empty message."""
    from cfctl.bus import Bus, BusConfig

    def view_ns(payload: bytes) -> float:
        least = math.inf
        for _ in range(200):
            accepted = outbox.publish_many([payload] * 4)
            began = time.perf_counter_ns()
            for _ in range(accepted):
                with inbox.recv_view(0.0):
                    pass
            least = min(least, (time.perf_counter_ns() - began) / accepted)
        return least

    with Bus(BusConfig(arena_bytes=1 << 20)) as endpoint:
        inbox, outbox = endpoint.subscribe("views"), endpoint.publisher("views")
        ratios = tuple(view_ns(bytes(VIEW_BYTES)) / view_ns(b"") for _ in range(9))
    return Figure("recv_view of 64 KiB : of an empty message", ratios, "x", VIEW_TO_EMPTY)


def _idle() -> Figure:
    from cfctl.bus import Bus, BusConfig, Wait

    shares = []
    with Bus(BusConfig(wait=Wait.PARK)) as endpoint:
        inbox = endpoint.subscribe("silence")
        for _ in range(3):
            start, before = time.monotonic(), time.process_time()
            inbox.recv(0.5)
            shares.append((time.process_time() - before) / (time.monotonic() - start) * 100)
    return Figure("CPU of a parked subscriber, idle", tuple(shares), "%", 1.0)


def _compiled_figures(place: Path, cpus: list[int]) -> Iterator[Figure]:
    if not shutil.which("cc") or not NATIVE.is_dir():
        print("No C compiler, or no source tree: the C parts were not timed.", file=sys.stderr)
        return
    sources = [
        "-D_GNU_SOURCE",
        *(str(path) for path in NATIVE.glob("*.c") if not path.name.startswith("alloc")),
    ]

    def compiled(name: str, *more: str) -> str:
        program = str(place / name)
        command = ["cc", "-O3", f"-I{NATIVE}", "-o", program, str(HERE / f"{name}.c"), *more]
        subprocess.run([*command, "-pthread", "-lm", "-ldl"], check=True)
        return program

    def numbers(*command: str) -> list[float]:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return [float(word) for word in done.stdout.split()]

    floor, trip = compiled("cache_line_floor"), compiled("ring_round_trip", *sources)
    costs = compiled("bus_costs", *sources)
    pair = [str(cpu) for cpu in cpus]
    turns = []
    for _ in range(ROUNDS):
        before = numbers(floor, *pair)[0]
        half = numbers(trip, str(place), *pair, str(PAYLOAD_BYTES), "64")
        turns.append(((before + numbers(floor, *pair)[0]) / 2, *half))
    yield Figure("C, half round trip, p50", tuple(each[1] for each in turns), "ns", math.inf)
    yield Figure(
        "C, half round trip, p50 : floor of its turn",
        tuple(each[1] / each[0] for each in turns),
        "x",
        C_TO_FLOOR,
    )
    yield Figure("C, a message of many", tuple(1e9 / each[4] for each in turns), "ns", math.inf)
    spent = [numbers(costs, str(place)) for _ in range(ROUNDS)]
    yield Figure("HLC tick, C, with the tick read", tuple(each[0] for each in spent), "ns", 20.0)
    yield Figure("publish: stamp, HLC and counters", tuple(each[1] for each in spent), "ns", 40.0)
