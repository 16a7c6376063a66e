"""The completion scripts in their shells: a TAB is typed, and the line becomes what it should."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cfctl import text

pytestmark = pytest.mark.system

PACKAGE_PARENT = str(Path(text.__file__).parents[1])
TIMEOUT_S = 60


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """Return an environment in which `cfctl` is the package under test and no user has settings."""
    program = tmp_path / "bin" / "cfctl"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nPYTHONPATH={PACKAGE_PARENT} exec {sys.executable} -m cfctl "$@"\n')
    program.chmod(0o755)
    (tmp_path / "my report.json").touch()
    return {
        "PATH": f"{program.parent}:/usr/bin:/bin", "HOME": str(tmp_path), "LC_ALL": "C.UTF-8", "TERM": "vt100",
        "ZDOTDIR": str(tmp_path), "PS1": "READY ", "INPUTRC": "/dev/null", "COLUMNS": "200", "LINES": "50",
    }  # fmt: skip


class Terminal:
    """A shell on a terminal of its own."""

    def __init__(self, command: list[str], environ: dict[str, str], directory: Path) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(directory)
            os.execvpe(command[0], command, environ)
        self.seen = ""

    def type(self, keys: str) -> None:
        self.seen = ""
        os.write(self.fd, keys.encode())

    def wait_for(self, pattern: str) -> str:
        deadline = time.monotonic() + TIMEOUT_S
        while not re.search(pattern, self.seen):
            ready, _, _ = select.select([self.fd], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"no {pattern!r} within {TIMEOUT_S} s in {self.seen!r}"
            self.seen += os.read(self.fd, 65536).decode(errors="replace")
        return self.seen

    def close(self) -> None:
        os.kill(self.pid, 9)
        os.waitpid(self.pid, 0)
        os.close(self.fd)


# What is typed, and the words the shell then has.
LINES = [
    ("cfctl conf\t", ["cfctl", "config"]),
    ("cfctl config sh\t", ["cfctl", "config", "show"]),
    ("cfctl config show --format mark\t", ["cfctl", "config", "show", "--format", "markdown"]),
    ("cfctl config show --format=mark\t", ["cfctl", "config", "show", "--format=markdown"]),
    ("cfctl check --targets=x --jun\t", ["cfctl", "check", "--targets=x", "--junit"]),
    ("cfctl config show -o my\t", ["cfctl", "config", "show", "-o", "my report.json"]),
    ("cfctl config show --output=my\t", ["cfctl", "config", "show", "--output=my report.json"]),
]
START_OF_LINE = "\x01"


@pytest.mark.filterwarnings("ignore:This process")
@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_a_tab_completes_the_line(root: Path, tmp_path: Path, environ: dict[str, str], shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    if shell == "bash":
        command = ["bash", "--norc", "--noprofile", "-i"]
        setup = f"source {root}/completions/cfctl.bash"
    else:
        command = ["zsh", "-f", "-i"]
        setup = (
            f"unsetopt zle_bracketed_paste prompt_sp; PS1='READY '; fpath=({root}/completions $fpath); "
            "autoload -U compinit; compinit -u -D"
        )
    terminal = Terminal(command, environ, tmp_path)
    try:
        terminal.type(f"{setup}; echo PRE''PARED\n")
        terminal.wait_for("PREPARED\r\n(.*\n)*.*READY ")
        for typed, expected in LINES:
            # The words are printed by the shell: what counts is its line, not how it draws it.
            terminal.type(typed + START_OF_LINE + "printf '<%s>' E''ND \n")
            terminal.wait_for("(?s)<END>.*READY ")
            assert "<END>" + "".join(f"<{word}>" for word in expected) in terminal.seen
    finally:
        terminal.close()


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("cfctl conf", "config"),
        ("cfctl config sh", "show"),
        ("cfctl config show --format ma", "markdown"),
        ("cfctl config show --format=mark", "--format=markdown"),
        ("cfctl check --jun", "--junit"),
        ("cfctl config show -o my", "my report.json"),
    ],
)
def test_fish_offers_the_candidate(
    root: Path, tmp_path: Path, environ: dict[str, str], line: str, expected: str
) -> None:
    result = subprocess.run(
        ["fish", "--no-config", "-c", f"source {root}/completions/cfctl.fish; complete -C '{line}'"],
        env=environ, cwd=tmp_path, capture_output=True, text=True, timeout=TIMEOUT_S,
    )  # fmt: skip
    assert [row.partition("\t")[0] for row in result.stdout.splitlines()] == [expected], result.stderr
