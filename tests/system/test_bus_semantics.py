"""The semantics that docs/bus.md states: delivery, order, at most once, slow and dead subscribers."""

from __future__ import annotations

import ast
import re
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cfctl.bus import Bus, BusConfig, BusTimeout, ResourceExhausted, Subscription, Wait
from tests.support.bus_programs import PATIENCE_S, finished, program

ROOT = Path(__file__).resolve().parents[2]
CAPACITY = 16


@pytest.fixture
def config(tmp_path: Path) -> BusConfig:
    return BusConfig(directory=tmp_path / "rings", channel_buffer_size=CAPACITY, wait=Wait.PARK)


@pytest.fixture
def bus(config: BusConfig) -> Iterator[Bus]:
    with Bus(config) as made:
        yield made


@pytest.fixture
def other(config: BusConfig) -> Iterator[Bus]:
    with Bus(config) as made:
        yield made


def taken(subscription: Subscription) -> list[bytes]:
    """Return what is there."""
    return subscription.recv_many(10_000)


def promises(document: str) -> list[str | None]:
    """Return the names of the points of a document's semantics and costs, None for one without a name."""
    stated = document.split("\n## Semantics\n")[1].split("\n## Limits\n")[0]
    points = re.findall(r"^- (.*)$", stated, re.MULTILINE)
    names = [re.search(r"<!-- (\w+) -->$", point) for point in points]
    return [name and name[1] for name in names]


def unkept(document: str, sources: list[str]) -> set[str | None]:
    """Return the points of a document that no test has the name of, and the tests that no point has."""
    tests = {
        node.name.removeprefix("test_")
        for source in sources
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }
    return set(promises(document)) ^ tests


def test_each_point_of_the_document_has_its_test() -> None:
    sources = [each.read_text() for each in Path(__file__).parent.glob("test_bus_semantics*.py")]
    unstated = unkept((ROOT / "docs" / "bus.md").read_text(), sources)
    assert unstated == {
        "each_point_of_the_document_has_its_test",
        "a_point_of_the_document_without_a_test_is_found",
    }


def test_a_point_of_the_document_without_a_test_is_found() -> None:
    document = (
        "\n## Semantics\n\n- Kept. <!-- kept -->\n- Not kept. <!-- broken -->\n- No name.\n\n## Limits\n"
    )
    sources = ["def test_kept(): ...\ndef test_unstated(): ...\n"]
    assert unkept(document, sources) == {"broken", None, "unstated"}


def test_broadcast(bus: Bus, other: Bus) -> None:
    workers = [bus.subscribe("jobs"), bus.subscribe("jobs"), other.subscribe("jobs")]
    bus.publisher("jobs").publish(b"job")
    assert [taken(each) for each in workers] == [[b"job"]] * 3


def test_joins_when_subscribe_returns(bus: Bus, other: Bus) -> None:
    publisher = other.publisher("t")
    subscription = bus.subscribe("t")
    payloads = [b"%d" % number for number in range(2 * CAPACITY)]
    assert publisher.publish_many(payloads) == CAPACITY
    with pytest.raises(ResourceExhausted):
        publisher.try_publish(b"refused")
    assert publisher.counts()["rejected"] == 1
    assert taken(subscription) == payloads[:CAPACITY]
    assert subscription.counts()["dropped"] == 0


def test_subscriber_before_publisher_misses_nothing(bus: Bus, config: BusConfig) -> None:
    subscription = bus.subscribe("t")
    with program("bus = Bus(); bus.publisher('t').publish(b'first'); ready()", config.directory):
        assert subscription.recv(PATIENCE_S) == b"first"


def test_nothing_from_before(bus: Bus) -> None:
    bus.publisher("t").publish(b"before")
    subscription = bus.subscribe("t")
    bus.publisher("t").publish(b"after")
    assert taken(subscription) == [b"after"]


def test_publishing_to_nobody(bus: Bus) -> None:
    publisher = bus.publisher("t")
    for _ in range(3 * CAPACITY):
        publisher.try_publish(b"x")
    counts = publisher.counts()
    assert (publisher.readers, counts["published"], counts["rejected"]) == (0, 3 * CAPACITY, 0)


