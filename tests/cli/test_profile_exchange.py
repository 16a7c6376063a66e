from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.conftest import Cfctl

RESULT = Path(__file__).parent / "pyperf_result.json"
WORKER = """
import sys
from cfctl import Profiler
operation = Profiler().operation("serve")
for number in range(200):
    operation.record_ticks((10_000 + number) * int(sys.argv[1]))
"""


@pytest.fixture(autouse=True)
def segments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CFCTL_SEGMENT_DIR", str(tmp_path / "segments"))


def test_an_imported_result_is_reported_as_any_other(cfctl: Cfctl) -> None:
    assert cfctl("profile", "import", str(RESULT), "-o", "saved.json").returncode == 0
    result = cfctl("profile", "report", "saved.json")
    assert result.returncode == 0
    assert "json.dumps" in result.stdout
    result = cfctl("compare", "saved.json", "saved.json")
    assert result.returncode == 0
    assert "inconclusive" in result.stdout


def test_what_can_not_be_imported_is_a_usage_error(cfctl: Cfctl) -> None:
    result = cfctl("profile", "import", __file__)
    assert (result.returncode, result.stdout) == (2, "")
    assert "Its format is not recognised." in result.stderr


def test_interleaved_commands_are_compared_run_by_run(cfctl: Cfctl, tmp_path: Path) -> None:
    program = tmp_path / "worker.py"
    program.write_text(WORKER)
    commands = [f"{sys.executable} {program} {factor}" for factor in (1, 2)]
    result = cfctl(
        "profile", "compare", "--interleave", *commands, "--rounds", "5", "--json", "-o", "c.json", "--fail-on-regression"
    )  # fmt: skip
    assert result.returncode == 1, result.stderr
    document = json.loads((tmp_path / "work" / "c.json").read_text())
    assert document["verdict"] == "fail"
    assert {change["direction"] for change in document["changes"]} == {"worse"}
    p50 = next(change for change in document["changes"] if change["metric"] == "p50")
    assert p50["new"] / p50["base"] == pytest.approx(2, rel=0.01)


@pytest.mark.parametrize(
    ("commands", "status", "what"),
    [
        (("", "true"), 2, "is empty"),
        (("'", "true"), 2, "is no command"),
        (("false", "true"), 3, "ended with status 1"),
        (("true", "true"), 3, "recorded nothing"),
        (("no-such-program", "true"), 3, "no-such-program"),
    ],
)
def test_commands_that_can_not_be_compared_are_told(
    commands: tuple[str, str], status: int, what: str, cfctl: Cfctl
) -> None:
    result = cfctl("profile", "compare", "--interleave", *commands, "--rounds", "1")
    assert (result.returncode, result.stdout) == (status, "")
    assert what in result.stderr


def test_a_program_without_a_timeline_is_told_how_to_record_one(cfctl: Cfctl, tmp_path: Path) -> None:
    program = tmp_path / "worker.py"
    program.write_text(WORKER)
    cfctl("profile", "run", "--", sys.executable, str(program), "1")
    result = cfctl("profile", "timeline", "--format", "perfetto")
    assert (result.returncode, result.stdout) == (3, "")
    assert "holds no timeline" in result.stderr
