"""Counting Python's allocations, and what a process tells of its memory."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Iterator
from itertools import repeat

import pytest

from cfctl import _native
from cfctl.alloc import interpreter
from cfctl.alloc.interpreter import gc_facts, heap_facts, tracemalloc_facts
from cfctl.alloc.track import FREED_UNKNOWN, HOOKS_REMOVED, track
from cfctl.segment.reader import parse_segment


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


def make(count: int) -> list[object]:
    return [object() for _ in repeat(None, count)]


def overhead() -> int:
    with track() as tracked:
        pass
    return tracked.result.allocations


def test_allocations_are_counted_and_the_change_of_live_blocks_is_exact() -> None:
    least = overhead()
    with track() as tracked:
        kept = make(1000)
    found = tracked.result
    assert 1000 <= found.allocations - least <= 1010
    assert 1000 <= found.net_blocks <= 1020
    assert found.requested_bytes >= 1000 * object.__sizeof__(kept[0])
    assert found.freed_bytes.value is None
    assert found.freed_bytes.reason == FREED_UNKNOWN
    assert found.problems == ()


def test_what_is_freed_within_is_no_change() -> None:
    with track() as tracked:
        make(1000)
    assert tracked.result.allocations >= 1000
    assert abs(tracked.result.net_blocks) < 20


def test_large_blocks_are_those_above_512_bytes() -> None:
    with track() as tracked:
        kept = [bytes(10_000) for _ in range(50)]
    assert 50 <= tracked.result.large_allocations < 60
    assert tracked.result.requested_bytes >= 500_000
    assert len(kept) == 50


def test_windows_nest_and_each_counts_its_own_time() -> None:
    with track() as outer:
        first = make(500)
        with track() as inner:
            second = make(200)
        third = make(500)
    assert 200 <= inner.result.net_blocks < 240
    assert 1200 <= outer.result.net_blocks < 1300
    assert len(first) + len(second) + len(third) == 1200


def test_windows_of_several_threads_overlap_in_any_order() -> None:
    inside, may_end = threading.Barrier(3), threading.Event()
    results = []

    def work(number: int) -> None:
        with track() as tracked:
            inside.wait(10)
            kept = make(1000)
            may_end.wait(10)
        results.append((number, tracked.result, kept))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    inside.wait(10)
    may_end.set()
    for thread in threads:
        thread.join()
    # All threads of the process count.
    assert max(result.allocations for _, result, _ in results) >= 2000
    assert all(result.allocations >= 1000 and result.problems == () for _, result, _ in results)


def test_an_exception_ends_the_window_and_removes_the_hooks() -> None:
    tracked = track()
    with pytest.raises(KeyError), tracked:
        raise KeyError
    assert tracked.result.problems == ()
    before = _native.track_counts()
    kept = make(100)
    assert _native.track_counts() == before
    assert len(kept) == 100


def test_a_window_is_used_once_and_has_no_result_before_its_end() -> None:
    tracked = track()
    with pytest.raises(RuntimeError, match="not ended"):
        _ = tracked.result
    with tracked:
        pass
    with pytest.raises(RuntimeError, match="one block"):
        tracked.__enter__()


def test_tracemalloc_beside_it_gives_bytes_and_hurts_nothing() -> None:
    tracemalloc.start()
    try:
        with track() as tracked:
            kept = make(1000)
        assert tracked.result.traced_bytes_change is not None
        assert tracked.result.traced_bytes_change >= 16_000
        assert tracked.result.tracemalloc.tracing
    finally:
        tracemalloc.stop()
    assert tracemalloc_facts().traced_bytes is None
    assert len(kept) == 1000


def test_hooks_that_somebody_removes_are_missed_and_said() -> None:
    tracemalloc.start()
    with track() as tracked:
        tracemalloc.stop()
    assert tracked.result.problems == (HOOKS_REMOVED,)
    with track() as again:
        kept = make(100)
    assert again.result.problems == ()
    assert again.result.allocations >= 100
    assert len(kept) == 100


def test_hooks_under_anothers_stay_quiet_and_are_used_again() -> None:
    tracked = track()
    with tracked:
        tracemalloc.start()
    before = _native.track_counts()
    kept = make(100)
    assert _native.track_counts() == before
    with track() as again:
        kept += make(100)
    tracemalloc.stop()
    assert again.result.allocations >= 100
    with track() as last:
        kept += make(100)
    assert last.result.problems == ()


def test_a_named_window_is_added_to_the_segment() -> None:
    for _ in range(2):
        with track("window of the test"):
            make(100)
    segment = parse_segment(_native.segment_bytes())
    (entry,) = [entry for entry in segment.entries if entry.kind == "pymalloc"]
    assert (entry.name, entry.values["windows"]) == ("window of the test", 2)
    allocations = entry.values["allocations"]
    assert isinstance(allocations, int)
    assert allocations >= 200


def test_a_name_that_fits_no_segment_is_refused() -> None:
    with pytest.raises(ValueError, match="NUL"), track("a\0b"):
        pass
    assert _native.track_counts() == _native.track_counts()


def test_the_facts_of_the_collector_are_those_of_python() -> None:
    found = gc_facts()
    assert found.enabled is False
    assert found.thresholds == gc.get_threshold()
    assert found.collections == tuple(each["collections"] for each in gc.get_stats())


def test_the_heap_grows_with_what_is_taken_from_it() -> None:
    before = heap_facts()
    if before is None:
        pytest.skip("this C library has no mallinfo2")
    kept = bytearray(50_000_000)
    after = heap_facts()
    assert after is not None
    assert after.in_use_bytes - before.in_use_bytes >= len(kept) - 1_000_000
    assert after.mapped_bytes - before.mapped_bytes >= len(kept) - 1_000_000


def test_shared_facts_follow_the_collector() -> None:
    code = (
        "import gc, json\n"
        "from cfctl import _native\n"
        "from cfctl.alloc import share_facts\n"
        "from cfctl.segment.reader import parse_segment\n"
        "share_facts(); share_facts()\n"
        "class A: pass\n"
        "for _ in range(500):\n"
        "    a = A(); a.me = a\n"
        "gc.collect()\n"
        "(e,) = [e for e in parse_segment(_native.segment_bytes()).entries if e.kind == 'interpreter']\n"
        "v = e.values\n"
        "assert v['collected'] >= 499 and v['full_collections'] >= 1 and v['uncollectable'] == 0, v\n"
        "assert v['pause_ns'] >= v['longest_pause_ns'] > 0 and v['blocks'] > 1000 and v['gc_enabled'] == 1, v\n"
        "assert not v['heap_known'] or v['heap_in_use_bytes'] > 100_000, v\n"
        "assert len(gc.callbacks) == 1\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_the_facts_cost_nothing_where_tracemalloc_was_never_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "tracemalloc")
    assert interpreter.tracemalloc_facts().tracing is False
    assert "tracemalloc" not in sys.modules
