"""Collapsed stacks, one "outer;inner COUNT" a line, which flamegraph.pl, inferno and speedscope read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cfctl.errors import InputError
from cfctl.profile.report import ProfileReport
from cfctl.text import safe_text

if TYPE_CHECKING:
    from cfctl.records import Document

FORMAT: Final = "collapsed"
MEDIA_TYPE: Final = "text/plain"


def export(document: Document) -> str:
    """Return the sampled stacks of a profile; raises InputError for a document without them."""
    if not isinstance(document, ProfileReport) or document.stacks is None:
        raise InputError(
            f"{document.SCHEMA} has no stacks here.",
            "None were sampled.",
            "Sample them: cfctl profile run --stacks -- COMMAND",
        )
    lines = [f"{';'.join(map(_frame, stack.frames))} {stack.samples}\n" for stack in document.stacks.stacks]
    return "".join(lines)


def _frame(frame: str) -> str:
    # A semicolon would be a frame more.
    return safe_text(frame, 1000).replace(";", ":")
