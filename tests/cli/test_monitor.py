"""`cfctl monitor` and `cfctl targets` as a user runs them: through a pipe, recorded, replayed, signalled."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.conftest import Cfctl

pytestmark = pytest.mark.host
ALWAYS_MISSED = '[targets.memory]\nmetric = "memory_rss"\noperator = "<"\nthreshold = "1 kB"\nfor = "0s"\n'


def start(directory: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "cfctl", "monitor", "--no-calibrate", *arguments],
        cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def next_json(monitor: subprocess.Popen[str]) -> Any:
    assert monitor.stdout is not None
    return json.loads(monitor.stdout.readline())


def test_through_a_pipe_there_is_a_line_each_interval(tmp_path: Path) -> None:
    monitor = start(tmp_path, "--interval", "100ms")
    assert monitor.stdout is not None
    lines = [monitor.stdout.readline() for _ in range(3)]
    monitor.terminate()
    monitor.communicate(timeout=60)
    assert all("cpu" in line and "alerts 0" in line and "\x1b" not in line for line in lines)


def test_it_ends_after_its_duration(cfctl: Cfctl) -> None:
    result = cfctl("monitor", "--no-calibrate", "--interval", "100ms", "--duration", "350ms")
    assert result.returncode == 0
    assert 1 <= len(result.stdout.splitlines()) <= 4


def test_once_is_a_dashboard_or_a_document(cfctl: Cfctl) -> None:
    text = cfctl("monitor", "--no-calibrate", "--once", "--interval", "100ms")
    assert (text.returncode, "cpu-utilization" in text.stdout) == (0, True)
    document = json.loads(
        cfctl("monitor", "--no-calibrate", "--once", "--interval", "100ms", "--json").stdout
    )
    assert (document["schema"], document["version"]) == ("cfctl.monitor", 1)
    values = {s["metric"]: s["measurement"] for s in document["snapshot"]["series"]}
    assert values["cpu_utilization"]["value"] is not None
    assert values["temporal_accuracy"]["reason"]


def test_an_alert_is_told_once_and_handed_to_the_command(cfctl: Cfctl, tmp_path: Path) -> None:
    file = tmp_path / "t.toml"
    file.write_text(ALWAYS_MISSED)
    got = tmp_path / "got"
    hook = f"{sys.executable} -c \"import sys; open(r'{got}', 'a').write(sys.stdin.read())\""
    result = cfctl(
        "monitor", "--no-calibrate", "--interval", "100ms", "--duration", "600ms", "--targets", str(file),
        "--target", "memory", "--on-alert", hook, env={"CFCTL_SEGMENT_DIR": str(tmp_path / "segments")},
    )  # fmt: skip
    assert result.returncode == 0
    assert result.stderr.count("cfctl: alert: WARNING memory: memory_rss of cfctl itself") == 1
    assert "alerts 1 (memory)" in result.stdout
    (line,) = got.read_text().splitlines()
    assert json.loads(line)["alert"]["target"] == "memory"


def test_a_recording_replays_as_it_was_seen(cfctl: Cfctl) -> None:
    common = ("--no-calibrate", "--interval", "100ms", "--json")
    seen = cfctl("monitor", *common, "--duration", "350ms", "--record", "r").stdout
    again = cfctl("monitor", "--json", "--replay", "r", "--speed", "0").stdout
    assert [json.loads(line) for line in again.splitlines()] == [
        json.loads(line) for line in seen.splitlines()
    ]
    lines = cfctl("monitor", "--replay", "r", "--speed", "0").stdout.splitlines()
    assert len(lines) == len(seen.splitlines())


@pytest.mark.parametrize(
    ("arguments", "in_message"),
    [
        (("--replay", "missing"), "There is no recording missing"),
        (("--prometheus", "0.0.0.0:0"), "Other machines could read them"),
        (("--prometheus", "nonsense"), "is no address"),
        (("--prometheus", "127.0.0.1:0", "--tls-key", "k"), "no certificate to it"),
        (("--password-file", "p"), "They are not served"),
        (("--insecure",), "They are not served"),
        (("--interval", "0s"), "interval"),
        (("--record-limit", "x", "--record", "r"), "'x'"),
        (("--on-alert", "'"), "can not be read"),
        (("--on-alert", ""), "empty"),
        (("--target", "memry"), "no target 'memry'"),
        (("--textfile", "missing/x.prom"), "can not be written"),
        (("--record", "."), "can not be written"),
        (("--format", "csv", "--duration", "1s"), "standard output"),
    ],
)
def test_what_can_not_be_used_is_refused_with_its_reason(
    cfctl: Cfctl, arguments: tuple[str, ...], in_message: str
) -> None:
    result = cfctl("monitor", "--no-calibrate", *arguments)
    assert result.returncode == 2
    assert in_message in result.stderr
    assert "Traceback" not in result.stderr


def test_sigterm_ends_it_cleanly(tmp_path: Path) -> None:
    monitor = start(tmp_path, "--interval", "50ms", "--json", "--record", "r")
    next_json(monitor)
    monitor.terminate()
    _, messages = monitor.communicate(timeout=60)
    assert (monitor.returncode, messages) == (0, "")
    assert (tmp_path / "r").read_bytes().endswith(b"\n")


def test_sighup_reads_the_targets_anew_and_keeps_the_old_ones_when_it_can_not(tmp_path: Path) -> None:
    file = tmp_path / "cfctl.toml"
    file.write_text(ALWAYS_MISSED)
    monitor = start(tmp_path, "--interval", "50ms", "--json", "--target", "memory")
    assert next_json(monitor)["alerts"][0]["target_value"] == 1000
    file.write_text(ALWAYS_MISSED.replace("1 kB", "1 parsec"))
    os.kill(monitor.pid, signal.SIGHUP)
    while (found := next_json(monitor))["targets_current"]:
        pass
    assert found["alerts"][0]["target_value"] == 1000
    file.write_text(ALWAYS_MISSED.replace("1 kB", "2 kB"))
    os.kill(monitor.pid, signal.SIGHUP)
    while not (found := next_json(monitor))["targets_current"]:
        pass
    assert found["alerts"][0]["target_value"] == 2000
    monitor.terminate()
    _, messages = monitor.communicate(timeout=60)
    assert f"{file}:4: target 'memory' can not have threshold '1 parsec'" in messages
    assert "stay in force" in messages


def test_metrics_are_served_and_written_while_it_runs(tmp_path: Path) -> None:
    monitor = start(
        tmp_path, "--interval", "50ms", "--json", "--prometheus", "127.0.0.1:0", "--textfile", "m.prom"
    )
    next_json(monitor)
    next_json(monitor)
    assert "cfctl_cpu_utilization_ratio" in (tmp_path / "m.prom").read_text()
    assert monitor.stderr is not None
    address = monitor.stderr.readline().split()[-1].rstrip(".")
    with urllib.request.urlopen(address, timeout=20) as answer:
        assert b"cfctl_cpu_utilization_ratio" in answer.read()
    monitor.terminate()
    monitor.communicate(timeout=60)
    assert monitor.returncode == 0
    assert [file for file in tmp_path.iterdir() if file.name.startswith(".")] == []


def test_a_running_program_is_seen_with_its_operations(tmp_path: Path) -> None:
    program = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import cfctl\nwork = cfctl.Profiler().operation('work')\nwhile True:\n with work: pass",
        ]
    )
    monitor = start(tmp_path, "--interval", "200ms", "--json", "--pid", str(program.pid))
    try:
        for _ in range(50):
            found = [s for s in next_json(monitor)["snapshot"]["series"] if s["metric"] == "operation_p99"]
            if found and found[0]["measurement"]["value"] is not None:
                break
        assert dict(found[0]["labels"])["operation"] == "work"
        assert found[0]["measurement"]["unit"] == "ns"
    finally:
        monitor.terminate()
        program.kill()
        monitor.communicate(timeout=60)
        program.wait()


def test_targets_are_listed_explained_and_validated(cfctl: Cfctl, tmp_path: Path) -> None:
    listed = json.loads(cfctl("targets", "list", "--json").stdout)
    assert {"memory", "cpu-utilization"} <= {target["name"] for target in listed["targets"]}
    assert "Share of all CPU time" in cfctl("targets", "explain", "cpu-utilization").stdout
    assert "memory_rss" in cfctl("targets", "explain").stdout
    wrong = cfctl("targets", "explain", "memory_rs")
    assert (wrong.returncode, "'memory_rss'" in wrong.stderr) == (2, True)
    file = tmp_path / "t.toml"
    file.write_text(ALWAYS_MISSED)
    assert cfctl("targets", "validate", str(file)).returncode == 0
    file.write_text(ALWAYS_MISSED.replace("memory_rss", "memory_rs"))
    broken = cfctl("targets", "validate", str(file))
    assert broken.returncode == 2
    assert f"{file}:2" in broken.stderr
    assert "memory_rss" in broken.stderr
    file.write_text("[targets\n")
    assert cfctl("targets", "validate", str(file)).returncode == 2


def test_the_rules_are_a_file_for_prometheus(cfctl: Cfctl) -> None:
    assert 'alert: "CfctlMemory"' in cfctl("monitor", "rules").stdout
