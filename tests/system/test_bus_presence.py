"""Who is there, and who came and went: `Bus.presence` and `Bus.topics` with processes that end in every way."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cfctl.bus import Arrival, Bus, BusConfig, Departure, Peer, Presence, Role
from cfctl.errors import InputError, StateError
from tests.unit.bus_files import CLOSED, GROUP, LOSSY, MEMBER, OPEN, OWN, RingFile, SeatOf, TopicFile, living

PATIENCE_S = 30.0
LIVING, DEAD = 1 << 40, 1 << 41
PUBLISHER = """
import sys
from cfctl.bus import Bus
bus = Bus()
publisher = bus.publisher("orders")
print("here", flush=True)
if sys.stdin.readline() == "close\\n":
    publisher.close()
    print("closed", flush=True)
    sys.stdin.readline()
"""
SUBSCRIBER = """
import sys
from cfctl.bus import Bus
bus = Bus()
subscription = bus.subscribe("orders", lossy=True)
print("here", flush=True)
sys.stdin.readline()
subscription.unsubscribe()
print("closed", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BusConfig:
    monkeypatch.setenv("CFCTL_SEGMENT_DIR", str(tmp_path / "bus"))
    return BusConfig(directory=tmp_path / "bus")


@contextlib.contextmanager
def started(program: str) -> Iterator[subprocess.Popen[str]]:
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", program], stdin=pipe, stdout=pipe, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "here\n"
            yield process
        finally:
            process.kill()


def close(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("close\n")
    process.stdin.flush()
    assert process.stdout.readline() == "closed\n"


@pytest.mark.parametrize(
    ("program", "role", "lossy"), [(PUBLISHER, Role.PUBLISHER, False), (SUBSCRIBER, Role.SUBSCRIBER, True)]
)
def test_a_peer_that_comes_and_is_killed_is_reported_with_its_process(
    config: BusConfig, program: str, role: Role, lossy: bool
) -> None:
    with Bus(config) as bus:
        presence = bus.presence("orders")
        assert (presence.peers(), presence.wait(0)) == ((), ())
        with started(program) as process:
            (came,) = presence.wait(PATIENCE_S)
            assert isinstance(came, Arrival)
            assert presence.peers() == (came.peer,)
            assert (came.peer.topic, came.peer.role, came.peer.pid) == ("orders", role, process.pid)
            assert (came.peer.group, came.peer.lossy, came.peer.own) == (None, lossy, False)
            os.kill(process.pid, signal.SIGKILL)
            assert presence.wait(PATIENCE_S) == (Departure(came.peer, True),)
        assert (presence.peers(), presence.wait(0)) == ((), ())


@pytest.mark.parametrize("program", [PUBLISHER, SUBSCRIBER])
def test_a_peer_that_closes_has_not_died(config: BusConfig, program: str) -> None:
    with Bus(config) as bus, started(program) as process:
        presence = bus.presence("orders")
        (peer,) = presence.peers()
        close(process)
        assert presence.wait(PATIENCE_S) == (Departure(peer, False),)


def test_a_publisher_that_closes_before_its_messages_are_read_has_gone_and_not_died(
    config: BusConfig,
) -> None:
    with Bus(config) as bus, Bus(config) as other:
        subscription = bus.subscribe("orders")
        publisher = other.publisher("orders")
        publisher.publish(b"unread")
        presence = bus.presence("orders")
        publisher.close()
        ((role, died),) = [
            (each.peer.role, each.died) for each in presence.wait(0) if isinstance(each, Departure)
        ]
        assert (role, died) == (Role.PUBLISHER, False)
        assert subscription.recv(PATIENCE_S) == b"unread"


def test_when_the_place_was_cleared_and_the_process_is_gone_it_is_not_known_whether_it_died(
    config: BusConfig,
) -> None:
    with Bus(config) as bus:
        with started(SUBSCRIBER) as process:
            presence = bus.presence("orders")
            (peer,) = presence.peers()
            process.kill()
            process.wait()
        # Who subscribes clears the places of the dead.
        with bus.subscribe("orders"):
            went = [each for each in presence.wait(0) if isinstance(each, Departure)]
        assert went == [Departure(peer, None)]


def test_members_of_a_group_are_named_and_cfctls_own_endpoints_are_marked(config: BusConfig) -> None:
    with Bus(config) as bus, Bus(config, own=True) as own:
        presence = bus.presence()
        members = [bus.subscribe("jobs", group="workers") for _ in range(2)]
        echo = own.subscribe("prices", lossy=True)
        events = presence.wait(0)
        assert all(isinstance(each, Arrival) for each in events)
        peers = presence.peers()
        assert {each.peer for each in events} == set(peers)
        assert [(each.topic, each.id, each.group, each.own) for each in peers] == [
            *sorted(("jobs", each.id, "workers", False) for each in members),
            ("prices", echo.id, None, True),
        ]
        assert {each.pid for each in peers} == {os.getpid()}


def test_topics_are_those_that_anybody_publishes_on_or_subscribes_to(config: BusConfig) -> None:
    with Bus(config) as bus, Bus(config) as other:
        assert bus.topics() == ()
        publisher, subscription = other.publisher("b \N{BLACK STAR}"), other.subscribe("a")
        pattern, server = other.subscribe(pattern="c*"), other.serve("hidden")
        assert bus.topics() == ("a", "b \N{BLACK STAR}")
        assert {each.topic for each in bus.presence().peers()} == {"a", "b \N{BLACK STAR}"}
        publisher.close()
        assert bus.topics() == ("a",)
        subscription.unsubscribe()
        assert bus.topics() == ()
        del pattern, server


def test_a_closed_bus_and_a_topic_that_cannot_be_used_are_refused(config: BusConfig) -> None:
    bus = Bus(config)
    presence = bus.presence("orders")
    for name in ("", "a\nb", "rpc:orders", "x" * 1025, "\ud800", 5):
        with pytest.raises(InputError):
            bus.presence(name)  # type: ignore[arg-type]
    bus.close()
    for call in (bus.presence, bus.topics, presence.peers, lambda: presence.wait(0)):
        with pytest.raises(StateError):
            call()


def test_it_looks_every_50_ms_and_no_longer_than_the_time_out(tmp_path: Path) -> None:
    now_s, slept = 100.0, []

    def sleep(seconds: float) -> None:
        nonlocal now_s
        now_s += seconds
        slept.append(round(seconds, 6))
        if len(slept) == 5:
            TopicFile(seats={0: SeatOf(7, LIVING)}).write(tmp_path)

    presence = Presence(tmp_path, "prices", clock_s=lambda: now_s, sleep=sleep)
    assert presence.wait(0.12) == ()
    assert slept == [0.05, 0.05, 0.02]
    with living(tmp_path, LIVING):
        (came,) = presence.wait()
    assert (came.peer.id, slept[3:]) == (7, [0.05, 0.05])


def test_what_a_page_shows_becomes_peers_and_departures(tmp_path: Path) -> None:
    page = TopicFile(
        rings=[(0xA1, LIVING, OPEN, 21), (0xA2, LIVING, OPEN, 22), (0xA3, DEAD, OPEN, 23)],
        seats={
            0: SeatOf(7, LIVING, flags=LOSSY | OWN),
            1: SeatOf(99, 0, kind=GROUP, name=b"workers"),
            2: SeatOf(8, LIVING, kind=MEMBER, group=1, name=b"workers"),
            3: SeatOf(9, DEAD),
        },
    )
    page.write(tmp_path)
    RingFile(ring_id=0xA1, participant=LIVING, pid=100, own=1, overwrite=1).write(tmp_path)
    RingFile(ring_id=0xA2, participant=LIVING, pid=200).write(tmp_path)
    with living(tmp_path, LIVING):
        presence = Presence(tmp_path, "prices")
        found = {each.id: each for each in presence.peers()}
        assert set(found) == {0xA1, 0xA2, 7, 8}
        assert (found[0xA1].pid, found[0xA1].lossy, found[0xA1].own) == (100, True, True)
        assert (found[7].lossy, found[7].own, found[8].group) == (True, True, "workers")
        page.rings[1] = (0xA2, LIVING, CLOSED, 22)
        del page.seats[0]
        page.write(tmp_path)
        assert {(each.peer.id, each.died) for each in presence.wait(0) if isinstance(each, Departure)} == {
            (0xA2, False),
            (7, None),
        }
    assert {(each.peer.id, each.died) for each in presence.wait(0) if isinstance(each, Departure)} == {
        (0xA1, True),
        (8, True),
    }


@pytest.mark.parametrize("header", [b"", b"CFCTLRNG", b"\0" * 4096, b"\xff" * 4096])
def test_a_ring_that_cannot_be_read_is_no_peer(tmp_path: Path, header: bytes) -> None:
    TopicFile(rings=[(0xA1, LIVING, OPEN, 21)]).write(tmp_path)
    RingFile(participant=LIVING).write(tmp_path).write_bytes(header)
    with living(tmp_path, LIVING):
        assert Presence(tmp_path, "prices").peers() == ()


def test_peers_are_records_that_can_be_kept_in_sets(config: BusConfig) -> None:
    with Bus(config) as bus:
        kept: set[Peer] = set()
        presence = bus.presence()
        with bus.subscribe("orders"):
            kept |= {each.peer for each in presence.wait(0)}
            assert kept == set(presence.peers())
        kept -= {each.peer for each in presence.wait(0)}
        assert kept == set()
