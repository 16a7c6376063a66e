"""`python -m tests.bus [sustained|content|killed ...]`: what the bus promises, at full length.

sustained: a million messages a second in an open loop for a minute, loss 0. content: a hundred million
messages checked for content and order across processes. killed: either side ended by SIGKILL at random a
thousand times; what is received is whole and in order, and the side that is left does not stall. Takes
about ten minutes in all, and two CPUs whole. CFCTL_TEST_SCALE=0.01 is a rehearsal.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# The installed package is tested: the source tree, which -m puts first, has no compiled core.
if not list((ROOT / "cfctl").glob("_native*.so")):
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT]

from cfctl.bench.bus import bench  # noqa: E402
from cfctl.bus import Bus, BusConfig, Subscription, Wait  # noqa: E402

SCALE = float(os.environ.get("CFCTL_TEST_SCALE", "1"))
SUSTAINED_HZ, SUSTAINED_NS = 1_000_000, 60_000_000_000
MESSAGES, BATCH, KILLS = 100_000_000, 256, 1000
CAPACITY = 4096
TOPIC = "full length"
# A prime number of them, so that a slot of a ring sees all.
REST = [random.Random(each).randbytes(each * 7 % 89) for each in range(1009)]
STALL_S = 30.0
# Nothing outlives a run that was killed by much.
LIFE_S = 1800
PUBLISHER = """
import sys
from tests.bus import publish_for_ever
publish_for_ever(int(sys.argv[1]))
"""
SUBSCRIBER = """
from tests.bus import receive_for_ever
receive_for_ever()
"""


def payload(number: int) -> bytes:
    """Return a payload that follows from its number: the number, and 0 to 88 bytes of its residue."""
    return number.to_bytes(8, "little") + REST[number % len(REST)]


def sustained() -> str | None:
    """Return what went wrong with a million messages a second for a minute."""
    found = bench(size=32, rate_hz=SUSTAINED_HZ, duration_ns=int(SUSTAINED_NS * SCALE))
    rate, loss = found.achieved_rate.value or 0.0, found.loss.value
    print(f"  offered {found.offered} at {rate:.0f} a second; full {found.refused} times; "
          f"dropped {found.dropped}; stalls {found.stalls}; floor {found.floor.value} ns")  # fmt: skip
    if loss != 0:
        return f"loss {loss}"
    return None if rate > 0.99 * SUSTAINED_HZ else f"the publisher came to {rate:.0f} a second only"


def content() -> str | None:
    """Return what went wrong with a hundred million messages between two processes."""
    total = int(MESSAGES * SCALE) // BATCH * BATCH
    with _bus() as bus, _started(PUBLISHER, str(total)):
        subscription, received, began = bus.subscribe(TOPIC), 0, time.monotonic()
        while received < total:
            many = _many(subscription)
            if not many:
                return f"silence after {received} messages"
            for each in many:
                if each != payload(received):
                    return f"message {received} is {each!r}"
                received += 1
        counts = subscription.counts()
        print(f"  {received} messages in {time.monotonic() - began:.0f} s; dropped {counts['dropped']}")
        return None if counts["dropped"] == 0 else f"dropped {counts['dropped']}"


def killed() -> str | None:
    """Return what went wrong while either side was killed again and again."""
    total, rng = int(KILLS * SCALE), random.Random()
    for number in range(total // 2):
        problem = _kill_publisher(rng) or _kill_subscriber(rng)
        if problem:
            return f"after {2 * number} kills: {problem}"
    print(f"  {total // 2} publishers and {total // 2} subscribers killed")
    return None


def _kill_publisher(rng: random.Random) -> str | None:
    with _bus() as bus:
        subscription, expected = bus.subscribe(TOPIC), 0
        with _started(PUBLISHER, str(1 << 60)) as publisher:
            end = None
            while end is None or time.monotonic() < end:
                for each in _many(subscription):
                    if each != payload(expected):
                        return f"message {expected} is {each!r}"
                    expected += 1
                if expected == 0:
                    return "the publisher did not come"
                end = end or time.monotonic() + rng.random() * 0.01
            publisher.kill()
            publisher.wait()
        # What it published is there to its end; then there is nothing, and nobody waits for it.
        while many := subscription.recv_many(BATCH):
            for each in many:
                if each != payload(expected):
                    return f"message {expected}, after the publisher's death, is {each!r}"
                expected += 1
        own = bus.publisher(TOPIC)
        own.try_publish(b"still there")
        last = subscription.recv(STALL_S)
        return None if last == b"still there" else f"after the publisher's death came {last!r}"


def _kill_subscriber(rng: random.Random) -> str | None:
    with _bus() as bus:
        publisher = bus.publisher(TOPIC)
        with _started(SUBSCRIBER) as subscriber:
            end = time.monotonic() + STALL_S
            while publisher.counts()["readers"] < 1:
                if time.monotonic() > end:
                    return "the subscriber did not come"
                time.sleep(0.001)
            number, end = 0, time.monotonic() + rng.random() * 0.01
            while time.monotonic() < end:
                publisher.publish(payload(number), STALL_S)
                number += 1
            subscriber.kill()
            subscriber.wait()
        # The dead reader leaves the gate: two rings full of messages find room.
        for each in range(number, number + 2 * CAPACITY):
            publisher.publish(payload(each), STALL_S)
        orphaned = publisher.counts()["orphaned"]
        return None if orphaned == 1 else f"{orphaned} readers counted as dead"


def _bus() -> Bus:
    return Bus(BusConfig(CAPACITY, payload_bytes=96, wait=Wait.ADAPTIVE))


def _many(subscription: Subscription) -> list[bytes]:
    """Return what is there, waiting for it; [] after a stall."""
    first = subscription.recv(STALL_S)
    return [] if first is None else [first, *subscription.recv_many(BATCH)]


@contextlib.contextmanager
def _started(program: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", program, *arguments]) as process:
        try:
            yield process
        finally:
            process.kill()


def publish_for_ever(total: int) -> None:
    """Publish the payloads of 0 to `total` once somebody reads, one call each."""
    signal.alarm(LIFE_S)
    with _bus() as bus:
        publisher = bus.publisher(TOPIC)
        while publisher.counts()["readers"] < 1:
            time.sleep(0.0005)
        for number in range(total):
            publisher.publish(payload(number))
        signal.pause()


def receive_for_ever() -> None:
    """Check what is received against its number, and end with it when it is wrong."""
    signal.alarm(LIFE_S)
    with _bus() as bus:
        subscription = bus.subscribe(TOPIC)
        while True:
            for each in _many(subscription):
                if each != payload(int.from_bytes(each[:8], "little")):
                    os.abort()


PROGRAMMES: dict[str, Callable[[], str | None]] = {
    "sustained": sustained,
    "content": content,
    "killed": killed,
}


def main(names: list[str]) -> int:
    """Run the named programmes, all without a name; return 1 when one of them failed."""
    unknown = set(names) - set(PROGRAMMES)
    if unknown:
        print(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(PROGRAMMES)}", file=sys.stderr)
        return 2
    failed = 0
    for name in names or PROGRAMMES:
        place = Path("/dev/shm")
        with tempfile.TemporaryDirectory(dir=place if place.is_dir() else None) as directory:
            os.environ["CFCTL_SEGMENT_DIR"] = directory
            problem = PROGRAMMES[name]()
        print(f"{name}: {problem or 'ok'}", flush=True)
        failed += problem is not None
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