def test_waiting_for_peers(bus: Bus, other: Bus) -> None:
    publisher = bus.publisher("t")
    with pytest.raises(BusTimeout):
        publisher.wait_for_subscribers(1, timeout_s=0.01)
    with pytest.raises(BusTimeout):
        other.subscribe("u", wait_for=1, timeout_s=0.01)
    kept: list[Subscription] = []
    thread = threading.Thread(target=lambda: kept.append(other.subscribe("t", wait_for=1)))
    thread.start()
    assert publisher.wait_for_subscribers(1, timeout_s=PATIENCE_S) == 1
    thread.join()
    # A group counts as one, however many members it has.
    kept += [other.subscribe("t", group="g"), other.subscribe("t", group="g")]
    assert publisher.wait_for_subscribers(2, timeout_s=PATIENCE_S) == 2


def test_own_messages_are_received(bus: Bus) -> None:
    subscription = bus.subscribe("t")
    bus.publisher("t").publish(b"mine")
    assert taken(subscription) == [b"mine"]


def test_several_topics(bus: Bus) -> None:
    subscription = bus.subscribe("a", "b")
    bus.publisher("b").publish(b"x")
    message = subscription.recv_message()
    assert message is not None
    assert (message.topic, message.payload) == ("b", b"x")


def test_order_of_one_publisher(bus: Bus, config: BusConfig) -> None:
    subscription = bus.subscribe("t")
    text = "p = Bus().publisher('t'); ready()\nfor n in range(5000): p.publish(b'%d' % n)\ntime.sleep(60)"
    with program(text, config.directory):
        assert [subscription.recv(PATIENCE_S) for _ in range(5000)] == [b"%d" % n for n in range(5000)]


def test_no_order_between_publishers(bus: Bus, other: Bus) -> None:
    subscription = bus.subscribe("a", "b")
    for number in range(3):
        other.publisher("a").publish(b"a%d" % number)
    for number in range(3):
        bus.publisher("b").publish(b"b%d" % number)
    came = taken(subscription)
    assert came != sorted(came)
    assert [each for each in came if each.startswith(b"a")] == [b"a0", b"a1", b"a2"]
    assert [each for each in came if each.startswith(b"b")] == [b"b0", b"b1", b"b2"]


def test_ordered_by_stamp(config: BusConfig, other: Bus) -> None:
    ordered = BusConfig(directory=config.directory, ordered=True)
    with Bus(ordered) as bus, Bus(config) as third:
        subscription = bus.subscribe("a", "b")
        for name in (b"1", b"2", b"3", b"4"):
            (other if name in b"24" else third).publisher("a" if name in b"24" else "b").publish(name)
        assert taken(subscription) == [b"1", b"2", b"3", b"4"]


def test_higher_priority_first(bus: Bus) -> None:
    subscription = bus.subscribe("t")
    low, high = bus.publisher("t"), bus.publisher("t", priority=1)
    for publisher, payload in ((low, b"1"), (high, b"2"), (low, b"3"), (high, b"4")):
        publisher.publish(payload)
    assert taken(subscription) == [b"2", b"4", b"1", b"3"]
    assert low.ring_id != high.ring_id


@pytest.mark.parametrize("overwrite", [False, True])
def test_at_most_once(bus: Bus, config: BusConfig, overwrite: bool) -> None:
    subscription = bus.subscribe("t")
    text = f"""
bus = Bus(BusConfig(channel_buffer_size=16, overwrite={overwrite}))
p = bus.publisher("t"); ready()
for n in range(5000): p.publish(b"%d " % n * (n % 60 + 1))
p.publish(b"end")
time.sleep(60)
"""
    with program(text, config.directory):
        last = -1
        while (payload := subscription.recv(PATIENCE_S)) not in {b"end", None}:
            assert payload is not None
            number = int(payload.split()[0])
            assert number > last
            assert payload == b"%d " % number * (number % 60 + 1)
            last = number
        counts = subscription.counts()
        assert counts["delivered"] + counts["dropped"] == 5001
        assert overwrite or counts["dropped"] == 0


