"""BufferPool: large byte buffers, used again."""

from __future__ import annotations

import mmap
from typing import Final

from cfctl import _native
from cfctl.pool.objects import Pool
from cfctl.segment.process import open_segment

MIN_BUFFER_BYTES: Final = 64 << 10
MAX_BUFFER_BYTES: Final = 1 << 40
DEFAULT_MAX_IDLE: Final = 64


class BufferPool(Pool[bytearray]):
    """Bytearrays of one size, from 64 KiB, that are used again.

    A new buffer is zero; a used one holds what its last user left in it, unless `zero` clears it
    when it is released, which costs a pass over its memory (about 1 us for 64 KiB, and for buffers
    below malloc's mmap threshold of 128 KiB about what a new one costs). With `first_touch` each
    page of a new buffer is written once, so that page faults happen in the factory and not in the
    first use. A buffer that comes back with another size is dropped; one that a memoryview or an
    array still looks into is refused.
    """

    __slots__ = ()

    def __new__(
        cls,
        size_bytes: int,
        max_idle: int = DEFAULT_MAX_IDLE,
        *,
        zero: bool = False,
        first_touch: bool = False,
        name: str | None = None,
    ) -> BufferPool:
        """Return an empty pool of buffers; raises ValueError for a size below 64 KiB."""
        if not MIN_BUFFER_BYTES <= size_bytes <= MAX_BUFFER_BYTES:
            raise ValueError("a buffer of a BufferPool is 64 KiB to 1 TiB: pools do not pay for less")
        open_segment()

        def make() -> bytearray:
            buffer = bytearray(size_bytes)
            if first_touch:
                buffer[:: mmap.PAGESIZE] = bytes(len(range(0, size_bytes, mmap.PAGESIZE)))
            return buffer

        shown = name or f"bytearray({size_bytes})"
        return _native.Pool.__new__(cls, make, None, max_idle, shown, False, size_bytes, zero)
