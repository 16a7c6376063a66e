"""A timeline as Trace Event JSON, which Perfetto (ui.perfetto.dev) and chrome://tracing open.

Format: "Trace Event Format" (Google, 2016), complete events (ph X) with times in microseconds.
Perfetto drops a complete event that overlaps another of its thread without lying inside of it (its
FAQ: why are overlapping events in JSON traces not displayed correctly), and cuts times to whole
nanoseconds: so these are whole, and each lane of a thread has a thread of its own.
"""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any, Final

from cfctl.errors import InputError
from cfctl.profile.trace import Trace, TraceSpan, lanes
from cfctl.text import safe_text

if TYPE_CHECKING:
    from cfctl.records import Document

FORMAT: Final = "perfetto"
MEDIA_TYPE: Final = "application/json"

# Linux has no thread of this number (PID_MAX_LIMIT in include/linux/threads.h).
_FIRST_FREE_TID: Final = 1 << 22


def export(document: Document) -> str:
    """Return the trace; raises InputError for a document that is no timeline."""
    if not isinstance(document, Trace):
        raise InputError(
            f"{document.SCHEMA} has no timeline.",
            "Perfetto shows nothing else.",
            "Use: cfctl profile timeline",
        )
    name = safe_text(" ".join(document.command_line) or "process")
    events = [_named("process_name", document.pid, 0, name)]
    others = itertools.count(_FIRST_FREE_TID)
    for lane in lanes(document.spans):
        tid = next(others) if lane.number else lane.thread
        events.append(_named("thread_name", document.pid, tid, lane.name))
        events += [_event(document.pid, tid, *sample) for sample in lane.samples]
    return json.dumps({"traceEvents": events, "displayTimeUnit": "ns"}) + "\n"


def _named(what: str, pid: int, tid: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "name": what, "pid": pid, "tid": tid, "args": {"name": name}}


def _event(pid: int, tid: int, start_ns: int, end_ns: int, span: TraceSpan) -> dict[str, Any]:
    arguments: dict[str, Any] = {safe_text(key): safe_text(value) for key, value in span.labels}
    return {
        "ph": "X",
        "cat": "failed" if span.failed else "operation",
        "name": safe_text(span.operation),
        "pid": pid,
        "tid": tid,
        "ts": start_ns / 1000,
        "dur": (end_ns - start_ns) / 1000,
        "args": arguments | {"failed": span.failed},
    }
