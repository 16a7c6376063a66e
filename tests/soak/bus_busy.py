"""Closing what other threads use: each ends with the documented error, and nothing crashes, hangs or is left."""

from __future__ import annotations

import asyncio
import gc
import random
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from cfctl.bus import Bus, BusConfig, BusTimeout, Packet, Publisher, ResourceExhausted, Subscription
from cfctl.bus import SubscriptionNotFound as Ended
from cfctl.errors import StateError
from tests.soak.bus_payloads import WrongError

TOPIC: Final = "busy"
# Far more than a call takes to notice that what it uses was closed.
PATIENCE_S: Final = 30.0
_CAPACITY: Final = 16

Use = Callable[["Place"], object]


class Place:
    """A bus with a publisher and a subscription that others feed and drain while it is used and closed."""

    def __init__(self) -> None:
        self.bus = Bus(BusConfig(channel_buffer_size=_CAPACITY, wait="adaptive"))  # type: ignore[arg-type]
        self.subscription: Subscription = self.bus.subscribe(TOPIC)
        self.publisher: Publisher = self.bus.publisher(TOPIC)
        self.other = Bus(self.bus.config)
        self.feeding = self.other.publisher(TOPIC)
        self.draining = self.other.subscribe(TOPIC)
        self.stopped = False

    def feed(self) -> None:
        """Publish and take messages, among them some that wait for a cause that never comes."""
        while not self.stopped:
            try:
                self.feeding.try_publish(b"x")
                self.other.publish(Packet(TOPIC, b"held", dependencies=(7 << 48 | 1 << 47 | 5,)))
            except ResourceExhausted:
                pass
            self.draining.recv_many(100)

    def close(self, how: int) -> None:
        """End the subscription, the publisher, or the bus with all that it has."""
        if how == 0:
            self.bus.unsubscribe(self.subscription)
            self.publisher.close()
        elif how == 1:
            self.subscription.unsubscribe()
            self.bus.close(0.0)
        else:
            self.bus.close(0.0)


class _Buffer(bytearray):
    """A payload that takes the publisher's slow path."""


def _view(place: Place) -> None:
    with place.subscription.recv_view(0.05) as view:
        if view is not None:
            bytes(view)


def _loan(place: Place) -> None:
    with place.publisher.loan(8) as memory:
        memory[:] = b"12345678"


def _iterate(place: Place) -> None:
    for _ in place.subscription:
        pass
    raise Ended("the subscription has ended")


def _receive_async(place: Place) -> None:
    asyncio.run(place.subscription.recv_async(0.05))


USES: Final[dict[str, Use]] = {
    "recv": lambda place: place.subscription.recv(0.05),
    "recv_message": lambda place: place.subscription.recv_message(0.05),
    "recv_many": lambda place: place.subscription.recv_many(20),
    "recv_view": _view,
    "iteration": _iterate,
    "recv_async": _receive_async,
    "fileno": lambda place: (place.subscription.fileno(), place.subscription.try_recv()),
    "publish": lambda place: place.publisher.publish(b"x", 0.05),
    "publish buffer": lambda place: place.publisher.publish(_Buffer(b"x" * 300), 0.05),
    "publish_many": lambda place: place.publisher.publish_many([b"x", _Buffer(b"y")]),
    "loan": _loan,
    "wait_for_subscribers": lambda place: place.publisher.wait_for_subscribers(200, 0.05),
    "request": lambda place: place.bus.request("nobody", b"x", 0.02),
    "serve": lambda place: place.bus.serve("nobody").recv(0.02),
    "flush": lambda place: (
        place.bus.publish_with_deadline(Packet(TOPIC, b"x"), time.time_ns() + 10**9) and place.bus.flush(0.02)
    ),
    "counts": lambda place: (place.bus.stats(), place.subscription.counts(), place.publisher.counts()),
}


def close_while_used(name: str, how: int, delay_s: float) -> None:
    """Use a place in a thread until it is closed by another; raises WrongError for a wrong end."""
    place, ends = Place(), list[BaseException]()

    def use() -> None:
        try:
            while True:
                try:
                    USES[name](place)
                except (ResourceExhausted, BusTimeout):
                    continue
        except BaseException as error:  # noqa: BLE001 - how it ended is what is asked
            ends.append(error)

    threads = [threading.Thread(target=use, daemon=True), threading.Thread(target=place.feed, daemon=True)]
    for thread in threads:
        thread.start()
    time.sleep(delay_s)
    place.close(how)
    # With only the two endpoints closed, what is of the bus goes on.
    place.bus.close(0.0)
    threads[0].join(PATIENCE_S)
    place.stopped = True
    threads[1].join(PATIENCE_S)
    if any(thread.is_alive() for thread in threads):
        raise WrongError(f"{name} hangs after close {how}")
    place.other.close(0.0)
    if not ends or not isinstance(ends[0], (Ended, StateError)):
        raise WrongError(f"{name} ended with {ends!r} after close {how}")


def busy(rounds: int, report: Callable[[str], None], seed: int) -> dict[str, int]:
    """Close what is used so many times; return how often each use was. Raises WrongError."""
    rng, counts = random.Random(seed), dict.fromkeys(USES, 0)
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        close_while_used("recv", 0, 0.0)
        gc.collect()
        descriptors, threads = sum(1 for _ in Path("/proc/self/fd").iterdir()), threading.active_count()
        for number in range(rounds):
            name = rng.choice(list(USES))
            close_while_used(name, rng.randrange(3), rng.random() * 0.004)
            counts[name] += 1
            if number % 1000 == 999:
                report(f"{number + 1} of {rounds}")
        gc.collect()
        left = sum(1 for _ in Path("/proc/self/fd").iterdir()) - descriptors
        if left > 0 or threading.active_count() > threads:
            raise WrongError(f"left: {left} descriptors, {threading.active_count() - threads} threads")
    finally:
        sys.setswitchinterval(interval_s)
    return counts
