"""A real segment, damaged at random: whatever is read is possible, or its problem is named."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cfctl.errors import SegmentError
from cfctl.profile.recording import record_of_segment
from cfctl.profile.report import ProfileReport, build_report
from cfctl.segment.file import Liveness
from cfctl.segment.reader import parse_segment
from cfctl.segment.tick_rate import LocalClock, local_clock

SAMPLES = 1000
WRITER = f"""
import threading
import cfctl
first, second = cfctl.Profiler().operation("first", {{"k": "v"}}), cfctl.Profiler().operation("second")
def work():
    for i in range({SAMPLES} // 2):
        with first:
            pass
        with second:
            pass
threads = [threading.Thread(target=work) for _ in range(2)]
[t.start() for t in threads]
[t.join() for t in threads]
"""


@pytest.fixture(scope="module")
def segment(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    directory = tmp_path_factory.mktemp("damage") / "segments"
    environment = os.environ | {"CFCTL_SEGMENT_DIR": str(directory)}
    subprocess.run([sys.executable, "-c", WRITER], check=True, env=environment)
    (path,) = Path(directory).iterdir()
    return path.read_bytes()


@pytest.fixture(scope="module")
def clock() -> LocalClock:
    return local_clock()


def read(data: bytes, clock: LocalClock) -> ProfileReport | None:
    """The report of an ended segment's bytes, None when it is refused as a whole."""
    try:
        return build_report([record_of_segment(parse_segment(data), Liveness.ENDED, clock)])
    except SegmentError:
        return None


def assert_possible_or_named(report: ProfileReport) -> None:
    for operation in report.operations:
        assert operation.count >= 0
        assert operation.errors is not None
        assert operation.errors >= 0
    if report.problems:
        return
    # One shard may have had a sample on its way, which is all that may be off.
    assert report.total_samples <= 2 * (SAMPLES + 2)
    assert report.samples_lost <= 1 << 56
    for operation in report.operations:
        assert operation.errors is not None
        assert operation.threads is not None
        assert operation.errors <= operation.count + 1
        assert operation.threads <= operation.count + 2
        if operation.min.value is not None and operation.max.value is not None:
            assert 0 <= operation.min.value <= operation.max.value
        if operation.rate.value is not None:
            assert operation.rate.value >= 0


def flipped(data: bytes, bits: list[int]) -> bytes:
    damaged = bytearray(data)
    for bit in bits:
        damaged[bit // 8 % len(data)] ^= 1 << bit % 8
    return bytes(damaged)


def test_the_undamaged_segment_is_whole(segment: bytes, clock: LocalClock) -> None:
    report = read(segment, clock)
    assert report is not None
    assert report.problems == ()
    assert report.total_samples == 2 * SAMPLES


@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(bits=st.lists(st.integers(0, 8 * 160_000), min_size=1, max_size=4))
def test_flipped_bits_anywhere_never_give_an_unnamed_absurdity(
    segment: bytes, clock: LocalClock, bits: list[int]
) -> None:
    report = read(flipped(segment, bits), clock)
    if report is not None:
        assert_possible_or_named(report)


@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(places=st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(-64, 64)), min_size=1, max_size=3))
def test_flipped_bits_where_the_structure_is_never_give_an_unnamed_absurdity(
    segment: bytes, clock: LocalClock, places: list[tuple[int, int]]
) -> None:
    # Most of a segment is empty buckets; these are the bytes that are not zero, and their neighbours.
    used = [i for i, byte in enumerate(segment) if byte]
    bits = [8 * used[place % len(used)] + away for place, away in places]
    report = read(flipped(segment, bits), clock)
    if report is not None:
        assert_possible_or_named(report)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(size=st.integers(0, 160_000))
@example(size=4096)
def test_a_truncated_segment_gives_what_is_whole_and_says_so(
    segment: bytes, clock: LocalClock, size: int
) -> None:
    report = read(segment[:size], clock)
    if report is None:
        assert size < 4096
        return
    assert_possible_or_named(report)
    assert report.total_samples <= 2 * SAMPLES
    # Behind it the file is reserved in whole pages, and holds nothing yet.
    if size < parse_segment(segment).header.used_bytes:
        assert any("truncated" in problem for problem in report.problems)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(word=st.integers(0, 20_000), value=st.one_of(st.integers(0, 2**64 - 1), st.integers(0, 160_000)))
def test_a_word_overwritten_by_any_other_never_gives_an_unnamed_absurdity(
    segment: bytes, clock: LocalClock, word: int, value: int
) -> None:
    start = 8 * (word % (len(segment) // 8))
    report = read(segment[:start] + value.to_bytes(8, "little") + segment[start + 8 :], clock)
    if report is not None:
        assert_possible_or_named(report)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_at_all_are_read_or_refused(clock: LocalClock, tail: bytes, with_magic: bool) -> None:
    start = b"CFCTLSEG\1\0\0\0\0\x10\0\0" if with_magic else b""
    read(start + tail + bytes(8192), clock)
