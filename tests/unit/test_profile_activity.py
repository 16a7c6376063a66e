from __future__ import annotations

import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from cfctl.profile.activity import Reading, activity, chosen, since
from cfctl.profile.report import RecordedProcess, Recording, ReportClock
from cfctl.profile.tally import Tally, merge
from cfctl.render.activity import render
from cfctl.segment.tick_rate import TickRate
from tests.unit.segment_builder import bucket_of

if TYPE_CHECKING:
    from tests.conftest import Cfctl

CLOCK = ReportClock("boot", "tsc", TickRate(0.5, 1.0, "test"), 0, 0, 20.0)


def tally(values: Sequence[int], errors: int = 0, name: str = "op") -> Tally:
    buckets: dict[int, int] = {}
    for value in values:
        buckets[bucket_of(value)] = buckets.get(bucket_of(value), 0) + 1
    return Tally(
        name, (), len(values), errors, sum(values), 0, 1, tuple(sorted(buckets.items())),
        min(values, default=None), max(values, default=None), 1, 2,
    )  # fmt: skip


def recording(pid: int, *tallies: Tally) -> Recording:
    return Recording(CLOCK, tallies, (RecordedProcess(pid, ("app",), "live", 7, "", 0, 0),))


VALUES = st.lists(st.integers(0, 2**40 - 1), max_size=50)


@given(VALUES, VALUES)
def test_what_came_since_is_what_was_added(before: list[int], after: list[int]) -> None:
    earlier, added = tally(before, errors=len(before)), tally(after)
    (later,) = merge([earlier, added])
    part = since(later, earlier)
    assert (part.count, part.errors, part.sum_ticks, part.buckets) == (
        added.count,
        0,
        added.sum_ticks,
        added.buckets,
    )


def test_rates_are_of_the_window_and_the_busiest_comes_first() -> None:
    earlier = Reading(0, 0, (recording(1, tally([1000] * 5), tally([10], name="idle")),))
    later = Reading(
        10**9, 10**9, (recording(1, tally([1000] * 5 + [2_000_000] * 100, 1), tally([10], name="idle")),)
    )
    first, second = activity(earlier, later).operations
    assert (first.name, first.count, first.rate.value, first.errors, first.recorded) == (
        "op",
        100,
        100.0,
        1,
        105,
    )
    assert first.busy.value == pytest.approx(0.1)
    assert first.p50.value == pytest.approx(1_000_000, rel=0.004)
    assert (second.count, second.rate.value, second.p50.value) == (0, 0.0, None)


def test_a_process_that_was_not_there_before_counts_whole() -> None:
    found = activity(Reading(0, 0, ()), Reading(10**9, 0, (recording(3, tally([5] * 9)),)))
    assert [(o.pid, o.count) for o in found.operations] == [(3, 9)]
    assert chosen(found, ["x*"]).operations == ()
    assert chosen(found, ["o?"], 1).operations == found.operations


def test_top_without_a_program_says_so(cfctl: Cfctl, tmp_path: Path) -> None:
    empty = {"CFCTL_SEGMENT_DIR": str(tmp_path / "none")}
    result = cfctl("top", "--interval", "1ms", env=empty)
    assert result.returncode == 0
    assert "No program that records operations runs." in result.stdout


def test_top_shows_the_operations_of_a_running_program(
    cfctl: Cfctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import subprocess
    import sys

    monkeypatch.setenv("CFCTL_SEGMENT_DIR", str(tmp_path / "segments"))
    program = (
        "import sys; from cfctl import Profiler\n"
        "op = Profiler().operation('serve'); op.record_ticks(5)\n"
        "print('ready', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=dict(os.environ)
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"ready\n"
        result = cfctl("top", "--interval", "1ms", "--updates", "2", "--json")
        running.communicate()
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["schema"] for line in lines] == ["cfctl.top"] * 2
    assert [(o["name"], o["recorded"]) for o in lines[1]["operations"]] == [("serve", 1)]


@pytest.mark.parametrize(("width", "left_out"), [(80, ["busy", "p50", "count"]), (120, [])])
def test_on_a_narrow_terminal_names_stay_whole_and_columns_fall_away(width: int, left_out: list[str]) -> None:
    name = "package.module:handle"
    values = [1_234_567 + 1000 * number for number in range(2000)]
    later = Reading(10**9, 10**9, (recording(4_000_000, tally(values, 150, name)),))
    shown = activity(Reading(0, 0, (recording(4_000_000, tally([], 0, name)),)), later)
    stream = io.StringIO()
    render(shown, Console(file=stream, width=width), None)
    head, _, row, *_ = stream.getvalue().splitlines()[1:]
    assert row.startswith(name)
    assert head.split() == [
        c for c in ("operation", "pid", "rate", "errors", "busy", "mean", "p50", "p99", "count")
        if c not in left_out
    ]  # fmt: skip