def test_only_redelivery_repeats(bus: Bus, config: BusConfig) -> None:
    plain = bus.subscribe("t")
    member = bus.subscribe("t", group="g", redeliver=True)
    text = "s = Bus().subscribe('t', group='g', redeliver=True); ready(); s.recv(); ready(); signal.pause()"
    with program(text, config.directory) as dying:
        bus.publisher("t").publish(b"x")
        assert dying.stdout is not None
        assert dying.stdout.readline() == "ready\n"
        dying.kill()
        dying.wait()
        again = member.recv_message(PATIENCE_S)
        assert again is not None
        assert (again.payload, again.redelivered) == (b"x", True)
    once = plain.recv_message()
    assert once is not None
    assert not once.redelivered
    assert plain.try_recv() is None


def test_slow_subscriber_holds_its_publisher(bus: Bus, other: Bus) -> None:
    slow, quick = bus.subscribe("t"), bus.subscribe("t")
    publisher = other.publisher("t")
    for _ in range(CAPACITY):
        publisher.try_publish(b"x")
    assert len(taken(quick)) == CAPACITY
    with pytest.raises(ResourceExhausted):
        publisher.try_publish(b"y")
    with pytest.raises(ResourceExhausted):
        publisher.publish(b"y", timeout_s=0.01)
    assert quick.try_recv() is None
    assert len(taken(slow)) == CAPACITY
    publisher.try_publish(b"y")
    assert quick.try_recv() == b"y"


def test_stopped_subscriber_holds_its_publisher(bus: Bus, config: BusConfig) -> None:
    text = "s = Bus().subscribe('t'); ready()\nfor _ in range(17): s.recv()\nprint('all')"
    with program(text, config.directory) as stopped:
        publisher = bus.publisher("t")
        stopped.send_signal(signal.SIGSTOP)
        for _ in range(CAPACITY):
            publisher.publish(b"x", timeout_s=PATIENCE_S)
        with pytest.raises(ResourceExhausted):
            publisher.publish(b"x", timeout_s=0.01)
        stopped.send_signal(signal.SIGCONT)
        publisher.publish(b"x", timeout_s=PATIENCE_S)
        assert finished(stopped) == "all\n"


def test_dead_subscriber_holds_nobody(bus: Bus, config: BusConfig) -> None:
    with program("s = Bus().subscribe('t'); ready(); signal.pause()", config.directory) as dying:
        publisher = bus.publisher("t")
        dying.kill()
        dying.wait()
        for _ in range(3 * CAPACITY):
            publisher.publish(b"x", timeout_s=PATIENCE_S)
        assert publisher.counts()["orphaned"] == 1


def test_full_ring_stops_no_other(bus: Bus, other: Bus) -> None:
    subscription = bus.subscribe("t")
    full = bus.publisher("t")
    for _ in range(CAPACITY):
        full.try_publish(b"x")
    other.publisher("t").try_publish(b"y")
    assert taken(subscription).count(b"y") == 1


def test_overwrite_counts_its_loss(bus: Bus, config: BusConfig) -> None:
    subscription = bus.subscribe("t")
    overwriting = BusConfig(directory=config.directory, channel_buffer_size=CAPACITY, overwrite=True)
    with Bus(overwriting) as writer:
        for number in range(100):
            writer.publisher("t").publish(b"%d" % number)
        came = taken(subscription)
        assert came[-1] == b"99"
        assert subscription.counts()["dropped"] == 100 - len(came) > 0


def test_lossy_subscription_loses_alone(bus: Bus, other: Bus) -> None:
    lossy, whole = bus.subscribe("t", lossy=True), bus.subscribe("t")
    came: list[bytes] = []
    for number in range(100):
        other.publisher("t").try_publish(b"%d" % number)
        came += taken(whole)
    assert came == [b"%d" % number for number in range(100)]
    some = taken(lossy)
    assert some[-1] == b"99"
    assert lossy.counts()["dropped"] == 100 - len(some) > 0
    assert whole.counts()["dropped"] == 0


def test_overrun_goes_on_in_the_middle(bus: Bus) -> None:
    subscription = bus.subscribe("t", lossy=True)
    for number in range(10 * CAPACITY):
        bus.publisher("t").publish(b"%d" % number)
    assert len(taken(subscription)) == CAPACITY // 2
