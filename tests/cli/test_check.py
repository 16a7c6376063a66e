"""`cfctl check` as a process: verdicts, exit codes, files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

if TYPE_CHECKING:
    from tests.conftest import Cfctl

NEEDS_TWO = pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 2 or "PYTEST_XDIST_WORKER" in os.environ,
    reason="it takes two CPUs whole, and must not run beside other tests",
)


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
    result = cfctl("check", "--target", "memory", "--window", "20ms", "--json")
    document = json.loads(result.stdout)
    assert (result.returncode, document["verdict"]) == (status, verdict)
    assert document["results"][0]["target"]["source"].endswith("cfctl.toml:1")


@pytest.mark.parametrize(("policy", "status"), [("report", 3), ("pass", 0), ("fail", 1)])
def test_what_can_not_be_judged_counts_as_the_policy_says(cfctl: Cfctl, policy: str, status: int) -> None:
    arguments = ["check", "--target", "memory", "--window", "20ms", "--pid", "99999999"]
    assert cfctl(*arguments, "--inconclusive", policy).returncode == status
    assert cfctl(*arguments, env={"CFCTL_CHECK_INCONCLUSIVE": policy}).returncode == status


def test_the_process_of_a_pid_is_measured_and_named_and_of_several_runs_the_median_is_taken(
    cfctl: Cfctl,
) -> None:
    arguments = (
        "--target",
        "memory",
        "--window",
        "20ms",
        "--pid",
        str(os.getpid()),
        "--repeat",
        "3",
        "--json",
    )
    document = json.loads(cfctl("check", *arguments).stdout)
    (found,) = document["results"]
    assert f"process {os.getpid()} (" in found["subject"]
    assert (document["runs"], found["measurement"]["sample_count"]) == (3, 3)
    assert found["measurement"]["method"].startswith("median of 3 runs")


def test_a_pid_beyond_every_limit_is_a_reason_and_no_crash(cfctl: Cfctl) -> None:
    result = cfctl("check", "--target", "memory", "--window", "20ms", "--pid", str(10**30))
    assert result.returncode in {2, 3}
    assert "Traceback" not in result.stderr
    assert "bug" not in result.stderr


def test_junit_and_annotations_are_written_beside_the_result(cfctl: Cfctl, tmp_path: Path) -> None:
    write_targets(tmp_path, "1 kB")
    file = tmp_path / "junit.xml"
    result = cfctl(
        "check", "--target", "memory", "--window", "20ms", "--json", "--junit", str(file), "--github"
    )
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
    result = cfctl("check", "--targets", str(other), "--window", "20ms", "--json")
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
    result = cfctl("check", "--target", "temporal-accuracy", "--window", "20ms", "--json")
    entry = json.loads(result.stdout)["results"][0]
    assert result.returncode == 3
    assert entry["verdict"] == "inconclusive"
    assert "cfctl calibrate" in entry["measurement"]["reason"]


def test_the_table_says_target_value_limit_and_verdict(cfctl: Cfctl) -> None:
    lines = cfctl("check", "--target", "memory", "--window", "20ms").stdout.splitlines()
    assert lines[0].split() == ["target", "measured", "wanted", "margin", "verdict"]
    words = lines[2].split()
    assert words[0] == "memory"
    assert words[2] == "±"
    assert words[4:8] == ["MB", "<", "100", "MB"]
    assert words[-2:] == ["MB", "pass"]
    assert lines[-1] == "verdict: pass"


@pytest.mark.parametrize(
    "arguments",
    [
        ("--bench", "--pid", "1"),
        ("--bench", "--segment", "x.seg"),
        ("--pid", "1", "--segment", "x.seg"),
        ("--bench", "--window", "1s"),
        ("--bench", "--target", "thruput"),
        ("--bench", "--repeat", "0"),
        ("--inconclusive", "maybe"),
    ],
)
def test_what_can_not_be_checked_is_refused_before_anything_is_measured(
    cfctl: Cfctl, arguments: tuple[str, ...]
) -> None:
    result = cfctl("check", *arguments)
    assert (result.returncode, result.stdout) == (2, "")


@pytest.mark.host
@NEEDS_TWO
def test_the_bench_is_judged_whole_and_no_verdict_of_it_is_more_than_it_measured(
    cfctl: Cfctl, tmp_path: Path
) -> None:
    file = tmp_path / "out.xml"
    result = cfctl(
        "check",
        "--bench",
        "--target",
        "throughput",
        "--target",
        "packet-loss",
        "--json",
        "--junit",
        str(file),
    )
    document = json.loads(result.stdout)
    by_name = {each["target"]["name"]: each for each in document["results"]}
    assert by_name.keys() == {"throughput", "packet-loss"}
    assert result.returncode == {"pass": 0, "fail": 1, "inconclusive": 3}[document["verdict"]], result.stderr
    assert ET.parse(file).getroot().get("tests") == "2"
    for each in by_name.values():
        assert (each["measurement"]["value"] is None) == bool(each["measurement"]["reason"])
    # A machine may be too busy for a verdict, never for counting.
    assert by_name["packet-loss"]["measurement"]["value"] == 0
    assert by_name["throughput"]["measurement"]["value"] > 0


@pytest.mark.host
def test_an_interrupted_bench_ends_at_once_and_leaves_no_process_and_no_file(tmp_path: Path) -> None:
    segments = tmp_path / "segments"
    bench = subprocess.Popen(
        [sys.executable, "-m", "cfctl", "check", "--bench", "--target", "phase-coherence"],
        env=os.environ | {"CFCTL_SEGMENT_DIR": str(segments)}, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        end = time.monotonic() + 60
        while not list(segments.glob("*.ring")):
            assert time.monotonic() < end, "the bench's process did not start"
            assert bench.poll() is None
            time.sleep(0.01)
        processes = psutil.Process(bench.pid).children()
        assert processes
        # As a terminal does it: to all of them.
        os.killpg(bench.pid, signal.SIGINT)
        out, _ = bench.communicate(timeout=60)
        assert (bench.returncode, out) == (130, b"")
        assert psutil.wait_procs(processes, 60)[1] == []
        assert [path.name for path in segments.iterdir() if path.suffix in {".ring", ".seg"}] == []
    finally:
        bench.kill()
        bench.wait()


@pytest.mark.host
def test_a_segment_is_judged_while_its_program_runs_and_after_it_has_ended(
    cfctl: Cfctl, tmp_path: Path
) -> None:
    segments = tmp_path / "segments"
    program = (
        "import sys, cfctl\nwork = cfctl.Profiler().operation('work')\n"
        "for _ in range(2000):\n    with work: pass\nprint(flush=True); sys.stdin.read()"
    )
    environment = {"CFCTL_SEGMENT_DIR": str(segments)}
    process = subprocess.Popen(
        [sys.executable, "-c", program], env=os.environ | environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.readline()
    (segment,) = segments.glob("*.seg")
    (tmp_path / "work" / "cfctl.toml").write_text(
        '[targets.work]\nmetric = "operation_p99"\noperator = "<"\nthreshold = "10 s"\n'
    )
    arguments = ["check", "--segment", str(segment), "--window", "20ms", "--json"]
    live = json.loads(cfctl(*arguments, "--target", "memory", env=environment).stdout)
    assert f"process {process.pid}" in live["results"][0]["subject"]
    process.communicate()
    result = cfctl(*arguments, env=environment)
    ended = json.loads(result.stdout)
    assert (result.returncode, [each["target"]["name"] for each in ended["results"]]) == (0, ["work"])
    assert "memory" in {each["target"]["name"] for each in ended["not_applicable"]}
