"""py-spy beside a program: attached once it runs, never its parent.

The program's streams, signals and exit status are its own. py-spy pauses it for each sample, about
0.3 ms: without that one stack in eight of a generator's loop was torn, with its outer frames missing.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sysconfig
import tempfile
import threading
import time
from pathlib import Path
from typing import Final

from cfctl import paths
from cfctl.launch import LaunchError
from cfctl.profile.stacks import StackProfile, parse_collapsed, stack_profile

DEFAULT_RATE_HZ: Final = 100
_MAX_RESULT_BYTES: Final = 256 << 20
# A Python that is starting can not be read yet; a program that is none never can.
_ATTACH_WITHIN_S: Final = 5.0
_PAUSE_S: Final = 0.03
# How long the rest of the processes may take after the program, and writing the result after that.
_OTHERS_WITHIN_S: Final = 1.0
_WRITE_WITHIN_S: Final = 20.0
_COUNTS: Final = re.compile(r"Samples: (\d+) Errors: (\d+)")
# A command line ends where a frame or the next process follows.
_PROCESS: Final = re.compile(
    r'process (\d+):"(.*?)"(?=;process \d+:"|;[^;\n]*\([^;\n]*\)(?:;| \d+$)| \d+$)', re.DOTALL | re.MULTILINE
)
_COMMAND_LENGTH: Final = 100
_HOPELESS: Final = ("Permission", "permitted", "EPERM", "EACCES", "root")


class Sampler:
    """One run of py-spy: `start` when the program was started, `finish` when it has ended."""

    def __init__(self, rate_hz: int = DEFAULT_RATE_HZ, children: bool = False, pauses: bool = True) -> None:
        """Find py-spy; raises LaunchError that says how to install it."""
        self._program = _find()
        self._version = _version(self._program)
        self._rate_hz = rate_hz
        self._children = children
        self._pauses = pauses
        self._directory = tempfile.TemporaryDirectory(prefix="cfctl-stacks-")
        self._result = Path(self._directory.name) / "stacks"
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._started_ns = 0
        self._attached_ns: int | None = None
        self._sampler_pid = 0
        self._failed = 0
        self._said = ""

    def start(self, pid: int) -> None:
        """Attach to a program that was just started; returns at once."""
        self._started_ns = time.monotonic_ns()
        self._thread = threading.Thread(target=self._attach, args=(pid,), daemon=True)
        self._thread.start()

    def finish(self) -> tuple[StackProfile | None, str]:
        """Return the stacks, or None and why there are none; the program has ended."""
        self._ended.set()
        try:
            if self._thread is None:
                return None, "the program was not run"
            for patience, number in (
                (_OTHERS_WITHIN_S, signal.SIGINT),
                (_WRITE_WITHIN_S, signal.SIGKILL),
                (_OTHERS_WITHIN_S, signal.SIGKILL),
            ):
                self._thread.join(patience)
                if self._thread.is_alive() and self._sampler_pid:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(self._sampler_pid, number)
            return self._read()
        finally:
            self._directory.cleanup()

    def _attach(self, pid: int) -> None:
        deadline = time.monotonic() + _ATTACH_WITHIN_S
        while not self._sample(pid) and not self._ended.is_set():
            if time.monotonic() > deadline or any(word in self._said for word in _HOPELESS):
                return
            self._ended.wait(_PAUSE_S)

    def _sample(self, pid: int) -> bool:
        """Run py-spy until the program ends; False when it could not attach."""
        options = ["--pid", str(pid), "--format", "raw", "--output", str(self._result)]
        options += ["--nonblocking"] * (not self._pauses)
        options += ["--rate", str(self._rate_hz)] + ["--subprocesses"] * self._children
        reader, writer = os.pipe2(os.O_CLOEXEC)
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            # A process group of its own: the terminal's Ctrl-C is the program's to answer.
            sampler_pid = os.posix_spawn(
                self._program, [self._program, "record", *options], paths.environment() | {"NO_COLOR": "1"},
                file_actions=[(os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, writer, 1),
                              (os.POSIX_SPAWN_DUP2, writer, 2)],
                setpgroup=0, setsigmask=(), setsigdef=(signal.SIGINT, signal.SIGPIPE),
            )  # fmt: skip
        except OSError as error:
            os.close(reader)
            self._said = f"py-spy can not be run: {error.strerror}"
            return True
        finally:
            os.close(writer)
            os.close(null)
        self._sampler_pid, self._said = sampler_pid, ""
        self._listen(reader)
        _, status = os.waitpid(sampler_pid, 0)
        self._sampler_pid = 0
        return os.waitstatus_to_exitcode(status) == 0

    def _listen(self, reader: int) -> None:
        """Take in what py-spy says until it ends."""
        with open(reader, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                text = line.strip().removeprefix("py-spy> ")
                if text.startswith("Sampling process"):
                    self._attached_ns = time.monotonic_ns()
                elif counts := _COUNTS.search(text):
                    self._failed = int(counts[2])
                elif not self._said and ("rror" in text or text.startswith("Reason")):
                    self._said = text.removeprefix("Error: ").rstrip(".")[:300]

    def _read(self) -> tuple[StackProfile | None, str]:
        if self._attached_ns is None:
            return None, self._said or "the program ended before its stacks could be read"
        try:
            with self._result.open("rb") as file:
                data = file.read(_MAX_RESULT_BYTES + 1)
            stacks = parse_collapsed(one_line_a_stack(data.decode("utf-8", "replace")))
            if len(data) > _MAX_RESULT_BYTES:
                return None, "there are more than 256 MiB of them"
        except FileNotFoundError:
            return None, self._said or "py-spy wrote none"
        except (OSError, ValueError) as error:
            return None, f"what py-spy wrote can not be read: {error}"
        if not stacks:
            return None, "the program ended, or waited, before one was sampled"
        after_ns = float(self._attached_ns - self._started_ns)
        profile = stack_profile(stacks, self._version, self._rate_hz, self._failed, after_ns, self._pauses)
        return profile, ""


def one_line_a_stack(text: str) -> str:
    """Return py-spy's stacks with the command lines in them made frames of one line each.

    With --subprocesses it writes them as they are, with their line ends and semicolons.
    """
    return _PROCESS.sub(
        lambda found: f"process {found[1]}: {' '.join(found[2].replace(';', ',').split())[:_COMMAND_LENGTH]}",
        text,
    )


def _find() -> str:
    beside = Path(sysconfig.get_path("scripts")) / "py-spy"
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which("py-spy")
    if found is None:
        raise LaunchError(
            "Stacks can not be sampled.",
            "They are sampled by py-spy, which is not installed.",
            "Install it: python -m pip install 'cfctl[stacks]'",
        )
    return found


def _version(program: str) -> str:
    try:
        said = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise LaunchError("Stacks can not be sampled.", f"{program} does not run: {error}.") from error
    return said.stdout.strip()[:80] or "py-spy"
