from __future__ import annotations

import struct
from typing import Any

import pytest

from cfctl.errors import SegmentError
from cfctl.segment.format import SegmentState, TickSource
from cfctl.segment.reader import parse_segment
from tests.unit.segment_builder import (
    F64,
    HISTOGRAM,
    I64,
    LAST,
    MAX,
    MIN,
    SUM,
    U64,
    U64_MAX,
    SegmentBuilder,
    operation_payload,
)

SCALAR = [("value", "1", U64, SUM, 0, 1, 0)]


def one_operation(samples: list[int]) -> bytes:
    builder = SegmentBuilder()
    builder.entry(b"parse", [operation_payload(samples)])
    return builder.build()


def patched(data: bytes, offset: int, value: int) -> bytes:
    return data[:offset] + struct.pack("<Q", value) + data[offset + 8 :]


def test_the_header_is_read_as_it_was_written() -> None:
    header = parse_segment(SegmentBuilder({"lost": 3, "refused": 2, "run_id": b"run"}).build()).header
    assert (header.pid, header.start_time, header.pid_namespace) == (4242, 77, 1)
    assert (header.samples_lost, header.shards_refused) == (3, 2)
    assert header.tick_source is TickSource.TSC
    assert header.state is SegmentState.CLOSED
    assert header.command_line == ("python", "app.py")
    assert (header.boot_id, header.run_id) == ("boot-of-the-test", "run")
    assert (header.opened.tick, header.opened.raw_ns) == (1000, 10**9)


def test_shards_are_merged_by_the_rule_of_each_field() -> None:
    fields = [
        ("sum", "1", U64, SUM, 0, 1, 0),
        ("least", "1", I64, MIN, 8, 1, 0),
        ("most", "1", F64, MAX, 16, 1, 0),
        ("last", "1", U64, LAST, 24, 1, 0),
        ("buckets", "ticks", HISTOGRAM, SUM, 32, 2, 7),
    ]
    builder = SegmentBuilder()
    shards = [
        struct.pack("<QqdQ2Q", 2**63, -5, 1.5, 7, 1, 2),
        struct.pack("<QqdQ2Q", 2**63, 3, 0.5, 9, 10, 20),
    ]
    builder.entry(b"x", shards, kind=b"new kind", fields=fields)
    (entry,) = parse_segment(builder.build()).entries
    assert entry.kind == "new kind"
    assert entry.values["sum"] == 2**64
    assert entry.values["least"] == -5
    assert entry.values["most"] == 1.5
    assert entry.values["last"] == 9
    assert entry.values["buckets"] == struct.pack("=2Q", 11, 22)


def test_a_histogram_is_read_with_each_shards_latest_sample() -> None:
    latest = 6
    fields = [
        ("count", "1", U64, SUM, 0, 1, 0),
        ("buckets", "ticks", HISTOGRAM, SUM, 8, 3, 7),
        ("latest", "bucket", latest, SUM, 32, 1, 8),
    ]
    builder = SegmentBuilder({"version": 3})
    shards = [(1, 0, 0, 0, 3), (3, 1, 1, 0, 1), (0, 0, 0, 0, 0), (2, 0, 1, 0, 4)]
    builder.entry(b"x", [struct.pack("<5Q", *shard) for shard in shards], fields=fields)
    segment = parse_segment(builder.build())
    (entry,) = segment.entries
    # The last shard's number is damage: beyond the histogram.
    assert entry.values == {"count": 6, "buckets": struct.pack("<3Q", 2, 2, 1)}
    assert segment.problems == ()


def test_a_histogram_that_shares_its_name_is_no_crash() -> None:
    fields = [
        ("x", "ticks", HISTOGRAM, SUM, 0, 1, 7), ("x", "1", U64, SUM, 8, 1, 0), ("y", "1", 6, SUM, 16, 1, 0),
    ]  # fmt: skip
    builder = SegmentBuilder({"version": 3})
    builder.entry(b"x", [struct.pack("<3Q", 5, 7, 1)], fields=fields)
    assert parse_segment(builder.build()).entries[0].values == {"x": 7}


def test_a_minimum_that_nothing_has_set_is_none() -> None:
    fields = [("least", "1", U64, MIN, 0, 1, 0), ("nan", "1", F64, SUM, 8, 1, 0)]
    builder = SegmentBuilder()
    builder.entry(b"x", [struct.pack("<Qd", U64_MAX, float("nan"))], fields=fields)
    (entry,) = parse_segment(builder.build()).entries
    assert entry.values == {"least": None, "nan": None}


def test_an_entry_without_a_shard_has_no_values_but_an_empty_histogram() -> None:
    builder = SegmentBuilder()
    builder.entry(b"x", [], payload_bytes=64 + 8 * 4352)
    (entry,) = parse_segment(builder.build()).entries
    assert entry.values["count"] is None
    assert entry.values["histogram"] == bytes(8 * 4352)


def test_names_and_labels_that_are_no_utf8_are_read_with_replacement() -> None:
    builder = SegmentBuilder()
    builder.entry(b"caf\xe9\n\x1b[31m", [bytes(8)], fields=SCALAR, labels={b"k\xff": b"v"})
    (entry,) = parse_segment(builder.build()).entries
    assert entry.name == "caf\N{REPLACEMENT CHARACTER}\n\x1b[31m"
    assert entry.labels == (("k\N{REPLACEMENT CHARACTER}", "v"),)


def test_owners_and_live_shards_are_counted() -> None:
    builder = SegmentBuilder()
    builder.entry(b"x", [bytes(8), bytes(8)], fields=SCALAR, owners=3, owner_tid=99)
    (entry,) = parse_segment(builder.build()).entries
    assert (entry.threads, entry.live_shards, entry.shards) == (6, 2, 2)


