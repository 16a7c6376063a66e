from __future__ import annotations

import dataclasses
import io
from typing import Any

import pytest
from rich.console import Console

from cfctl.errors import InputError
from cfctl.profile.report import Recording, build_report
from cfctl.profile.sampler import one_line_a_stack
from cfctl.profile.saved import recordings_of
from cfctl.profile.stacks import Stack, merge_stacks, parse_collapsed, stack_profile
from cfctl.records import to_plain
from cfctl.render.profile import render
from tests.unit.profile_runs import CLOCK


def profile(*stacks: tuple[str, int], rate: float = 100.0) -> Any:
    return stack_profile(
        [Stack(tuple(frames.split(";")), n) for frames, n in stacks], "py-spy 0", rate, 2, 5e6, True
    )


def test_a_function_has_its_own_samples_and_those_of_what_it_called() -> None:
    found = profile(("main (a.py:9);work (a.py:3)", 60), ("main (a.py:8)", 40))
    work, main = found.functions
    assert (work.name, work.file, work.own_samples, work.total_samples) == ("work", "a.py", 60, 60)
    assert (main.name, main.own_samples, main.total_samples) == ("main", 40, 100)
    assert main.total.value == 1.0
    assert found.samples == 100


def test_the_lines_of_a_function_are_one_function_and_its_recursion_counts_once() -> None:
    found = profile(("f (a.py:1);f (a.py:2);f (a.py:1)", 10), ("f (a.py:7)", 5), ("f (b.py:7)", 1))
    assert [(f.name, f.file, f.own_samples, f.total_samples) for f in found.functions] == [
        ("f", "a.py", 15, 15),
        ("f", "b.py", 1, 1),
    ]


@pytest.mark.parametrize(
    ("part", "whole", "low", "high"),
    # Published: Brown, Cai & DasGupta, Statistical Science 16 (2001): Wilson at 0 of 10 is 0..0.278.
    [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (50, 100, 0.4038, 0.5962)],
)
def test_the_error_of_a_share_is_half_of_wilsons_interval(
    part: int, whole: int, low: float, high: float
) -> None:
    found = profile(("a", whole - part), *([("b", part)] if part else []), ("a;c", 0))
    share = next(f for f in found.functions if f.name == ("b" if part else "c")).own
    assert share.value == part / whole
    assert share.uncertainty == pytest.approx((high - low) / 2, abs=1e-3)
    assert share.sample_count == whole


def test_collapsed_lines_are_read_and_a_thread_without_frames_is_counted() -> None:
    assert parse_collapsed("main (a b.py:1);<lambda> 3\n 2\n") == [
        Stack(("main (a b.py:1)", "<lambda>"), 3),
        Stack(("[no frames]",), 2),
    ]
    for line in ("main", "main x", "main -1", "main ²", "main " + "9" * 30):
        with pytest.raises(ValueError, match="no count"):
            parse_collapsed(line)


def test_command_lines_of_children_are_frames_of_one_line() -> None:
    text = (
        'process 5:"python -c a = 5\nb=\\"x\\";c()\n";process 6:"sh -c x; y 7";main (a.py:1);f (a.py:2) 3\n'
        'process 5:"python -c a = 5\n";g (b.py:9) 4\n'
        'process 5:"python" 1\n'
    )
    first, second, third = parse_collapsed(one_line_a_stack(text))
    assert first.frames[1:] == ("process 6: sh -c x, y 7", "main (a.py:1)", "f (a.py:2)")
    assert first.frames[0].startswith("process 5: python -c a = 5 b=")
    assert (second.frames, second.samples) == (("process 5: python -c a = 5", "g (b.py:9)"), 4)
    assert third.frames == ("process 5: python",)


def test_profiles_merge_by_stack_and_forget_what_differs() -> None:
    merged = merge_stacks([profile(("a;b", 3)), profile(("a;b", 4), ("c", 1), rate=50.0)])
    assert merged is not None
    assert [(s.frames, s.samples) for s in merged.stacks] == [(("a", "b"), 7), (("c",), 1)]
    assert (merged.samples, merged.failed, merged.rate_hz, merged.attached_after_ns) == (8, 4, 0.0, None)
    assert merge_stacks([]) is None


def saved() -> dict[str, Any]:
    report = build_report([Recording(CLOCK, (), ())])
    return dict(to_plain(dataclasses.replace(report, stacks=profile(("a (x.py:1);b", 3)))))


def test_saved_stacks_read_back_as_they_were() -> None:
    assert build_report(recordings_of(saved())).stacks == profile(("a (x.py:1);b", 3))


@pytest.mark.parametrize(
    "damage",
    [
        {"stacks": [{"frames": [], "samples": 1}]},
        {"stacks": [{"frames": ["a"], "samples": -1}]},
        {"stacks": [{"frames": "ab", "samples": 1}]},
        {"stacks": [{"frames": ["a"] * 3000, "samples": 1}]},
        {"rate_hz": "x"},
        {"failed": None},
        {"paused": 1},
    ],
)
def test_damaged_stacks_are_refused(damage: dict[str, Any]) -> None:
    document = saved()
    document["stacks"] |= damage
    with pytest.raises(InputError):
        recordings_of(document)


def shown(report: Any) -> list[str]:
    stream = io.StringIO()
    render(report, Console(file=stream, width=80), None)
    return stream.getvalue().splitlines()


def test_what_was_only_sampled_has_no_line_of_samples_that_nobody_recorded() -> None:
    stacks = profile(("main (a.py:9);work (a.py:3)", 60), ("main (a.py:8)", 40))
    sampled = shown(dataclasses.replace(build_report([]), stacks=stacks))
    assert not any("Total samples" in line for line in sampled)
    assert any("work" in line and "60" in line for line in sampled)
    assert shown(build_report([]))[0] == "Total samples: 0"
