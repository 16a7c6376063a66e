"""cfctl compare as a command: exit codes, forms, messages."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from cfctl.cli.app import main
from tests.unit.test_compare import saved, wakeup

if TYPE_CHECKING:
    from pathlib import Path


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main(["compare", *arguments])
    out, err = capsys.readouterr()
    assert isinstance(caught.value.code, int)
    return caught.value.code, out, err


def test_a_regression_exits_1_only_when_asked_to(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    base, new = str(saved(tmp_path / "a", wakeup())), str(saved(tmp_path / "b", wakeup(60_000)))
    assert run(capsys, base, new)[0] == 0
    assert run(capsys, base, new, "--fail-on-regression")[0] == 1
    assert run(capsys, new, base, "--fail-on-regression")[0] == 0
    assert run(capsys, base, new, "--fail-on-regression", "--fail-above", "p*:50%:1us")[0] == 0


def test_what_can_not_be_told_exits_3_when_asked_to(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    base = str(saved(tmp_path / "a", wakeup()))
    spoilt = str(saved(tmp_path / "b", wakeup(60_000, contaminated=True)))
    assert run(capsys, base, spoilt)[0] == 0
    assert run(capsys, base, spoilt, "--fail-on-regression")[0] == 3
    assert run(capsys, base, spoilt, "--base", base, "--new", spoilt, "--fail-on-regression")[0] == 1
    other = str(saved(tmp_path / "c", wakeup(interval_ns=10_000_000)))
    code, out, err = run(capsys, base, other)
    assert (code, out) == (3, "")
    assert "interval_ns" in err


def test_the_table_shows_what_changed_with_its_noise(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    base, new = str(saved(tmp_path / "a", wakeup())), str(saved(tmp_path / "b", wakeup(60_000)))
    _, out, err = run(capsys, base, new)
    assert err == ""
    assert out.startswith("Comparison (probe.wakeup): fail\n")
    assert "worse by more than 5 % of the base" in out.replace("5.0", "5")
    assert max(map(len, out.splitlines()[5:])) <= 80
    _, out, _ = run(capsys, base, base)
    assert "2 figures stayed the same" in out
    _, out, _ = run(capsys, base, base, "--all")
    assert out.count("same") == 2


@pytest.mark.parametrize("form", ["json", "csv", "junit", "github", "markdown"])
def test_a_comparison_has_every_form(capsys: pytest.CaptureFixture[str], tmp_path: Path, form: str) -> None:
    base, new = str(saved(tmp_path / "a", wakeup())), str(saved(tmp_path / "b", wakeup(60_000)))
    code, out, _ = run(capsys, base, new, "--format", form)
    assert code == 0
    assert "p99" in out
    if form == "json":
        document = json.loads(out)
        assert (document["schema"], document["kind"], document["base"]) == (
            "cfctl.comparison",
            "probe.wakeup",
            [base],
        )


def test_a_bad_file_exits_2_with_its_name(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    base = str(saved(tmp_path / "a", wakeup()))
    code, out, err = run(capsys, base, str(tmp_path / "none"))
    assert (code, out) == (2, "")
    assert f"cfctl: {tmp_path / 'none'} can not be read." in err


def test_names_from_a_file_can_not_change_the_terminal(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    cost = {
        "name": "\x1b[31m[bold]x",
        "cost": {"value": 1.0, "unit": "ns", "uncertainty": 0.1},
        "distribution": None,
    }
    document = {"schema": "cfctl.probe.cost", "version": 1, "costs": [cost]}
    _, out, _ = run(capsys, *[str(saved(tmp_path / "a", document))] * 2, "--all")
    assert "\x1b" not in out
    assert "[bold]x" in out


def test_a_directory_or_a_glob_stands_for_its_files(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for side in ("old", "new"):
        (tmp_path / side).mkdir()
        (tmp_path / side / "notes.txt").write_text("no result")
        for number in (2, 1):
            saved(tmp_path / side / f"{number}.json", wakeup())
    document = json.loads(run(capsys, "old", "new/*.json", "--json")[1])
    assert document["base"] == ["old/1.json", "old/2.json"]
    assert document["new"] == ["new/1.json", "new/2.json"]
    saved(tmp_path / "[1].json", wakeup())
    assert json.loads(run(capsys, "[1].json", "old", "--json")[1])["base"] == ["[1].json"]
    (tmp_path / "empty").mkdir()
    for missing in ("empty", "none*.json"):
        status, out, err = run(capsys, "old", missing)
        assert (status, out) == (2, "")
        assert missing in err
