"""The semantics that docs/bus.md states: what ends, groups, history, patterns, requests."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cfctl.bus import Bus, BusConfig, BusTimeout, ResourceExhausted, Subscription, SubscriptionNotFound, Wait
from tests.support.bus_programs import PATIENCE_S, eventually, finished, program

CAPACITY = 16
# A member of a group that takes so many messages, says so, and ends in some way.
MEMBER = """
bus = Bus()
member = bus.subscribe("t", group="g", redeliver={redeliver})
ready()
for _ in range({takes}): member.recv()
{ends}
"""
KILLED = "os.kill(os.getpid(), signal.SIGKILL)"


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


def rings(config: BusConfig) -> list[str]:
    """Return the files of topics and rings."""
    return [each.name for each in config.directory.iterdir() if each.suffix in {".ring", ".topic"}]


def run_member(config: BusConfig, publish: Bus, *, takes: int, ends: str, redeliver: bool = True) -> None:
    """Let a member of the group take of three messages, and end."""
    with program(MEMBER.format(takes=takes, ends=ends, redeliver=redeliver), config.directory) as member:
        for number in range(3):
            publish.publisher("t").publish(b"%d" % number)
        member.wait(PATIENCE_S)


def taken_by(member: Subscription, count: int) -> list[tuple[bytes, bool]]:
    """Return the next messages of a member, each with whether it is redelivered."""
    messages = [member.recv_message(PATIENCE_S) for _ in range(count)]
    assert member.try_recv() is None
    return [(each.payload, each.redelivered) for each in messages if each is not None]


def test_closed_publisher_is_read_to_its_end(bus: Bus, other: Bus) -> None:
    subscription = bus.subscribe("t")
    publisher = other.publisher("t")
    publisher.publish_many([b"1", b"2"])
    publisher.close()
    other.close()
    assert taken(subscription) == [b"1", b"2"]


def test_killed_publisher_is_read_to_its_end(bus: Bus, config: BusConfig) -> None:
    subscription = bus.subscribe("t")
    text = f"p = Bus().publisher('t'); p.publish(b'1'); p.publish(b'2'); ready(); {KILLED}"
    with program(text, config.directory) as dying:
        dying.wait(PATIENCE_S)
    assert taken(subscription) == [b"1", b"2"]


def test_subscription_outlives_its_publishers(bus: Bus, config: BusConfig) -> None:
    subscription = bus.subscribe("t")
    for payload in (b"first", b"second"):
        with Bus(config) as publishing:
            publishing.publisher("t").publish(payload)
        assert subscription.recv(PATIENCE_S) == payload
        assert subscription.recv(timeout_s=0.01) is None


def test_ended_subscription_holds_nobody(bus: Bus, other: Bus) -> None:
    publisher = other.publisher("t")
    unsubscribed, forgotten = bus.subscribe("t"), bus.subscribe("t")
    with bus.subscribe("t"), Bus(bus.config) as closed:
        closing = closed.subscribe("t")
        publisher.publish_many([b"x"] * CAPACITY)
        with pytest.raises(ResourceExhausted):
            publisher.try_publish(b"x")
        unsubscribed.unsubscribe()
        del forgotten
    assert publisher.publish_many([b"x"] * 2 * CAPACITY) == 2 * CAPACITY
    with pytest.raises(SubscriptionNotFound):
        closing.recv()


def test_ending_wakes_the_receiver(bus: Bus) -> None:
    received, iterated = bus.subscribe("t"), bus.subscribe("t")
    ends: list[object] = []

    def receive() -> None:
        with pytest.raises(SubscriptionNotFound) as raised:
            received.recv()
        ends.append(raised.type)

    threads = [
        threading.Thread(target=receive),
        threading.Thread(target=lambda: ends.append(list(iterated))),
    ]
    for each in threads:
        each.start()
    bus.close()
    for each in threads:
        each.join(PATIENCE_S)
    assert sorted(map(str, ends)) == sorted(map(str, [SubscriptionNotFound, []]))


def test_no_litter(bus: Bus, other: Bus, config: BusConfig) -> None:
    subscription = bus.subscribe("t")
    publisher = other.publisher("t")
    publisher.publish(b"x")
    publisher.close()
    assert len(rings(config)) == 2
    assert taken(subscription) == [b"x"]
    assert subscription.recv(timeout_s=0.5) is None
    assert [name for name in rings(config) if name.endswith(".ring")] == []
    subscription.unsubscribe()
    assert rings(config) == []
    text = f"bus = Bus(); s = bus.subscribe('t'); bus.publisher('t').publish(b'x'); ready(); {KILLED}"
    with program(text, config.directory) as dying:
        dying.wait(PATIENCE_S)
    assert len(rings(config)) == 2
    bus.subscribe("t").unsubscribe()
    assert rings(config) == []


def test_group_shares_messages(bus: Bus, other: Bus) -> None:
    members = [bus.subscribe("t", group="g"), other.subscribe("t", group="g")]
    alone, plain = bus.subscribe("t", group="alone"), bus.subscribe("t")
    payloads = [b"%d" % number for number in range(10)]
    assert other.publish_many("t", payloads) == 10
    shared = [taken_ for _ in range(5) for each in members if (taken_ := each.try_recv()) is not None]
    assert sorted(shared) == payloads
    assert [each.try_recv() for each in members] == [None, None]
    assert taken(alone) == taken(plain) == payloads


def test_group_is_one_reader(bus: Bus) -> None:
    members = [bus.subscribe("t", group="g") for _ in range(3)]
    assert bus.publisher("t").readers == 1
    assert len(members) == 3


@pytest.mark.parametrize("ends", [f"member.try_recv(); {KILLED}", f"member.done(); {KILLED}"])
def test_next_receive_finishes(bus: Bus, other: Bus, config: BusConfig, ends: str) -> None:
    member = bus.subscribe("t", group="g", redeliver=True)
    run_member(config, other, takes=3, ends=ends)
    assert member.recv(timeout_s=0.3) is None


def test_killed_member_is_redelivered(bus: Bus, other: Bus, config: BusConfig) -> None:
    member = bus.subscribe("t", group="g", redeliver=True)
    run_member(config, other, takes=1, ends=KILLED)
    assert sorted(taken_by(member, 3)) == [(b"0", True), (b"1", False), (b"2", False)]


def test_killed_batch_is_redelivered(bus: Bus, other: Bus, config: BusConfig) -> None:
    member = bus.subscribe("t", group="g", redeliver=True)
    other.publish_many("t", [b"0", b"1", b"2"])
    text = MEMBER.format(takes=0, redeliver=True, ends=f"member.recv_many(9)\n{KILLED}")
    with program(text, config.directory) as dying:
        dying.wait(PATIENCE_S)
    assert taken_by(member, 3) == [(b"0", True), (b"1", True), (b"2", True)]


def test_killed_member_without_redelivery(bus: Bus, other: Bus, config: BusConfig) -> None:
    member = bus.subscribe("t", group="g")
    run_member(config, other, takes=1, ends=KILLED, redeliver=False)
    assert taken_by(member, 2) == [(b"1", False), (b"2", False)]
    assert member.recv(timeout_s=0.3) is None


@pytest.mark.parametrize(
    "ends", ["member.unsubscribe()", "bus.close()", "pass", "sys.stderr = None; raise ValueError"]
)
def test_orderly_end_finishes(bus: Bus, other: Bus, config: BusConfig, ends: str) -> None:
    member = bus.subscribe("t", group="g", redeliver=True)
    run_member(config, other, takes=1, ends=ends)
    assert taken_by(member, 2) == [(b"1", False), (b"2", False)]
    assert member.recv(timeout_s=0.3) is None


@pytest.mark.parametrize("ends", ["bus.close()", KILLED])
def test_group_ends_with_its_last_member(bus: Bus, other: Bus, config: BusConfig, ends: str) -> None:
    run_member(config, other, takes=1, ends=ends)
    member = bus.subscribe("t", group="g", redeliver=True)
    other.publisher("t").publish(b"new")
    assert taken(member) == [b"new"]


def test_idle_member_keeps_the_group(bus: Bus, other: Bus, config: BusConfig) -> None:
    idle = bus.subscribe("t", group="g", redeliver=True)
    bus.publisher("t").publish(b"before")
    run_member(config, other, takes=2, ends=KILLED)
    with Bus(config) as late:
        member = late.subscribe("t", group="g", redeliver=True)
        came = [payload for payload, _ in taken_by(member, 3)]
    assert set(came) <= {b"before", b"0", b"1", b"2"}
    assert idle.counts()["delivered"] == 0


def test_first_member_decides(bus: Bus, other: Bus, config: BusConfig) -> None:
    member = bus.subscribe("t", group="g", redeliver=False)
    run_member(config, other, takes=1, ends=KILLED, redeliver=True)
    assert taken_by(member, 2) == [(b"1", False), (b"2", False)]
    assert member.recv(timeout_s=0.3) is None


def test_history_gives_the_last_messages(bus: Bus, other: Bus) -> None:
    for number in range(5):
        bus.publisher("t").publish(b"a%d" % number)
        other.publisher("t").publish(b"b%d" % number)
    assert sorted(taken(bus.subscribe("t", history=1))) == [b"a4", b"b4"]
    came = taken(bus.subscribe("t", history=2))
    assert [each for each in came if each.startswith(b"a")] == [b"a3", b"a4"]
    assert [each for each in came if each.startswith(b"b")] == [b"b3", b"b4"]


def test_history_holds_nobody(bus: Bus) -> None:
    publisher = bus.publisher("t")
    for number in range(3 * CAPACITY):
        publisher.publish(b"%d" % number)
    whole = bus.subscribe("t", history=10 * CAPACITY)
    assert taken(whole) == [b"%d" % number for number in range(2 * CAPACITY, 3 * CAPACITY)]
    assert (whole.counts()["history"], whole.counts()["skipped"]) == (CAPACITY, 2 * CAPACITY)
    whole.unsubscribe()
    overtaken = bus.subscribe("t", history=5)
    for _ in range(CAPACITY):
        publisher.try_publish(b"new")
    assert taken(overtaken) == [b"new"] * CAPACITY
    counts = overtaken.counts()
    assert (counts["history"], counts["skipped"], counts["dropped"]) == (0, 5, 0)
    assert counts["copies"] == CAPACITY


def test_history_ends_with_its_publisher(bus: Bus, config: BusConfig) -> None:
    with Bus(config) as closing:
        closing.publisher("t").publish(b"x")
        assert taken(bus.subscribe("t", history=1)) == [b"x"]
    assert taken(bus.subscribe("t", history=1)) == []


def test_pattern_matches(bus: Bus, other: Bus) -> None:
    topics = ("sensor/1", "sensor/", "sensor/1/raw", "sensor", "other")
    other.publisher("sensor/1")
    star, question = bus.subscribe(pattern="sensor/*"), bus.subscribe(pattern="sensor/?")
    for topic in topics:
        other.publisher(topic).publish(topic.encode())
    assert sorted(taken(star)) == [b"sensor/", b"sensor/1", b"sensor/1/raw"]
    assert taken(question) == [b"sensor/1"]


def test_pattern_misses_nothing_of_new_topics(bus: Bus, config: BusConfig) -> None:
    subscription = bus.subscribe(pattern="new*")
    with program("bus = Bus(); bus.publisher('newest').publish(b'first'); ready()", config.directory):
        message = subscription.recv_message(PATIENCE_S)
    assert message is not None
    assert (message.topic, message.payload) == ("newest", b"first")


def test_request_goes_to_one_server(bus: Bus, config: BusConfig) -> None:
    text = """
