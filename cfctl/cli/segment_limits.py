"""The settings' limits on segments, applied before a command makes new ones."""

from __future__ import annotations

import contextlib
import time

from cfctl.errors import SegmentError, StateError


def prune_by_settings() -> None:
    """Remove the ended segments that the settings say are too old or too many."""
    from cfctl import config
    from cfctl.segment.directory import list_segments, remove_segment, user_directories
    from cfctl.segment.reaper import prunable

    settings = config.load()
    try:
        files = list_segments(user_directories()).files
    except SegmentError:
        # Whether the directory can be used is the program's to say, and it will.
        return
    limits = settings.get("segments.max-age"), settings.get("segments.max-total")
    for file in prunable(files, time.time_ns(), *limits):
        with contextlib.suppress(StateError):
            remove_segment(file)
