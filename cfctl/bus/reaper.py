"""What the ends of killed programs leave in a directory, and its removal: rings and topics that nobody needs.

Programs that end in order leave nothing, and a topic that is opened again is tidied by who opens it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from cfctl.bus import leases as lease_file
from cfctl.bus.files import RING_SUFFIX, TOPIC_SUFFIX, names, opened
from cfctl.bus.leases import Leases
from cfctl.bus.rings import Ring, list_bus, read_ring
from cfctl.bus.topic_pages import read_topic
from cfctl.errors import SegmentError

# A publisher that was killed leaves its ring to be looked at; so many at most, of all topics.
_KILLED_STAY: Final = 16
_EVERY_NS: Final = 60_000_000_000


def sweep(directory: Path) -> int:
    """Remove rings and topics of which nobody lives, all but the newest 16 rings of killed publishers.

    At most once a minute for a directory, whoever calls: then 0.1 ms for each of its files, else one syscall. What
    is used is never removed, nor a ring that a living subscription has messages of to take. Returns how many
    files went.
    """
    stamp = directory / lease_file.NAME
    try:
        age_ns = time.time_ns() - stamp.stat(follow_symlinks=False).st_mtime_ns
        # A stamp of the future is from before the clock was set back.
        if 0 <= age_ns < _EVERY_NS:
            return 0
        os.utime(stamp, follow_symlinks=False)
        rings = list_bus(directory).rings
    except (OSError, SegmentError):
        # Nobody was here, or what makes the directory unusable is said by who makes a topic in it.
        return 0
    ended = sorted((r for r in rings if not r.is_needed and not r.live), key=lambda r: r.written_unix_ns)
    killed = [ring for ring in ended if not ring.closed]
    kept = {ring.path for ring in killed[-_KILLED_STAY:]}
    return remove_rings(ring for ring in ended if ring.path not in kept) + remove_topics(directory)


def prunable_rings(
    rings: Iterable[Ring], now_unix_ns: int, max_age_ns: int, max_total_bytes: int | None = None
) -> tuple[Ring, ...]:
    """Return the rings to remove that nobody needs, oldest first, by the rules of segments.

    Those last written `max_age_ns` ago or earlier, and of the others the oldest until those that
    stay hold at most `max_total_bytes`.
    """
    ended = sorted(
        (ring for ring in rings if not ring.is_needed and not ring.live),
        key=lambda ring: (ring.written_unix_ns, ring.ring_id),
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
    """Remove rings that nobody needs; return how many. One that is needed after all, or is gone already, stays."""
    return sum(_remove_ring(ring) for ring in rings)


def remove_topics(directory: Path) -> int:
    """Remove the pages of topics at which nobody lives, and of those that were never finished; return how many."""
    removed = 0
    with Leases(directory, to_lock=True) as leases:
        for name in names(directory, TOPIC_SUFFIX):
            stem = name.removesuffix(TOPIC_SUFFIX)
            if not _is_hash(stem):
                continue
            try:
                page = read_topic(directory / name, leases)
                if page is None or not page.alive:
                    removed += _remove_topic(directory / name, int(stem, 16), leases)
            except (FileNotFoundError, SegmentError):
                continue
        removed += _remove_unfinished_rings(directory, leases)
    return removed


def _remove_topic(path: Path, topic_hash: int, leases: Leases) -> bool:
    """Remove a page under its topic's lock, which everybody takes who comes to it, if it is still nobody's."""
    with leases.topic_locked(topic_hash) as held:
        if not held:
            return False
        leases.look_again()
        page = read_topic(path, leases)
        return (page is None or not page.alive) and _unlink(path)


def _remove_ring(ring: Ring) -> bool:
    directory = ring.path.parent
    with Leases(directory, to_lock=True) as leases, leases.topic_locked(ring.topic_hash) as held:
        if not held:
            return False
        try:
            page = read_topic(directory / f"{ring.topic_hash:016x}{TOPIC_SUFFIX}", leases)
        except FileNotFoundError:
            page = None
        except SegmentError:
            # Who still reads it cannot be known.
            return False
        try:
            now = read_ring(ring.path, leases, {} if page is None else {page.hash: page})
        except (FileNotFoundError, SegmentError):
            return False
        return now is not None and not now.is_needed and not now.live and _unlink(ring.path)


def _remove_unfinished_rings(directory: Path, leases: Leases) -> int:
    """Remove the rings whose maker died before they were rings: under the topic's lock nobody is making one."""
    removed = 0
    for name in names(directory, RING_SUFFIX):
        topic, _, ring_id = name.removesuffix(RING_SUFFIX).partition("-")
        path = directory / name
        if not _is_hash(topic) or not _is_hash(ring_id) or not _is_unfinished(path):
            continue
        with leases.topic_locked(int(topic, 16)) as held:
            removed += held and _is_unfinished(path) and _unlink(path)
    return removed


def _is_unfinished(path: Path) -> bool:
    try:
        with opened(path, "ring") as (fd, _):
            return os.pread(fd, 8, 0) in {b"", bytes(8)}
    except (FileNotFoundError, SegmentError):
        return False


def _is_hash(text: str) -> bool:
    return len(text) == 16 and set(text) <= set("0123456789abcdef")


def _unlink(path: Path) -> bool:
    try:
        path.unlink()
    except OSError:
        # Removed by another, or not ours to remove.
        return False
    return True
