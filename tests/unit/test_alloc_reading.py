"""Allocations as they are read: packed words, size classes, growth, limits."""

from __future__ import annotations

import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfctl.alloc.counts import Counts, unpack_pending
from cfctl.alloc.growth import GrowthVerdict, TimelinePoint, growth
from cfctl.alloc.limits import judged, parse_limits
from cfctl.alloc.recording import process_of_segment
from cfctl.alloc.report import AllocReport, build_report
from cfctl.errors import InputError
from cfctl.records import Verdict
from cfctl.segment.file import Liveness
from cfctl.segment.reader import parse_segment
from cfctl.segment.records import ClockPair
from cfctl.segment.tick_rate import LocalClock
from tests.unit.segment_builder import HISTOGRAM, I64, LAST, SUM, U64, SegmentBuilder

SECOND = 10**9
SIZES = 156
NAMES = (
    "tells_ended",
    "pending",
    "allocations",
    "deallocations",
    "reallocations",
    "failures",
    "bytes_allocated",
)
FIELDS = [
    *((name, "1", U64, SUM, 8 * place, 1, 0) for place, name in enumerate(NAMES)),
    ("net_bytes", "B", I64, SUM, 56, 1, 0),
    ("sizes", "B", HISTOGRAM, SUM, 64, SIZES, 2),
    ("tells_begun", "1", U64, SUM, 64 + 8 * SIZES, 1, 0),
]
PROCESS = ("live_bytes", "peak_bytes", "peak_ns", "inherited_bytes", "inherited_blocks", "began_ns", "batch_bytes", "bypass", "children")  # fmt: skip


def shard(allocations: int, freed: int, pending: int, allocated: int, net: int, **sizes: int) -> bytes:
    classes = [0] * SIZES
    for number, count in sizes.items():
        classes[int(number[1:])] = count
    return struct.pack(
        f"<7Qq{SIZES}QQ", 4, pending % 2**64, allocations, freed, 0, 0, allocated, net, *classes, 4
    )


def report(threads: list[bytes], peak: int = 0, inherited: int = 0) -> AllocReport:
    builder = SegmentBuilder()
    fields = [(name, "B", I64, LAST, 8 * place, 1, 0) for place, name in enumerate(PROCESS)]
    payload = struct.pack("<9q", 0, peak, 5, inherited, 1 if inherited else 0, 0, 65536, 0, 0)
    builder.entry(b"process", [payload], kind=b"alloc_process", fields=fields)
    builder.entry(b"threads", threads, kind=b"allocations", fields=FIELDS)
    segment = parse_segment(builder.build())
    process = process_of_segment(segment, Liveness.ENDED, LocalClock("", False, ClockPair(0, 0)))
    assert process is not None
    return build_report([process], segment.problems)


@given(st.integers(-70_000, 2**32), st.integers(0, 16_000), st.integers(0, 16_000))
def test_a_pending_word_comes_apart_as_it_was_put_together(net: int, allocations: int, freed: int) -> None:
    word = (net + (allocations << 34) + (freed << 49)) % 2**64
    assert unpack_pending(word) == (net, allocations, freed)


def test_pending_counts_belong_to_their_thread_and_bytes_freed_follow_from_the_net() -> None:
    pending = -500 + (3 << 34) + (7 << 49)
    found = report([shard(100, 90, pending, 10_000, 2_000), shard(1, 0, 0, 64, 64)], inherited=1000)
    (process,) = found.processes
    assert process.threads[0].counts == Counts(103, 97, 0, 0, 10_000, 8_500, 6, 1_500)
    assert (process.total.live_bytes, process.live_bytes, process.live_blocks) == (1564, 2564, 8)
    assert (process.peak.value, process.peak.uncertainty) == (2564, 2 * 65536)


def test_size_classes_are_four_per_power_of_two() -> None:
    (process,) = report([shard(6, 0, 0, 1, 1, c3=1, c4=2, c5=3, c8=4, c155=5)]).processes
    assert [(s.from_bytes, s.below_bytes) for s in process.sizes] == [
        (3, 4), (4, 5), (5, 6), (8, 10), (7 << 37, 8 << 37),
    ]  # fmt: skip


def test_a_process_without_the_library_has_no_allocations() -> None:
    segment = parse_segment(SegmentBuilder().build())
    assert process_of_segment(segment, Liveness.ENDED, LocalClock("", False, ClockPair(0, 0))) is None


def course(values: list[float], seconds: float = 10.0) -> list[TimelinePoint]:
    step = seconds * SECOND / len(values)
    return [TimelinePoint(round((n + 1) * step), round(value)) for n, value in enumerate(values)]


def verdict(values: list[float], seconds: float = 10.0) -> GrowthVerdict:
    return growth(course(values, seconds), round(seconds * SECOND), 65536).verdict


def test_a_leak_is_growing_and_a_level_course_is_steady() -> None:
    chance = random.Random(6)
    assert verdict([1e6 + 1e5 * n for n in range(200)]) is GrowthVerdict.GROWING
    assert verdict([1e8 + chance.uniform(0, 5e5) for n in range(200)]) is GrowthVerdict.STEADY
    assert verdict([5e6] * 200) is GrowthVerdict.STEADY
    found = growth(course([1e6 + 1e5 * n for n in range(200)]), 10 * SECOND, 65536)
    assert found.slope == pytest.approx(2e6, rel=0.05)
    assert found.interval is not None
    assert found.interval[0] <= 2e6 <= found.interval[1] * 1.05


def test_garbage_that_comes_back_is_no_growth_and_a_leak_below_it_is() -> None:
    saw = [1e7 + 1e6 * (n % 7) for n in range(500)]
    assert verdict(saw) is GrowthVerdict.STEADY
    assert verdict([value + 2e5 * n for n, value in enumerate(saw)]) is GrowthVerdict.GROWING


def test_warm_up_and_a_single_step_are_not_growing() -> None:
    assert verdict([1e6 * min(n, 40) for n in range(200)]) is GrowthVerdict.STEADY
    assert verdict([1e6 if n < 100 else 5e7 for n in range(200)]) is GrowthVerdict.INCONCLUSIVE


def test_a_short_run_and_one_without_points_are_inconclusive() -> None:
    assert verdict([1e6 * n for n in range(50)], 1.2) is GrowthVerdict.INCONCLUSIVE
    assert growth([], 10 * SECOND, 65536).verdict is GrowthVerdict.INCONCLUSIVE


def test_limits_are_judged_with_the_error_of_what_was_measured() -> None:
    found = report([shard(10, 0, 0, 100_000, 100_000)], peak=1_000_000)
    limits = parse_limits("live=100kB,live=99kB,peak=2MB,peak=1MB,peak=0.9MB,allocations=10,failures=0")
    verdicts = [outcome.judgement.verdict for outcome in judged(found, limits).limits]
    ok, fail, unknown = Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE
    assert verdicts == [ok, fail, ok, unknown, fail, ok, ok]
    assert judged(AllocReport(Counts(), (), ()), limits).limits[0].judgement.verdict is unknown


@pytest.mark.parametrize(
    "text", ["", "live", "live=", "live=5", "speed=1", "rate=fast", "rate=-1", "rate=nan"]
)
def test_a_limit_that_can_not_be_read_is_an_input_error(text: str) -> None:
    with pytest.raises(InputError):
        parse_limits(text)
