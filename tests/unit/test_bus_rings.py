"""The files of a bus seen from outside: who publishes and listens, what waits and is lost; damaged ones."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest

from cfctl.bus.files import topic_hash
from cfctl.bus.rings import Ring, RingReader, list_bus
from cfctl.bus.topic_pages import SeatFlag, SeatKind
from tests.unit.bus_files import (
    CLOSED,
    GROUP,
    LOSSY,
    MEMBER,
    OPEN,
    OWN,
    PATTERN,
    REDELIVER,
    SLEEPS,
    STAMP_NS,
    LineOf,
    RingFile,
    SeatOf,
    TopicFile,
    fnv1a,
    living,
)

WRITER, ALIVE, DEAD = 2**33, 2**34, 2**35


def only_ring(directory: Path) -> Ring:
    found = list_bus(directory)
    assert not found.errors
    (ring,) = found.rings
    return ring


def reader_of(directory: Path, ring: RingFile) -> RingReader:
    ring.write(directory)
    (reader,) = only_ring(directory).readers
    return reader


def test_a_topics_hash_is_the_c_cores() -> None:
    # The published value of FNV-1a, 64 bits, of "foobar".
    assert topic_hash(b"foobar") == fnv1a(b"foobar") == 0x85944171F73967E8


def test_a_topic_says_who_publishes_and_who_listens_and_how(tmp_path: Path) -> None:
    seats = {
        0: SeatOf(7, ALIVE, pid=41, flags=SLEEPS | OWN), 2: SeatOf(8, DEAD, pid=42, flags=LOSSY | PATTERN),
        3: SeatOf(9, kind=GROUP, flags=REDELIVER, name=b"workers", abandoned=4, redelivered=3, pid=0),
        4: SeatOf(10, ALIVE, kind=MEMBER, group=3, name=b"workers", ring=0xA1, begin=5, end=8),
    }  # fmt: skip
    TopicFile(rings=[(0xA1, WRITER, OPEN, 21), (0xA2, DEAD, CLOSED, 22)], seats=seats, wake_word=9).write(
        tmp_path
    )
    with living(tmp_path, WRITER, ALIVE):
        (page,) = list_bus(tmp_path).topics
    assert (page.topic, page.wake_word, page.sleepers, page.departures) == ("prices", 9, 2, 3)
    assert [(r.ring_id, r.number, r.closed, r.alive) for r in page.rings] == [
        (0xA1, 21, False, True), (0xA2, 22, True, False),
    ]  # fmt: skip
    first, second, group, member = page.seats
    assert (first.index, first.pid, first.alive, first.flags) == (0, 41, True, SeatFlag.SLEEPS | SeatFlag.OWN)
    assert (second.index, second.alive, second.flags) == (2, False, SeatFlag.LOSSY | SeatFlag.PATTERN)
    assert (group.kind, group.alive, group.abandoned, group.redelivered) == (SeatKind.GROUP, True, 4, 3)
    assert (member.group, member.unfinished, member.ring) == (3, 3, 0xA1)
    assert page.members(group) == (member,)
    assert page.alive


def test_who_lives_is_who_holds_its_lease(tmp_path: Path) -> None:
    RingFile(participant=WRITER).write(tmp_path)
    TopicFile(seats={0: SeatOf(7, ALIVE)}).write(tmp_path)
    assert not only_ring(tmp_path).live
    with living(tmp_path, WRITER):
        assert only_ring(tmp_path).live
        assert only_ring(tmp_path).is_needed
        assert not list_bus(tmp_path).topics[0].alive
    with living(tmp_path, ALIVE):
        assert not only_ring(tmp_path).live
        assert list_bus(tmp_path).topics[0].alive


@pytest.mark.parametrize("participant", [0, 1, 2**32 - 1, 2**62, 2**64 - 1])
def test_no_number_out_of_the_range_of_participants_lives(tmp_path: Path, participant: int) -> None:
    # Bytes below are locked for publisher numbers, those above for topics.
    RingFile(participant=participant).write(tmp_path)
    with living(tmp_path, min(participant, 2**62)):
        assert not only_ring(tmp_path).live


def test_a_subscription_that_never_looked_waits_for_all_that_was_published(tmp_path: Path) -> None:
    TopicFile(seats={5: SeatOf(7, ALIVE, pid=41)}).write(tmp_path)
    with living(tmp_path, ALIVE):
        reader = reader_of(tmp_path, RingFile(tail=12, lines={5: LineOf(7, ALIVE)}))
    assert (reader.pid, reader.alive, reader.waits_for) == (41, True, True)
    assert (reader.copies, reader.delivered, reader.dropped, reader.pending) == (12, 0, 0, 12)
    assert reader.oldest_tick == 0


@pytest.mark.parametrize(("overwrite", "flags"), [(1, 0), (0, LOSSY)])
def test_what_was_overwritten_and_not_passed_yet_is_lost(tmp_path: Path, overwrite: int, flags: int) -> None:
    line = LineOf(7, ALIVE, position=10, joined=4, dropped=2, flags=flags)
    reader = reader_of(tmp_path, RingFile(tail=100, overwrite=overwrite, lines={0: line}))
    # 16 slots: 84 to 99 are there, 10 to 83 are not.
    assert (reader.copies, reader.delivered, reader.dropped, reader.pending) == (96, 4, 76, 16)
    assert reader.oldest_tick == 84
    assert not reader.waits_for


def test_a_loss_that_was_counted_before_the_place_was_stored_counts_once(tmp_path: Path) -> None:
    line = LineOf(7, ALIVE, position=0, dropped=92)
    reader = reader_of(tmp_path, RingFile(tail=100, overwrite=1, lines={0: line}))
    assert (reader.copies, reader.delivered, reader.dropped, reader.pending) == (100, 0, 92, 8)


def test_a_late_joiner_has_lost_nothing(tmp_path: Path) -> None:
    line = LineOf(7, ALIVE, position=100, joined=100)
    reader = reader_of(tmp_path, RingFile(tail=100, overwrite=1, lines={0: line}))
    assert (reader.copies, reader.delivered, reader.dropped, reader.pending) == (0, 0, 0, 0)


def test_a_group_waits_from_its_claim_and_its_members_works_are_unfinished(tmp_path: Path) -> None:
    seats = {
        0: SeatOf(7, kind=GROUP, pid=0, name=b"workers"),
        1: SeatOf(8, ALIVE, kind=MEMBER, group=0, ring=0xA1, begin=5, end=7),
        2: SeatOf(9, DEAD, kind=MEMBER, group=0, ring=0xA1, begin=7, end=8),
        3: SeatOf(10, ALIVE, kind=MEMBER, group=0, ring=0xBB, begin=1, end=9),
    }
    TopicFile(seats=seats).write(tmp_path)
    with living(tmp_path, ALIVE):
        reader = reader_of(tmp_path, RingFile(tail=12, lines={0: LineOf(7, position=5, claim=8)}))
    assert (reader.group, reader.alive) == ("workers", True)
    assert (reader.delivered, reader.pending, reader.unfinished, reader.oldest_tick) == (8, 4, 3, 8)


def test_the_line_of_who_had_a_seat_before_is_a_dead_readers(tmp_path: Path) -> None:
    TopicFile(seats={0: SeatOf(8, ALIVE, pid=41)}).write(tmp_path)
    with living(tmp_path, ALIVE):
        reader = reader_of(tmp_path, RingFile(tail=5, lines={0: LineOf(7, DEAD)}))
    assert (reader.subscription, reader.pid, reader.alive, reader.pending) == (7, 0, False, 5)


def test_a_ring_was_last_written_when_its_last_message_was_stamped(tmp_path: Path) -> None:
    RingFile(tail=3).write(tmp_path)
    assert only_ring(tmp_path).written_unix_ns == STAMP_NS + 2 * 10**9
    RingFile(tail=0).write(tmp_path)
    assert only_ring(tmp_path).written_unix_ns == STAMP_NS


def test_an_ended_ring_is_needed_as_long_as_a_living_reader_has_messages_to_take(tmp_path: Path) -> None:
    TopicFile(seats={0: SeatOf(7, ALIVE)}).write(tmp_path)
    ring = RingFile(tail=5, state=CLOSED, participant=DEAD, lines={0: LineOf(7, ALIVE, position=4)})
    ring.write(tmp_path)
    assert not only_ring(tmp_path).is_needed
    with living(tmp_path, ALIVE):
        assert only_ring(tmp_path).is_needed
        ring.lines[0].position = 5
        ring.write(tmp_path)
        assert not only_ring(tmp_path).is_needed


BAD_HEADERS = [
    {"header_bytes": 8192}, {"hash": 1}, {"capacity": 15}, {"capacity": 0}, {"capacity": 1 << 21},
    {"slot_bytes": 32}, {"arena_bytes": 4097}, {"arena_bytes": 1 << 40}, {"file_bytes": 1 << 50}, {"topic_bytes": 0},
    {"topic_bytes": 1025}, {"topic_bytes": 2**32 - 1}, {"publisher": 1 << 16}, {"ring_id": 5},
]  # fmt: skip


@pytest.mark.parametrize("header", BAD_HEADERS, ids=str)
def test_a_ring_whose_header_contradicts_itself_is_named_and_hides_no_other(
    tmp_path: Path, header: dict[str, int]
) -> None:
    RingFile(ring_id=1, header=header).write(tmp_path)
    RingFile(ring_id=2).write(tmp_path)
    found = list_bus(tmp_path)
    assert [ring.ring_id for ring in found.rings] == [2]
    assert "contradicts itself" in str(found.errors[0])


def test_a_table_of_more_readers_than_there_are_is_refused(tmp_path: Path) -> None:
    RingFile(lines_used=257).write(tmp_path)
    assert "table of readers" in str(list_bus(tmp_path).errors[0])


def test_another_versions_files_are_named_as_such(tmp_path: Path) -> None:
    RingFile(header={"version": 1}).write(tmp_path)
    page = bytearray(TopicFile().data())
    struct.pack_into("<I", page, 8, 1)
    TopicFile().write(tmp_path).write_bytes(bytes(page))
    errors = list_bus(tmp_path).errors
    assert len(errors) == 2
    assert all("another version of cfctl: layout 1" in str(error) for error in errors)


@pytest.mark.parametrize(
    "page",
    [
        TopicFile(seats_used=257), TopicFile(rings_used=300), TopicFile(topic=b""),
        TopicFile(seats={0: SeatOf(1, kind=0)}), TopicFile(seats={0: SeatOf(1, kind=9)}),
        TopicFile(seats={0: SeatOf(1, kind=MEMBER, group=256)}),
    ],
)  # fmt: skip
def test_a_topics_page_that_contradicts_itself_is_named(tmp_path: Path, page: TopicFile) -> None:
    page.write(tmp_path)
    found = list_bus(tmp_path)
    assert not found.topics
    assert "contradicts itself" in str(found.errors[0])


def test_nonsense_in_lines_and_seats_gives_no_negative_and_no_huge_figure(tmp_path: Path) -> None:
    seats = {0: SeatOf(7, ALIVE), 1: SeatOf(8, ALIVE, kind=MEMBER, group=77, ring=1, begin=3, end=2**64 - 1)}
    TopicFile(seats=seats).write(tmp_path)
    lines = {
        0: LineOf(7, ALIVE, position=2**64 - 1, joined=2**63, dropped=2**62),
        1: LineOf(8, ALIVE, position=0, joined=50), 2: LineOf(9, position=3, claim=2**63),
    }  # fmt: skip
    RingFile(tail=12, lines=lines).write(tmp_path)
    found = list_bus(tmp_path)
    assert found.topics[0].seats[1].unfinished == 0
    for reader in found.rings[0].readers:
        assert min(reader.copies, reader.delivered, reader.dropped, reader.pending, reader.unfinished) >= 0
        assert max(reader.copies, reader.delivered, reader.dropped, reader.pending) <= 12


def test_what_is_being_made_is_passed_by_in_silence(tmp_path: Path) -> None:
    RingFile().write(tmp_path).write_bytes(bytes(60000))
    TopicFile().write(tmp_path).write_bytes(bytes(45056))
    TopicFile(topic=b"other").write(tmp_path).write_bytes(b"")
    found = list_bus(tmp_path)
    assert (found.rings, found.topics, found.errors) == ((), (), ())


def test_torn_files_and_links_are_named(tmp_path: Path) -> None:
    RingFile().write(tmp_path).write_bytes(RingFile().data()[:5000])
    TopicFile().write(tmp_path).write_bytes(TopicFile().data()[:9000])
    (tmp_path / "link.ring").symlink_to("/etc/passwd")
    (tmp_path / "device.topic").symlink_to("/dev/zero")
    assert len(list_bus(tmp_path).errors) == 4


@pytest.mark.parametrize("seed", range(30))
def test_random_bytes_anywhere_end_in_figures_or_a_named_error(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    seats = {0: SeatOf(7, ALIVE), 1: SeatOf(8, ALIVE, kind=MEMBER, group=0)}
    good = {
        TopicFile(seats=seats, rings=[(0xA1, WRITER, OPEN, 1)]).write(tmp_path): 24576,
        RingFile(tail=30, lines={0: LineOf(7, ALIVE), 1: LineOf(8)}).write(tmp_path): 25600,
    }
    for path, most in good.items():
        data = bytearray(path.read_bytes())
        for _ in range(rng.randrange(1, 40)):
            data[rng.randrange(most)] = rng.randrange(256)
        path.write_bytes(bytes(data))
    found = list_bus(tmp_path)
    assert len(found.rings) + len(found.topics) + len(found.errors) <= 2
