"""`profile run` as a wrapper: streams, signals and exit statuses of the command are its own."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.profile_programs import CFCTL, profile_run, run_cfctl

pytestmark = pytest.mark.system

RECORDS = "import cfctl\nwith cfctl.Profiler().operation('op'): pass\n"


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "segments"
    monkeypatch.setenv("CFCTL_SEGMENT_DIR", str(path))
    return path


@pytest.mark.parametrize(("code", "status"), [("", 0), ("raise SystemExit(5)", 5), ("1/0", 1)])
def test_the_exit_status_is_the_commands_own(code: str, status: int, tmp_path: Path) -> None:
    ended, report = profile_run([sys.executable, "-c", RECORDS + code], report=tmp_path / "r.json")
    assert ended.returncode == status
    assert report["total_samples"] == 1


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_a_command_that_a_signal_ends_gives_128_and_the_signal(number: int, tmp_path: Path) -> None:
    code = RECORDS + f"import os\nos.kill(os.getpid(), {int(number)})"
    ended, report = profile_run([sys.executable, "-c", code], report=tmp_path / "r.json")
    assert ended.returncode == 128 + number
    assert report["total_samples"] == 1


def test_streams_are_the_commands_own_and_the_report_goes_to_standard_error() -> None:
    code = RECORDS + "import sys\nprint(sys.stdin.read().upper(), end='')\nprint('own', file=sys.stderr)"
    ended = run_cfctl("profile", "run", "--", sys.executable, "-c", code, input="text")
    assert ended.stdout == "TEXT"
    assert ended.stderr.startswith("own\n")
    assert "Total samples: 1" in ended.stderr


def test_a_json_report_can_go_to_standard_error_to_a_file_or_to_standard_output(tmp_path: Path) -> None:
    command = ["--", sys.executable, "-c", RECORDS]
    assert json.loads(run_cfctl("profile", "run", "--json", *command).stderr)["total_samples"] == 1
    assert json.loads(run_cfctl("profile", "run", "--json", "-o", "-", *command).stdout)["total_samples"] == 1
    to_file = run_cfctl("profile", "run", "--json", "-o", str(tmp_path / "r.json"), *command)
    assert (to_file.stdout, to_file.stderr) == ("", "")
    assert json.loads((tmp_path / "r.json").read_text())["total_samples"] == 1


def test_options_after_the_command_are_the_commands() -> None:
    code = RECORDS + "import sys\nprint(sys.argv[1:])"
    ended = run_cfctl("profile", "run", sys.executable, "-c", code, "--json", "-o", "x", "--", "--help")
    assert ended.stdout == "['--json', '-o', 'x', '--', '--help']\n"


@pytest.mark.parametrize(
    ("command", "status", "why"),
    [
        (["/none/such"], 127, "was not found"),
        (["no-such-command-anywhere"], 127, "was not found"),
        (["/"], 126, "can not be run"),
        (["/etc/passwd"], 126, "can not be run"),
    ],
)
def test_what_can_not_be_run_ends_as_with_env(command: list[str], status: int, why: str) -> None:
    ended = run_cfctl("profile", "run", "--", *command)
    assert ended.returncode == status
    assert why in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_script_without_a_first_line_is_run_by_the_shell(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text(f'{sys.executable} -c "{RECORDS.strip()}"\nexit 4\n')
    script.chmod(0o755)
    ended, report = profile_run([str(script)], report=tmp_path / "r.json")
    assert ended.returncode == 4
    assert report["total_samples"] == 1


def test_nothing_recorded_is_told_with_an_example_and_exit_3() -> None:
    ended = run_cfctl("profile", "run", "--", "true")
    assert ended.returncode == 3
    assert "recorded nothing" in ended.stderr
    assert "Example: cfctl profile run --function" in ended.stderr
    assert run_cfctl("profile", "run", "--", "false").returncode == 1


def test_an_interpreter_without_cfctl_is_told_before_anything_runs(tmp_path: Path) -> None:
    command = [sys.executable, "-S", "-c", f"open({str(tmp_path / 'ran')!r}, 'w')"]
    ended = run_cfctl("profile", "run", "--", *command, cwd="/", env=os.environ | {"PYTHONPATH": ""})
    if ended.returncode != 125:
        pytest.skip("this interpreter has cfctl without its site-packages")
    assert "Install it there" in ended.stderr
    assert not (tmp_path / "ran").exists()


def test_bad_patterns_and_unwritable_reports_end_before_anything_runs(tmp_path: Path) -> None:
    command = ["--", sys.executable, "-c", f"open({str(tmp_path / 'ran')!r}, 'w')"]
    for options in (["--function", "no-colon"], ["-o", "/none/such/file"], ["--format", "none"]):
        ended = run_cfctl("profile", "run", *options, *command)
        assert ended.returncode == 2, options
        assert not (tmp_path / "ran").exists()
    assert run_cfctl("profile", "run").returncode == 2


WAITS = """
import os, signal, sys, cfctl
with cfctl.Profiler().operation("op"): pass
signals = {signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP}
signal.pthread_sigmask(signal.SIG_BLOCK, signals)
os.write(1, b"ready\\n")
number = signal.sigwait(signals)
seen = [number.name]
while signal.sigpending() & signals:
    seen.append(signal.sigwait(signals).name)
print(*seen)
sys.exit(9)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP])
def test_a_signal_sent_to_the_wrapper_reaches_the_command_and_the_report_follows(
    number: signal.Signals, tmp_path: Path
) -> None:
    report = tmp_path / "r.json"
    command = [*CFCTL, "profile", "run", "--json", "-o", str(report), "--", sys.executable, "-c", WAITS]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as wrapper:
        assert wrapper.stdout is not None
        assert wrapper.stdout.readline() == "ready\n"
        wrapper.send_signal(number)
        assert wrapper.stdout.read() == f"{number.name}\n"
    assert wrapper.returncode == 9
    assert json.loads(report.read_text())["total_samples"] == 1


def test_ctrl_c_on_a_terminal_reaches_the_command_once_and_the_report_follows(tmp_path: Path) -> None:
    report = tmp_path / "r.json"
    command = [*CFCTL, "profile", "run", "--json", "-o", str(report), "--", sys.executable, "-c", WAITS]
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvp(command[0], command)
    output = b""
    while b"ready" not in output:
        output += os.read(terminal, 1024)
    os.write(terminal, b"\x03")
    while True:
        try:
            part = os.read(terminal, 1024)
        except OSError:
            # The last one has closed the terminal.
            break
        if not part:
            break
        output += part
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 9
    assert output.count(b"SIGINT") == 1
    assert json.loads(report.read_text())["total_samples"] == 1


def test_a_command_gets_the_default_signals_and_mask(tmp_path: Path) -> None:
    code = RECORDS + (
        # posix_spawn(3) of glibc ignores signals 32 and 33, which it keeps for itself.
        "import signal\nprint(signal.pthread_sigmask(signal.SIG_BLOCK, []),"
        "int(open('/proc/self/status').read().split('SigIgn:')[1].split()[0], 16) & 0x7fffffff)"
    )
    direct = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    assert run_cfctl("profile", "run", "--", sys.executable, "-c", code).stdout == direct
