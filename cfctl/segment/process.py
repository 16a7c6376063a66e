"""This process's own segment, opened by the first instrument that needs it."""

from __future__ import annotations

import errno
import functools
import os
import warnings

from cfctl import _native, paths
from cfctl.errors import InputError


@functools.cache
def open_segment() -> None:
    """Open the process's segment; warn once when it has to be in anonymous memory."""
    directory, limit_bytes = paths.segment_directory(), None
    try:
        limit_bytes = paths.segment_limit_bytes()
    except InputError as error:
        warnings.warn(f"cfctl: {error} The default is used.", RuntimeWarning, stacklevel=3)
    try:
        _native.segment_configure(
            str(directory), paths.segment_run_id(), limit_bytes or _native.SEGMENT_DEFAULT_LIMIT_BYTES
        )
        _, number = _native.segment_open()
    except (OSError, ValueError) as error:
        reason = str(error)
    else:
        if paths.timeline_wanted():
            _native.timeline_start()
        if number == 0:
            return
        reason = _reason(number)
    warnings.warn(
        f"cfctl: no segment can be made in {directory}: {reason}. All is recorded, but only this "
        f"process can report it. Make the directory usable, or name another with CFCTL_SEGMENT_DIR.",
        RuntimeWarning,
        stacklevel=3,
    )


def _reason(number: int) -> str:
    if number == errno.EPERM:
        return "it is a link, another user's, or open to others (it should have mode 0700)"
    return os.strerror(number)
