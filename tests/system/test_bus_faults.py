"""Faults that the bus once had, each with the right value."""

from __future__ import annotations

import inspect
import os
import sys
import time
from pathlib import Path

import pytest

from cfctl import _native
from cfctl.bus import Bus, BusConfig, LimitError, Packet, ResourceExhausted
from cfctl.errors import InputError, StateError

PATIENCE_S = 30.0


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CFCTL_SEGMENT_DIR", str(tmp_path / "bus"))
    return tmp_path / "bus"


@pytest.mark.parametrize("size", [1, 200])
def test_a_look_at_the_readers_before_a_late_look_at_the_ring_loses_nothing(size: int) -> None:
    with Bus(BusConfig(channel_buffer_size=16)) as bus:
        subscription, publisher = bus.subscribe("t"), bus.publisher("t")
        sent = [b"%d" % number * size for number in range(100)]
        for payload in sent[:4]:
            publisher.try_publish(payload)
        bus.stats()
        received = [subscription.try_recv()]
        accepted = 4 + publisher.publish_many(sent[4:])
        with pytest.raises(ResourceExhausted):
            publisher.try_publish(b"refused")
        while (message := subscription.try_recv()) is not None:
            received.append(message)
        assert received == sent[:accepted]
        # One had been taken when the ring was filled.
        assert 16 <= accepted <= 17
        assert subscription.counts()["dropped"] == 0


@pytest.mark.parametrize(("count", "size"), [(1023, 10), (1024, 10), (1500, 10), (200, 10_000)])
def test_what_was_accepted_after_subscribing_is_received(count: int, size: int) -> None:
    with Bus() as bus:
        subscription, publisher = bus.subscribe("t"), bus.publisher("t")
        accepted = 0
        for _ in range(count):
            try:
                publisher.try_publish(b"x" * size)
            except ResourceExhausted:
                continue
            accepted += 1
        assert len(subscription.recv_many(10_000)) == accepted
        assert bus.stats().publishers[0].rejected == count - accepted


def test_a_large_payload_that_was_taken_holds_no_space() -> None:
    with Bus() as bus:
        subscription, publisher = bus.subscribe("t"), bus.publisher("t")
        for number in range(100):
            publisher.try_publish(b"%d" % number * 30_000)
            assert subscription.try_recv() == b"%d" % number * 30_000
            publisher.try_publish(bytes(65_536))
            with subscription.recv_view(0.0) as view:
                assert view is not None
                assert len(view) == 65_536


def test_every_subscription_hears_a_publisher_or_is_refused() -> None:
    with Bus() as bus:
        publisher = bus.publisher("fan")
        subscriptions = [bus.subscribe("fan") for _ in range(256)]
        with pytest.raises(LimitError, match="256"):
            bus.subscribe("fan")
        publisher.publish(b"hi")
        assert [each.try_recv() for each in subscriptions] == [b"hi"] * 256


def test_every_publisher_is_heard_or_refused() -> None:
    with Bus() as bus:
        subscription = bus.subscribe("many")
        buses = [Bus() for _ in range(64)]
        for each in buses:
            each.publisher("many").publish(b"x")
        assert subscription.recv_many(1000) == [b"x"] * 64
        for priority in range(256 - 64):
            bus.publisher("many", priority=priority)
        with pytest.raises(LimitError, match="256"):
            bus.publisher("many", priority=255)
        for each in buses:
            each.close()


