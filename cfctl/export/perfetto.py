"""A timeline as Trace Event JSON, which Perfetto (ui.perfetto.dev) and chrome://tracing open.

Format: "Trace Event Format", complete events (ph X) with times in microseconds.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from cfctl.errors import InputError
from cfctl.profile.trace import Trace, TraceSpan
from cfctl.text import safe_text

if TYPE_CHECKING:
    from cfctl.records import Document

FORMAT: Final = "perfetto"
MEDIA_TYPE: Final = "application/json"


def export(document: Document) -> str:
    """Return the trace; raises InputError for a document that is no timeline."""
    if not isinstance(document, Trace):
        raise InputError(
            f"{document.SCHEMA} has no timeline.",
            "Perfetto shows nothing else.",
            "Use: cfctl profile timeline",
        )
    name = safe_text(" ".join(document.command_line) or "process")
    process = {"ph": "M", "name": "process_name", "pid": document.pid, "tid": 0, "args": {"name": name}}
    events = [process, *(_event(document.pid, span) for span in document.spans)]
    return json.dumps({"traceEvents": events, "displayTimeUnit": "ns"}) + "\n"


def _event(pid: int, span: TraceSpan) -> dict[str, Any]:
    arguments: dict[str, Any] = {safe_text(key): safe_text(value) for key, value in span.labels}
    return {
        "ph": "X",
        "cat": "failed" if span.failed else "operation",
        "name": safe_text(span.operation),
        "pid": pid,
        "tid": span.thread,
        "ts": span.start_ns / 1000,
        "dur": span.duration_ns / 1000,
        "args": arguments | {"failed": span.failed},
    }
