"""The report of allocations as it is shown, compared with tests/golden/alloc."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from cfctl.alloc.limits import judged, parse_limits
from cfctl.alloc.report import build_report, since
from cfctl.cli.output import make_console
from cfctl.render.alloc import render, summary_line
from tests.unit.alloc_reports import SECOND, counts, leaking, leaking_and_steady, process, steady

GOLDEN = Path(__file__).parent.parent / "golden" / "alloc"


def drawn(encoding: str = "utf-8") -> str:
    report = judged(leaking_and_steady(), parse_limits("live=30MB,peak=10MB,rate=1e6/s"))
    output = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="replace", newline="")
    console = make_console(None, "never", into=output)
    console.width = 80
    render(report, console, None)
    output.flush()
    assert isinstance(output.buffer, io.BytesIO)
    return output.buffer.getvalue().decode(encoding)


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_the_report_is_the_golden_one(encoding: str) -> None:
    text = drawn(encoding)
    assert text == (GOLDEN / f"report-{encoding}.txt").read_text("utf-8"), (
        "python -m tests.unit.test_alloc_table"
    )
    assert "\x1b" not in text


def test_a_run_without_processes_shows_its_problem_and_no_table() -> None:
    output = io.StringIO()
    render(build_report([], ["No segment could be made."]), Console(file=output, width=80), None)
    assert output.getvalue().strip() == "problem: No segment could be made."
    assert summary_line(build_report([], [])) == "no allocations"


def test_a_reading_in_a_line_has_the_rates_of_the_time_since_the_last() -> None:
    earlier = build_report([process(counts(1_000, 500), [], seconds=1.0)], [])
    later = build_report([process(counts(21_000, 500), [], seconds=3.0)], [])
    line = summary_line(since(later, earlier))
    # 20 000 allocations and a tenth as many reallocations, in 2 s.
    assert "allocations 21000  rate 11 k/s" in line.replace("11.0", "11"), line
    assert "live 20.5 MB in 20500 blocks" in line
    assert line.endswith("inconclusive")
    assert since(later, build_report([], [])) == later


def test_a_leak_is_named_growing_and_a_level_course_steady() -> None:
    assert str(leaking().growth.verdict) == "growing"
    low, high = leaking().growth.interval or (0.0, 0.0)
    assert low <= 2e6 <= high
    assert str(steady().growth.verdict) == "steady"
    assert steady().growth.observed_ns <= 10 * SECOND


if __name__ == "__main__":
    GOLDEN.mkdir(parents=True, exist_ok=True)
    for name in ("utf-8", "ascii"):
        (GOLDEN / f"report-{name}.txt").write_text(drawn(name), "utf-8")