@pytest.mark.parametrize(
    ("header", "what"),
    [
        ({"magic": b"NOTASEGM"}, "is no segment"),
        ({"magic": bytes(8)}, "not written yet"),
        ({"version": 4}, "format version 4"),
        ({"version": 0}, "damaged"),
        ({"header_bytes": 64}, "damaged"),
    ],
)
def test_an_unusable_header_is_an_error_that_says_why(header: dict[str, Any], what: str) -> None:
    with pytest.raises(SegmentError, match=what):
        parse_segment(SegmentBuilder(header).build())


@pytest.mark.parametrize("size", [0, 1, 8, 4095])
def test_a_file_shorter_than_a_header_is_an_error(size: int) -> None:
    with pytest.raises(SegmentError, match="no complete header"):
        parse_segment(one_operation([1])[:size])


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        ({"tick_source": 9}, "TickSource 9"),
        ({"state": 0}, "SegmentState 0"),
        ({"used": 1 << 40}, "truncated"),
        ({"used": 0}, "0 bytes used"),
        ({"lost": 1 << 60}, "samples were lost"),
        ({"refused": 1 << 60}, "shards were refused"),
        ({"latest_tick": 0}, "before its first"),
        ({"command_bytes": 1 << 31}, "command line"),
    ],
)
def test_oddities_of_the_header_are_named_and_the_entries_still_read(
    header: dict[str, Any], problem: str
) -> None:
    builder = SegmentBuilder(header)
    builder.entry(b"x", [operation_payload([5])])
    segment = parse_segment(builder.build())
    assert [entry.name for entry in segment.entries] == ["x"]
    assert any(problem in text for text in segment.problems), segment.problems


def test_a_truncated_segment_gives_the_entries_that_are_whole() -> None:
    builder = SegmentBuilder()
    builder.entry(b"first", [operation_payload([1, 2])])
    second = builder.entry(b"second", [operation_payload([3])])
    data = builder.build()
    segment = parse_segment(data[: second + 8])
    assert [(e.name, e.values["count"]) for e in segment.entries] == [("first", 2)]
    assert any("truncated" in text for text in segment.problems)
    assert any(f"byte {second}" in text for text in segment.problems)


def test_a_shard_that_is_cut_off_is_left_out_and_named() -> None:
    builder = SegmentBuilder()
    builder.entry(b"x", [operation_payload([1, 2]), operation_payload([3])])
    segment = parse_segment(builder.build()[:-64])
    assert segment.entries[0].values["count"] == 2
    assert any("A shard of 'x'" in text for text in segment.problems)


def test_a_list_that_points_back_ends_there() -> None:
    builder = SegmentBuilder()
    first = builder.entry(b"a", [bytes(8)], fields=SCALAR)
    second = builder.entry(b"b", [bytes(8)], fields=SCALAR)
    for target in (first, second):
        segment = parse_segment(patched(builder.build(), second, target))
        assert [entry.name for entry in segment.entries] == ["a", "b"]
        assert any("points back" in text for text in segment.problems)


def test_shards_that_two_entries_claim_can_not_multiply_the_work() -> None:
    builder = SegmentBuilder()
    shard_list = builder.entry(b"a", [bytes(8)] * 50, fields=SCALAR)
    others = [builder.entry(b"b", [], fields=SCALAR) for _ in range(300)]
    data = builder.build()
    first_shard = struct.unpack_from("<Q", data, shard_list + 8)[0]
    for other in others:
        data = patched(data, other + 8, first_shard)
    segment = parse_segment(data)
    assert sum(entry.shards for entry in segment.entries) * 72 <= len(data)
    assert any("more is claimed" in text for text in segment.problems)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ([("v", "1", 9, SUM, 0, 1, 0)], "FieldType"),
        ([("v", "1", U64, 9, 0, 1, 0)], "MergeRule"),
        ([("v", "1", U64, SUM, 4, 1, 0)], "outside"),
        ([("v", "1", U64, SUM, 8, 1, 0)], "outside"),
        ([("v", "1", U64, SUM, 0, 2, 0)], "2 values"),
        ([("v", "1", U64, SUM, 0, 0, 0)], "0 values"),
        ([("v", "1", HISTOGRAM, SUM, 0, 2**32 - 1, 7)], "buckets"),
        ([("v", "1", U64, SUM, 0, 1, 0)] * 65, "65 fields"),
    ],
)
def test_a_field_table_that_makes_no_sense_is_named(fields: list[Any], problem: str) -> None:
    builder = SegmentBuilder()
    builder.entry(b"x", [bytes(8)], fields=fields)
    segment = parse_segment(builder.build())
    assert segment.entries == ()
    assert any(problem in text for text in segment.problems), segment.problems


@pytest.mark.parametrize("offset", [1, 4096 + 1, 1 << 20, U64_MAX - 63])
def test_a_first_entry_outside_of_the_file_or_unaligned_is_named(offset: int) -> None:
    data = SegmentBuilder({"first_entry": offset}).build()
    segment = parse_segment(data)
    assert segment.entries == ()
    assert len(segment.problems) == 1


def test_labels_that_are_no_pairs_are_named() -> None:
    builder = SegmentBuilder()
    entry = builder.entry(b"x", [bytes(8)], fields=SCALAR, labels={b"k": b"v"})
    data = bytearray(builder.build())
    data[entry + 64 + 2] = ord("!")
    segment = parse_segment(bytes(data))
    assert any("no pairs" in text for text in segment.problems)
