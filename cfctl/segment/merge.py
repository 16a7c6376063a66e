"""The shards of an entry become one value per field."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from cfctl.segment.format import U64_MAX, FieldType, MergeRule

if TYPE_CHECKING:
    from cfctl.segment.records import Field

_U64: Final = struct.Struct("<Q")
_SCALARS: Final = {
    FieldType.U64: _U64,
    FieldType.I64: struct.Struct("<q"),
    FieldType.F64: struct.Struct("<d"),
}
_RULES: Final[Mapping[MergeRule, Callable[[Sequence[float]], float]]] = {
    MergeRule.SUM: sum,
    MergeRule.MIN: min,
    MergeRule.MAX: max,
    # The list of shards is in the order of their making.
    MergeRule.LAST: lambda values: values[-1],
}


def merge_values(
    fields: Sequence[Field], payloads: Sequence[memoryview]
) -> dict[str, int | float | bytes | None]:
    """Return the merged value of each field over the shards' payloads.

    Sums are exact integers, however many shards. Without a shard, and for a minimum that no shard
    has set (UINT64_MAX) or a number that is NaN, the value is None; a histogram is always there, with
    each shard's latest sample, which is no value of its own.
    """
    return {f.name: _merged(f, fields, payloads) for f in fields if f.type is not FieldType.LATEST}


def _merged(
    field: Field, fields: Sequence[Field], payloads: Sequence[memoryview]
) -> int | float | bytes | None:
    if field.type is FieldType.HISTOGRAM:
        merged = _merged_histogram(field, payloads)
        for latest in fields:
            if latest.type is FieldType.LATEST and latest.parameter == field.offset:
                _add_latest(merged, latest, payloads)
        return bytes(merged)
    if field.type is FieldType.RING:
        return b"".join(_ring_slots(field, payload) for payload in payloads)
    unpack = _SCALARS[field.type].unpack_from
    values: list[float] = [unpack(payload, field.offset)[0] for payload in payloads]
    if field.type is FieldType.U64 and field.merge is MergeRule.MIN:
        values = [value for value in values if value != U64_MAX]
    elif field.type is FieldType.F64:
        values = [value for value in values if not math.isnan(value)]
    if len(values) == 1:
        return values[0]
    return _RULES[field.merge](values) if values else None


def _add_latest(histogram: bytearray, latest: Field, payloads: Sequence[memoryview]) -> None:
    """Add the sample of each shard that its histogram does not hold yet."""
    for payload in payloads:
        (number,) = _U64.unpack_from(payload, latest.offset)
        # A number beyond the histogram is damage, which shows: the count is of one sample more.
        if 0 < number <= len(histogram) // 8:
            (samples,) = _U64.unpack_from(histogram, 8 * (number - 1))
            _U64.pack_into(histogram, 8 * (number - 1), min(samples + 1, U64_MAX))


def _ring_slots(field: Field, payload: memoryview) -> bytes:
    """Return one column of a ring's records, packed, in the order of their slots."""
    words = payload[field.offset :]
    words = words[: len(words) // 8 * 8].cast("Q")
    return words[: (field.count - 1) * field.parameter // 8 + 1 : field.parameter // 8].tobytes()


def _merged_histogram(field: Field, payloads: Sequence[memoryview]) -> bytearray:
    size = 8 * field.count
    return _sum([payload[field.offset : field.offset + size] for payload in payloads], size)


def merge_histograms(parts: Sequence[bytes | memoryview]) -> bytes:
    """Return the sum of equally long histograms, bucket by bucket, saturating at UINT64_MAX."""
    return bytes(_sum(parts, 0))


def _sum(parts: Sequence[bytes | memoryview], size_of_none: int) -> bytearray:
    from cfctl import _native

    merged = bytearray(parts[0]) if parts else bytearray(size_of_none)
    for part in parts[1:]:
        _native.histogram_merge(merged, bytes(part))
    return merged
