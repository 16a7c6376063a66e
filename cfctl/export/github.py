"""GitHub annotations: one workflow command per judgement that is not a pass."""

from __future__ import annotations

from typing import Final

from cfctl.errors import InputError
from cfctl.records import Document, JudgementLevel, Verdict
from cfctl.text import safe_text

FORMAT: Final = "github"
MEDIA_TYPE: Final = "text/plain"

# Source: toolkit/packages/core/src/command.ts of actions/toolkit (escapeData, escapeProperty).
_DATA: Final = str.maketrans({"%": "%25", "\r": "%0D", "\n": "%0A"})
_PROPERTY: Final = _DATA | str.maketrans({":": "%3A", ",": "%2C"})


def export(document: Document) -> str:
    """Return the annotations, one per line; raises InputError for a document that judges nothing."""
    judgements = document.judgements()
    if judgements is None:
        raise InputError(f"{document.SCHEMA} has no annotations.", "It judges nothing.", "Use --format json.")
    lines = []
    for judgement in judgements:
        if judgement.verdict is not Verdict.PASS:
            # What could not be judged is no error of the code that is being annotated.
            level = judgement.level if judgement.verdict is Verdict.FAIL else JudgementLevel.NOTICE
            title = safe_text(f"{judgement.name}: {judgement.verdict}").translate(_PROPERTY)
            lines.append(f"::{level} title={title}::{safe_text(judgement.text, 2000).translate(_DATA)}\n")
    return "".join(lines)
