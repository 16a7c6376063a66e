"""Markdown: the rows of a document as a table (GitHub flavour)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from cfctl.export.csv import table
from cfctl.text import safe_text

if TYPE_CHECKING:
    from cfctl.records import Document

FORMAT: Final = "markdown"
MEDIA_TYPE: Final = "text/markdown"

_SPECIAL: Final = re.compile(r"([\\`*_{}\[\]<>()#|~!&])")


def export(document: Document) -> str:
    """Return the rows as a table; "-" is a value that was not measured."""
    names, rows = table(document)
    lines = [names, ["---"] * len(names), *([_field(value) for value in row] for row in rows)]
    lines[0] = [_field(name) for name in names]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _field(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    return _SPECIAL.sub(r"\\\1", safe_text(value, 2000))