server = Bus().serve("double"); ready()
for _ in range(5):
    request = next(iter(server)); request.reply(2 * request.data)
"""
    with program(text, config.directory) as one, program(text, config.directory) as two:
        replies = [bus.request("double", b"%d" % number, PATIENCE_S) for number in range(10)]
        assert (finished(one), finished(two)) == ("", "")
    assert replies == [b"%d%d" % (number, number) for number in range(10)]


def test_late_reply_is_not_another(bus: Bus, config: BusConfig) -> None:
    with pytest.raises(BusTimeout, match="Nobody serves 't'"):
        bus.request("t", b"nobody", timeout_s=0.01)
    gone_by = threading.Event()

    def serve() -> None:
        with Bus(config) as serving:
            requests = iter(serving.serve("t"))
            first = next(requests)
            gone_by.wait(PATIENCE_S)
            first.reply(b"late")
            next(requests).reply(b"second")

    thread = threading.Thread(target=serve)
    thread.start()
    with bus.requester("t") as requester:
        eventually(lambda: requester._publisher.readers)
        with pytest.raises(BusTimeout):
            requester.request(b"first", timeout_s=0.05)
        gone_by.set()
        assert requester.request(b"again", timeout_s=PATIENCE_S) == b"second"
        assert requester.stale == 1
    thread.join(PATIENCE_S)


def test_reply_to_nobody(bus: Bus, other: Bus) -> None:
    requests = iter(server := other.serve("t"))
    requester = bus.requester("t")
    with pytest.raises(BusTimeout):
        requester.request(b"x", timeout_s=0.01)
    requester.close()
    assert not next(requests).reply(b"nobody")
    assert server.undeliverable == 1
