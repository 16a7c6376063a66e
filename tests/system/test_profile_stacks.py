"""`profile run --stacks` with the real py-spy: its result beside the report, the program untouched."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from tests.system.profile_programs import CFCTL, run_cfctl

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(
        not (Path(sysconfig.get_path("scripts")) / "py-spy").exists(), reason="py-spy is not installed"
    ),
]

SPIN = """
import sys, time
def hot():
    return sum(range(2000))
def work(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        hot()
"""


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CFCTL_SEGMENT_DIR", str(tmp_path / "segments"))


def sampled(tmp_path: Path, code: str, *options: str, **settings: Any) -> tuple[Any, dict[str, Any]]:
    program = tmp_path / "program.py"
    program.write_text(SPIN + code)
    report = tmp_path / "r.json"
    ended = run_cfctl(
        "profile", "run", "--stacks", *options, "--json", "-o", str(report), "--", sys.executable, str(program), **settings
    )  # fmt: skip
    return ended, json.loads(report.read_text()) if report.exists() else {}


def readable(ended: subprocess.CompletedProcess[str]) -> None:
    if "ermission" in ended.stderr or "permitted" in ended.stderr:
        pytest.skip(f"this host does not let py-spy read a process: {ended.stderr.strip()}")


def test_functions_are_found_and_streams_and_status_are_the_programs(tmp_path: Path) -> None:
    code = "print(sys.stdin.read())\nprint('own', file=sys.stderr)\nwork(1.5)\nsys.exit(7)"
    ended, report = sampled(tmp_path, code, "--function", "__main__:work", input="given")
    readable(ended)
    assert (ended.returncode, ended.stdout, ended.stderr) == (7, "given\n", "own\n")
    assert [operation["name"] for operation in report["operations"]] == ["__main__:work"]
    stacks = report["stacks"]
    assert stacks["sampler"].startswith("py-spy ")
    assert stacks["samples"] == sum(stack["samples"] for stack in stacks["stacks"]) > 20
    shares = {function["name"]: function for function in stacks["functions"]}
    assert shares["work"]["total"]["value"] > 0.5
    assert shares["hot"]["own_samples"] > 0
    shown = run_cfctl("profile", "report", str(tmp_path / "r.json"))
    assert shown.returncode == 0
    assert "Stacks: " in shown.stdout
    assert "hot (" in shown.stdout


def test_a_program_of_which_nothing_but_stacks_is_known_is_reported(tmp_path: Path) -> None:
    ended, report = sampled(tmp_path, "work(1)", "--stacks-no-pause", "--stacks-rate", "200")
    readable(ended)
    assert ended.returncode == 0
    assert report["operations"] == []
    assert (report["stacks"]["paused"], report["stacks"]["rate_hz"]) == (False, 200)


def test_children_are_sampled_when_they_are_followed(tmp_path: Path) -> None:
    child = "import time\\ndef childish():\\n  e=time.time()+1.5\\n  while time.time()<e: pass\\nchildish()"
    code = f"import subprocess\nsubprocess.run([sys.executable, '-c', '''{child}'''])\nwork(0.2)"
    ended, report = sampled(tmp_path, code, "--follow-children")
    readable(ended)
    assert ended.returncode == 0
    assert "childish" in {function["name"] for function in report["stacks"]["functions"]}


def test_a_signal_reaches_the_program_and_its_stacks_are_kept(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(SPIN + "print('ready', flush=True)\nwork(30)")
    report = tmp_path / "r.json"
    command = [
        *CFCTL,
        "profile",
        "run",
        "--stacks",
        "--json",
        "-o",
        str(report),
        "--",
        sys.executable,
        str(program),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as wrapper:
        assert wrapper.stdout is not None
        assert wrapper.stdout.readline() == "ready\n"
        threads = Path(f"/proc/{wrapper.pid}/task")
        while len(list(threads.iterdir())) < 2:
            pass
        signal.sigtimedwait([], 1)
        wrapper.send_signal(signal.SIGTERM)
        _, errors = wrapper.communicate(timeout=60)
    assert wrapper.returncode == 128 + signal.SIGTERM
    if "No stacks" in errors:
        pytest.skip(errors)
    assert json.loads(report.read_text())["stacks"]["samples"] > 0


@pytest.mark.parametrize(
    ("command", "status"), [(["sleep", "0.1"], 3), (["false"], 1), (["/none/such"], 127), (["/"], 126)]
)
def test_what_has_no_stacks_ends_as_it_would_and_says_why(command: list[str], status: int) -> None:
    ended = run_cfctl("profile", "run", "--stacks", "--", *command)
    assert ended.returncode == status
    assert "No stacks were sampled: " in ended.stderr or status > 125
    assert "Traceback" not in ended.stderr


def test_without_py_spy_a_sentence_says_how_to_install_it(tmp_path: Path) -> None:
    code = (
        "import sysconfig; sysconfig.get_path = lambda name: '/none'\n"
        "from cfctl.cli.app import main\n"
        f"main(['profile', 'run', '--stacks', '--', 'touch', {str(tmp_path / 'ran')!r}])"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | {"PATH": "/none"}, timeout=60
    )  # fmt: skip
    assert ended.returncode == 125
    assert "pip install 'cfctl[stacks]'" in ended.stderr
    assert not (tmp_path / "ran").exists()
