"""cProfile's statistics (`python -m cProfile -o FILE`, `Profile.dump_stats`).

The file is in Python's marshal format. marshal runs no code, but it is not hardened against hostile
input, so the file's size is bounded, and it is decoded in an interpreter of its own, whose crash
harms nobody, with its memory and its time bounded too.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final

from cfctl.profile.sources import SourceError, recording_of
from cfctl.profile.tally import Tally

if TYPE_CHECKING:
    from cfctl.profile.report import Recording

NAME: Final = "pstats"
# marshal's type codes of a dictionary, with and without the flag of a reference.
_STARTS: Final = (b"{", b"\xfb")
_TIMEOUT_S: Final = 60
_GAP: Final = "cProfile keeps counts and sums only"
_METHOD: Final = "cProfile, cumulative time of each function"
# Prints what is needed as JSON; a number that is none or a name that is none is left to the reader.
_DECODER: Final = """
import json, marshal, resource, sys
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
statistics = marshal.loads(sys.stdin.buffer.read())
rows = [[*map(str, key), value[1], value[0], value[2], value[3]] for key, value in statistics.items()]
json.dump(rows, sys.stdout)
"""


def recognises(data: bytes) -> bool:
    """Return whether the data may be such a file; JSON also starts with a brace."""
    return data[:1] in _STARTS and data[1:2] in {b"(", b"\xa8", b")", b"\xa9", b"0"}


def read(data: bytes) -> Recording:
    """Return one operation for each function: calls and cumulative time; raises SourceError.

    The times of a call that calls itself are in the time of the outermost one.
    """
    try:
        decoder = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _DECODER], input=data, capture_output=True, timeout=_TIMEOUT_S,
            check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SourceError(f"it could not be decoded ({type(error).__name__})") from error
    if decoder.returncode != 0:
        raise SourceError("it is damaged, or none of this Python's version")
    return recording_of(NAME, _METHOD, 1.0, map(_tally, json.loads(decoder.stdout)))


def _tally(row: list[Any]) -> Tally:
    file, line, function, calls, _, _, cumulative_s = row
    ok = isinstance(calls, int) and isinstance(cumulative_s, (int, float))
    if not ok or not 0 <= calls < 1 << 63 or not 0 <= cumulative_s < 1e9:
        raise SourceError(f"the numbers of '{function[:100]}' are impossible")
    name = function if file == "~" else f"{_module(file)}:{function}:{line}"
    return Tally(
        name[-1000:],
        (),
        calls,
        None,
        round(cumulative_s * 1e9),
        0,
        None,
        (),
        None,
        None,
        None,
        None,
        gap=_GAP,
    )


def _module(file: str) -> str:
    parts = file.removesuffix(".py").replace("\\", "/").split("/")
    return ".".join(parts[-2:]) if len(parts) > 1 and parts[-2] else parts[-1]
