"""The probes beside their peers: oslat, cyclictest, a cache-line floor in C, and kernel tracepoints.

Peers run by turns with the probes and figures are ratios or differences within a round, so that a
loaded machine disturbs both alike. Needs root, rt-tests and a C compiler; what is missing is said.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from cfctl.probe.conversion import Conversion, conversion_at_hand
from cfctl.probe.core_to_core import VARIANTS, measure_core_to_core
from cfctl.probe.jitter import measure_jitter
from cfctl.probe.scheduling import Scheduling
from cfctl.probe.threads import usable_cpus
from cfctl.probe.wakeup import measure_wakeup
from tests.benchmarks.figure import Figure

ROUNDS = 7
NS = 1_000_000_000
INTERVAL_US = 200
# Short turns: what a hypervisor does to a wake-up changes within seconds.
WAKEUP_ROUNDS = 31
WAKEUPS = 1000
PRIORITY = 95
FIFO = Scheduling.named("fifo", PRIORITY)


def run() -> Iterator[Figure]:
    """Yield the figures that this machine and user can measure."""
    clock = conversion_at_hand()
    cpus = usable_cpus(None)
    yield from _turns(cpus[-1], clock)
    yield from _wakeups(cpus[-1])
    if len(cpus) > 1:
        yield from _core_to_core((cpus[0], cpus[1]), clock)
    yield from _attribution(cpus, clock)
    yield from _quick()


def _turns(cpu: int, clock: Conversion) -> Iterator[Figure]:
    scheduling = FIFO if os.geteuid() == 0 else Scheduling()
    turns, peers = [], []
    for _ in range(ROUNDS):
        found = measure_jitter(
            [cpu], NS // 2, scheduling=scheduling, attribution="off", conversion=clock
        ).cpus[0]
        if found.turn.value is not None:
            turns.append(found.turn.value)
        peer = _oslat_turn_ns(cpu)
        if peer is not None:
            peers.append(peer)
    yield Figure("jitter: one turn of the loop", tuple(turns), "ns", 12)
    if peers:
        # The peer counts interruptions into its mean: its fastest round is the fair one.
        yield Figure(
            f"jitter: turn over that of oslat ({min(peers):.1f} ns)",
            tuple(turn / min(peers) for turn in turns),
            "x",
            0.55,
        )


def _peer(command: list[str]) -> dict[str, object] | None:
    """Return the JSON an rt-tests program writes, None when it is missing or may not run."""
    if shutil.which(command[0]) is None or os.geteuid() != 0:
        _missing(f"{command[0]} is not installed or needs root")
        return None
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "result.json"
        subprocess.run([*command, f"--json={path}"], check=True, capture_output=True, timeout=60)
        loaded: dict[str, object] = json.loads(path.read_text())
        return loaded


def _histogram(result: dict[str, object]) -> tuple[dict[int, int], float]:
    """Return the histogram of the only thread (us -> count) and the run's length in seconds."""
    threads = result["thread"]
    assert isinstance(threads, dict)
    thread = threads["0"]
    return {int(us): count for us, count in thread["histogram"].items()}, float(thread.get("duration", 0))


def _oslat_turn_ns(cpu: int) -> float | None:
    result = _peer(["oslat", "-c", str(cpu), "-D", "1s", "-f", str(PRIORITY), "-q"])
    if result is None:
        return None
    counts, seconds = _histogram(result)
    return seconds * 1e9 / sum(counts.values())


def _wakeups(cpu: int) -> Iterator[Figure]:
    if os.geteuid() != 0:
        _missing("the wake-up comparison needs root")
        return
    for pm_qos_us, name in ((None, "PM QoS as it is"), (0, "PM QoS 0")):
        own: list[float] = []
        peer: list[float] = []
        for number in range(WAKEUP_ROUNDS):
            # The order alternates, so that a load that grows or shrinks favours neither.
            for measure, found in ((_own_median_ns, own), (_cyclictest_median_ns, peer))[
                :: 1 if number % 2 else -1
            ]:
                half_ns = measure(cpu, pm_qos_us)
                if half_ns is None:
                    return
                found.append(half_ns)
        off = statistics.median(a / b for a, b in zip(own, peer, strict=True)) - 1
        beside = f"{statistics.median(own) / 1000:.1f} us beside {statistics.median(peer) / 1000:.1f} us"
        yield Figure(f"wake-up: p50 off cyclictest's, {name} ({beside}, {off:+.1%})", (abs(off),), "", 0.10)


