from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.test_profile_report import Run, directory, run, segment
from tests.unit.test_segment_file import locked

__all__ = ["directory", "run"]

DAY_S = 86_400


def aged(place: Path, name: str, days: float, **header: int | bytes) -> Path:

    path = segment(place, name, **header)
    moment = time.time_ns() - int(days * DAY_S * 10**9)
    os.utime(path, ns=(moment, moment))
    return path


def test_the_list_shows_state_process_age_size_and_operations(directory: Path, run: Run) -> None:
    live = aged(directory, "live.seg", 0.5, pid=11)
    aged(directory, "ended.seg", 3, pid=12)
    with locked(live):
        status, out, err = run("segments", "list")
    assert (status, err) == (0, "")
    rows = [" ".join(line.split()) for line in out.splitlines()]
    assert any(row.startswith("11 live 12 h 75.") and row.endswith("kB 2 python app.py") for row in rows), (
        rows
    )
    assert any(row.startswith("12 ended 3 d 75.") for row in rows), rows


def test_the_list_as_json_has_base_units(directory: Path, run: Run) -> None:
    path = aged(directory, "a.seg", 3)
    document = json.loads(run("segments", "list", "--json")[1])
    assert (document["schema"], document["version"]) == ("cfctl.segments", 1)
    (row,) = document["segments"]
    assert (row["path"], row["state"], row["live"], row["operations"]) == (str(path), "ended", False, 2)
    assert row["age_ns"] >= 3 * DAY_S * 10**9
    assert row["size_bytes"] == path.stat().st_size


def test_what_is_no_segment_is_named_below_the_list(directory: Path, run: Run) -> None:
    segment(directory)
    (directory / "bad.seg").write_bytes(b"x")
    out = run("segments", "list")[1]
    assert "bad.seg: The file is no segment." in out.replace("\n", " ")


@pytest.mark.parametrize("there", [True, False])
def test_an_empty_or_missing_directory_is_one_message_and_exit_3(
    there: bool, directory: Path, run: Run
) -> None:
    if not there:
        directory.rmdir()
    status, out, err = run("segments", "list")
    assert (status, out) == (3, "")
    assert "There are no segments in" in err
    assert "profile run" in err


def test_prune_removes_ended_segments_of_that_age_and_never_a_live_one(directory: Path, run: Run) -> None:
    old, young, live = (aged(directory, f"{i}.seg", age) for i, age in enumerate([3, 1, 5]))
    with locked(live):
        status, out, err = run("segments", "prune", "--older-than", "48h", "--dry-run")
        assert (status, out) == (0, f"{old}\n")
        assert "1 would be removed" in err
        assert old.exists()
        status, out, err = run("segments", "prune", "--older-than", "48h")
    assert (status, out) == (0, f"{old}\n")
    assert "1 removed" in err
    assert "2 kept, 1 of them live" in err
    assert [path.exists() for path in (old, young, live)] == [False, True, True]


def test_prune_without_an_age_uses_the_settings(
    directory: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cfctl import config

    old, young = aged(directory, "old.seg", 8), aged(directory, "young.seg", 6)
    config.load.cache_clear()
    assert run("segments", "prune")[0] == 0
    assert [path.exists() for path in (old, young)] == [False, True]
    monkeypatch.setenv("CFCTL_SEGMENTS_MAX_TOTAL", "10 kB")
    config.load.cache_clear()
    run("segments", "prune")
    config.load.cache_clear()
    assert not young.exists()


def test_a_bad_age_is_a_usage_error(directory: Path, run: Run) -> None:
    for text in ("soon", "-1h", "5"):
        status, _, err = run("segments", "prune", "--older-than", text)
        assert status == 2, text
        assert text in err or "can not be" in err


def test_prune_of_nothing_is_fine(directory: Path, run: Run) -> None:
    assert run("segments", "prune")[0] == 0


def test_prune_removes_the_rings_of_publishers_that_ended_and_never_a_live_one(
    directory: Path, run: Run
) -> None:
    program = (
        "import os, sys\nfrom cfctl.bus import Bus\nbus = Bus()\nbus.publisher(sys.argv[1]).publish(b'x')\n"
        "print(flush=True)\nsys.stdin.read()\nos._exit(0)"
    )
    environment = os.environ | {"CFCTL_SEGMENT_DIR": str(directory)}

    def publish(topic: str) -> subprocess.Popen[str]:
        started = subprocess.Popen(
            [sys.executable, "-c", program, topic],
            env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert started.stdout is not None
        started.stdout.readline()
        return started

    ended, living = publish("ended"), publish("living")
    ended.communicate()
    rings = set(directory.glob("*.ring"))
    assert len(rings) == 2
    status, out, err = run("segments", "prune", "--older-than", "0s")
    left = set(directory.glob("*.ring"))
    living.communicate()
    assert (status, len(left)) == (0, 1)
    assert str((rings - left).pop()) in out.splitlines()
    assert "Rings of the bus: 1 removed." in err
