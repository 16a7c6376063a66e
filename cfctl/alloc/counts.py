"""What a thread, or a process, allocated and freed: the counters of the preload library as records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from cfctl.segment.records import Entry

# The pending word of native/alloc.h: net bytes, allocations, deallocations.
_NET_BITS: Final = 34
_COUNT_BITS: Final = 15


@dataclass(frozen=True, slots=True)
class Counts:
    """Calls and bytes; bytes are those the allocator gave (malloc_usable_size), not those asked for.

    A reallocation that keeps or moves a block counts as one; its bytes are in both sums. `failures`
    are requests the allocator refused. `live_blocks` and `live_bytes` are the differences; of one
    thread they may be negative, as it may free what another allocated.
    """

    allocations: int = 0
    deallocations: int = 0
    reallocations: int = 0
    failures: int = 0
    bytes_allocated: int = 0
    bytes_freed: int = 0
    live_blocks: int = 0
    live_bytes: int = 0

    @classmethod
    def of_shard(cls, values: Mapping[str, object]) -> Counts:
        """Return the counts in the values of one shard; what is not there is 0."""

        def integer(name: str) -> int:
            value = values.get(name)
            return value if isinstance(value, int) else 0

        net, allocated, freed = unpack_pending(integer("pending"))
        allocations, deallocations = integer("allocations") + allocated, integer("deallocations") + freed
        net += integer("net_bytes")
        bytes_allocated = integer("bytes_allocated")
        return cls(
            allocations, deallocations, integer("reallocations"), integer("failures"), bytes_allocated,
            bytes_allocated - net, allocations - deallocations, net,
        )  # fmt: skip

    def plus(self, other: Counts) -> Counts:
        """Return the sum."""
        return Counts(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))

    def since(self, earlier: Counts) -> Counts:
        """Return what was counted after `earlier`; live blocks and bytes are their changes."""
        return Counts(*(getattr(self, name) - getattr(earlier, name) for name in self.__slots__))


def unpack_pending(word: int) -> tuple[int, int, int]:
    """Return the net bytes, allocations and deallocations of a pending word."""
    half = 1 << (_NET_BITS - 1)
    biased = (word + half) % (1 << 64)
    net = biased % (1 << _NET_BITS) - half
    counts = biased >> _NET_BITS
    return net, counts % (1 << _COUNT_BITS), counts >> _COUNT_BITS


def total(counts: Iterable[Counts]) -> Counts:
    """Return the sum of counts."""
    result = Counts()
    for each in counts:
        result = result.plus(each)
    return result


@dataclass(frozen=True, slots=True)
class SizeClass:
    """Requests for `from_bytes` up to, not including, `below_bytes`; the last class has no end."""

    from_bytes: int
    below_bytes: int
    requests: int


def size_classes(entries: Iterable[Entry]) -> tuple[SizeClass, ...]:
    """Return the filled size classes of entries of one kind, by size.

    Four classes per power of two, as native/alloc.h defines them.
    """
    counts: dict[int, int] = {}
    sub_bits = 2
    for entry in entries:
        field = next((field for field in entry.fields if field.name == "sizes"), None)
        buckets = entry.values.get("sizes")
        if field is None or not isinstance(buckets, bytes):
            continue
        sub_bits = min(field.sub_bits, 7)
        for index, count in enumerate(memoryview(buckets).cast("Q")):
            if count:
                counts[index] = counts.get(index, 0) + count
    return tuple(
        SizeClass(_lower(index, sub_bits), _lower(index + 1, sub_bits), counts[index])
        for index in sorted(counts)
    )


def _lower(index: int, sub_bits: int) -> int:
    shift, sub = divmod(index, 1 << sub_bits)
    if shift == 0:
        return sub
    return ((1 << sub_bits) + sub) << (shift - 1)
