"""Whether a command is a Python program, by which interpreter, and whether that one has cfctl."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cfctl import __version__
from cfctl.launch import LaunchError

_PYTHON_NAME: Final = re.compile(r"(?:python|pypy)(?:\d+(?:\.\d+)*)?t?")
_ASSIGNMENT: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")
# A script that a package installer writes when the interpreter's path is too long for a first line:
#   #!/bin/sh
#   '''exec' /long/path/python "$0" "$@"
_LONG_SHEBANG: Final = re.compile(rb"'''exec' (\"[^\"\n]+\"|\S+)((?: -\w+)*) \"\$0\" \"\$@\"")
_SHEBANG_BYTES: Final = 4096
_PROBE_TIMEOUT_S: Final = 60
_WITH_VALUE: Final = frozenset("WX")
_IMPORT_FLAGS: Final = frozenset("EIPsS")
_PROBE: Final = """\
import sys
{path}
import cfctl, cfctl._native
sys.stdout.write("cfctl " + cfctl.__version__ + "\\n")
"""


@dataclass(frozen=True, slots=True)
class PythonCommand:
    """A command that starts Python: what runs the interpreter, and its options' letters.

    `launcher` is the interpreter after whatever stands before it, like env and its assignments.
    `runs_module` says that it runs -m or -c, which look for modules in the working directory.
    """

    launcher: tuple[str, ...]
    flags: frozenset[str]
    runs_module: bool

    @property
    def interpreter(self) -> str:
        """Return the interpreter as it was named."""
        return self.launcher[-1]


def python_command(command: Sequence[str]) -> PythonCommand | None:
    """Return how a command starts Python, None when it starts something else or can not be told.

    It is told for an interpreter by name, also through env(1), and for a script by its first line.
    """
    return _directly(command, ()) or _by_script(command)


def _directly(command: Sequence[str], before: tuple[str, ...]) -> PythonCommand | None:
    name = Path(command[0]).name
    if name == "env":
        words = _after_env(command)
        used = len(command) - len(words)
        return _directly(words, (*before, *command[:used])) if words else None
    if not _PYTHON_NAME.fullmatch(name):
        return None
    flags, runs_module = interpreter_flags(command[1:])
    return PythonCommand((*before, command[0]), flags, runs_module)


def _after_env(command: Sequence[str]) -> Sequence[str]:
    """Return the part of an env(1) command that is run; env's own options are before it."""
    position = 1
    while position < len(command):
        word = command[position]
        if word in {"-u", "-C", "--unset", "--chdir"}:
            position += 1
        elif not (word.startswith("-") or _ASSIGNMENT.match(word)):
            break
        position += 1
    return command[position:]


def _by_script(command: Sequence[str]) -> PythonCommand | None:
    path = shutil.which(command[0])
    if path is None:
        return None
    try:
        with open(path, "rb") as file:
            start = file.read(_SHEBANG_BYTES)
    except OSError:
        return None
    if not start.startswith(b"#!"):
        return None
    if wrapped := _LONG_SHEBANG.search(start):
        words = [wrapped[1].strip(b'"'), *wrapped[2].split()]
    else:
        words = start[2:].split(b"\n", 1)[0].split()
    texts = [word.decode("utf-8", "surrogateescape") for word in words]
    if len(texts) > 1 and Path(texts[0]).name == "env" and texts[1] in {"-S", "--split-string"}:
        del texts[1]
    return _directly([*texts, path], ()) if texts else None


def interpreter_flags(arguments: Sequence[str]) -> tuple[frozenset[str], bool]:
    """Return the letters of Python's own options before the program, and whether that is -m or -c."""
    flags: set[str] = set()
    words = iter(arguments)
    for word in words:
        if word == "--check-hash-based-pycs":
            next(words, None)
        if not word.startswith("-") or word == "-":
            break
        if word.startswith("--"):
            continue
        for index, letter in enumerate(word[1:], start=1):
            if letter in "mc":
                return frozenset(flags), True
            if letter in _WITH_VALUE:
                if index == len(word) - 1:
                    next(words, None)
                break
            flags.add(letter)
    return frozenset(flags), False


def check_interpreter(python: PythonCommand, environment: Mapping[str, str], by_name: bool) -> None:
    """Return when the interpreter can be profiled; `by_name` asks for instrumentation by name.

    Runs it once. Raises LaunchError (125) when it can not import this version of cfctl, or when its
    options keep the instrumentation out.
    """
    blocking = sorted(python.flags & {"S", "I", "E"})
    if by_name and blocking:
        raise LaunchError(
            f"Functions can not be timed by name in {python.interpreter} -{''.join(blocking)}.",
            "With this option Python ignores PYTHONPATH or sitecustomize, by which they would be.",
            "Run it without the option, or decorate the functions (cfctl.Profiler).",
        )
    # What -c adds to the path a script would not see, and neither would sitecustomize.
    path = "" if python.runs_module and not by_name else "sys.path[:] = [p for p in sys.path if p]"
    options = [f"-{flag}" for flag in sorted(python.flags & _IMPORT_FLAGS)]
    try:
        probe = subprocess.run(
            [*python.launcher, *options, "-c", _PROBE.format(path=path)],
            env=dict(environment), stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            timeout=_PROBE_TIMEOUT_S, check=False,
        )  # fmt: skip
    except OSError:
        # It can not be run at all: the run itself says so, with the right exit status.
        return
    except subprocess.TimeoutExpired:
        raise LaunchError(
            f"{python.interpreter} was not checked.",
            f"It did not import cfctl within {_PROBE_TIMEOUT_S} s.",
            "Try it by hand.",
        ) from None
    if f"cfctl {__version__}" not in probe.stdout.splitlines():
        raise _lacks_cfctl(python, probe.stdout, probe.stderr)


def _lacks_cfctl(python: PythonCommand, output: str, errors: str) -> LaunchError:
    found = next((line for line in output.splitlines() if line.startswith("cfctl ")), None)
    last = errors.strip().rpartition("\n")[2] or "it says nothing"
    why = f"It has {found}." if found else f"Importing cfctl there fails: {last}."
    return LaunchError(
        f"{python.interpreter} can not record for cfctl {__version__}.",
        why,
        f"Install it there: {python.interpreter} -m pip install cfctl=={__version__}",
    )
