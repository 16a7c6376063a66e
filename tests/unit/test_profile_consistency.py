from __future__ import annotations

import dataclasses
import struct
from typing import TYPE_CHECKING, Any

import pytest

from cfctl.profile.consistency import contradictions, impossible_dates
from cfctl.profile.tally import Tally, tally_of
from cfctl.segment.reader import parse_segment
from tests.unit.segment_builder import SegmentBuilder, bucket_of, operation_payload

if TYPE_CHECKING:
    from cfctl.segment.records import Entry

HEADER = parse_segment(SegmentBuilder().build()).header


def read(payload: bytes, owner_tid: int = 0) -> tuple[Tally, Entry]:
    builder = SegmentBuilder()
    builder.entry(b"op", [payload], owner_tid=owner_tid)
    (entry,) = parse_segment(builder.build()).entries
    tally = tally_of(entry)
    assert tally is not None
    return tally, entry


def patched(samples: list[int], **words: int) -> bytes:
    offsets = {"count": 0, "errors": 1, "sum": 2, "min": 3, "max": 4, "out_of_range": 5}
    payload = bytearray(operation_payload(samples, errors=1))
    for name, value in words.items():
        struct.pack_into("<Q", payload, 8 * offsets[name], value)
    return bytes(payload)


SAMPLES = [100, 1000, 5000, 5000]


@pytest.mark.parametrize("samples", [[], [0], SAMPLES, [3, 2**40], [2**40 - 1] * 3])
def test_what_a_writer_leaves_has_no_contradiction(samples: list[int]) -> None:
    for owner_tid in (0, 99):
        tally, entry = read(operation_payload(samples), owner_tid)
        assert list(contradictions(tally, entry, live=False)) == []
        assert list(contradictions(tally, entry, live=True)) == []
        assert not impossible_dates(tally, HEADER, None)


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ({"count": 5}, "a count of 5"),
        ({"count": 2**60}, "a count of"),
        ({"errors": 5}, "5 errors in 4 samples"),
        ({"sum": 1}, "a sum of 1 ticks"),
        ({"sum": 2**50}, "a sum of"),
        ({"min": 99}, "a minimum of 99 ticks outside"),
        ({"min": 101}, "a minimum of 101 ticks outside"),
        ({"min": 2**63}, "a minimum of"),
        ({"max": 2**50}, "a maximum of"),
        ({"max": 200}, "a maximum of 200 ticks outside"),
        ({"out_of_range": 7}, "a count of 4 but 11"),
    ],
)
def test_a_damaged_counter_contradicts_the_others(words: dict[str, int], what: str) -> None:
    found = list(contradictions(*read(patched(SAMPLES, **words)), live=False))
    assert any(what in clause for clause in found), found


def test_a_sample_that_was_on_its_way_when_the_writer_was_killed_is_no_contradiction() -> None:
    # Its bucket is counted, nothing else of it.
    payload = bytearray(operation_payload(SAMPLES))
    struct.pack_into("<Q", payload, 8 * (8 + bucket_of(70)), 1)
    assert list(contradictions(*read(bytes(payload), owner_tid=99), live=False)) == []
    assert list(contradictions(*read(bytes(payload), owner_tid=0), live=False)) != []


def states_of_a_shard(samples: list[int], last: int) -> list[bytes]:
    """What a shard holds after each store of its last sample, as native/operation.h orders them."""
    payload = bytearray(operation_payload(samples))
    found = [bytes(payload)]

    def store(word: int, value: int) -> None:
        struct.pack_into("<Q", payload, 8 * word, value)
        found.append(bytes(payload))

    before = 8 + bucket_of(samples[-1]) if samples else None
    if before is not None:
        # The sample before is twice there, until the new one stands in its place.
        (buckets,) = struct.unpack_from("<Q", payload, 8 * before)
        store(before, buckets + 1)
        struct.pack_into("<Q", payload, 8 * before, buckets)
    (buckets,) = struct.unpack_from("<Q", payload, 8 * (8 + bucket_of(last)))
    store(8 + bucket_of(last), buckets + 1)
    if not samples:
        store(6, 5000)
    store(7, 9500)
    store(0, len(samples) + 1)
    store(2, sum(samples) + last)
    store(3, min([*samples, last]))
    store(4, max([*samples, last]))
    store(1, 1)
    return found


@pytest.mark.parametrize("ours", [([], 10**7), ([10**7], 3), ([3, 10**7], 3)])
@pytest.mark.parametrize("others", [([], 7), ([10**9, 3], 10**9), ([5] * 20, 2**39)])
def test_two_threads_killed_between_any_two_stores_leave_no_contradiction(
    ours: tuple[list[int], int], others: tuple[list[int], int]
) -> None:
    for one in states_of_a_shard(*ours):
        for other in states_of_a_shard(*others):
            builder = SegmentBuilder()
            builder.entry(b"op", [one, other], owner_tid=99)
            (entry,) = parse_segment(builder.build()).entries
            tally = tally_of(entry)
            assert tally is not None
            assert list(contradictions(tally, entry, live=False)) == []
            assert not impossible_dates(tally, HEADER, None)


def test_while_the_writer_runs_the_buckets_may_be_ahead_of_the_count() -> None:
    tally, entry = read(patched(SAMPLES, count=2))
    assert list(contradictions(tally, entry, live=True)) == []
    behind = dataclasses.replace(tally, count=2**50)
    assert list(contradictions(behind, entry, live=True)) != []


def test_more_threads_than_samples_is_a_contradiction() -> None:
    tally, entry = read(operation_payload(SAMPLES))
    assert list(contradictions(dataclasses.replace(tally, threads=2**40), entry, live=False)) == [
        "1099511627776 threads for 4 samples"
    ]


@pytest.mark.parametrize(
    ("changes", "now_tick", "impossible"),
    [
        ({"first_tick": 2000, "last_tick": 3000}, 4000, False),
        ({"first_tick": 0, "last_tick": 3000}, 4000, False),
        ({"first_tick": 3000, "last_tick": 2000}, 4000, True),
        ({"first_tick": 2000, "last_tick": 2**62}, None, True),
        ({"first_tick": 2000, "last_tick": 2**40}, 4000, True),
        ({"first_tick": 2000, "last_tick": 2**40}, None, False),
        ({"first_tick": None, "last_tick": None}, 4000, False),
    ],
)
def test_dates_before_the_opening_or_in_the_future_are_impossible(
    changes: dict[str, Any], now_tick: int | None, impossible: bool
) -> None:
    tally = dataclasses.replace(read(operation_payload(SAMPLES))[0], **changes)
    assert impossible_dates(tally, HEADER, now_tick) is impossible
