"""The loopback: how long a UDP datagram takes to a second process and back, wake-ups included."""

from __future__ import annotations

import contextlib
import socket
import struct
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, Final

from cfctl import _native
from cfctl.diagnose.latency import CpuLatency, UseLatency
from cfctl.errors import UnobservableError, os_error_reason
from cfctl.probe.distribution import from_native
from cfctl.probe.load import thread_load

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# As long as the echo waits: on a busy machine a process may not run for a second.
_TIMEOUT_S: Final = 5.0
_INTERVAL_NS: Final = 200_000
# It ends by itself when nobody has sent for 5 s, also when this process is killed.
_ECHO: Final = """
import socket, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("127.0.0.1", 0))
s.settimeout(5)
s.setblocking(sys.argv[1] != "polls")
print(s.getsockname()[1], flush=True)
heard = time.monotonic()
while time.monotonic() - heard < 5:
    try:
        data, back = s.recvfrom(64)
    except BlockingIOError:
        continue
    if not data:
        break
    heard = time.monotonic()
    s.sendto(data, back)
"""


def measure_loopback(duration_ns: int, *, polls: bool = False) -> UseLatency:
    """Return the round trip of an 8-byte datagram through the loopback to another process.

    Both ends are Python programs: the figure holds some microseconds of interpreter. With `polls`
    neither sleeps while it waits, which takes two CPUs whole. Raises UnobservableError without a
    loopback or when the other process does not answer.
    """
    try:
        with _echo(polls) as port, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.connect(("127.0.0.1", port))
            sock.settimeout(0 if polls else _TIMEOUT_S)
            before, start_ns = _usage(), time.monotonic_ns()
            samples = _round_trips(sock, start_ns + duration_ns)
            rise, wall_ns = _rise(before, _usage()), time.monotonic_ns() - start_ns
            sock.send(b"")
    except OSError as error:
        raise UnobservableError("The loopback can not be measured.", os_error_reason(error)) from error
    load = thread_load(rise, wall_ns)
    distribution = from_native(_as_native(samples), "ns", 1.0, 1.0)
    latency = CpuLatency(None, distribution, load.contaminated, load.contamination)
    return UseLatency(
        "network", "UDP round trip over the loopback between two Python processes; no network device is in it",
        (latency,), False,
    )  # fmt: skip


def _round_trips(sock: socket.socket, end_ns: int) -> list[int]:
    """Return round trips in ns, each from the moment it was due: a late one delays nobody unseen."""
    samples = []
    due_ns = time.monotonic_ns()
    while due_ns < end_ns:
        if (wait_ns := due_ns - time.monotonic_ns()) > 0:
            time.sleep(wait_ns / 1e9)
            # Sleeping late is the timer's latency, not the network's.
            due_ns = time.monotonic_ns()
        sock.send(struct.pack("=q", due_ns))
        while struct.unpack("=q", _received(sock))[0] != due_ns:
            pass
        samples.append(time.monotonic_ns() - due_ns)
        due_ns += _INTERVAL_NS
    return samples


def _received(sock: socket.socket) -> bytes:
    """Return the next datagram; a socket that does not block is asked until one is there or the time is over."""
    if sock.gettimeout() != 0:
        return sock.recv(64)
    end_ns = time.monotonic_ns() + round(_TIMEOUT_S * 1e9)
    while time.monotonic_ns() < end_ns:
        try:
            return sock.recv(64)
        except BlockingIOError:
            continue
    raise TimeoutError("timed out")


@contextlib.contextmanager
def _echo(polls: bool) -> Iterator[int]:
    """Run the answering process while the block runs, and give its port."""
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _ECHO, "polls" if polls else "sleeps"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line.strip().isdecimal():
                raise UnobservableError(
                    "The loopback can not be measured.", "The answering process did not start."
                )
            yield int(line)
        finally:
            process.kill()


def _usage() -> dict[str, Any]:
    import resource

    used = resource.getrusage(resource.RUSAGE_THREAD)
    return {
        "involuntary_switches": used.ru_nivcsw, "voluntary_switches": used.ru_nvcsw,
        "minor_faults": used.ru_minflt, "major_faults": used.ru_majflt, "run_delay_ns": _run_delay_ns(),
    }  # fmt: skip


def _run_delay_ns() -> int | None:
    try:
        with open("/proc/thread-self/schedstat", encoding="ascii") as file:
            return int(file.read().split()[1])
    except (OSError, ValueError, IndexError):
        return None


def _rise(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    return {
        name: None if before[name] is None or value is None else value - before[name]
        for name, value in after.items()
    }


def _as_native(samples: Iterable[int]) -> dict[str, Any]:
    """Return samples in ns as a native probe gives them."""
    values = list(samples)
    counts = [0] * _native.HISTOGRAM_BUCKETS
    for value in values:
        counts[_bucket(value)] += 1
    return {
        "count": len(values), "sum": sum(values), "min": min(values, default=0), "max": max(values, default=0),
        "out_of_range": 0, "histogram": struct.pack(f"={len(counts)}Q", *counts),
    }  # fmt: skip


def _bucket(value: int) -> int:
    """Return the bucket of a value, as native/histogram.h does."""
    shift = max(0, value.bit_length() - 1 - _native.HISTOGRAM_SUB_BITS)
    return min((shift << _native.HISTOGRAM_SUB_BITS) + (value >> shift), _native.HISTOGRAM_BUCKETS - 1)
