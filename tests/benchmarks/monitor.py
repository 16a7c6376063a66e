"""What the monitor costs while it watches 30 operations, and how fast it is scraped.

Its CPU time is what the kernel counted for its threads over windows of real seconds at 1 Hz; a scrape is the
whole request over loopback, as Prometheus asks for it.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import pty
import random
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.benchmarks.figure import Figure

# 1200 samples a second in each of 30 operations, spread over hundreds of buckets; a bus and a pool.
PROGRAM = """
import random, time, cfctl
from cfctl.bus import Bus, Packet
bus, pool = Bus(), cfctl.Pool(dict)
subscription = bus.subscribe("prices")
operations = [cfctl.Profiler().operation(f"operation {i}") for i in range(30)]
choose = random.Random(1)
samples = [round(choose.lognormvariate(10, 0.7)) for _ in range(10_000)]
while True:
    bus.publish(Packet("prices", b"x"))
    subscription.recv(1.0)
    for operation in operations:
        for ns in choose.sample(samples, 12):
            operation.record(ns)
    with pool.item():
        time.sleep(0.01)
"""
WINDOWS, WINDOW_S, SCRAPES = 6, 5, 40
SLOW_CONNECTIONS = 200


def run() -> Iterator[Figure]:
    """Yield the figures; starts a program and monitors of its own."""
    with tempfile.TemporaryDirectory() as directory, contextlib.chdir(directory), ExitStack() as stack:
        environment = os.environ | {"CFCTL_SEGMENT_DIR": f"{directory}/segments", "XDG_STATE_HOME": directory}
        stack.enter_context(_running(sys.executable, "-c", PROGRAM, env=environment))
        served = stack.enter_context(_monitor(environment, stdout=subprocess.DEVNULL))
        address = _address(served)
        drawn = stack.enter_context(_on_a_terminal(environment))
        time.sleep(3)
        costs = _costs({"served": served.pid, "drawn": drawn.pid}, address)
        yield Figure("CPU time at 1 Hz, lines, scraped each 5 s", costs["served"], "% of a core", 1.0)
        yield Figure("CPU time at 1 Hz, dashboard of 100 columns", costs["drawn"], "% of a core", 1.0)
        for name, pid in (("scraped", served.pid), ("dashboard", drawn.pid)):
            yield Figure(f"resident memory, {name}", (_rss_mb(pid),), "MB", 60)
        yield Figure("scrape, 30 operations", _scrapes(address), "ms", 10)
        with _slow_connections(address):
            yield Figure(
                f"scrape under {SLOW_CONNECTIONS} slow connections", _scrapes(address), "ms", 100, "max"
            )
        yield from _promtool(address)
    yield _transitions()


@contextmanager
def _running(*command: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(command, text=True, **options)
    try:
        yield process
    finally:
        process.terminate()
        with suppress(OSError):
            process.communicate()


@contextmanager
def _monitor(environment: dict[str, str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    command = (sys.executable, "-m", "cfctl", "monitor", "--prometheus", "127.0.0.1:0")
    with _running(*command, env=environment, stderr=subprocess.PIPE, **options) as monitor:
        yield monitor


@contextmanager
def _on_a_terminal(environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """Yield a monitor that draws its dashboard; what it draws is read and thrown away."""
    terminal, its_end = pty.openpty()

    def read() -> None:
        with suppress(OSError):
            while os.read(terminal, 1 << 16):
                pass

    threading.Thread(target=read, daemon=True).start()
    size = {"COLUMNS": "100", "LINES": "50", "TERM": "xterm-256color"}
    with _running(
        sys.executable, "-m", "cfctl", "monitor", env=environment | size, stdin=its_end, stdout=its_end, stderr=its_end
    ) as monitor:  # fmt: skip
        os.close(its_end)
        yield monitor
    os.close(terminal)


def _address(monitor: subprocess.Popen[str]) -> tuple[str, int]:
    assert monitor.stderr is not None
    found = re.search(r"http://(.+):(\d+)/metrics", monitor.stderr.readline())
    assert found is not None
    return found[1], int(found[2])


def _costs(pids: dict[str, int], address: tuple[str, int]) -> dict[str, tuple[float, ...]]:
    """Return the CPU time of processes per time, in percent, over windows."""
    readings: dict[str, list[float]] = {name: [] for name in pids}
    for _ in range(WINDOWS):
        since, before = time.monotonic(), {name: _cpu_s(pid) for name, pid in pids.items()}
        _scrape(address)
        time.sleep(WINDOW_S)
        for name, pid in pids.items():
            readings[name].append((_cpu_s(pid) - before[name]) / (time.monotonic() - since) * 100)
    return {name: tuple(values) for name, values in readings.items()}


def _cpu_s(pid: int) -> float:
    """Return the CPU time of a process's threads to a nanosecond: Documentation/scheduler/sched-stats."""
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(file.read_text().split()[0]) for file in threads) * 1e-9


