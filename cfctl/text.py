"""Cleaning of text that came from outside."""

from __future__ import annotations

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
# Control (Cc), format (Cf: bidi overrides, zero-width), surrogate, private use, unassigned, and
# the line and paragraph separators, which end a row of a table.
_UNSAFE_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def safe_text(value: object, max_length: int = 200) -> str:
    """Return text from outside (process names, labels, paths) without anything a sink interprets.

    Control, bidirectional, zero-width and unassigned characters become U+FFFD, runs over
    `max_length` characters are cut with an ellipsis. The result may still hold `[`, `<`, `=`:
    a renderer passes it as plain text (rich.text.Text), a HTML or CSV exporter escapes it.
    """
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    if len(text) > max_length:
        text = text[: max_length - 1] + "…"
    if text.isascii() and text.isprintable():
        return text
    import unicodedata

    return "".join(
        _REPLACEMENT if unicodedata.category(char) in _UNSAFE_CATEGORIES else char for char in text
    )
