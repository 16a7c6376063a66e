"""The command line as a process: exit codes, messages, streams, and no traceback."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import typer

from cfctl import __version__, text
from cfctl.cli import app as app_module
from cfctl.errors import ConfigError, StateError

if TYPE_CHECKING:
    from tests.conftest import Cfctl

# Where the package under test lies: installed, or the source tree.
PACKAGE_PARENT = str(Path(text.__file__).parents[1])


def test_the_version_is_the_packages(cfctl: Cfctl) -> None:
    result = cfctl("--version")
    assert (result.returncode, result.stdout) == (0, f"cfctl {__version__}\n")


def test_no_arguments_show_the_help_and_count_as_usage(cfctl: Cfctl) -> None:
    result = cfctl()
    assert result.returncode == 2
    assert "Usage: cfctl" in result.stdout + result.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["config", "-h"], ["config", "show", "--help"]])
def test_help_exits_0_and_goes_to_stdout(cfctl: Cfctl, arguments: list[str]) -> None:
    result = cfctl(*arguments)
    assert result.returncode == 0
    assert result.stdout.startswith("Usage: cfctl")
    assert result.stderr == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["--nothing"],
        ["nothing"],
        ["config", "nothing"],
        ["config", "show", "--nothing"],
        ["config", "show", "extra"],
        ["config", "show", "--format"],
        ["config", "show", "--format", "nothing"],
        ["config", "show", "--format", "junit"],
        ["config", "show", "-o", "no/such/directory/file"],
        ["config", "show", "-o", "/"],
        ["check", "--pid", "0"],
        ["check", "--window", "fast"],
        ["check", "--targets", "missing.toml"],
    ],
    ids=" ".join,
)
def test_a_wrong_use_exits_2_with_a_message_on_stderr_only(cfctl: Cfctl, arguments: list[str]) -> None:
    result = cfctl(*arguments)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr
    assert "Traceback" not in result.stderr


def test_a_misspelled_command_is_answered_with_the_nearest_one(cfctl: Cfctl) -> None:
    assert "Did you mean 'config'?" in cfctl("confg").stderr


def test_what_the_user_typed_is_quoted_without_escape_sequences(cfctl: Cfctl) -> None:
    for word in ("\x1b[31mred", "--\x1b]0;title\x07", "--\x9b31m", "--\u202eevil"):
        result = cfctl(word)
        assert result.returncode == 2
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", result.stderr)


def raising(error: BaseException) -> object:
    """Return a command that raises, in the place of a command module."""
    app = typer.Typer(add_completion=False)

    @app.command()
    def fails() -> None:
        """Fail."""
        raise error

    return typer.main.get_command(app)


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (StateError("What.", "Why.", "Todo."), 3, "cfctl: What.\n       Why.\n       Todo.\n"),
        (ConfigError("What.", "Why."), 2, "cfctl: What.\n       Why.\n"),
        (StateError("\x1b[31m\n\u202e"), 3, "cfctl: \ufffd[31m\ufffd\ufffd\n"),
        (typer.Exit(1), 1, ""),
        (typer.Exit(127), 127, ""),
        (KeyboardInterrupt(), 130, ""),
        (typer.Abort(), 130, ""),
        (BrokenPipeError(), 0, ""),
        (OSError(28, "No space left on device", "/x"), 3, "No space left on device (/x)."),
        (MemoryError(), 3, "The memory did not suffice."),
        (RuntimeError("boom"), 3, "This is a bug in cfctl.\n       RuntimeError: boom\n"),
        (RecursionError(), 3, "This is a bug in cfctl."),
    ],
    ids=repr,
)
def test_each_exception_ends_with_its_exit_code_and_message_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    status: int,
    message: str,
) -> None:
    monkeypatch.setattr(app_module.CommandModules, "get_command", lambda *_: raising(error))
    assert app_module.run(["config"]) == status
    captured = capsys.readouterr()
    assert message in captured.err
    assert bool(captured.err) == bool(message)
    assert "Traceback" not in captured.err
    assert captured.out == ""


@pytest.mark.parametrize("error", [StateError("What."), RuntimeError("boom")], ids=repr)
def test_debug_shows_the_traceback_and_keeps_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException
) -> None:
    monkeypatch.setattr(app_module.CommandModules, "get_command", lambda *_: raising(error))
    assert app_module.run(["--debug", "config"]) == 3
    assert "Traceback" in capsys.readouterr().err


def test_a_reader_that_leaves_is_no_error(cfctl: Cfctl) -> None:
    for arguments in (["--help"], ["config", "show"], ["config", "show", "--json"], ["config", "path"]):
        reading, writing = os.pipe()
        os.close(reading)
        result = cfctl(*arguments, stdout=writing, stderr=subprocess.PIPE)
        os.close(writing)
        assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize(
    "arguments", [["--version"], ["--help"], ["config", "show"], ["config", "show", "--json"]]
)
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_stdout_exits_3_with_one_message(cfctl: Cfctl, arguments: list[str], unbuffered: str) -> None:
    with open("/dev/full", "w") as full:
        result = cfctl(*arguments, env={"PYTHONUNBUFFERED": unbuffered}, stdout=full, stderr=subprocess.PIPE)
    assert result.returncode == 3
    assert result.stderr.count("cfctl: ") == 1
    assert "No space left on device" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_full_output_file_exits_3_and_an_unwritable_one_2(cfctl: Cfctl) -> None:
    assert cfctl("config", "show", "-o", "/dev/full").returncode == 3
    assert cfctl("config", "show", "-o", "/proc/nothing").returncode == 2


@pytest.mark.parametrize("closed", [0, 1, 2])
def test_a_closed_stream_is_no_crash_and_a_lost_result_is_told(cfctl: Cfctl, closed: int) -> None:
    result = cfctl("config", "show", preexec_fn=lambda: os.close(closed))
    assert result.returncode == (3 if closed == 1 else 0)
    assert ("Bad file descriptor" in result.stderr) == (closed == 1)
    assert "Traceback" not in result.stderr


def test_a_message_never_ends_in_a_file_that_took_a_closed_descriptor(cfctl: Cfctl, tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    cfctl("config", "show", "--json", "-o", str(file), preexec_fn=lambda: os.closerange(1, 3))
    assert json.loads(file.read_text())["schema"] == "cfctl.config"


def test_output_to_a_file_leaves_stdout_empty_and_replaces_the_file_whole(
    cfctl: Cfctl, tmp_path: Path
) -> None:
    file = tmp_path / "report.txt"
    file.write_text("x" * 100_000)
    assert cfctl("config", "show", "-o", str(file)).stdout == ""
    assert file.read_text().startswith("setting")
    assert "xxx" not in file.read_text()


def test_a_file_that_is_only_tried_is_not_left_behind(cfctl: Cfctl, tmp_path: Path) -> None:
    file = tmp_path / "new"
    assert cfctl("check", "-o", str(file), "--target", "nothing").returncode == 2
    assert not file.exists()


@pytest.mark.parametrize(
    "env", [{"LANG": "C"}, {"LC_ALL": "C"}, {"LC_ALL": "POSIX"}, {"PYTHONIOENCODING": "ascii"}, {"LANG": "C", "LC_CTYPE": "C.UTF-8"}]
)  # fmt: skip
def test_a_plain_locale_gets_plain_ascii_and_no_crash(cfctl: Cfctl, env: dict[str, str]) -> None:
    for arguments in (["config", "show"], ["check", "--target", "memory"]):
        result = cfctl(*arguments, env=env, encoding="utf-8")
        assert result.returncode == 0
        assert result.stdout.isascii()
    assert "+-" in result.stdout


def test_a_utf_8_locale_gets_lines_and_signs(cfctl: Cfctl) -> None:
    result = cfctl("check", "--target", "memory", env={"PYTHONIOENCODING": "utf-8"}, encoding="utf-8")
    assert "±" in result.stdout
    assert "─" in result.stdout


def test_a_message_with_a_character_that_does_not_fit_is_written_all_the_same(cfctl: Cfctl) -> None:
    result = cfctl("config", "show", "--format", "übung", env={"LC_ALL": "C"})
    assert result.returncode == 2
    assert "There is no format '?" in result.stderr


@pytest.mark.parametrize("columns", ["0", "1", "-5", "wide", "99999999999", "20", "200"])
def test_any_number_of_columns_gives_a_table(cfctl: Cfctl, columns: str) -> None:
    result = cfctl("config", "show", env={"COLUMNS": columns})
    assert result.returncode == 0
    assert "calibrate" in result.stdout


def test_tables_fit_80_columns(cfctl: Cfctl) -> None:
    for arguments in (["config", "show"], ["check", "--target", "memory"]):
        lines = cfctl(*arguments).stdout.splitlines()
        assert max(map(len, lines)) <= 80
        assert not any(line.endswith(" ") for line in lines)


def on_terminal(arguments: list[str], env: dict[str, str]) -> bytes:
    """Return what `cfctl` writes to a terminal of its own."""
    child, terminal = pty.fork()
    if child == 0:
        os.environ.update({"PYTHONPATH": PACKAGE_PARENT} | env)
        os.execv(sys.executable, [sys.executable, "-m", "cfctl", *arguments])
    written = b""
    while True:
        try:
            data = os.read(terminal, 65536)
        except OSError:
            data = b""
        if not data:
            break
        written += data
    os.close(terminal)
    os.waitpid(child, 0)
    return written


@pytest.mark.filterwarnings("ignore:This process")
@pytest.mark.parametrize(
    ("env", "terminal", "pipe"),
    [
        ({}, True, False),
        ({"NO_COLOR": "1"}, False, False),
        ({"TERM": "dumb"}, False, False),
        ({"FORCE_COLOR": "1"}, True, True),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False, False),
        ({"CFCTL_COLOR": "never"}, False, False),
        ({"CFCTL_COLOR": "always"}, True, True),
        ({"CFCTL_COLOR": "always", "NO_COLOR": "1"}, True, True),
        ({"CFCTL_COLOR": "never", "FORCE_COLOR": "1"}, False, False),
        ({"CFCTL_COLOR": "always", "TERM": "dumb"}, True, True),
        ({"NO_COLOR": ""}, True, False),
    ],
    ids=str,
)
def test_colour_is_for_terminals_unless_it_is_asked_for_or_refused(
    cfctl: Cfctl, env: dict[str, str], terminal: bool, pipe: bool
) -> None:
    assert (b"\x1b[" in on_terminal(["config", "show"], env)) == terminal
    assert ("\x1b[" in cfctl("config", "show", env=env).stdout) == pipe


def test_an_interrupt_exits_130_without_a_word(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "cfctl", "check", "--target", "cpu-utilization", "--window", "60s"],
        env=os.environ | {"PYTHONPATH": PACKAGE_PARENT}, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        # It sleeps in the window as soon as it waits in the kernel for the timer.
        while "nanosleep" not in Path(f"/proc/{process.pid}/wchan").read_text() and process.poll() is None:
            os.sched_yield()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert (process.returncode, out, err) == (130, b"", b"")


def test_an_interrupt_while_the_command_line_is_imported_exits_130_too(cfctl: Cfctl, tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("raise KeyboardInterrupt")
    result = cfctl("--version", env={"PYTHONPATH": f"{tmp_path}{os.pathsep}{PACKAGE_PARENT}"})
    assert (result.returncode, result.stderr) == (130, "")


def test_a_working_directory_that_is_gone_is_no_obstacle(cfctl: Cfctl, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    result = cfctl("config", "show", cwd=gone, preexec_fn=gone.rmdir)
    assert result.returncode == 0


def test_a_home_that_does_not_exist_is_no_obstacle(cfctl: Cfctl, tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    assert cfctl("config", "show", env={"HOME": str(missing)}).returncode == 0
    assert not missing.exists()
    result = cfctl("config", "init", env={"HOME": "/proc/nonexistent"})
    assert result.returncode == 3
    assert "Traceback" not in result.stderr
