"""Saved results read from files, bounded and without trust."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from cfctl.errors import InputError, os_error_reason
from cfctl.host.view import read_file

MAX_DOCUMENT_BYTES: Final = 64 << 20
_TODO: Final = "Name a file that a cfctl command wrote with --json -o FILE."


def load_document(path: Path) -> dict[str, Any]:
    """Return the JSON object of a saved result, which has a schema of cfctl and a version.

    Raises InputError for a file that can not be read, is larger than 64 MiB, or holds anything else.
    """
    try:
        data = read_file(str(path), MAX_DOCUMENT_BYTES)
    except (OSError, ValueError) as error:
        why = os_error_reason(error) if isinstance(error, OSError) else f"{error}."
        raise InputError(f"{path} can not be read.", why, _TODO) from error
    try:
        document = json.loads(data, parse_constant=_no_constant)
    except RecursionError:
        raise InputError(f"{path} is no saved result.", "It is nested too deeply.", _TODO) from None
    except ValueError as error:
        raise InputError(f"{path} is no saved result.", f"It is no JSON: {error}.", _TODO) from None
    schema = document.get("schema") if isinstance(document, dict) else None
    if not isinstance(schema, str) or not schema.startswith("cfctl."):
        raise InputError(f"{path} is no saved result.", "It has no schema of cfctl.", _TODO)
    return dict(document)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")
