"""Which ring files go: those whose publisher has ended. A live one never."""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from cfctl.bus.rings import SUFFIX, TOPIC_SUFFIX, Ring, list_rings, ring_names
from cfctl.errors import SegmentError

# Subscribers that are about to join a ring that was closed at once find it for this long.
_CLOSED_STAY_NS: Final = 10_000_000_000
# A publisher that was killed leaves its ring to be looked at; so many at most, of all topics.
_KILLED_STAY: Final = 16
_FLOCK: Final = struct.Struct("@hhqqi4x")


def remove_closed(directory: Path) -> int:
    """Remove rings that were closed 10 s ago or earlier, and all but the newest 16 that were killed.

    Called when a ring is made, so that what is left behind stays bounded. Returns how many went.
    """
    try:
        rings, _ = list_rings(directory)
    except SegmentError:
        # What makes the directory unusable is said by who makes a ring in it.
        return 0
    now_ns = time.time_ns()
    killed = sorted((r for r in rings if not r.live and not r.closed), key=lambda r: r.opened_unix_ns)
    closed = [r for r in rings if not r.live and r.closed and now_ns - r.written_unix_ns >= _CLOSED_STAY_NS]
    return remove_rings([*closed, *killed[:-_KILLED_STAY]])


def prunable_rings(
    rings: Iterable[Ring], now_unix_ns: int, max_age_ns: int, max_total_bytes: int | None = None
) -> tuple[Ring, ...]:
    """Return the ended rings to remove, oldest first, by the rules of segments.

    Those last written `max_age_ns` ago or earlier, and of the others the oldest until those that
    stay hold at most `max_total_bytes`.
    """
    ended = sorted(
        (ring for ring in rings if not ring.live), key=lambda ring: (ring.written_unix_ns, ring.ring_id)
    )
    kept_bytes = sum(ring.size_bytes for ring in ended)
    removed = []
    for ring in ended:
        if now_unix_ns - ring.written_unix_ns >= max_age_ns or (
            max_total_bytes is not None and kept_bytes > max_total_bytes
        ):
            removed.append(ring)
            kept_bytes -= ring.size_bytes
    return tuple(removed)


def remove_rings(rings: Iterable[Ring]) -> int:
    """Remove ended rings; return how many. One that is live, or is gone already, stays."""
    return sum(_remove_unheld(ring.path) for ring in rings if ring.path.name.endswith(SUFFIX))


def remove_topics(directory: Path) -> int:
    """Remove the rendezvous pages that no publisher or subscriber has open; return how many."""
    return sum(_remove_unheld(directory / name) for name in ring_names(directory, TOPIC_SUFFIX))


def _remove_unheld(path: Path) -> bool:
    """Remove a file whose first byte nobody holds, while holding it."""
    with _opened(path) as fd:
        if fd is None:
            return False
        lock = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 1, 0)
        try:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, lock)
            path.unlink()
        except OSError:
            # Held, removed by another, or not ours to remove.
            return False
    return True


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int | None]:
    try:
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        yield None
        return
    try:
        yield fd
    finally:
        os.close(fd)
