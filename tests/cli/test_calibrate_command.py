"""`cfctl calibrate` and `cfctl clock` as processes: what they print, where, and how they end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.conftest import Cfctl

pytestmark = pytest.mark.host


def document(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    value = json.loads(done.stdout)
    assert isinstance(value, dict)
    return value


def test_the_report_holds_everything_that_was_promised(cfctl: Cfctl) -> None:
    report = document(cfctl("calibrate", "--duration", "20ms", "--json"))
    assert (report["schema"], report["version"]) == ("cfctl.calibrate", 1)
    made = report["calibration"]
    assert made["schema"] == "cfctl.calibration"
    assert made["verdict"] == "valid"
    assert made["duration_ns"] >= 20_000_000
    assert made["independence"] == "none"
    assert made["host"]["kernel"] == os.uname().release
    assert report["residual_ns"]["unit"] == "ns"
    assert report["tick_step_ns"]["value"] > 0
    assert set(report["read_costs_ns"]) >= {"tick", "raw", "syscall"}
    assert report["offsets"]["cpus"] == sorted(os.sched_getaffinity(0))
    assert Path(report["saved_to"]).is_file()


def test_text_names_reference_independence_and_units(cfctl: Cfctl) -> None:
    done = cfctl("calibrate", "--duration", "10ms")
    assert done.returncode == 0
    for words in (
        "against CLOCK_MONOTONIC_RAW",
        " Hz",
        "ppb",
        " ns",
        "independence",
        "verdict",
        "valid",
        "saved",
    ):
        assert words in done.stdout
    assert done.stderr == ""
    assert "\x1b" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_compare_shows_both_methods_and_the_exact_rate(cfctl: Cfctl) -> None:
    report = document(
        cfctl("calibrate", "--duration", "20ms", "--compare", "--samples", "3", "--sample-ms", "5", "--json")
    )
    methods = [each["calibration"]["method"] for each in report["compared"]]
    assert methods == ["clustered", "median"]
    for each in report["compared"]:
        deviation = each["deviation_ppb"]
        assert (deviation["value"] is None) == (deviation["reason"] is not None)


def test_references_and_snap_are_options(cfctl: Cfctl) -> None:
    made = document(cfctl("calibrate", "--duration", "10ms", "--reference", "monotonic", "--json"))[
        "calibration"
    ]
    assert made["reference"] == "monotonic"
    assert not made["snapped"]
    made = document(cfctl("calibrate", "--duration", "10ms", "--no-snap", "--json"))["calibration"]
    assert not made["snapped"]
    assert made["frequency_hz"] == made["estimate_hz"]
    made = document(
        cfctl("calibrate", "--duration", "10ms", "--cpu", str(min(os.sched_getaffinity(0))), "--json")
    )
    assert made["calibration"]["cpu_changes"] == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["--duration", "soon"], ["--duration", "1"], ["--duration", "1h"], ["--reference", "sundial"], ["--method", "guess"],
        ["--samples", "0"], ["--sample-ms", "0"], ["--cpu", "9999"], ["--cpu", "-1"], ["--interval", "1s"],
        ["--watch", "--compare"], ["--watch", "--method", "median"], ["--watch", "--interval", "0"],
        ["--format", "nothing"], ["-o", "/proc/nonexistent/file"],
    ],
)  # fmt: skip
def test_a_value_that_can_not_be_used_is_a_usage_error(cfctl: Cfctl, arguments: list[str]) -> None:
    done = cfctl("calibrate", *arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert done.stderr.strip()


def test_a_state_directory_that_can_not_be_written_is_said_and_nothing_is_lost(
    cfctl: Cfctl, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    done = cfctl("calibrate", "--duration", "10ms", "--json", env={"XDG_STATE_HOME": str(tmp_path / "file")})
    report = document(done)
    assert report["saved_to"] is None
    assert report["saved_reason"]
    assert "not saved" in done.stderr


def test_a_corrupt_history_is_set_aside_with_a_message(cfctl: Cfctl, tmp_path: Path) -> None:
    state = tmp_path / "state"
    env = {"XDG_STATE_HOME": str(state)}
    document(cfctl("calibrate", "--duration", "10ms", "--json", env=env))
    history = state / "cfctl" / "calibrations.json"
    history.write_text("{")
    done = cfctl("clock", "history", env=env)
    assert done.returncode == 3
    assert "set aside" in done.stderr
    history.write_text("{")
    done = cfctl("calibrate", "--duration", "10ms", "--json", env=env)
    assert document(done)["saved_to"] == str(history)
    assert "set aside" in done.stderr


def test_clock_shows_what_was_saved_and_its_health(cfctl: Cfctl, tmp_path: Path) -> None:
    env = {"XDG_STATE_HOME": str(tmp_path / "state")}
    for command in ("show", "health"):
        done = cfctl("clock", command, env=env)
        assert done.returncode == 3
        assert "cfctl calibrate" in done.stderr + done.stdout
    assert document(cfctl("clock", "history", "--json", env=env))["calibrations"] == []
    made = document(cfctl("calibrate", "--duration", "20ms", "--json", env=env))["calibration"]
    assert document(cfctl("clock", "show", "--json", env=env)) == made
    saved = document(cfctl("clock", "history", "--json", env=env))
    assert saved["calibrations"] == [made]
    assert saved["usable"] == made
    health = document(cfctl("clock", "health", "--json", env=env))
    assert health["verdict"] == "pass"
    assert health["calibration_from"] == "history"
    for command in ("show", "history", "health"):
        done = cfctl("clock", command, env=env)
        assert done.returncode == 0
        assert max(map(len, done.stdout.splitlines())) <= 80


def test_the_os_clock_is_a_valid_answer_with_its_reason(cfctl: Cfctl) -> None:
    made = document(cfctl("calibrate", "--json", env={"CFCTL_TICK_SOURCE": "os"}))["calibration"]
    assert (made["source"], made["frequency_hz"], made["verdict"]) == ("os", 1e9, "valid")
    assert "CFCTL_TICK_SOURCE" in made["source_reason"]


def watch(tmp_path: Path, *arguments: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "cfctl",
            "calibrate",
            "--duration",
            "10ms",
            "--watch",
            "--interval",
            "20ms",
            *arguments,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"XDG_STATE_HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)},
        **options,
    )


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_watch_prints_one_object_per_recheck_until_a_signal(tmp_path: Path, number: int, status: int) -> None:
    process = watch(tmp_path, "--json")
    assert process.stdout is not None
    found = [json.loads(process.stdout.readline()) for _ in range(3)]
    process.send_signal(number)
    rest, errors = process.communicate(timeout=60)
    assert process.returncode == status
    assert errors == ""
    assert all(json.loads(line)["schema"] == "cfctl.clock.recheck" for line in rest.splitlines())
    for each in found:
        assert each["epoch"] == 1
        assert each["action"] in {"keep", "refit"}
        assert each["drift_ppb"]["value"] is None
        assert each["drift_ppb"]["reason"]


def test_watch_as_text_is_one_line_per_recheck_that_names_the_reference(tmp_path: Path) -> None:
    process = watch(tmp_path)
    assert process.stdout is not None
    line = process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert "against CLOCK_MONOTONIC_RAW" in line
    # A counter without independent reference shows no drift, and says why once.
    assert ("drift -" in line) == ("no drift can be seen: " in said)


def test_watch_ends_when_nobody_reads_it_any_more(tmp_path: Path) -> None:
    with watch(tmp_path, "--json") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read()
    assert errors == ""
    assert process.returncode == 0


def test_ctrl_c_in_a_long_calibration_ends_at_once(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "cfctl", "calibrate", "--duration", "10min"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    deadline = time.monotonic() + 60
    while not _sleeps_in_calibration(process.pid) and time.monotonic() < deadline:
        os.sched_yield()
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert (output, errors) == ("", "")


def _sleeps_in_calibration(pid: int) -> bool:
    """Whether a process has loaded the core, and waits: earlier than that Python itself dies of SIGINT."""
    state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return state == "S" and "_native" in Path(f"/proc/{pid}/maps").read_text()
