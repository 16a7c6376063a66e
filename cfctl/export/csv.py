"""CSV (RFC 4180): the rows of a document, nested fields joined with dots."""

from __future__ import annotations

import csv
import io
from typing import Any, Final

from cfctl.errors import InputError
from cfctl.records import Document, to_plain
from cfctl.text import safe_text

FORMAT: Final = "csv"
MEDIA_TYPE: Final = "text/csv"


def table(document: Document) -> tuple[list[str], list[list[Any]]]:
    """Return the names of the columns and the rows; raises InputError for a document without rows."""
    if document.ROWS is None:
        raise InputError(f"{document.SCHEMA} is no table.", "It has no rows.", "Use --format json.")
    left_out = document.ROWS_WITHOUT
    rows = [
        _flat({name: item for name, item in row.items() if name not in left_out})
        for row in to_plain(document)[document.ROWS]
    ]
    names = list(dict.fromkeys(name for row in rows for name in row))
    # A record that is absent in one row and has columns in another needs none of its own.
    names = [name for name in names if not any(other.startswith(f"{name}.") for other in names)]
    return names, [[row.get(name) for name in names] for row in rows]


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, item in value.items():
        if isinstance(item, dict):
            flat |= _flat(item, f"{prefix}{name}.")
        else:
            flat[prefix + name] = item
    return flat


def export(document: Document) -> str:
    """Return the rows as CSV; an empty field is a value that was not measured."""
    names, rows = table(document)
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([_field(name) for name in names])
    writer.writerows([_field(value) for value in row] for row in rows)
    return text.getvalue()


def _field(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    if value is None or isinstance(value, (int, float)):
        return value
    text = safe_text(value, 2000)
    # A spreadsheet would run it as a formula: OWASP, "CSV Injection".
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text
