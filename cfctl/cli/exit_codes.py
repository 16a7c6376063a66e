"""The exit codes of every command, as the man pages print them."""

from __future__ import annotations

import enum
from typing import Final


class ExitCode(enum.IntEnum):
    """What a command's exit status says to a script."""

    OK = 0
    FINDING = 1
    USAGE = 2
    UNMEASURED = 3
    WRAPPER_FAILED = 125
    NOT_EXECUTABLE = 126
    NOT_FOUND = 127
    INTERRUPTED = 130


EXIT_CODE_HELP: Final = {
    ExitCode.OK: "fine",
    ExitCode.FINDING: "an issue at or above --fail-on, a missed target, or a regression",
    ExitCode.USAGE: "usage: an unknown option or a value that can not be used",
    ExitCode.UNMEASURED: "could not measure or write the result, or inconclusive where a verdict was asked for",
    ExitCode.INTERRUPTED: "interrupted",
}

# Only of commands that run a program; otherwise they end with the program's own status.
WRAPPER_EXIT_CODE_HELP: Final = {
    ExitCode.WRAPPER_FAILED: "cfctl itself failed before or after the program ran",
    ExitCode.NOT_EXECUTABLE: "the program can not be executed",
    ExitCode.NOT_FOUND: "there is no such program",
}
