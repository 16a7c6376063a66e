"""`cfctl check` as a process: verdicts, exit codes, files."""

from __future__ import annotations

import json
import os
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.conftest import Cfctl


def write_targets(tmp_path: Path, threshold: str, severity: str = "critical") -> None:
    (tmp_path / "work" / "cfctl.toml").write_text(
        f'[targets.memory]\nmetric = "memory_rss"\noperator = "<"\nthreshold = "{threshold}"\nseverity = "{severity}"\n'
    )


@pytest.mark.parametrize(
    ("threshold", "severity", "status", "verdict"),
    [("10 GB", "critical", 0, "pass"), ("1 kB", "critical", 1, "fail"), ("1 kB", "info", 0, "pass")],
)
def test_a_target_of_the_project_decides_the_exit_code(
    cfctl: Cfctl, tmp_path: Path, threshold: str, severity: str, status: int, verdict: str
) -> None:
    write_targets(tmp_path, threshold, severity)
    result = cfctl("check", "--target", "memory", "--json")
    document = json.loads(result.stdout)
    assert (result.returncode, document["verdict"]) == (status, verdict)
    assert document["results"][0]["target"]["source"].endswith("cfctl.toml:1")


@pytest.mark.parametrize(("policy", "status"), [("report", 3), ("pass", 0), ("fail", 1)])
def test_what_can_not_be_judged_counts_as_the_policy_says(cfctl: Cfctl, policy: str, status: int) -> None:
    arguments = ["check", "--target", "memory", "--pid", "99999999"]
    assert cfctl(*arguments, "--inconclusive", policy).returncode == status
    assert cfctl(*arguments, env={"CFCTL_CHECK_INCONCLUSIVE": policy}).returncode == status


def test_the_process_of_a_pid_is_measured_and_named(cfctl: Cfctl) -> None:
    result = cfctl("check", "--target", "memory", "--pid", str(os.getpid()))
    assert f"process {os.getpid()} (" in result.stdout


def test_a_pid_beyond_every_limit_is_a_reason_and_no_crash(cfctl: Cfctl) -> None:
    result = cfctl("check", "--target", "memory", "--pid", str(10**30))
    assert result.returncode in {2, 3}
    assert "Traceback" not in result.stderr
    assert "bug" not in result.stderr


def test_junit_and_annotations_are_written_beside_the_result(cfctl: Cfctl, tmp_path: Path) -> None:
    write_targets(tmp_path, "1 kB")
    file = tmp_path / "junit.xml"
    result = cfctl("check", "--target", "memory", "--json", "--junit", str(file), "--github")
    assert result.returncode == 1
    assert json.loads(result.stdout)["verdict"] == "fail"
    assert result.stderr.startswith("::error title=memory%3A fail::memory_rss of cfctl itself")
    assert ET.parse(file).getroot().get("failures") == "1"


def test_a_junit_file_that_can_not_be_written_is_told_before_anything_is_measured(cfctl: Cfctl) -> None:
    result = cfctl("check", "--junit", "no/such/file.xml")
    assert result.returncode == 2
    assert result.stdout == ""


def test_a_targets_file_takes_the_place_of_the_projects(cfctl: Cfctl, tmp_path: Path) -> None:
    write_targets(tmp_path, "1 kB")
    other = tmp_path / "other.toml"
    other.write_text("[targets]\ntemporal-accuracy = false\ncpu-utilization = false\n")
    result = cfctl("check", "--targets", str(other), "--json")
    assert result.returncode == 0
    assert [r["target"]["source"] for r in json.loads(result.stdout)["results"]] == ["built-in"]


@pytest.mark.parametrize(
    ("text", "in_message"),
    [
        ("", "holds no targets"),
        ("[targets.x]", "target 'x'"),
        ("targets = 5", "targets"),
        ("[[[", "no valid TOML"),
    ],
)
def test_a_targets_file_that_can_not_be_used_is_named(
    cfctl: Cfctl, tmp_path: Path, text: str, in_message: str
) -> None:
    file = tmp_path / "t.toml"
    file.write_text(text)
    result = cfctl("check", "--targets", str(file))
    assert result.returncode == 2
    assert "t.toml" in result.stderr
    assert in_message in result.stderr


def test_without_an_old_enough_calibration_temporal_accuracy_is_inconclusive_with_the_reason(
    cfctl: Cfctl,
) -> None:
    result = cfctl("check", "--target", "temporal-accuracy", "--json")
    entry = json.loads(result.stdout)["results"][0]
    assert result.returncode == 3
    assert entry["verdict"] == "inconclusive"
    assert "cfctl calibrate" in entry["measurement"]["reason"]


def test_the_table_says_target_value_limit_and_verdict(cfctl: Cfctl) -> None:
    lines = cfctl("check", "--target", "memory").stdout.splitlines()
    assert lines[0].split() == ["target", "measured", "wanted", "margin", "verdict"]
    words = lines[2].split()
    assert words[0] == "memory"
    assert words[2] == "±"
    assert words[4:8] == ["MB", "<", "100", "MB"]
    assert words[-2:] == ["MB", "pass"]
    assert lines[-1] == "verdict: pass"
