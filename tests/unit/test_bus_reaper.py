"""What killed programs leave in a bus's directory goes; what anybody uses, or has left to read, stays."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

import pytest

from cfctl.bus.reaper import prunable_rings, remove_rings, remove_topics, sweep
from cfctl.bus.rings import list_rings
from tests.unit.bus_files import (
    CLOSED,
    FLOCK,
    GROUP,
    MEMBER,
    OPEN,
    STAMP_NS,
    TOPIC_LOCKS,
    LineOf,
    RingFile,
    SeatOf,
    TopicFile,
    fnv1a,
    living,
)

WRITER, ALIVE, DEAD = 2**33, 2**34, 2**35


def due(directory: Path) -> None:
    """Let the last sweep be a minute ago."""
    (directory / "bus.leases").touch()
    os.utime(directory / "bus.leases", ns=(0, time.time_ns() - 61 * 10**9))


def files(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()} - {"bus.leases"}


def test_of_killed_programs_the_newest_sixteen_rings_are_left_to_look_at(tmp_path: Path) -> None:
    for number in range(20):
        RingFile(ring_id=number, topic=b"t%d" % number, participant=DEAD, opened_ns=number, tail=0).write(
            tmp_path
        )
        TopicFile(topic=b"t%d" % number, rings=[(number, DEAD, OPEN, 1)]).write(tmp_path)
    due(tmp_path)
    assert sweep(tmp_path) == 4 + 20
    assert {ring.ring_id for ring in list_rings(tmp_path)[0]} == set(range(4, 20))
    assert not list(tmp_path.glob("*.topic"))


def test_a_directory_is_swept_once_a_minute(tmp_path: Path) -> None:
    path = RingFile(participant=DEAD, state=CLOSED).write(tmp_path)
    (tmp_path / "bus.leases").touch()
    assert sweep(tmp_path) == 0
    due(tmp_path)
    assert sweep(tmp_path) == 1
    assert not path.exists()
    RingFile(participant=DEAD, state=CLOSED).write(tmp_path)
    assert sweep(tmp_path) == 0


def test_a_stamp_of_the_future_does_not_stop_the_sweeps(tmp_path: Path) -> None:
    RingFile(participant=DEAD, state=CLOSED).write(tmp_path)
    (tmp_path / "bus.leases").touch()
    os.utime(tmp_path / "bus.leases", ns=(0, time.time_ns() + 3600 * 10**9))
    assert sweep(tmp_path) == 1


def test_without_a_directory_there_is_nothing_to_sweep(tmp_path: Path) -> None:
    assert sweep(tmp_path / "nothing") == 0


@pytest.mark.parametrize(
    ("ring", "seat"),
    [
        (RingFile(participant=WRITER), None),
        (RingFile(participant=DEAD, tail=3, lines={0: LineOf(7, ALIVE)}), SeatOf(7, ALIVE)),
        (RingFile(participant=DEAD, state=CLOSED, tail=3, lines={0: LineOf(7, ALIVE)}), SeatOf(7, ALIVE)),
    ],
)
def test_a_living_publishers_ring_and_one_with_unread_messages_of_a_living_reader_stay(
    tmp_path: Path, ring: RingFile, seat: SeatOf | None
) -> None:
    ring.write(tmp_path)
    TopicFile(rings=[(0xA1, ring.participant, ring.state, 1)], seats={0: seat} if seat else {}).write(
        tmp_path
    )
    before = files(tmp_path)
    with living(tmp_path, WRITER, ALIVE):
        due(tmp_path)
        assert sweep(tmp_path) == 0
        rings, _ = list_rings(tmp_path)
        assert prunable_rings(rings, time.time_ns(), 0) == ()
        assert remove_rings(rings) + remove_topics(tmp_path) == 0
    assert files(tmp_path) == before
    due(tmp_path)
    remove_rings(list_rings(tmp_path)[0])
    remove_topics(tmp_path)
    assert files(tmp_path) == set()


def test_a_ring_of_a_group_stays_while_a_member_lives(tmp_path: Path) -> None:
    seats = {0: SeatOf(7, kind=GROUP), 1: SeatOf(8, ALIVE, kind=MEMBER, group=0)}
    TopicFile(seats=seats).write(tmp_path)
    RingFile(participant=DEAD, tail=3, lines={0: LineOf(7)}).write(tmp_path)
    with living(tmp_path, ALIVE):
        assert remove_rings(list_rings(tmp_path)[0]) == 0
    assert remove_rings(list_rings(tmp_path)[0]) == 1


def test_a_topic_that_somebody_changes_is_left_alone(tmp_path: Path) -> None:
    RingFile(participant=DEAD).write(tmp_path)
    TopicFile().write(tmp_path)
    (tmp_path / "bus.leases").touch()
    fd = os.open(tmp_path / "bus.leases", os.O_RDWR)
    byte = TOPIC_LOCKS + fnv1a(b"prices") % TOPIC_LOCKS
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0))
    assert remove_rings(list_rings(tmp_path)[0]) + remove_topics(tmp_path) == 0
    os.close(fd)
    assert remove_rings(list_rings(tmp_path)[0]) + remove_topics(tmp_path) == 2


def test_what_was_never_finished_goes_and_what_is_no_file_of_the_bus_stays(tmp_path: Path) -> None:
    (tmp_path / "bus.leases").touch()
    RingFile().write(tmp_path).write_bytes(bytes(50000))
    TopicFile().write(tmp_path).write_bytes(b"")
    for name in ("notes.topic", "notes.ring", "zz-1.ring", "0123456789abcdef.ring"):
        (tmp_path / name).write_bytes(b"")
    assert remove_topics(tmp_path) == 2
    assert files(tmp_path) == {"notes.topic", "notes.ring", "zz-1.ring", "0123456789abcdef.ring"}


def test_rings_are_pruned_by_when_their_last_message_was_stamped(tmp_path: Path) -> None:
    for number, tail in ((1, 1), (2, 101)):
        RingFile(ring_id=number, participant=DEAD, tail=tail).write(tmp_path)
    rings, _ = list_rings(tmp_path)
    assert [r.ring_id for r in prunable_rings(rings, STAMP_NS + 150 * 10**9, 100 * 10**9)] == [1]
    assert [r.ring_id for r in prunable_rings(rings, STAMP_NS, 10**18, rings[1].size_bytes)] == [1]
    assert [r.ring_id for r in prunable_rings(rings, STAMP_NS, 10**18, 0)] == [1, 2]
