"""The standard streams: usable from the first line, plain ASCII where the locale asks for it, flushed with care."""

from __future__ import annotations

import codecs
import io
import os
import sys
from typing import Any, Final

from cfctl.cli.exit_codes import ExitCode
from cfctl.errors import os_error_reason

# Characters of our own tables and sentences; anything else that does not fit becomes "?".
_ASCII_FORMS: Final = {
    "…": "...", "±": "+-", "µ": "u", "\N{MULTIPLICATION SIGN}": "x", "≤": "<=", "≥": ">=", "\N{EN DASH}": "-", "—": "-", "→": "->",
    "·": "*", "─": "-", "│": "|", "≈": "~", "°": "deg",
}  # fmt: skip
TRANSLITERATE: Final = "cfctl.transliterate"


def _transliterate(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    unfit = error.object[error.start : error.end]
    return "".join(_ASCII_FORMS.get(char, "?") for char in unfit), error.end


codecs.register_error(TRANSLITERATE, _transliterate)


def prepare_standard_streams() -> None:
    """Open closed descriptors and set the encodings, so that no write can raise for a character.

    A closed descriptor 0, 1 or 2 would be given to the next file that is opened, and a message would
    end up in it. A closed stdout stays an error for whoever writes to it: it is opened for reading.
    """
    for fd, flags in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, flags)
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115
    encoding = "ascii" if _locale_is_plain() else None
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding=encoding, errors=TRANSLITERATE)


def _locale_is_plain() -> bool:
    """Return whether the user chose the C locale.

    Python (PEP 538) puts C.UTF-8 into LC_CTYPE itself in that case, so that value says nothing.
    """
    if os.environ.get("PYTHONIOENCODING") or os.environ.get("PYTHONUTF8"):
        return False
    character_type = os.environ.get("LC_CTYPE")
    if character_type == "C.UTF-8":
        character_type = None
    chosen = os.environ.get("LC_ALL") or character_type or os.environ.get("LANG")
    return chosen in {"C", "POSIX"}


def stdout_works() -> bool:
    """Return whether what stdout still holds can be written; an unbuffered one holds nothing and says yes."""
    try:
        sys.stdout.flush()
    except OSError:
        return False
    return True


def flush_stdout(status: int) -> int:
    """Flush stdout and return the exit code: `status`, or 3 when the output could not be written."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of our pipe went away (`cfctl ... | head`): nobody is left to tell.
        discard(sys.stdout)
    except OSError as error:
        print(f"cfctl: The output could not be written. {os_error_reason(error)}", file=sys.stderr)
        discard(sys.stdout)
        return status or ExitCode.UNMEASURED
    return status


def discard(stream: Any) -> None:
    """Give up what a stream still holds, so that the interpreter does not try to write it at its end."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, stream.fileno())
    os.close(devnull)
