"""A process that works for a benchmark: `python -P -m cfctl.bench.workload ROLE TOPIC`.

It says "ready" on stdout once its instruments are there, works until its stdin closes, so that it never
outlives who started it, and then removes its own segment. What it does is read from that segment.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Final

from cfctl import _native
from cfctl.bus import Bus, BusConfig, Packet, Wait
from cfctl.errors import ResourceExhausted, TemporalViolation
from cfctl.pool.objects import Pool
from cfctl.profile.profiler import Profiler
from cfctl.segment.process import open_segment

# The operation whose durations are the CPU time that a receiver burnt while it waited.
WAITING: Final = "waiting"
# A payload that stays in a slot of one cache line.
_PAYLOAD: Final = bytes(32)
_RING: Final = 1 << 14
_BATCH: Final = 256
_PACE_NS: Final = 20_000
_SLEEP_S: Final = 100e-6
_SCHEDULE_S: Final = 2e-3
_ALLOWED_NS: Final = 50_000_000
# No wait is longer, so that the end is seen.
_LONGEST_WAIT_S: Final = 0.05

Going = Callable[[], bool]


def publish(topic: str, going: Going) -> None:
    """Publish as fast as the ring takes it; nothing is refused for good."""
    with Bus(BusConfig(_RING, payload_bytes=len(_PAYLOAD)), own=True) as bus:
        publisher, batch = bus.publisher(topic), [_PAYLOAD] * _BATCH
        _ready()
        while going():
            if publisher.publish_many(batch) < _BATCH:
                with contextlib.suppress(ResourceExhausted):
                    publisher.publish(_PAYLOAD, _LONGEST_WAIT_S)


def receive(topic: str, going: Going) -> None:
    """Receive in batches; wait as the bus does by itself when there is nothing."""
    waiting = Profiler().operation(WAITING)
    with Bus(BusConfig(payload_bytes=len(_PAYLOAD)), own=True) as bus:
        subscription = bus.subscribe(topic)
        _ready()
        while going():
            if not subscription.recv_many(4 * _BATCH):
                before = time.thread_time_ns()
                subscription.recv(_LONGEST_WAIT_S)
                waiting.record(time.thread_time_ns() - before)


def publish_paced(topic: str, going: Going) -> None:
    """Publish one message after the other, with time in between so that none waits for another.

    Spins in between, as a publisher with such a budget does: one that sleeps finds its caches cold.
    """
    waiting = Profiler().operation(WAITING)
    pace_ns = _PACE_NS if _has_two_cpus() else 0
    with Bus(BusConfig(payload_bytes=len(_PAYLOAD)), own=True) as bus:
        publisher = bus.publisher(topic)
        _ready()
        while going():
            with contextlib.suppress(ResourceExhausted):
                publisher.publish(_PAYLOAD, _LONGEST_WAIT_S)
            if not pace_ns:
                time.sleep(_SLEEP_S)
                continue
            before, due_ns = time.thread_time_ns(), time.monotonic_ns() + pace_ns
            while time.monotonic_ns() < due_ns:
                pass
            waiting.record(time.thread_time_ns() - before)


def receive_spinning(topic: str, going: Going) -> None:
    """Receive at once, at the price of a CPU; with a single CPU, which the publisher needs, asleep."""
    waiting = Profiler().operation(WAITING)
    wait = Wait.SPIN if _has_two_cpus() else Wait.PARK
    with Bus(BusConfig(payload_bytes=len(_PAYLOAD), wait=wait), own=True) as bus:
        subscription = bus.subscribe(topic)
        _ready()
        while going():
            before = time.thread_time_ns()
            subscription.recv(_LONGEST_WAIT_S)
            waiting.record(time.thread_time_ns() - before)


def schedule(topic: str, going: Going) -> None:
    """Publish through the dispatcher, each with a deadline, and receive."""
    with Bus(own=True) as bus:
        subscription = bus.subscribe(topic)
        _ready()
        while going():
            # A full queue and a deadline that has passed are counted by the bus.
            with contextlib.suppress(ResourceExhausted, TemporalViolation):
                bus.publish_with_deadline(Packet(topic, _PAYLOAD), time.time_ns() + _ALLOWED_NS)
            subscription.recv_many(64)
            time.sleep(_SCHEDULE_S)


def operate(topic: str, going: Going) -> None:
    """Time an operation with nothing in it: what it lasts is what timing costs."""
    operation = Profiler().operation(topic)
    _ready()
    while going():
        for _ in range(100):
            with operation:
                pass


def take_and_return(topic: str, going: Going) -> None:
    """Take an item from a pool and give it back, again and again."""
    pool = Pool(bytearray, name=topic)
    operation = Profiler().operation(f"acquire and release, {topic}")
    _ready()
    while going():
        for _ in range(100):
            with operation:
                pool.release(pool.acquire())


ROLES: Final[dict[str, Callable[[str, Going], None]]] = {
    role.__name__: role
    for role in (publish, receive, publish_paced, receive_spinning, schedule, operate, take_and_return)
}


def _has_two_cpus() -> bool:
    return len(os.sched_getaffinity(0)) > 1


def _ready() -> None:
    sys.stdout.write("ready\n")
    sys.stdout.flush()


def main(role: str, topic: str) -> None:
    """Do what a role does until stdin closes."""
    # A terminal's Ctrl-C is for who started it, which then closes stdin.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Without a segment nobody could read what was measured.
    warnings.simplefilter("error", RuntimeWarning)
    ended = threading.Event()

    def wait_for_the_end() -> None:
        while os.read(0, 4096):
            pass
        ended.set()

    open_segment()
    segment = Path(_native.segment_open()[0])
    threading.Thread(target=wait_for_the_end, daemon=True).start()
    try:
        ROLES[role](topic, lambda: not ended.is_set())
    finally:
        segment.unlink(missing_ok=True)


if __name__ == "__main__":
    main(*sys.argv[1:3])
