"""Segments for tests, written by the format's definition and independently of the reader."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

U64_MAX = 2**64 - 1
BUCKETS = 4352
SUM, MIN, MAX, LAST = 1, 2, 3, 4
U64, I64, F64, HISTOGRAM = 1, 2, 3, 4

# name, unit, type, merge rule, offset, count, parameter
FieldRow = tuple[str, str, int, int, int, int, int]

OPERATION_FIELDS: Sequence[FieldRow] = (
    ("count", "1", U64, SUM, 0, 1, 0),
    ("errors", "1", U64, SUM, 8, 1, 0),
    ("sum", "ticks", U64, SUM, 16, 1, 0),
    ("min", "ticks", U64, MIN, 24, 1, 0),
    ("max", "ticks", U64, MAX, 32, 1, 0),
    ("out_of_range", "1", U64, SUM, 40, 1, 0),
    ("first_tick", "ticks", U64, MIN, 48, 1, 0),
    ("last_tick", "ticks", U64, MAX, 56, 1, 0),
    ("histogram", "ticks", HISTOGRAM, SUM, 64, BUCKETS, 7),
)


def bucket_of(value: int) -> int:
    """The bucket of a value, as native/histogram.h defines it."""
    if value < 128:
        return value
    shift = value.bit_length() - 1 - 7
    return (shift + 1) * 128 + (value >> shift) % 128


def operation_payload(samples: Iterable[int], errors: int = 0, first: int = 2000, last: int = 9000) -> bytes:
    """What a shard holds after these durations in ticks."""
    values = list(samples)
    buckets = [0] * BUCKETS
    for value in values:
        if value < 1 << 40:
            buckets[bucket_of(value)] += 1
    beyond = sum(value >= 1 << 40 for value in values)
    head = (
        len(values), errors, sum(values), min(values, default=U64_MAX), max(values, default=0), beyond,
        first if values else U64_MAX, last if values else 0,
    )  # fmt: skip
    return struct.pack(f"<{8 + BUCKETS}Q", *head, *buckets)


@dataclass
class SegmentBuilder:
    """Appends field tables, entries and shards, and links them as the writer does."""

    header: dict[str, int | bytes] = field(default_factory=dict)
    _body: bytearray = field(default_factory=bytearray)
    _last_entry: int = 0
    _first_entry: int = 0

    def _append(self, data: bytes) -> int:
        offset = 4096 + len(self._body)
        self._body += data + bytes(-len(data) % 64)
        return offset

    def _patch(self, offset: int, value: int) -> None:
        struct.pack_into("<Q", self._body, offset - 4096, value)

    def entry(
        self,
        name: bytes,
        payloads: Sequence[bytes],
        kind: bytes = b"operation",
        fields: Sequence[FieldRow] = OPERATION_FIELDS,
        labels: Mapping[bytes, bytes] | None = None,
        owners: int = 1,
        owner_tid: int = 0,
        payload_bytes: int | None = None,
    ) -> int:
        table = self._append(
            b"".join(struct.pack("<32s16s2H3I", n.encode(), u.encode(), *rest) for n, u, *rest in fields)
        )
        label_bytes = b"".join(k + b"\0" + v + b"\0" for k, v in (labels or {}).items())
        size = payload_bytes if payload_bytes is not None else (len(payloads[0]) if payloads else 8)
        fixed = struct.pack("<3Q4I16s8x", 0, 0, table, len(fields), size, len(name), len(label_bytes), kind)
        offset = self._append(fixed + name + label_bytes)
        if self._last_entry:
            self._patch(self._last_entry, offset)
        else:
            self._first_entry = offset
        self._last_entry = offset
        link = offset + 8
        for payload in payloads:
            shard = self._append(struct.pack("<3Q40x", 0, owner_tid, owners) + payload)
            self._patch(link, shard)
            link = shard
        return offset

    def build(self) -> bytes:
        used = 4096 + len(self._body)
        defaults: dict[str, int | bytes] = {
            "magic": b"CFCTLSEG", "version": 1, "header_bytes": 4096, "limit": 32 << 20, "used": used,
            "first_entry": self._first_entry, "refused": 0, "lost": 0, "pid": 4242, "start_time": 77,
            "pid_namespace": 1, "uid": 0, "tick_source": 1, "opened_tick": 1000, "opened_raw_ns": 10**9,
            "opened_unix_ns": 1_700_000_000 * 10**9, "latest_tick": 1000 + 2_000_000,
            "latest_raw_ns": 10**9 + 1_000_000, "state": 2, "command_bytes": 14, "boot_id": b"boot-of-the-test",
            "run_id": b"", "command": b"python\0app.py\0",
        }  # fmt: skip
        values = defaults | self.header
        return struct.pack("<8s2I5Q3Q2I3Q2Q2I40s40s40x3072s768x", *values.values()) + bytes(self._body)
