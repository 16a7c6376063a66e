"""cfctl diagnose latency as a command: exit codes, streams, forms."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING, Any

import pytest

from cfctl import config
from cfctl.cli.app import main
from cfctl.cli.exit_codes import ExitCode
from tests.hosts.fake_host import FakeHost

if TYPE_CHECKING:
    from pathlib import Path

LATENCY = ["diagnose", "latency"]


@pytest.fixture(autouse=True)
def _settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("COLUMNS", raising=False)
    config.load.cache_clear()


@pytest.fixture
def default_host(tmp_path: Path) -> str:
    return str(FakeHost.load("bare_default").build(tmp_path / "host"))


@pytest.fixture
def tuned_host(tmp_path: Path) -> str:
    return str(FakeHost.load("bare_tuned").build(tmp_path / "host"))


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main([*LATENCY, *arguments])
    out, err = capsys.readouterr()
    assert isinstance(caught.value.code, int)
    return caught.value.code, out, err


def document(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    _, out, err = run(capsys, "--json", *arguments)
    assert err == ""
    loaded: dict[str, Any] = json.loads(out)
    return loaded


def test_issues_of_yours_exit_1_and_a_clean_host_0(
    capsys: pytest.CaptureFixture[str], default_host: str
) -> None:
    assert run(capsys, "--sysroot", default_host)[0] == 1
    assert run(capsys, "--sysroot", default_host, "--only", "FD_LIMIT")[0] == 0
    assert run(capsys, "--sysroot", default_host, "--only", "FD_LIMIT", "--fail-on", "low")[0] == 1
    assert run(capsys, "--sysroot", default_host, "--only", "CPU_OFFLINE", "--fail-on", "low")[0] == 0


def test_a_tuned_host_passes_at_the_lowest_limit(capsys: pytest.CaptureFixture[str], tuned_host: str) -> None:
    code, out, err = run(capsys, "--sysroot", tuned_host, "--pid", "4242", "--fail-on", "low")
    assert (code, err) == (0, "")
    assert out.startswith("Latency: pass, no issues.")


def test_unobservable_exits_3_only_when_it_is_required(
    capsys: pytest.CaptureFixture[str], tuned_host: str
) -> None:
    arguments = ["--sysroot", tuned_host, "--only", "CLOCK_READ_COST,THP_ALWAYS"]
    assert run(capsys, *arguments)[0] == 0
    assert run(capsys, *arguments, "--require-observable", "thp_always")[0] == 0
    code, out, _ = run(capsys, *arguments, "--require-observable", "thp_always,clock_read_cost")
    assert code == 3
    assert "required and not observed: CLOCK_READ_COST" in out


def test_json_starts_with_its_schema(capsys: pytest.CaptureFixture[str], default_host: str) -> None:
    found = document(capsys, "--sysroot", default_host)
    assert list(found)[:2] == ["schema", "version"]
    assert (found["schema"], found["version"], found["verdict"]) == ("cfctl.diagnosis", 1, "fail")
    assert sum(found["counts"].values()) == len(found["checks"])
    assert found["measurements"] is None
    assert found["measurements_reason"].startswith("offline")


def test_skip_and_only_choose_checks(capsys: pytest.CaptureFixture[str], tuned_host: str) -> None:
    ids = [
        c["id"] for c in document(capsys, "--sysroot", tuned_host, "--only", "fd_limit, nice_limit")["checks"]
    ]
    assert sorted(ids) == ["FD_LIMIT", "NICE_LIMIT"]
    rest = [c["id"] for c in document(capsys, "--sysroot", tuned_host, "--skip", "FD_LIMIT")["checks"]]
    assert "FD_LIMIT" not in rest
    assert "NICE_LIMIT" in rest


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--only", "NOPE"], "There is no check 'NOPE'"),
        (["--only", ","], "No check is named"),
        (["--only", "TIMER_SLAK"], "Did you mean TIMER_SLACK"),
        (["--profile", "fast"], "There is no profile 'fast'"),
        (["--target", "50us"], "'50us' is no target"),
        (["--for", "fast"], "There is no profile 'fast'"),
        (["--cpus", "x"], "The CPU list 'x' can not be read"),
        (["--duration", "1ms", "--target", "p50=1s", "--only", "FD_LIMIT"], "The duration can not be used"),
        (["--interval", "soon"], "'soon' can not be read"),
        (["--sysroot", "/nowhere/at/all"], "does not exist"),
        (["--pid", "999999999", "--interval", "0"], "There is no process 999999999"),
        (["--pid", "0"], "--pid"),
        (["--fail-on", "some"], "--fail-on"),
        (["--format", "pdf"], "There is no format 'pdf'"),
    ],
)
def test_a_bad_argument_exits_2_with_a_message_on_stderr(
    capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert words in err
    assert "Traceback" not in err


def test_list_names_every_check(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--list")
    assert code == 0
    assert "TSC_CALIBRATION" in out
    catalogue = document(capsys, "--list")
    assert catalogue["schema"] == "cfctl.checks"
    assert len(catalogue["checks"]) > 36
    assert all(c["threshold"]["source"] and c["why"] for c in catalogue["checks"])


def test_all_shows_what_passed(capsys: pytest.CaptureFixture[str], tuned_host: str) -> None:
    assert "THP_ALWAYS: huge pages only" not in run(capsys, "--sysroot", tuned_host)[1]
    assert "THP_ALWAYS: huge pages only" in run(capsys, "--sysroot", tuned_host, "--all")[1]


def test_a_garbage_sysroot_is_all_unobservable(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "proc").write_bytes(os.urandom(1000))
    (tmp_path / "sys").symlink_to("/sys")
    (tmp_path / "syscalls.json").write_bytes(b"\xff\xfe{")
    found = document(capsys, "--sysroot", str(tmp_path))
    assert found["counts"]["error"] == found["counts"]["pass"] == found["counts"]["issue"] == 0
    assert found["verdict"] == "inconclusive"
    assert all(value is None for value in found["host"].values())


def test_a_hostile_process_name_reaches_no_terminal(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    host = FakeHost.load("bare_tuned").with_files(
        {
            "proc/4242/status": "Name:\tengine\nTracerPid:\t77\nThreads:\t1\n",
            "proc/77/status": "Name:\t\x1b]0;owned\x07[bold]x[/]\n",
        }
    )
    root = str(host.build(tmp_path / "host"))
    code, out, _ = run(capsys, "--sysroot", root, "--pid", "4242", "--only", "PTRACED")
    assert code == 1
    assert "\x1b" not in out
    assert "[bold]x[/]" in out


def test_result_goes_to_a_file(capsys: pytest.CaptureFixture[str], tuned_host: str, tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    code, out, err = run(capsys, "--sysroot", tuned_host, "--json", "-o", str(file))
    assert (code, out, err) == (0, "", "")
    assert json.loads(file.read_text())["schema"] == "cfctl.diagnosis"


def test_a_ci_system_gets_one_case_for_each_check(
    capsys: pytest.CaptureFixture[str], default_host: str
) -> None:
    chosen = [
        "--sysroot",
        default_host,
        "--only",
        "TIMER_SLACK,FD_LIMIT,CLOCK_READ_COST,CPU_OFFLINE,SKEW_TICK",
    ]
    code, out, _ = run(capsys, *chosen, "--format", "junit")
    assert code == 1
    suite = ET.fromstring(out).find("testsuite")
    assert suite is not None
    outcome = {case.get("name"): [child.tag for child in case] for case in suite}
    assert outcome == {
        "TIMER_SLACK": ["failure"], "FD_LIMIT": ["system-out"], "CLOCK_READ_COST": ["skipped"],
        "CPU_OFFLINE": ["system-out"],
    }  # fmt: skip
    _, out, _ = run(capsys, *chosen, "--format", "github", "--require-observable", "CLOCK_READ_COST")
    levels = {line.split(" title=")[1].split("%3A")[0]: line.split()[0] for line in out.splitlines()}
    assert levels == {"TIMER_SLACK": "::error", "FD_LIMIT": "::notice", "CLOCK_READ_COST": "::notice"}


def test_a_target_that_can_not_be_measured_is_inconclusive_and_exits_3(
    capsys: pytest.CaptureFixture[str], tuned_host: str
) -> None:
    arguments = ["--sysroot", tuned_host, "--pid", "4242", "--target", "p99.9=50us"]
    code, out, _ = run(capsys, *arguments)
    assert code == 3
    assert out.startswith("Target p99.9 <= 50.0 us for timer: inconclusive, not measured.\n")
    budget = document(capsys, *arguments, "--for", "ipc")["budget"]
    assert (budget["verdict"], budget["use"], budget["estimate"]) == ("inconclusive", "ipc", None)
    _, out, _ = run(capsys, *arguments, "--format", "github")
    assert out.startswith("::notice title=TARGET%3A inconclusive::")


def test_without_a_target_nothing_is_judged_but_the_issues(
    capsys: pytest.CaptureFixture[str], tuned_host: str
) -> None:
    assert document(capsys, "--sysroot", tuned_host)["budget"] is None
    assert "Target" not in run(capsys, "--sysroot", tuned_host)[1]


def test_low_issues_are_one_line_unless_they_are_asked_for(
    capsys: pytest.CaptureFixture[str], default_host: str
) -> None:
    rule = "soft RLIMIT_NOFILE"
    assert rule not in run(capsys, "--sysroot", default_host)[1]
    assert rule in run(capsys, "--sysroot", default_host, "--all")[1]
    assert rule in run(capsys, "--sysroot", default_host, "--only", "FD_LIMIT")[1]


@pytest.mark.parametrize("option", [("--cpus", "0"), ("--pm-qos", "0"), ("--storage", ".")])
def test_what_to_measure_can_not_be_said_of_a_captured_host(
    capsys: pytest.CaptureFixture[str], default_host: str, option: tuple[str, str]
) -> None:
    code, out, err = run(capsys, "--sysroot", default_host, *option)
    assert (code, out) == (ExitCode.USAGE, "")
    assert f"{option[0]} measures this host" in err


def test_costs_and_commands_that_verify_are_columns(
    capsys: pytest.CaptureFixture[str], default_host: str
) -> None:
    _, out, _ = run(capsys, "--sysroot", default_host, "--format", "csv")
    row = {row["id"]: row for row in csv.DictReader(io.StringIO(out))}["TIMER_SLACK"]
    assert (row["impact.value"], row["impact.reason"]) == ("", "not measured")
    assert row["verify"] == "cfctl diagnose latency --only TIMER_SLACK --pid PID"
    assert "impact" not in row


def test_checks_are_the_rows_of_a_table(capsys: pytest.CaptureFixture[str], default_host: str) -> None:
    _, out, _ = run(capsys, "--sysroot", default_host, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert {row["id"]: row["status"] for row in rows}["TIMER_SLACK"] == "issue"
    _, out, _ = run(capsys, "--list", "--format", "markdown")
    assert out.startswith("| id | area | title | severity |")


def cfctl(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cfctl", *LATENCY, *arguments], capture_output=True, text=True, timeout=180
    )


@pytest.mark.host
def test_this_machine_is_diagnosed_without_an_error(tmp_path: Path) -> None:
    done = cfctl("--interval", "10ms", "--duration", "500ms", "--json")
    assert done.returncode in {0, 1}
    assert done.stderr == ""
    found = json.loads(done.stdout)
    assert found["counts"]["error"] == 0
    for result in found["checks"]:
        assert (result["reason"] is None) == (result["status"] in {"issue", "pass"})


@pytest.mark.host
@pytest.mark.parametrize("use", ["timer", "busy-poll", "ipc", "network"])
def test_a_target_is_judged_on_this_machine(use: str) -> None:
    done = cfctl("--target", "p50=10s", "--for", use, "--duration", "200ms", "--only", "FD_LIMIT", "--json")
    found = json.loads(done.stdout)["budget"]
    # Ten seconds are met wherever the run was not disturbed.
    assert (done.returncode, found["verdict"]) in {(0, "pass"), (3, "inconclusive")}
    estimate = found["estimate"]
    if estimate["value_ns"] is None:
        # A machine that hardly let it run: too few samples, and it says so.
        assert (found["verdict"], bool(estimate["reason"])) == ("inconclusive", True)
    else:
        known = [estimate[name] for name in ("low_ns", "value_ns", "high_ns") if estimate[name] is not None]
        assert known == sorted(known)


@pytest.mark.host
def test_a_quick_run_measures_nothing() -> None:
    done = cfctl("--quick", "--json")
    found = json.loads(done.stdout)
    assert found["measurements"] is None
    assert found["interval_s"] is None
    assert found["counts"]["error"] == 0


@pytest.mark.host
def test_this_process_can_be_the_target() -> None:
    done = cfctl("--interval", "10ms", "--no-measure", "--json", "--pid", str(os.getpid()))
    found = {c["id"]: c for c in json.loads(done.stdout)["checks"]}
    assert found["RSS_TARGET"]["status"] in {"pass", "issue"}
    assert found["MAJOR_FAULTS"]["status"] in {"pass", "issue"}


@pytest.mark.host
def test_nothing_of_a_pipe_is_coloured() -> None:
    done = cfctl("--interval", "0", "--no-measure")
    assert "\x1b" not in done.stdout
    assert done.stderr == ""
