"""The bus between real processes: delivery, order, deaths, fork, signals, a full file system."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cfctl.bus import (
    Bus,
    BusConfig,
    Packet,
    QuantumOffset,
    ResourceExhausted,
    SubscriptionNotFound,
    TemporalViolation,
    Wait,
)
from cfctl.bus.reaper import prunable_rings, remove_rings, remove_topics
from cfctl.bus.rings import list_rings
from cfctl.errors import StateError

KILLS = 20


@pytest.fixture
def config(tmp_path: Path) -> BusConfig:
    return BusConfig(directory=tmp_path / "rings", channel_buffer_size=64, payload_bytes=32)


@pytest.fixture
def bus(config: BusConfig) -> Iterator[Bus]:
    with Bus(config) as made:
        yield made


def in_child(work: Callable[[], None]) -> int:
    """Run `work` in a forked child, which then ends without any clean-up; return its pid."""
    pid = os.fork()
    if pid == 0:
        # Not left behind by a test that failed.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(60)
        try:
            work()
        finally:
            os._exit(0)
    return pid


@pytest.mark.parametrize("wait", list(Wait))
def test_messages_arrive_whole_and_in_order_from_another_process(tmp_path: Path, wait: Wait) -> None:
    # Large enough that a publisher is found in its first lap, of which nothing is missed.
    config = BusConfig(directory=tmp_path / "rings", channel_buffer_size=1024, wait=wait)
    payloads = [bytes([i % 256]) * (i * 7 % 300) for i in range(500)]

    def publish() -> None:
        publisher = Bus(config).publisher("topic")
        for payload in payloads:
            publisher.publish(payload, 20.0)

    with Bus(config) as bus:
        subscription = bus.subscribe("topic")
        child = in_child(publish)
        assert [subscription.recv(20.0) for _ in payloads] == payloads
        os.waitpid(child, 0)
        assert subscription.recv(0.0) is None
        counts = subscription.counts()
    assert counts["copies"] == counts["delivered"] == len(payloads)
    assert counts["dropped"] == counts["pending"] == 0


def test_a_full_ring_refuses_at_once_and_counts_it(bus: Bus) -> None:
    subscription = bus.subscribe("topic")
    publisher = bus.publisher("topic")
    assert subscription.try_recv() is None  # joined
    assert bus.publish_many("topic", [b"x"] * 100) == 64
    with pytest.raises(ResourceExhausted, match="ring is full"):
        publisher.try_publish(b"y")
    with pytest.raises(ResourceExhausted):
        publisher.publish(b"y", 0.01)
    (sent,), (received,) = bus.stats().publishers, bus.stats().subscriptions
    assert (sent.published, sent.rejected, sent.pending, sent.high_water) == (64, 2, 64, 64)
    assert (received.copies, received.delivered, received.pending) == (64, 0, 64)
    assert received.oldest_age_ticks is not None
    assert subscription.recv_many(1000) == [b"x"] * 64
    assert bus.publish(Packet("topic", b"z")) > 0
    assert subscription.recv(1.0) == b"z"


def test_copies_are_delivered_dropped_or_pending_when_the_ring_overwrites(tmp_path: Path) -> None:
    config = BusConfig(directory=tmp_path / "rings", channel_buffer_size=16, overwrite=True)
    with Bus(config) as bus:
        subscription = bus.subscribe("topic")
        publisher = bus.publisher("topic")
        assert subscription.try_recv() is None  # joined
        for number in range(100):
            publisher.try_publish(b"%d" % number)
        first = subscription.try_recv()
        assert first is not None
        counts = subscription.counts()
        assert counts["copies"] == 100 == counts["delivered"] + counts["dropped"] + counts["pending"]
        assert counts["delivered"] == 1
        assert counts["dropped"] == int(first)
        assert bus.stats().loss_ratio == int(first) / 100


@pytest.mark.parametrize("topic", ["../../etc/passwd", "a/b", "two words", "x" * 1024, "ü", "."])
def test_any_text_is_a_topic_and_none_leaves_the_directory(config: BusConfig, topic: str) -> None:
    with Bus(config) as bus:
        subscription = bus.subscribe(topic)
        bus.publisher(topic).try_publish(b"x")
        assert subscription.recv(1.0) == b"x"
        rings, errors = list_rings(config.directory)
        assert [ring.topic for ring in rings] == [topic]
        assert not errors
        assert {path.suffix for path in config.directory.iterdir()} == {".ring", ".topic", ".leases"}
    # What nobody uses any more is gone: only the file that the leases are taken on stays.
    assert {path.suffix for path in config.directory.iterdir()} == {".leases"}


def test_a_subscription_that_ended_is_refused_and_ending_it_again_is_nothing(bus: Bus) -> None:
    subscription = bus.subscribe("topic")
    bus.unsubscribe(subscription.id)
    bus.unsubscribe(subscription)
    for use in (subscription.try_recv, subscription.recv, lambda: bus.subscription(subscription.id)):
        with pytest.raises(SubscriptionNotFound):
            use()
    with pytest.raises(SubscriptionNotFound):
        bus.unsubscribe(1)


def test_a_subscription_that_nobody_refers_to_leaves_the_gate(bus: Bus) -> None:
    subscription = bus.subscribe("topic")
    watched = weakref.ref(subscription)
    publisher = bus.publisher("topic")
    publisher.try_publish(b"x")
    assert subscription.recv(1.0) == b"x"
    del subscription
    gc.collect()
    assert watched() is None
    assert bus.stats().active_subscriptions == 0
    for _ in range(200):
        publisher.try_publish(b"x")


def test_a_killed_subscriber_leaves_the_gate_and_is_counted(bus: Bus, config: BusConfig) -> None:
    publisher = bus.publisher("topic")
    for death in range(1, KILLS + 1):
        ready, done = os.pipe()

        def subscribe(done: int = done) -> None:
            subscription = Bus(config).subscribe("topic")
            os.write(done, b"x")
            while True:
                subscription.recv(10.0)

        child = in_child(subscribe)
        os.read(ready, 1)
        for _ in range(death):
            publisher.publish(b"x", 10.0)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        for _ in range(200):
            publisher.publish(b"x", 10.0)
        os.close(ready)
        os.close(done)
        assert publisher.counts()["orphaned"] == death


def test_of_a_killed_publisher_all_that_arrives_is_whole_and_in_order(config: BusConfig) -> None:
    with Bus(config) as bus:
        subscription = bus.subscribe("topic")
        for death in range(KILLS):

            def publish() -> None:
                publisher = Bus(config).publisher("topic")
                for number in range(1 << 40):
                    publisher.publish(b"%030d" % number)

            child = in_child(publish)
            # Joined within the publisher's first laps, from then on without a gap.
            number = int(subscription.recv(20.0) or b"-1")
            for _ in range(100 + 37 * death):
                number += 1
                assert subscription.recv(20.0) == b"%030d" % number
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            for payload in subscription.recv_many(1000):
                number += 1
                assert payload == b"%030d" % number
            assert subscription.recv(0.0) is None
        assert subscription.counts()["damaged"] == 0


def test_a_forked_child_cannot_use_its_parents_endpoints(bus: Bus) -> None:
    subscription = bus.subscribe("topic")
    publisher = bus.publisher("topic")
    reading, writing = os.pipe()

    def use() -> None:
        refused = 0
        for call in (lambda: publisher.try_publish(b"x"), subscription.try_recv):
            try:
                call()
            except StateError:
                refused += 1
        bus.close()
        os.write(writing, b"%d" % refused)

    os.waitpid(in_child(use), 0)
    assert os.read(reading, 1) == b"2"
    publisher.try_publish(b"parent")
    assert subscription.recv(1.0) == b"parent"


def test_a_signal_handler_runs_while_a_message_is_awaited(bus: Bus) -> None:
    class RangError(Exception):
        pass

    def ring(*_: object) -> None:
        raise RangError

    before = signal.signal(signal.SIGALRM, ring)
    subscription = bus.subscribe("topic")
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(RangError):
            subscription.recv(30.0)
    finally:
        signal.signal(signal.SIGALRM, before)
    bus.publisher("topic").try_publish(b"after")
    assert subscription.recv(1.0) == b"after"


def test_a_thread_that_waits_is_woken_when_its_subscription_ends(bus: Bus) -> None:
    subscription = bus.subscribe("topic")
    ended: list[bool] = []

    def wait() -> None:
        ended.append(list(subscription) == [b"x"])

    thread = threading.Thread(target=wait)
    thread.start()
    bus.publisher("topic").try_publish(b"x")
    end = time.monotonic() + 10
    while subscription.counts()["delivered"] == 0 and time.monotonic() < end:
        time.sleep(0.001)
    bus.unsubscribe(subscription)
    thread.join(10.0)
    assert ended == [True]


def test_a_parked_subscription_sleeps_however_long_an_adaptive_one_would_spin(tmp_path: Path) -> None:
    def cpu_share(wait: Wait) -> float:
        config = BusConfig(directory=tmp_path / wait, wait=wait, spin_us=1e6)
        with Bus(config) as endpoint:
            inbox = endpoint.subscribe("silence")
            began = time.thread_time()
            assert inbox.recv(0.2) is None
            return (time.thread_time() - began) / 0.2

    # Shares of CPU time, not speed: what spins takes all of the CPU that it gets.
    assert cpu_share(Wait.PARK) < 0.1
    assert cpu_share(Wait.ADAPTIVE) > cpu_share(Wait.PARK)


def test_asyncio_receives(bus: Bus) -> None:
    subscription = bus.subscribe("topic")

    async def receive() -> list[bytes]:
        received = []
        publishing = asyncio.get_running_loop().call_later(0.01, bus.publish_many, "topic", [b"a", b"b"])
        async for payload in subscription:
            received.append(payload)
            if len(received) == 2:
                break
        publishing.cancel()
        return received

    assert asyncio.run(receive()) == [b"a", b"b"]


def test_a_higher_priority_overtakes(bus: Bus) -> None:
    subscription = bus.subscribe("topic")
    for priority in (0, 5, 1):
        bus.publish(Packet("topic", b"%d" % priority, priority))
    assert subscription.recv_many(10) == [b"5", b"1", b"0"]


def test_dependencies_of_another_process_are_awaited_or_timed_out(tmp_path: Path) -> None:
    config = BusConfig(directory=tmp_path / "rings", dependency_timeout_ms=50.0)
    with Bus(config) as first, Bus(config) as second, Bus(config) as receiver:
        subscription = receiver.subscribe("effect")
        causes = receiver.subscribe("cause")
        cause = first.publish(Packet("cause", b"cause"))
        effect = Packet("effect", b"effect")
        effect.add_temporal_correlation([cause])
        second.publish(effect)
        deadline = time.monotonic() + 10
        while receiver.temporal_metrics().incoming.held_by_deps == 0 and time.monotonic() < deadline:
            assert subscription.try_recv() is None or receiver.temporal_metrics().incoming.unmet_delivered
        assert causes.recv(10.0) == b"cause"
        message = subscription.recv_message(10.0)
        assert message is not None
        assert message.payload == b"effect"
        assert message.dependencies == (cause,)
        counts = receiver.temporal_metrics()
        assert counts.causality.dependency == len(message.unmet)
        lost = Packet("effect", b"alone")
        lost.add_temporal_correlation([cause + 100])
        second.publish(lost)
        message = subscription.recv_message(10.0)
        assert message is not None
        assert message.unmet == {cause + 100}
        assert receiver.temporal_metrics().causality.dependency == counts.causality.dependency + 1


def test_a_deadline_that_passed_is_refused_and_the_dispatcher_measures_its_phases(bus: Bus) -> None:
    subscription = bus.subscribe("topic")
    with pytest.raises(TemporalViolation):
        bus.publish_with_deadline(Packet("topic", b"late"), time.time_ns() - 1)
    offset = QuantumOffset(amplitude=0.2, frequency=1.5, phase=1800)
    for number in range(40):
        packet = Packet.with_quantum_optimization("topic", b"%d" % number, offset)
        bus.publish_with_deadline(packet, time.time_ns() + 10_000_000_000)
    received = [subscription.recv_message(10.0) for _ in range(40)]
    assert all(m is not None and not m.late and m.deadline_unix_ns is not None for m in received)
    metrics = bus.temporal_metrics()
    assert metrics.outgoing.refused == 1
    assert metrics.outgoing.delivered == metrics.coherence.samples == 40
    assert metrics.coherence.score is not None
    assert metrics.deadline_violations == 0


def test_the_reaper_removes_what_has_ended_and_nothing_that_is_used(config: BusConfig) -> None:
    with Bus(config) as bus:
        kept = bus.subscribe("kept")
        bus.publisher("kept").try_publish(b"x")
        os.waitpid(in_child(lambda: print(Bus(config).publisher("killed").ring_id)), 0)
        rings, _ = list_rings(config.directory)
        assert {(ring.topic, ring.live, ring.closed) for ring in rings} == {
            ("kept", True, False),
            ("killed", False, False),
        }
        ended = prunable_rings(rings, time.time_ns(), 0)
        assert [ring.topic for ring in ended] == ["killed"]
        assert remove_rings(rings) == 1
        assert remove_topics(config.directory) == 1
        assert kept.recv(1.0) == b"x"


def test_a_directory_without_space_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    program = """
import resource, sys
from pathlib import Path
from cfctl.bus import Bus, BusConfig
from cfctl.errors import StateError
config = BusConfig(directory=Path(sys.argv[1]))
with Bus(config) as bus:
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
    try:
        bus.publisher("topic")
    except StateError as error:
        print(error.why)
"""
    result = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "rings")], capture_output=True, text=True, timeout=60
    )
    assert "File too large" in result.stdout, result.stderr
    assert not list((tmp_path / "rings").glob("*.ring"))


def test_a_closed_bus_says_so(config: BusConfig) -> None:
    bus = Bus(config)
    bus.close()
    bus.close()
    with pytest.raises(StateError, match="closed"):
        bus.publisher("topic")
