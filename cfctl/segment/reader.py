"""From the bytes of a segment to records. The bytes are hostile until each number is checked.

Two rules keep any input finite: offsets grow along their list, and the bytes that entries and
shards claim for themselves add up to no more than the file.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, Final, TypeVar

from cfctl.errors import SegmentError
from cfctl.segment import format as layout
from cfctl.segment.format import FieldType, MergeRule, SegmentState, TickSource
from cfctl.segment.merge import merge_values
from cfctl.segment.records import ClockPair, Entry, Field, Segment, SegmentHeader, Shard

_Enum = TypeVar("_Enum", TickSource, SegmentState, FieldType, MergeRule)

# Beyond this a counter of lost samples or refused shards is damage: 260 days of 64 threads that
# do nothing but lose a sample every 20 ns.
_MAX_PLAUSIBLE_COUNT: Final = 1 << 56


def parse_segment(data: bytes) -> Segment:
    """Return what is whole of a segment's bytes; the rest is named in its `problems`.

    Raises SegmentError when not even the header can be used.
    """
    problems: list[str] = []
    header = parse_header(data, problems)
    reader = _Reader(data, problems)
    return Segment(header, tuple(reader.entries(header.first_entry)), tuple(problems))


def parse_header(data: bytes, problems: list[str]) -> SegmentHeader:
    """Return the header that `data` starts with, and append to `problems` what is odd in it.

    Raises SegmentError for anything that is no segment, is not finished being made, or is of a
    newer format.
    """
    start = data[: len(layout.MAGIC)]
    if any(start) and not layout.MAGIC.startswith(start):
        raise SegmentError(
            "The file is no segment.",
            "It does not start with the segment's magic.",
            "Name a segment that `cfctl segments list` shows, or a report saved as JSON.",
        )
    if len(data) < layout.HEADER_BYTES:
        raise SegmentError(
            "The segment has no complete header.",
            f"It holds {len(data)} bytes and a header takes {layout.HEADER_BYTES}.",
            "Its program may just be starting, or ended while it did.",
        )
    (
        magic, version, header_bytes, limit_bytes, used_bytes, first_entry, shards_refused, samples_lost,
        pid, start_time, pid_namespace, uid, tick_source, opened_tick, opened_raw_ns, opened_unix_ns,
        latest_tick, latest_raw_ns, state, command_line_bytes, boot_id, run_id, control, command_line,
    ) = layout.HEADER.unpack_from(data)  # fmt: skip
    if magic != layout.MAGIC:
        raise SegmentError(
            "The file is no segment.",
            "Its header is not written yet.",
            "Name a segment that `cfctl segments list` shows.",
        )
    if version > layout.FORMAT_VERSION:
        raise SegmentError(
            f"The segment has format version {version}.",
            f"This cfctl reads versions up to {layout.FORMAT_VERSION}.",
            "Read it with the cfctl of the program that wrote it.",
        )
    if version == 0 or header_bytes != layout.HEADER_BYTES:
        raise SegmentError(
            "The segment's header is damaged.",
            f"It says version {version} with {header_bytes} bytes of header.",
            "Run the program again.",
        )
    header = SegmentHeader(
        version, limit_bytes, used_bytes, first_entry, shards_refused, samples_lost,
        pid, start_time, pid_namespace, uid, _member(TickSource, tick_source, TickSource.UNSELECTED, problems),
        ClockPair(opened_tick, opened_raw_ns), opened_unix_ns, ClockPair(latest_tick, latest_raw_ns),
        _member(SegmentState, state, SegmentState.OPEN, problems), _text(boot_id), _text(run_id),
        _arguments(command_line, command_line_bytes, problems), bool(control & layout.CONTROL_PAUSED),
    )  # fmt: skip
    _check_header(header, len(data), problems)
    return header


def _check_header(header: SegmentHeader, size: int, problems: list[str]) -> None:
    if header.used_bytes > size:
        problems.append(f"The file is truncated: {size} bytes of {header.used_bytes}.")
    if header.used_bytes < layout.HEADER_BYTES or header.used_bytes > header.limit_bytes:
        problems.append(
            f"The header is damaged: {header.used_bytes} bytes used of at most {header.limit_bytes}."
        )
    for what, count in (
        ("samples were lost", header.samples_lost),
        ("shards were refused", header.shards_refused),
    ):
        if count > _MAX_PLAUSIBLE_COUNT:
            problems.append(f"The header is damaged: it says that {count} {what}.")
    if header.latest.tick < header.opened.tick or header.latest.raw_ns < header.opened.raw_ns:
        problems.append("The header is damaged: its latest clock reading is before its first.")


def _arguments(raw: bytes, length: int, problems: list[str]) -> tuple[str, ...]:
    if length > len(raw):
        problems.append(f"The header is damaged: a command line of {length} bytes.")
    arguments = raw[: min(length, len(raw))].rstrip(b"\0").split(b"\0")
    return tuple(part.decode("utf-8", "replace") for part in arguments) if any(arguments) else ()


def _member(kind: type[_Enum], value: int, fallback: _Enum, problems: list[str]) -> _Enum:
    try:
        return kind(value)
    except ValueError:
        problems.append(f"The header is damaged: {kind.__name__} {value}.")
        return fallback


def _text(raw: bytes) -> str:
    return raw.split(b"\0", 1)[0].decode("utf-8", "replace")


class _DamagedError(Exception):
    """What stops the reading of one list."""


class _Reader:
    """Walks the lists of one segment; a damaged list ends where the damage is."""

    def __init__(self, data: bytes, problems: list[str]) -> None:
        self._data = data
        self._problems = problems
        self._claimed = layout.HEADER_BYTES
        self._tables: dict[tuple[int, int, int], tuple[Field, ...]] = {}

    def entries(self, first: int) -> Iterator[Entry]:
        """Yield the entries; whatever can not be read is added to the problems."""
        offset, previous = first, 0
        while offset:
            try:
                fixed = self._unpack(layout.ENTRY, offset, previous, "entry")
                yield self._entry(offset, fixed)
            except _DamagedError as damage:
                self._problems.append(f"The entry at byte {offset} is damaged: {damage}.")
                return
            previous, offset = offset, fixed[0]

    def _entry(self, offset: int, fixed: tuple[Any, ...]) -> Entry:
        _, first_shard, table, field_count, payload_bytes, name_bytes, label_bytes, kind = fixed
        if name_bytes > layout.NAME_BYTES or label_bytes > layout.NAME_BYTES:
            raise _DamagedError(f"a name of {name_bytes} and labels of {label_bytes} bytes")
        start = offset + layout.ENTRY.size
        self._claim(start, name_bytes + label_bytes)
        name = self._data[start : start + name_bytes].decode("utf-8", "replace")
        labels = self._labels(self._data[start + name_bytes : start + name_bytes + label_bytes])
        fields = self._fields(table, field_count, payload_bytes)
        shards = tuple(self._shards(name, first_shard, payload_bytes))
        values = merge_values(fields, [shard.payload for shard in shards])
        owned = sum(shard.owner_tid != 0 for shard in shards)
        threads = sum(shard.owners for shard in shards)
        return Entry(
            _text(kind), name, labels, fields, values, len(shards), owned, threads, offset, shards
        )  # fmt: skip

    def _labels(self, raw: bytes) -> tuple[tuple[str, str], ...]:
        parts = raw.split(b"\0")
        if parts.pop() or len(parts) % 2:
            raise _DamagedError("labels that are no pairs")
        texts = [part.decode("utf-8", "replace") for part in parts]
        return tuple(zip(texts[::2], texts[1::2], strict=True))

    def _fields(self, table: int, count: int, payload_bytes: int) -> tuple[Field, ...]:
        key = (table, count, payload_bytes)
        if key not in self._tables:
            if count > layout.MAX_FIELDS or not 0 < payload_bytes <= layout.MAX_PAYLOAD_BYTES:
                raise _DamagedError(f"{count} fields in {payload_bytes} bytes")
            self._check(table, count * layout.FIELD.size)
            fields = tuple(self._field(table + i * layout.FIELD.size, payload_bytes) for i in range(count))
            if 8 * sum(field.count for field in fields) > payload_bytes:
                raise _DamagedError("fields that overlap")
            self._tables[key] = fields
        return self._tables[key]

    def _field(self, offset: int, payload_bytes: int) -> Field:
        name, unit, type_, merge, start, count, parameter = layout.FIELD.unpack_from(self._data, offset)
        try:
            field = Field(
                _text(name), _text(unit), FieldType(type_), MergeRule(merge), start, count, parameter
            )
        except ValueError as error:
            raise _DamagedError(f"a field with {error}") from None
        ring = field.type is FieldType.RING
        if count < 1 or (count != 1 and not ring and field.type is not FieldType.HISTOGRAM):
            raise _DamagedError(f"a field '{field.name}' of {count} values")
        if count > layout.HISTOGRAM_BUCKETS and not ring:
            raise _DamagedError(f"a histogram '{field.name}' of {count} buckets")
        if ring != (field.merge is MergeRule.JOIN):
            raise _DamagedError(f"a field '{field.name}' merged by {field.merge.name}")
        stride = parameter if ring else 8
        if stride < 8 or stride % 8 or start % 8 or start + stride * (count - 1) + 8 > payload_bytes:
            raise _DamagedError(f"a field '{field.name}' outside of its {payload_bytes} bytes")
        return field

    def _shards(self, name: str, first: int, payload_bytes: int) -> Iterator[Shard]:
        offset, previous = first, 0
        while offset:
            try:
                following, owner_tid, owners = self._unpack(layout.SHARD, offset, previous, "shard")
                self._claim(offset + layout.SHARD.size, payload_bytes)
            except _DamagedError as damage:
                self._problems.append(f"A shard of '{name}' at byte {offset} is damaged: {damage}.")
                return
            start = offset + layout.SHARD.size
            yield Shard(owner_tid, owners, memoryview(self._data)[start : start + payload_bytes])
            previous, offset = offset, following

    def _unpack(self, fixed: struct.Struct, offset: int, previous: int, what: str) -> tuple[Any, ...]:
        if offset <= previous:
            raise _DamagedError(f"the {what} before it, at byte {previous}, points back")
        if offset % layout.ALIGNMENT:
            raise _DamagedError("it is not aligned")
        self._claim(offset, fixed.size)
        return fixed.unpack_from(self._data, offset)

    def _claim(self, offset: int, size: int) -> None:
        self._check(offset, size)
        self._claimed += size
        if self._claimed > len(self._data):
            raise _DamagedError("more is claimed than the file holds")

    def _check(self, offset: int, size: int) -> None:
        if offset < layout.HEADER_BYTES or offset + size > len(self._data):
            raise _DamagedError(f"{size} bytes at byte {offset} are outside of the file's {len(self._data)}")
