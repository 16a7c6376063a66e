"""JSON: lossless, starts with schema and version."""

from __future__ import annotations

from typing import Final

from cfctl.records import Document, to_json

FORMAT: Final = "json"
MEDIA_TYPE: Final = "application/json"


def export(document: Document) -> str:
    """Return the document as JSON text."""
    return to_json(document)
