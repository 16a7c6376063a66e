"""Runs a command as if it had been run directly: its own streams, its signals, its exit status."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

from cfctl.errors import CfctlError, os_error_reason

# env(1)'s exit statuses for what went wrong before the command ran.
FAILED: Final = 125
NOT_EXECUTABLE: Final = 126
NOT_FOUND: Final = 127

_FORWARDED: Final = frozenset(
    {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM}
)  # fmt: skip
# si_code of what the kernel sent, like a terminal's Ctrl-C to the whole foreground group.
_SI_KERNEL: Final = 0x80
_PR_SET_PTRACER: Final = 0x59616D61
# Python ignores these for itself; the command gets them as they are by default.
_RESTORED: Final = (signal.SIGPIPE, signal.SIGXFSZ)


class LaunchError(CfctlError):
    """Raised when a command was not run; `status` is the exit status that says so."""

    def __init__(self, what: str, why: str = "", todo: str = "", status: int = FAILED) -> None:
        super().__init__(what, why, todo)
        self.status = status


def run_to_end(
    command: Sequence[str],
    environment: Mapping[str, str],
    started: Callable[[int], None] | None = None,
) -> int:
    """Return the exit status of a command, 128+N when signal N ended it.

    With `started`, which is told its process id, other children of this process may read its
    memory, also where Yama lets only parents (kernel: admin-guide/LSM/Yama.rst, PR_SET_PTRACER).

    Signals that somebody sends to this process are forwarded; those of the terminal reach the
    command by themselves. For the main thread. Raises LaunchError when it can not be run.
    """
    signals = frozenset({*_FORWARDED, signal.SIGCHLD})
    # An ignored SIGCHLD would take the exit status with it.
    previous_action = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    previous_mask = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        pid = _spawn(command, environment, previous_mask, readable=started is not None)
        if started is not None:
            started(pid)
        while True:
            received = signal.sigwaitinfo(signals)
            if received.si_signo != signal.SIGCHLD:
                if received.si_code != _SI_KERNEL:
                    os.kill(pid, received.si_signo)
                continue
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous_mask)
        signal.signal(signal.SIGCHLD, previous_action or signal.SIG_DFL)


def _spawn(
    command: Sequence[str], environment: Mapping[str, str], mask: Collection[int], readable: bool
) -> int:
    def spawn(words: list[str]) -> int:
        if readable:
            return _fork_readable(words, environment, mask)
        return os.posix_spawnp(words[0], words, environment, setsigmask=mask, setsigdef=_RESTORED)

    try:
        try:
            return spawn([*command])
        except OSError as error:
            # execvp(3) hands a script without a first line to the shell, and so does env(1).
            if error.errno != errno.ENOEXEC:
                raise
            return spawn(["/bin/sh", *command])
    except FileNotFoundError as error:
        raise LaunchError(
            f"{command[0]} was not found.", os_error_reason(error), "Check its name and PATH.", NOT_FOUND
        ) from error
    except (OSError, ValueError) as error:
        why = os_error_reason(error) if isinstance(error, OSError) else f"{error}."
        raise LaunchError(
            f"{command[0]} can not be run.", why, "Name a program that can be executed.", NOT_EXECUTABLE
        ) from error


def _fork_readable(words: list[str], environment: Mapping[str, str], mask: Collection[int]) -> int:
    """Start a program that this process's other children may read; raises OSError like posix_spawnp."""
    import ctypes
    import subprocess

    prctl = ctypes.CDLL(None).prctl
    own = ctypes.c_ulong(os.getpid())

    def allow_and_unblock() -> None:
        # It fails where there is no Yama, and is not needed there.
        prctl(_PR_SET_PTRACER, own, 0, 0, 0)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    # No thread has been started yet; SIGPIPE and SIGXFSZ are restored as posix_spawnp does it.
    process = subprocess.Popen(words, env=environment, close_fds=False, preexec_fn=allow_and_unblock)  # noqa: PLW1509
    # Its status is for this module's waitpid, not for Popen's.
    process.returncode = 0
    return process.pid
