"""HdrHistogram logs (`HistogramLogWriter`), values in nanoseconds, each tag one operation.

Format: HistogramLogWriter and AbstractHistogram.encodeIntoCompressedByteBuffer of HdrHistogram,
version 2: zlib, a header of 40 bytes, then ZigZag LEB128 counts of which a negative one is a run
of empty buckets.
"""

from __future__ import annotations

import base64
import binascii
import math
import struct
import zlib
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from cfctl.profile.sources import SourceError, counted_tally, recording_of

if TYPE_CHECKING:
    from cfctl.profile.report import Recording

NAME: Final = "hdr_log"
_GAP: Final = "a HdrHistogram log keeps histograms only"
_METHOD: Final = "HdrHistogram log, values taken as nanoseconds"
_COMPRESSED_COOKIE: Final = 0x1C849304
_ENCODED_COOKIE: Final = 0x1C849303
_COOKIE_BASE: Final = 0xFFFFFF0F
_HEADER: Final = struct.Struct(">iiiiqqd")
# Counts of 5 digits over 63 bits take 7 million buckets of up to 9 bytes.
_MAX_PAYLOAD_BYTES: Final = 64 << 20


def recognises(data: bytes) -> bool:
    """Return whether the data may be such a log: its lines end in what version 2 always starts with."""
    return b",HISTFAAA" in data


def read(data: bytes) -> Recording:
    """Return one operation for each tag, "histogram" without one; raises SourceError."""
    counts: dict[str, Counter[int]] = {}
    for line in data.decode("utf-8", "replace").splitlines():
        if line.startswith(("#", '"')) or not line.strip():
            continue
        tag, payload = _fields(line)
        counts.setdefault(tag, Counter()).update(dict(_decoded(payload)))
    tallies = [counted_tally(tag, found.items(), _GAP) for tag, found in counts.items()]
    return recording_of(NAME, _METHOD, 1.0, tallies)


def _fields(line: str) -> tuple[str, bytes]:
    parts = line.strip().split(",")
    tag = parts.pop(0).removeprefix("Tag=") if line.startswith("Tag=") else "histogram"
    if len(parts) != 4 or not tag:
        raise SourceError("a line has other than start, length, maximum and histogram")
    try:
        return tag, base64.b64decode(parts[3], validate=True)
    except binascii.Error as error:
        raise SourceError("a histogram is no base64") from error


def _decoded(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield (value, samples); a value is the middle of its bucket."""
    if len(data) < 8 or int.from_bytes(data[:4], "big") & _COOKIE_BASE != _COMPRESSED_COOKIE & _COOKIE_BASE:
        raise SourceError("a histogram is of another version than 2")
    unpacker = zlib.decompressobj()
    try:
        payload = unpacker.decompress(data[8:], _MAX_PAYLOAD_BYTES)
    except zlib.error as error:
        raise SourceError("a histogram is damaged") from error
    if unpacker.unconsumed_tail or len(payload) < _HEADER.size:
        raise SourceError("a histogram is too large, or cut off")
    cookie, length, offset, digits, lowest, _, ratio = _HEADER.unpack_from(payload)
    if cookie & _COOKIE_BASE != _ENCODED_COOKIE & _COOKIE_BASE or length != len(payload) - _HEADER.size:
        raise SourceError("a histogram has another structure")
    if offset or ratio != 1.0 or not 0 <= digits <= 5 or lowest < 1:
        raise SourceError("a histogram is shifted or scaled")
    unit_bits = lowest.bit_length() - 1
    half_bits = math.ceil(math.log2(2 * 10**digits)) - 1
    for index, samples in _counts(payload[_HEADER.size :]):
        yield _value(index, unit_bits, half_bits), samples


def _counts(data: bytes) -> Iterator[tuple[int, int]]:
    position = index = 0
    while position < len(data):
        number = shift = 0
        while True:
            if position >= len(data):
                raise SourceError("a histogram is cut off")
            byte = data[position]
            position += 1
            # The ninth byte holds eight bits.
            number |= (byte if shift == 56 else byte & 0x7F) << shift
            shift += 7
            if byte < 0x80 or shift == 63:
                break
        count = (number >> 1) ^ -(number & 1)
        if count > 0:
            yield index, count
        index += -count if count < 0 else 1


def _value(index: int, unit_bits: int, half_bits: int) -> int:
    row, sub = index >> half_bits, index & ((1 << half_bits) - 1)
    if row == 0:
        shift = unit_bits
    else:
        shift, sub = row - 1 + unit_bits, sub + (1 << half_bits)
    if shift > 62:
        raise SourceError("a histogram has more buckets than numbers have bits")
    return (sub << shift) + ((1 << shift) - 1) // 2
