"""`cfctl probe`: JSON, exit codes, refusals, and a run that Ctrl-C ends."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cfctl.cli.exit_codes import ExitCode

if TYPE_CHECKING:
    from tests.conftest import Cfctl

pytestmark = pytest.mark.host
USABLE = sorted(os.sched_getaffinity(0))


def document(result: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert result.returncode == 0, result.stderr
    loaded: dict[str, Any] = json.loads(result.stdout)
    return loaded


def test_jitter_as_json_holds_the_host_and_the_unexplained_share(cfctl: Cfctl) -> None:
    found = document(cfctl("probe", "jitter", "--duration", "100ms", "--json"))
    assert found["schema"] == "cfctl.probe.jitter"
    assert found["host"]["kernel"]
    assert [cpu["cpu"] for cpu in found["cpus"]] == USABLE
    for cpu in found["cpus"]:
        assert cpu["attribution"]["shares"][-1]["cause"] == "unexplained"
        assert cpu["load"]["contaminated"] in {True, False}


def test_jitter_as_text_is_readable_at_80_columns_without_escapes(cfctl: Cfctl) -> None:
    result = cfctl("probe", "jitter", "--duration", "50ms", "--cpus", str(USABLE[0]))
    assert result.returncode == 0
    assert "Gaps of 200 ns and more" in result.stdout
    assert "PM QoS" in result.stdout
    assert "\x1b" not in result.stdout
    assert max(len(line) for line in result.stdout.splitlines()) <= 80
    assert result.stderr == ""


def test_text_is_ascii_where_the_encoding_can_do_no_more(cfctl: Cfctl) -> None:
    ascii_only = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0"}
    result = cfctl("probe", "wakeup", "--duration", "50ms", env=ascii_only)
    assert result.returncode == 0
    assert "####" in result.stdout
    assert result.stdout.isascii()


def test_wakeup_states_policy_slack_interval_and_pm_qos(cfctl: Cfctl) -> None:
    found = document(
        cfctl("probe", "wakeup", "--duration", "50ms", "--interval", "1ms", "--slack", "1ns", "--json")
    )
    assert found["interval_ns"] == 1_000_000
    assert found["scheduling"] == {"policy": "other", "priority": 0, "timer_slack_ns": 1}
    assert {cpu["slack_ns"] for cpu in found["cpus"]} == {1}
    assert found["pm_qos"]["held_us"] is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may hold a PM QoS limit")
@pytest.mark.skipif(not Path("/dev/cpu_dma_latency").exists(), reason="no /dev/cpu_dma_latency")
def test_a_held_pm_qos_limit_is_announced_and_stated(cfctl: Cfctl) -> None:
    result = cfctl("probe", "wakeup", "--duration", "20ms", "--pm-qos", "0", "--json")
    assert "A PM QoS limit of 0 us" in result.stderr
    assert document(result)["pm_qos"]["held_us"] == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="root may do all of this")
@pytest.mark.parametrize("arguments", [["--policy", "fifo"], ["--pm-qos", "0"]])
def test_an_ordinary_user_is_told_what_is_missing(cfctl: Cfctl, arguments: list[str]) -> None:
    result = cfctl("probe", "wakeup", "--duration", "20ms", *arguments)
    assert result.returncode == ExitCode.UNMEASURED
    assert "Run as root" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["jitter", "--cpus", "60000"],
        ["jitter", "--cpus", "one"],
        ["jitter", "--cpus", ""],
        ["jitter", "--duration", "5"],
        ["jitter", "--duration", "0s"],
        ["jitter", "--threshold", "1ns"],
        ["jitter", "--policy", "batch"],
        ["jitter", "--priority", "5"],
        ["jitter", "--policy", "fifo", "--priority", "100"],
        ["jitter", "--attribution", "magic"],
        ["jitter", "--pm-qos", "-1"],
        ["wakeup", "--interval", "1ns"],
        ["wakeup", "--slack", "0ns"],
        ["core-to-core", "--variant", "swap"],
        ["core-to-core", "--samples", "0"],
        ["cost", "--samples", "0"],
        ["cost", "--nonsense"],
    ],
)
def test_what_can_not_be_used_is_a_usage_error(cfctl: Cfctl, arguments: list[str]) -> None:
    if arguments[0] == "core-to-core" and len(USABLE) < 2:
        pytest.skip("one CPU is usable")
    result = cfctl("probe", *arguments)
    assert result.returncode == ExitCode.USAGE, result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert result.stderr


def test_core_to_core_on_one_cpu_does_not_apply(cfctl: Cfctl) -> None:
    result = cfctl("probe", "core-to-core", "--cpus", str(USABLE[0]))
    assert result.returncode == ExitCode.UNMEASURED
    assert "needs two CPUs" in result.stderr


@pytest.mark.skipif(len(USABLE) < 2, reason="one CPU is usable")
def test_core_to_core_shows_a_matrix_and_the_relation(cfctl: Cfctl) -> None:
    result = cfctl("probe", "core-to-core", "--samples", "40")
    assert result.returncode == 0
    assert "One-way latency by cas" in result.stdout
    assert "relation" in result.stdout


def test_clock_shows_the_step_and_the_costs(cfctl: Cfctl) -> None:
    found = document(cfctl("probe", "clock", "--json"))
    assert {"tick", "raw", "monotonic", "realtime"} <= set(found["read_costs"])
    assert found["tick_source"] in {"tsc", "cntvct", "os"}


def test_the_os_clock_measures_too_where_the_counter_is_not_to_be_used(cfctl: Cfctl) -> None:
    found = document(
        cfctl("probe", "jitter", "--duration", "50ms", "--json", env={"CFCTL_TICK_SOURCE": "os"})
    )
    assert found["clock"]["tick_source"] == "os"
    assert all(cpu["turns"] > 0 for cpu in found["cpus"])


def busy_ticks(pid: int) -> int:
    """Return the user time of a process's threads that are pinned to one CPU, in clock ticks."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        pinned = re.search(r"(?m)^Cpus_allowed_list:\s*\d+$", (task / "status").read_text())
        total += int((task / "stat").read_text().rpartition(")")[2].split()[11]) if pinned else 0
    return total


@pytest.mark.skipif(len(USABLE) < 2, reason="one CPU is usable: the measuring threads can not be told")
def test_ctrl_c_reports_what_was_measured(tmp_path: Path) -> None:
    # Letting go of the tracepoints takes a second and more on a busy machine.
    options = ["--duration", "50s", "--attribution", "unprivileged", "--json"]
    command = [sys.executable, "-m", "cfctl", "probe", "jitter", *options]
    program = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))})  # fmt: skip
    try:
        # Only when the loops are seen at work has the run begun.
        while program.poll() is None and busy_ticks(program.pid) < 10:
            os.sched_yield()
        program.send_signal(signal.SIGINT)
        output, errors = program.communicate(timeout=50)
    finally:
        program.kill()
        program.wait()
    assert program.returncode == ExitCode.INTERRUPTED, errors
    found = json.loads(output)
    assert found["interrupted"] is True
    assert [cpu["cpu"] for cpu in found["cpus"]] == USABLE
    assert all(cpu["duration_ns"] < 50_000_000_000 for cpu in found["cpus"])
