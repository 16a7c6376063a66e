"""Which ended segments to remove: by age and by their total size. A live one never."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cfctl.segment.file import SegmentFile


def prunable(
    files: Iterable[SegmentFile], now_unix_ns: int, max_age_ns: int, max_total_bytes: int | None = None
) -> tuple[SegmentFile, ...]:
    """Return the ended segments to remove, oldest first.

    Those are the ones last written `max_age_ns` ago or earlier, and of the others the oldest until
    the ended ones that stay hold at most `max_total_bytes`.
    """
    ended = sorted(
        (file for file in files if not file.liveness.live),
        key=lambda file: (file.written_unix_ns, file.path.name),
    )
    kept_bytes = sum(file.size_bytes for file in ended)
    removed = []
    for file in ended:
        too_old = now_unix_ns - file.written_unix_ns >= max_age_ns
        too_much = max_total_bytes is not None and kept_bytes > max_total_bytes
        if too_old or too_much:
            removed.append(file)
            kept_bytes -= file.size_bytes
    return tuple(removed)