def test_an_endpoint_takes_no_descriptor_and_a_publisher_reads_no_other_ring(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def descriptors() -> int:
        return sum(1 for _ in Path("/proc/self/fd").iterdir())

    def read_calls(topic: str) -> int:
        before = int(Path("/proc/self/io").read_text().split("syscr: ")[1].split()[0])
        bus.publisher(topic)
        return int(Path("/proc/self/io").read_text().split("syscr: ")[1].split()[0]) - before

    with Bus() as bus:
        first, held = read_calls("first"), descriptors()
        for number in range(300):
            bus.publisher(f"topic {number}")
            bus.subscribe(f"topic {number}")
        assert descriptors() == held
        assert read_calls("last") <= first


def test_of_payloads_that_are_not_all_usable_none_is_published() -> None:
    with Bus() as bus:
        subscription, publisher = bus.subscribe("t"), bus.publisher("t")
        for wrong in ("no", b"x" * (publisher.max_payload + 1), None):
            with pytest.raises(InputError):
                publisher.publish_many([b"a"] * 20 + [wrong, b"b"])  # type: ignore[list-item]
        assert subscription.try_recv() is None
        assert publisher.publish_many([b"a", bytearray(b"b"), memoryview(b"c")]) == 3
        assert subscription.recv_many(10) == [b"a", b"b", b"c"]


def test_a_closed_ring_stays_until_its_last_message_is_taken(directory: Path) -> None:
    with Bus() as writer, Bus() as reader:
        subscription, publisher = reader.subscribe("late"), writer.publisher("late")
        for number in range(5):
            publisher.try_publish(b"%d" % number)
        writer.close()
        # Whatever sweeps: a new publisher, and a bus that is made a day later.
        stamp = time.time() - 86_400
        os.utime(directory / "bus.leases", (stamp, stamp))
        with Bus() as other:
            other.publisher("other")
            other.publisher("late")
        assert subscription.recv_many(10) == [b"0", b"1", b"2", b"3", b"4"]
        assert subscription.counts()["dropped"] == 0
        subscription.unsubscribe()
        assert not list(directory.glob("*.ring"))


@pytest.mark.parametrize("by_bus", [True, False])
def test_a_subscription_that_ended_either_way_is_in_no_statistics(by_bus: bool) -> None:
    with Bus() as bus:
        subscription = bus.subscribe("t")
        if by_bus:
            bus.unsubscribe(subscription)
        else:
            subscription.unsubscribe()
        assert bus.stats().active_subscriptions == 0
        assert bus.health()


def test_a_bound_method_keeps_its_subscription() -> None:
    with Bus() as bus:
        receive, publisher = bus.subscribe("t").recv, bus.publisher("t")
        publisher.publish(b"x")
        assert receive(PATIENCE_S) == b"x"
        assert bus.subscribe("t").recv(0.0) is None


def test_the_core_declares_neither_free_threads_nor_interpreters_of_their_own() -> None:
    if sys.version_info >= (3, 13):
        assert sys._is_gil_enabled()
    interpreters = pytest.importorskip(
        "_interpreters" if sys.version_info >= (3, 13) else "_xxsubinterpreters"
    )
    made = interpreters.create()
    try:
        if sys.version_info >= (3, 13):
            failure = interpreters.exec(made, f"import sys; sys.path[:] = {sys.path!r}; import cfctl._native")
            assert failure is not None
            assert "does not support" in failure.formatted
        else:
            # An interpreter that shares the lock may load it before 3.12, which knows no declaration.
            assert hasattr(_native, "Publisher")
    finally:
        interpreters.destroy(made)


def test_arguments_have_the_names_that_the_documentation_gives_them() -> None:
    with Bus() as bus:
        subscription, publisher = bus.subscribe("t"), bus.publisher("t")
        assert publisher.publish(b"x", timeout_s=1.0)
        assert subscription.recv(timeout_s=1.0) == b"x"
        assert subscription.recv_message(timeout_s=0.0) is None
        assert "timeout_s=None" in str(inspect.signature(publisher.publish))


@pytest.mark.parametrize("data", [None, "text", 5, [b"x"]])
def test_a_payload_that_is_none_is_refused_by_every_way_to_publish(data: object) -> None:
    with Bus() as bus:
        publisher = bus.publisher("t")
        for publish in (
            publisher.try_publish,
            publisher.publish,
            lambda payload: bus.publish(Packet("t", payload)),
            lambda payload: bus.publish_with_deadline(Packet("t", payload), time.time_ns() + 10**9),
            lambda payload: bus.request("t", payload, 0.0),
        ):
            with pytest.raises(InputError, match="payload"):
                publish(data)  # type: ignore[arg-type]


def test_what_is_closed_says_so_and_what_to_do() -> None:
    bus = Bus()
    subscription, publisher = bus.subscribe("t"), bus.publisher("t")
    bus.close()
    for use in (
        lambda: publisher.try_publish(b"x"),
        lambda: publisher.publish_many([b"x"]),
        lambda: publisher.wait_for_subscribers(1, 0.0),
        lambda: publisher.loan(1),
        publisher.counts,
        lambda: bus.publisher("t"),
        lambda: bus.subscribe("t"),
        lambda: bus.publish_with_deadline(Packet("t", b"x"), time.time_ns() + 10**9),
        bus.health,
    ):
        with pytest.raises(StateError, match="closed"):
            use()
    with pytest.raises(Exception, match="has ended"):
        subscription.recv(0.0)