def _own_median_ns(cpu: int, pm_qos_us: int | None) -> float | None:
    found = measure_wakeup(
        [cpu], WAKEUPS * INTERVAL_US * 1000, INTERVAL_US * 1000, scheduling=FIFO, pm_qos_us=pm_qos_us
    )
    return found.cpus[0].latency.value


def _cyclictest_median_ns(cpu: int, pm_qos_us: int | None) -> float | None:
    command = [
        "cyclictest",
        "-q",
        "-m",
        "-t1",
        f"-a{cpu}",
        f"-p{PRIORITY}",
        f"-i{INTERVAL_US}",
        f"-l{WAKEUPS}",
        "-h2000",
    ]
    result = _peer([*command, *(["--default-system"] if pm_qos_us is None else [])])
    if result is None:
        return None
    counts, _ = _histogram(result)
    left = sum(counts.values()) / 2
    for us in sorted(counts):
        # Whole microseconds are cut off: within its bucket the median is found by its share.
        if left <= counts[us]:
            return (us + left / counts[us]) * 1000
        left -= counts[us]
    return None


def _core_to_core(pair: tuple[int, int], clock: Conversion) -> Iterator[Figure]:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        _missing("no C compiler for the cache-line floor")
        return
    source = Path(__file__).with_name("cache_line_floor.c")
    with tempfile.TemporaryDirectory() as directory:
        program = Path(directory) / "floor"
        subprocess.run([compiler, "-O2", "-pthread", "-o", str(program), str(source)], check=True)
        off: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
        floors: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
        for _ in range(ROUNDS):
            command = [str(program), *map(str, pair)]
            printed = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
            floor = dict(zip(("load-store", "cas"), map(float, printed.stdout.split()), strict=True))
            for found in measure_core_to_core(pair, conversion=clock).pairs:
                if found.one_way.value is not None:
                    floors[found.variant].append(floor[found.variant])
                    off[found.variant].append(found.one_way.value - floor[found.variant])
    step_ns = clock.tick_step_ns or 1.0
    for variant, differences in off.items():
        floor_ns = statistics.median(floors[variant])
        name = f"core to core: p50 above the C floor, {variant} ({floor_ns:.1f} ns)"
        yield Figure(name, tuple(differences), "ns", step_ns)


def _attribution(cpus: tuple[int, ...], clock: Conversion) -> Iterator[Figure]:
    apart, false_positives = [], []
    for _ in range(ROUNDS):
        for cpu in measure_jitter(cpus, 2 * NS, conversion=clock).cpus:
            found = cpu.attribution.agreement if cpu.attribution is not None else None
            if found is None or found.agreement is None or found.false_positives is None:
                _missing("attribution can not be checked: kernel tracepoints are not to be had")
                return
            apart.append(1 - found.agreement)
            false_positives.append(found.false_positives)
    yield Figure("attribution: gaps over 5 us named unlike the tracepoints", tuple(apart), "", 0.05)
    yield Figure(
        "attribution: false positives among ticks, switches, faults", tuple(false_positives), "", 0.02
    )


def _quick() -> Iterator[Figure]:
    """Yield the time of a diagnosis without probes beyond an interpreter's start, and its memory."""
    seconds, megabytes = [], []
    for _ in range(ROUNDS):
        start_s, _ = _cost_of(["-c", "pass"])
        quick_s, rss_bytes = _cost_of(["-m", "cfctl", "diagnose", "latency", "--quick"])
        seconds.append(quick_s - start_s)
        megabytes.append(rss_bytes / 1e6)
    yield Figure("diagnose latency --quick: beyond the interpreter's start", tuple(seconds), "s", 0.5)
    yield Figure("diagnose latency --quick: resident memory", tuple(megabytes), "MB", 80)


def _cost_of(arguments: list[str]) -> tuple[float, int]:
    """Return the wall time in seconds and the largest resident size in bytes of an interpreter's run."""
    begin_s = time.perf_counter()
    program = subprocess.Popen(
        [sys.executable, "-P", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(program.pid, 0)
    program.returncode = os.waitstatus_to_exitcode(status)
    if program.returncode not in {0, 1}:
        raise RuntimeError(f"{arguments} ended with {program.returncode}")
    return time.perf_counter() - begin_s, usage.ru_maxrss * 1024


def _missing(what: str) -> None:
    print(f"not measured: {what}", file=sys.stderr)
