"""What a bus tells of itself: health, and which messages were whose when a subscriber joins late."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cfctl.bus import Bus, BusConfig, ResourceExhausted, Subscription, SubscriptionNotFound
from cfctl.bus.health import CONSUMERS
from cfctl.errors import StateError

PATIENCE_S = 30.0


@pytest.fixture
def config(tmp_path: Path) -> BusConfig:
    return BusConfig(directory=tmp_path / "rings", channel_buffer_size=64, payload_bytes=32)


@pytest.fixture
def bus(config: BusConfig) -> Iterator[Bus]:
    with Bus(config) as made:
        yield made


def test_a_bus_that_moves_its_messages_is_healthy(bus: Bus) -> None:
    subscription = bus.subscribe("topic")
    bus.publisher("topic").try_publish(b"x")
    assert subscription.recv(PATIENCE_S) == b"x"
    health = bus.health()
    assert health
    assert all(condition.holds for condition in health.conditions)


def test_an_overrun_is_one_once_and_then_past(bus: Bus) -> None:
    subscription = bus.subscribe("topic")
    publisher = bus.publisher("topic")
    assert subscription.try_recv() is None
    assert bus.publish_many("topic", [b"x"] * 64) == 64
    with pytest.raises(ResourceExhausted):
        publisher.try_publish(b"x")
    health = bus.health()
    assert not health
    assert str(health) == "unhealthy: 1 message rejected by a full ring since the last call"
    assert bus.health()


def test_an_overrun_of_a_subscription_that_ended_counts_once_and_takes_nothing_back(tmp_path: Path) -> None:
    config = BusConfig(directory=tmp_path / "rings", channel_buffer_size=16, overwrite=True)
    with Bus(config) as bus:
        publisher = bus.publisher("topic")

        def lose(subscription: Subscription) -> int:
            for _ in range(100):
                publisher.try_publish(b"x")
            assert subscription.try_recv() == b"x"
            return subscription.counts()["dropped"]

        seen, unseen = bus.subscribe("topic"), bus.subscribe("topic")
        assert lose(seen) > 80
        assert not bus.health()
        bus.unsubscribe(seen)
        assert bus.health(), "what was counted already is not taken back"
        lost = lose(unseen)
        unseen.unsubscribe()
        assert f"{lost} messages dropped" in str(bus.health())
        assert bus.health()


def test_a_consumer_that_died_makes_it_unhealthy_when_no_other_is_left(bus: Bus, config: BusConfig) -> None:
    publisher = bus.publisher("topic")
    ready, done = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        try:
            kept = Bus(config).subscribe("topic")
            os.write(done, b"x")
            signal.pause()
            kept.unsubscribe()
        finally:
            os._exit(0)
    os.read(ready, 1)
    os.close(ready)
    os.close(done)
    assert bus.health().holds(CONSUMERS)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    for _ in range(100):
        publisher.publish(b"x", PATIENCE_S)
    assert bus.health().holds(CONSUMERS) is False
    subscription = bus.subscribe("topic")
    assert subscription.try_recv() is None
    assert bus.health().holds(CONSUMERS)


def test_a_closed_bus_has_no_health(bus: Bus) -> None:
    bus.close()
    with pytest.raises(StateError, match="closed"):
        bus.health()


def test_who_waits_for_a_publisher_reads_it_from_its_first_message(bus: Bus) -> None:
    subscription = bus.subscribe("topic")
    publisher = bus.publisher("topic")
    for number in range(40):
        publisher.try_publish(b"%d" % number)
    assert subscription.recv_many(100) == [b"%d" % number for number in range(40)]
    counts = subscription.counts()
    assert (counts["copies"], counts["delivered"], counts["dropped"]) == (40, 40, 0)


def test_of_what_was_published_before_it_came_a_late_joiner_has_no_copies_and_lost_none(bus: Bus) -> None:
    publisher = bus.publisher("topic")
    for _ in range(1000):
        publisher.try_publish(b"before")
    subscription = bus.subscribe("topic")
    publisher.try_publish(b"after")
    assert subscription.recv(PATIENCE_S) == b"after"
    counts = subscription.counts()
    assert (counts["copies"], counts["delivered"], counts["dropped"], counts["pending"]) == (1, 1, 0, 0)
    assert bus.stats().loss_ratio == 0.0


def test_what_is_published_after_subscribing_is_received_or_refused_also_before_the_first_look(
    bus: Bus,
) -> None:
    subscription = bus.subscribe("topic")
    assert bus.publish_many("topic", [b"%d" % number for number in range(200)]) == 64
    with pytest.raises(ResourceExhausted):
        bus.publisher("topic").try_publish(b"refused")
    assert subscription.recv_many(100) == [b"%d" % number for number in range(64)]
    counts = subscription.counts()
    assert (counts["copies"], counts["delivered"], counts["dropped"]) == (64, 64, 0)


def test_asyncio_times_out_and_a_cancelled_wait_loses_no_message(bus: Bus) -> None:
    subscription = bus.subscribe("topic")

    async def receive() -> bytes | None:
        assert await subscription.recv_async(0.01) is None
        waiting = asyncio.ensure_future(subscription.recv_async())
        await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        bus.publisher("topic").try_publish(b"kept")
        return await subscription.recv_async(PATIENCE_S)

    assert asyncio.run(receive()) == b"kept"


def test_asyncio_iteration_ends_with_its_subscription(bus: Bus) -> None:
    subscription = bus.subscribe("topic")

    async def receive() -> list[bytes]:
        bus.publisher("topic").try_publish(b"x")
        received = []
        async for payload in subscription:
            received.append(payload)
            subscription.unsubscribe()
        return received

    assert asyncio.run(receive()) == [b"x"]
    with pytest.raises(SubscriptionNotFound):
        asyncio.run(subscription.recv_async(0.0))


def test_threads_with_a_subscription_each_receive_all_of_a_publisher_in_a_third(bus: Bus) -> None:
    count = 500
    received: list[list[bytes | None]] = [[], []]
    subscriptions = [bus.subscribe("topic") for _ in received]

    def receive(number: int) -> None:
        for _ in range(count):
            received[number].append(subscriptions[number].recv(PATIENCE_S))

    publisher = bus.publisher("topic")
    for subscription in subscriptions:
        assert subscription.try_recv() is None
    threads = [threading.Thread(target=receive, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for number in range(count):
        publisher.publish(b"%d" % number, PATIENCE_S)
    for thread in threads:
        thread.join(2 * PATIENCE_S)
    assert received[0] == received[1] == [b"%d" % number for number in range(count)]


def test_ending_a_subscription_in_one_thread_ends_the_wait_in_another_at_once(bus: Bus) -> None:
    subscription = bus.subscribe("topic")
    ended: list[float] = []

    def wait() -> None:
        with pytest.raises(SubscriptionNotFound):
            subscription.recv(10 * PATIENCE_S)
        ended.append(time.monotonic())

    thread = threading.Thread(target=wait)
    thread.start()
    bus.unsubscribe(subscription)
    thread.join(PATIENCE_S)
    assert ended
