"""Switches the instrumentation by name of a running program off and on, through its segment.

The segment's header holds one control word. The callbacks that time functions by name look at it
with one load per call; nothing is sent to the program, and no signal is used. While it is paused
a call costs its callback still and is not recorded; calls that began before the pause
are recorded when they end. What a program times by itself (cfctl.Profiler) goes on.
"""

from __future__ import annotations

import os
from pathlib import Path

from cfctl.errors import SegmentError, os_error_reason
from cfctl.segment import format as layout
from cfctl.segment.file import liveness, open_segment
from cfctl.segment.reader import parse_header

_FIRST_VERSION_WITH_CONTROL = 2


def set_paused(path: Path, paused: bool) -> int:
    """Pause or resume the live program of a segment; return its process id.

    Raises SegmentError when there is no such program, or its segment is not to be written.
    """
    with open_segment(path) as fd:
        header = parse_header(os.pread(fd, layout.HEADER_BYTES, 0), [])
        if header.version < _FIRST_VERSION_WITH_CONTROL:
            raise SegmentError(
                f"Process {header.pid} can not be paused.",
                f"Its segment has format version {header.version}, which has no control word.",
                "Start it with this cfctl.",
            )
        if not liveness(fd, header).live:
            raise SegmentError(
                f"Process {header.pid} can not be paused or resumed.",
                "It has ended.",
                "See: cfctl segments list",
            )
        word = (layout.CONTROL_PAUSED if paused else 0).to_bytes(4, "little")
        try:
            # The very file that was checked, whatever stands at its path by now.
            writable = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_CLOEXEC)
        except OSError as error:
            raise SegmentError(f"{path} can not be written.", os_error_reason(error)) from error
        try:
            os.pwrite(writable, word, layout.CONTROL_OFFSET)
        finally:
            os.close(writable)
    return header.pid
