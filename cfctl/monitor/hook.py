"""A command that is run when an alert fires or ends: no shell, never waited for, bounded in number and time."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from cfctl.errors import InputError, os_error_reason
from cfctl.records import to_json

if TYPE_CHECKING:
    from cfctl.monitor.alerts import Transition

TIMEOUT_S: Final = 30.0
MAX_RUNNING: Final = 8


class CommandHook:
    """Starts a command for each transition, with the transition as JSON on its standard input.

    `report` gets a sentence for each command that can not be started, fails, takes longer than
    TIMEOUT_S (it is killed) or finds MAX_RUNNING others running. Not thread-safe.
    """

    def __init__(
        self,
        command: Sequence[str],
        report: Callable[[str], None],
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        if not command:
            raise InputError("The alert command is empty.", "", "Name a program.")
        self._command = list(command)
        self._report = report
        self._monotonic_s = monotonic_s
        self._running: list[tuple[subprocess.Popen[bytes], float]] = []

    def __call__(self, transition: Transition) -> None:
        """Start the command."""
        self.poll()
        if len(self._running) >= MAX_RUNNING:
            self._report(f"The alert command was not started: {MAX_RUNNING} are still running.")
            return
        # A file, not a pipe: a command that does not read must not stop the monitor.
        with tempfile.TemporaryFile() as document:
            document.write(to_json(transition, indent=None).encode())
            document.seek(0)
            try:
                child = subprocess.Popen(
                    self._command, stdin=document, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                    start_new_session=True,
                )  # fmt: skip
            except (OSError, ValueError) as error:
                why = os_error_reason(error) if isinstance(error, OSError) else f"{error}."
                self._report(f"The alert command could not be started. {why}")
                return
        self._running.append((child, self._monotonic_s()))

    def poll(self) -> None:
        """Reap commands that ended and kill those that take too long; call it each interval."""
        still = []
        for child, since in self._running:
            status = child.poll()
            if status is None and self._monotonic_s() - since > TIMEOUT_S:
                child.kill()
                child.wait()
                self._report(f"The alert command was killed: it took more than {TIMEOUT_S:g} s.")
            elif status is None:
                still.append((child, since))
            elif status != 0:
                self._report(f"The alert command ended with status {status}.")
        self._running = still

    def close(self) -> None:
        """Wait for the commands that run, at most a second, and kill those that still do."""
        for child, _ in self._running:
            try:
                child.wait(1.0)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        self._running = []
