from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from cfctl.launch import LaunchError
from cfctl.profile.interpreter import check_interpreter, interpreter_flags, python_command


def script(path: Path, text: str) -> str:
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("command", "launcher"),
    [
        (["python", "app.py"], ("python",)),
        (["/usr/bin/python3.11", "-m", "x"], ("/usr/bin/python3.11",)),
        (["python3.13t", "app.py"], ("python3.13t",)),
        (["pypy3", "app.py"], ("pypy3",)),
        (["env", "python3", "app.py"], ("env", "python3")),
        (["/usr/bin/env", "-i", "A=1", "-u", "B", "C=2", "python3", "x"],
         ("/usr/bin/env", "-i", "A=1", "-u", "B", "C=2", "python3")),
    ],
)  # fmt: skip
def test_an_interpreter_is_known_by_its_name(command: list[str], launcher: tuple[str, ...]) -> None:
    found = python_command(command)
    assert found is not None
    assert found.launcher == launcher


@pytest.mark.parametrize(
    "command", [["ls"], ["env"], ["env", "A=1"], ["pythonic"], ["/none/such"], ["", "x"]]
)
def test_other_commands_are_not_python(command: list[str]) -> None:
    assert python_command(command) is None


@pytest.mark.parametrize(
    ("first_line", "launcher", "flags"),
    [
        ("#!/opt/x/bin/python3", ("/opt/x/bin/python3",), ""),
        ("#!/opt/x/bin/python3 -Es", ("/opt/x/bin/python3",), "Es"),
        ("#! /usr/bin/env python3", ("/usr/bin/env", "python3"), ""),
        ("#!/usr/bin/env -S python3 -I", ("/usr/bin/env", "python3"), "I"),
        ("#!/bin/sh\n'''exec' \"/a very/long/python\" \"$0\" \"$@\"\n' '''", ("/a very/long/python",), ""),
        ("#!/bin/sh\n'''exec' /a/long/python -I \"$0\" \"$@\"\n' '''", ("/a/long/python",), "I"),
    ],
)
def test_a_script_is_known_by_its_first_line(
    tmp_path: Path, first_line: str, launcher: tuple[str, ...], flags: str
) -> None:
    found = python_command([script(tmp_path / "tool", f"{first_line}\nprint()\n"), "-S"])
    assert found is not None
    assert (found.launcher, found.flags) == (launcher, frozenset(flags))


@pytest.mark.parametrize("text", ["#!/bin/sh\necho python\n", "", "#!", "#!\n", "\x7fELF"])
def test_other_scripts_are_not_python(tmp_path: Path, text: str) -> None:
    assert python_command([script(tmp_path / "tool", text)]) is None


@pytest.mark.parametrize(
    ("arguments", "flags", "runs_module"),
    [
        (["-I", "app.py", "-S"], "I", False),
        (["-Im", "pkg", "-S"], "I", True),
        (["-c", "pass", "-S"], "", True),
        (["-Wdefault", "-S", "x"], "S", False),
        (["-W", "-S", "x"], "", False),
        (["-X", "dev", "-E", "x"], "E", False),
        (["-uXdev", "-s"], "us", False),
        (["--check-hash-based-pycs", "-S", "x"], "", False),
        (["-", "-S"], "", False),
        ([], "", False),
    ],
)
def test_options_end_where_the_program_begins(arguments: list[str], flags: str, runs_module: bool) -> None:
    assert interpreter_flags(arguments) == (frozenset(flags), runs_module)


@pytest.mark.parametrize("flags", ["-S", "-I", "-E", "-BS"])
def test_options_that_keep_sitecustomize_out_are_told_before_anything_runs(flags: str) -> None:
    python = python_command([sys.executable, flags, "app.py"])
    assert python is not None
    with pytest.raises(LaunchError, match="can not be timed by name") as caught:
        check_interpreter(python, os.environ, by_name=True)
    assert caught.value.status == 125


def test_an_interpreter_without_cfctl_is_told_with_how_to_install_it(tmp_path: Path) -> None:
    fake = script(
        tmp_path / "python3", "#!/bin/sh\necho \"ModuleNotFoundError: No module named 'cfctl'\" >&2; exit 1\n"
    )
    python = python_command([fake, "app.py"])
    assert python is not None
    with pytest.raises(LaunchError, match=r"No module named 'cfctl'.*-m pip install cfctl=="):
        check_interpreter(python, os.environ, by_name=False)


def test_an_interpreter_with_another_version_is_told_which_one(tmp_path: Path) -> None:
    python = python_command([script(tmp_path / "python3", "#!/bin/sh\necho cfctl 0.0.1\n"), "app.py"])
    assert python is not None
    with pytest.raises(LaunchError, match=r"It has cfctl 0\.0\.1"):
        check_interpreter(python, os.environ, by_name=False)