def _rss_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def _scrapes(address: tuple[str, int]) -> tuple[float, ...]:
    """Return the times of scrapes in ms; 0.3 s apart, so that each third one is the first of an observation."""
    times = []
    for _ in range(SCRAPES):
        times.append(_scrape(address))
        time.sleep(0.3)
    return tuple(times)


def _scrape(address: tuple[str, int]) -> float:
    start = time.perf_counter()
    connection = http.client.HTTPConnection(*address, timeout=30)
    accept = {"Accept": "application/openmetrics-text;version=1.0.0", "Accept-Encoding": "gzip"}
    connection.request("GET", "/metrics", headers=accept)
    text = connection.getresponse().read()
    connection.close()
    assert text.count(b"cfctl_operation_samples_total{") == 30
    return (time.perf_counter() - start) * 1e3


@contextmanager
def _slow_connections(address: tuple[str, int]) -> Iterator[None]:
    """Hold connections that never finish their request; one that is cut is made anew."""
    ended = threading.Event()

    def hold() -> None:
        peers: list[socket.socket] = []
        while not ended.wait(0.05):
            for peer in [peer for peer in peers if not _is_open(peer)]:
                peers.remove(peer)
                peer.close()
            while len(peers) < SLOW_CONNECTIONS:
                peers.append(socket.create_connection(address, timeout=30))
                peers[-1].sendall(b"GET /metrics HTTP/1.1\r\nX: ")
                peers[-1].setblocking(False)
        for peer in peers:
            peer.close()

    thread = threading.Thread(target=hold)
    thread.start()
    time.sleep(2)
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _is_open(peer: socket.socket) -> bool:
    try:
        return peer.recv(1) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def _promtool(address: tuple[str, int]) -> Iterator[Figure]:
    """Yield how many lines promtool does not accept; the guide's name of the HLC drift is its only complaint of style."""
    if shutil.which("promtool") is None:
        print("promtool is not installed: whether it accepts the metrics was not tested")
        return
    connection = http.client.HTTPConnection(*address, timeout=30)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read()
    connection.close()
    said = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True).stderr.decode()
    faults = [line for line in said.splitlines() if "chronofabric_hlc_drift_nanoseconds" not in line]
    yield Figure("lines that promtool does not accept", (float(len(faults)),), "", 0)


def _transitions() -> Figure:
    """Return how often an alert changes in 1000 seconds whose values scatter around its threshold."""
    from cfctl.monitor.alerts import AlertBook
    from cfctl.monitor.snapshot import Series, Snapshot
    from cfctl.monitor.targets import Operator, Target, TargetSeverity
    from cfctl.records import Measurement

    target = Target("noisy", "m", Operator.BELOW, 100.0, "ns", TargetSeverity.WARNING)
    counts = []
    for seed in range(20):
        book, choose = AlertBook((target,)), random.Random(seed)
        counts.append(0.0)
        for tick in range(1000):
            measured = Measurement(choose.gauss(100.0, 10.0), "ns", 1.0)
            changes = book.update(Snapshot(tick * 10**9, 10**9, (Series("m", measured),)))
            counts[-1] += len(changes)
    return Figure("changes of an alert in 1000 noisy ticks, 20 seeds", tuple(counts), "", 1, "max")
