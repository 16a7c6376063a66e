"""Messages of the bus as lines: text that no terminal interprets, and JSON."""

from __future__ import annotations

import base64
import json
import time
import unicodedata
from typing import TYPE_CHECKING, Any, Final

from cfctl.text import safe_text
from cfctl.units import format_quantity

if TYPE_CHECKING:
    from cfctl.bus.listening import Heard

SCHEMA: Final = "cfctl.bus.message"
VERSION: Final = 1
# Characters of a payload that stand in a line unless all of it is asked for.
PAYLOAD_CHARACTERS: Final = 200
_TOPIC_CHARACTERS: Final = 40
_ESCAPED: Final = str.maketrans({"\n": "\\n", "\r": "\\r", "\t": "\\t"})


def text_line(
    heard: Heard, *, since_unix_ns: int | None = None, as_hex: bool = False, whole: bool = False
) -> str:
    """Return the time it was published, topic, size, delay and payload of a message.

    The time is the local one, or since a moment. The payload is cut unless it is wanted `whole`.
    """
    message = heard.message
    when = _clock_time(message.hlc) if since_unix_ns is None else _elapsed(message.hlc - since_unix_ns)
    size = len(message.payload)
    delay = "-" if heard.delay_ns is None else format_quantity(heard.delay_ns, "ns")
    # In a bytes literal, b'...', a byte may take four characters.
    most = 4 * size + 3 if whole else PAYLOAD_CHARACTERS
    payload = _hex(message.payload, most) if as_hex else payload_text(message.payload, most)
    late = "  (late)" if message.late else ""
    return f"{when}  {safe_text(message.topic, _TOPIC_CHARACTERS)}  {size} B  {delay}{late}  {payload}\n"


def payload_text(payload: bytes, most: int = PAYLOAD_CHARACTERS) -> str:
    """Return a payload as text of at most `most` characters, without anything a terminal interprets.

    UTF-8 stands as it is, with line ends and tabs escaped; what is none, or holds other control characters, as a
    bytes literal.
    """
    text = _text(payload, most + 1)
    if text is None or any(unicodedata.category(char) == "Cc" and char not in "\n\r\t" for char in text):
        shown = repr(payload[: most + 1])
        return shown if len(shown) <= most else shown[: most - 1] + "…"
    return safe_text(text.translate(_ESCAPED), most)


def _text(payload: bytes, most: int) -> str | None:
    """Return the first characters of a payload, at least `most`, None when it is no UTF-8 up to there."""
    # A character takes at most 4 bytes: of a payload of a megabyte only the start is decoded.
    part = payload[: 4 * most]
    try:
        return part.decode()
    except UnicodeDecodeError as error:
        # The cut may have gone through a character.
        is_cut = len(part) < len(payload) and error.start > len(part) - 4
        return part[: error.start].decode() if is_cut else None


def json_line(heard: Heard) -> str:
    """Return a message as one JSON object: a payload that is UTF-8 as text, another one as base64."""
    message = heard.message
    record: dict[str, Any] = {
        "schema": SCHEMA, "version": VERSION, "topic": message.topic, "id": message.id, "hlc": message.hlc,
        "delay_ns": None if heard.delay_ns is None else round(heard.delay_ns, 1), "history": heard.delay_ns is None,
        "size": len(message.payload),
    }  # fmt: skip
    if message.deadline_unix_ns is not None:
        record |= {"deadline_unix_ns": message.deadline_unix_ns, "late": message.late}
    if message.dependencies:
        record["dependencies"] = list(message.dependencies)
    try:
        record |= {"encoding": "utf-8", "payload": message.payload.decode()}
    except UnicodeDecodeError:
        record |= {"encoding": "base64", "payload": base64.b64encode(message.payload).decode("ascii")}
    # All of it ASCII, and DEL, which JSON leaves as it is, escaped: a terminal interprets nothing.
    return json.dumps(record, separators=(",", ":")).replace("\x7f", "\\u007f") + "\n"


def _hex(payload: bytes, most: int) -> str:
    shown = payload[: (most + 1) // 2 + 1].hex()
    return shown if len(shown) <= most else shown[: most - 1] + "…"


def _clock_time(unix_ns: int) -> str:
    seconds, rest_ns = divmod(unix_ns, 1_000_000_000)
    return f"{time.strftime('%H:%M:%S', time.localtime(seconds))}.{rest_ns // 1000:06d}"


def _elapsed(elapsed_ns: int) -> str:
    return f"{elapsed_ns / 1e9:+.6f} s"
