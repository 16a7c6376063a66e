"""The segment's layout as Python reads it; cfctl/native/segment.h is where it is defined.

A reader of this version reads every segment of FORMAT_VERSION and before.
"""

from __future__ import annotations

import enum
import struct
from typing import Final

MAGIC: Final = b"CFCTLSEG"
FORMAT_VERSION: Final = 3
HEADER_BYTES: Final = 4096
ALIGNMENT: Final = 64
NAME_BYTES: Final = 1024
COMMAND_LINE_BYTES: Final = 3072
U64_MAX: Final = (1 << 64) - 1

# Bounds of the reader, far above what a writer makes: a hostile file costs no more than this.
MAX_SEGMENT_BYTES: Final = 128 << 20
MAX_FIELDS: Final = 64
MAX_PAYLOAD_BYTES: Final = 1 << 20
HISTOGRAM_BUCKETS: Final = 4352

# magic, version, header bytes, limit, used, first entry, shards refused, samples lost,
# pid, start time, pid namespace, uid, tick source, opened (tick, raw ns, realtime ns),
# latest (tick, raw ns), state, command line bytes, boot id, run id, control, reserved, command line
HEADER: Final = struct.Struct("<8s2I5Q3Q2I3Q2Q2I40s40sI36x3072s768x")
CONTROL_OFFSET: Final = 216
CONTROL_PAUSED: Final = 1
# name, unit, type, merge rule, offset, count, parameter
FIELD: Final = struct.Struct("<32s16s2H3I")
# next, first shard, fields, field count, payload bytes, name bytes, label bytes, kind
ENTRY: Final = struct.Struct("<3Q4I16s8x")
# next, owner's tid, owners
SHARD: Final = struct.Struct("<3Q40x")


class TickSource(enum.IntEnum):
    """What the ticks of a segment count; the values are enum cf_tick_source."""

    UNSELECTED = 0
    TSC = 1
    CNTVCT = 2
    OS = 3


class FieldType(enum.IntEnum):
    """What a field holds; the values are enum cf_field_type."""

    U64 = 1
    I64 = 2
    F64 = 3
    HISTOGRAM = 4
    RING = 5
    # 1 + the bucket of a shard's latest sample, which its histogram does not hold yet; 0 = none.
    LATEST = 6


class MergeRule(enum.IntEnum):
    """How the shards' values of a field become one; the values are enum cf_merge_rule."""

    SUM = 1
    MIN = 2
    MAX = 3
    LAST = 4
    JOIN = 5


class SegmentState(enum.IntEnum):
    """Whether the writer closed its segment; the values are enum cf_segment_state."""

    OPEN = 1
    CLOSED = 2
