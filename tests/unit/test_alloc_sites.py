"""Running memray along: its command line, and its summary, from a memray made by hand."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from cfctl.alloc.sites import summary, under_memray
from cfctl.launch import LaunchError

STATS = {
    "total_num_allocations": 1234,
    "metadata": {"peak_memory": 5_000_000},
    "top_allocations_by_size": [
        {"location": "load:app.py:7", "size": 4_000_000},
        {"location": "parse:app.py:9", "size": 1_000},
        {"location": "no size"},
        "no site",
    ],
}
# Answers `-c "import memray"`, and writes what it is told to where `memray stats` was to write.
PYTHON = """#!{python}
import pathlib, sys
if "stats" in sys.argv:
    if {fails}: sys.exit("memray: broken capture")
    pathlib.Path(sys.argv[sys.argv.index("--output") + 1]).write_text({answer!r})
sys.exit({status})
"""


def fake_python(tmp_path: Path, answer: str = "{}", status: int = 0, fails: bool = False) -> str:
    path = tmp_path / "python3.11"
    path.write_text(PYTHON.format(python=sys.executable, answer=answer, status=status, fails=fails))
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("words", "before", "after"),
    [
        (["app.py", "x"], [], ["app.py", "x"]),
        (["-m", "app", "-c"], [], ["-m", "app", "-c"]),
        (["-X", "dev", "-W", "error", "-B", "app.py"], ["-X", "dev", "-W", "error", "-B"], ["app.py"]),
        (["-Xdev", "-c", "print()"], ["-Xdev"], ["-c", "print()"]),
    ],
)
def test_memray_stands_between_the_interpreters_options_and_the_program(
    words: list[str], before: list[str], after: list[str], tmp_path: Path
) -> None:
    python, capture = fake_python(tmp_path), tmp_path / "capture.bin"
    run = ["-m", "memray", "run", "--quiet", "--output", str(capture)]
    assert under_memray([python, *words], capture) == [python, *before, *run, *after]


def test_what_memray_can_not_run_is_refused_with_a_way_out(tmp_path: Path) -> None:
    capture = tmp_path / "capture.bin"
    with pytest.raises(LaunchError, match="can not be run by memray"):
        under_memray(["git", "log"], capture)
    with pytest.raises(LaunchError, match="nothing to run"):
        under_memray([fake_python(tmp_path), "-B"], capture)
    with pytest.raises(LaunchError, match="pip install memray"):
        under_memray([fake_python(tmp_path, status=1), "app.py"], capture)


def test_the_summary_has_totals_and_the_sites_that_allocated_most(tmp_path: Path) -> None:
    capture = tmp_path / "capture.bin"
    capture.touch()
    first, *rest = summary(fake_python(tmp_path, json.dumps(STATS)), capture)
    assert "1234 allocations, peak 5.00 MB" in first
    assert [line.split() for line in rest[1:]] == [
        ["4.00", "MB", "load:app.py:7"],
        ["1.00", "kB", "parse:app.py:9"],
    ]


@pytest.mark.parametrize(
    ("answer", "fails", "words"),
    [("{", False, "can not be read"), ("[]", False, "is no object"), ("", True, "memray: broken capture")],
)
def test_a_summary_that_fails_is_a_line_of_the_report(
    answer: str, fails: bool, words: str, tmp_path: Path
) -> None:
    capture = tmp_path / "capture.bin"
    assert "left no capture" in summary("python3", capture)[0]
    capture.touch()
    (line,) = summary(fake_python(tmp_path, answer, fails=fails), capture)
    assert words in line
