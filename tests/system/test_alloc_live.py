"""`cfctl alloc stats --live` on a terminal and through a pipe, while a program runs and until it ends."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from cfctl.alloc.run import counting_environment, library_path
from tests.system.profile_programs import CFCTL, run_cfctl

pytestmark = pytest.mark.system

# Says that it runs, allocates 1 MB for each line it is told, and ends with its input.
PROGRAM = """
import sys
kept = []
print("ready", flush=True)
for line in sys.stdin:
    kept.append(bytearray(1_000_000))
    print(len(kept), flush=True)
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[str]]:
    monkeypatch.setenv("CFCTL_SEGMENT_DIR", str(tmp_path / "segments"))
    counting = counting_environment(library_path(), "live", follow_children=False)
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        env=counting,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as running:
        tell(running, "ready")
        yield running
        if running.stdin is not None and not running.stdin.closed:
            running.stdin.close()


def tell(program: subprocess.Popen[str], answer: str, line: str = "") -> None:
    """Give the program a line and wait for what it answers."""
    assert program.stdin is not None
    assert program.stdout is not None
    if line:
        program.stdin.write(line)
        program.stdin.flush()
    assert program.stdout.readline() == f"{answer}\n"


def shown(written: bytes) -> str:
    """Return what was written to a terminal without its control sequences."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written.decode(errors="replace"))


def end(program: subprocess.Popen[str]) -> None:
    assert program.stdin is not None
    program.stdin.close()
    program.wait()


def test_a_terminal_is_redrawn_until_the_program_ends(program: subprocess.Popen[str]) -> None:
    child, terminal = pty.fork()
    if child == 0:
        os.execv(
            CFCTL[0],
            [*CFCTL, "alloc", "stats", "--live", "--interval", "50ms", "--updates", "1000", str(program.pid)],
        )
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", 50, 80, 0, 0))
    written = b""
    told = False
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:
            # The last writer has closed the terminal.
            break
        if not part:
            break
        written += part
        # What was shown before goes on to change, and then to end.
        if not told and b"live" in written:
            told = True
            tell(program, "1", "more\n")
        elif told and re.search(r"live +1\.\d+ MB", shown(written)):
            end(program)
    os.close(terminal)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0, written[-2000:]
    text = shown(written)
    assert f"Process {program.pid}, live" in text
    assert f"Process {program.pid}, ended" in text
    # Redrawn in place: the cursor goes up over what it wrote.
    assert b"\x1b[1A" in written


def test_a_pipe_gets_a_line_for_each_reading_and_json_an_object(program: subprocess.Popen[str]) -> None:
    arguments = ("alloc", "stats", "--live", "--interval", "50ms", "--updates", "2", str(program.pid))
    text = run_cfctl(*arguments)
    assert text.returncode == 0, text.stderr
    assert len(text.stdout.splitlines()) == 2
    assert all(line.startswith("allocations ") for line in text.stdout.splitlines())
    assert "\x1b" not in text.stdout
    tell(program, "1", "more\n")
    end(program)
    # Of a program that has ended there is one reading.
    (line,) = run_cfctl(*arguments, "--json").stdout.splitlines()
    (process,) = json.loads(line)["processes"]
    assert (process["pid"], process["state"]) == (program.pid, "ended")
    assert process["peak"]["value"] > 1_000_000


def test_limits_are_judged_in_each_reading(program: subprocess.Popen[str]) -> None:
    tell(program, "1", "more\n")
    found = run_cfctl("alloc", "stats", "--fail-above", "live=100kB", "--json", str(program.pid))
    assert found.returncode == 1
    (limit,) = json.loads(found.stdout)["limits"]
    assert limit["judgement"]["verdict"] == "fail"
    assert limit["value"] > 1_000_000
