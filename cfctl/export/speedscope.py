"""A timeline as a speedscope file (speedscope.app): one evented profile for each thread.

Format: file-format-schema.json of speedscope. Its events must nest; a sample that overlaps another
of its thread without lying inside of it, as interleaved coroutines do, goes to a profile of its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from cfctl.errors import InputError
from cfctl.profile.trace import Trace, TraceSpan
from cfctl.text import safe_text

if TYPE_CHECKING:
    from cfctl.records import Document

FORMAT: Final = "speedscope"
MEDIA_TYPE: Final = "application/json"

_SCHEMA: Final = "https://www.speedscope.app/file-format-schema.json"


def export(document: Document) -> str:
    """Return the profiles of all threads; raises InputError for a document that is no timeline."""
    if not isinstance(document, Trace):
        raise InputError(
            f"{document.SCHEMA} has no timeline.",
            "speedscope shows nothing else.",
            "Use: cfctl profile timeline",
        )
    frames = {name: index for index, name in enumerate(dict.fromkeys(s.operation for s in document.spans))}
    threads: dict[int, list[TraceSpan]] = {}
    for span in document.spans:
        threads.setdefault(span.thread, []).append(span)
    profiles = [
        _profile(f"thread {thread}" + (f", overlapping {number}" if number else ""), lane, frames)
        for thread, spans in threads.items()
        for number, lane in enumerate(_lanes(spans))
    ]
    name = safe_text(" ".join(document.command_line) or "process")
    shared = {"frames": [{"name": safe_text(frame)} for frame in frames]}
    return json.dumps({"$schema": _SCHEMA, "name": name, "shared": shared, "profiles": profiles}) + "\n"


def _lanes(spans: Iterable[TraceSpan]) -> list[list[TraceSpan]]:
    """Return the spans, which come by their start, spread so that in each lane they nest."""
    lanes: list[list[TraceSpan]] = []
    open_ends: list[list[float]] = []
    for span in spans:
        end = span.start_ns + span.duration_ns
        for lane, ends in zip(lanes, open_ends, strict=True):
            while ends and ends[-1] <= span.start_ns:
                ends.pop()
            if not ends or end <= ends[-1]:
                lane.append(span)
                ends.append(end)
                break
        else:
            lanes.append([span])
            open_ends.append([end])
    return lanes


def _profile(name: str, spans: Sequence[TraceSpan], frames: dict[str, int]) -> dict[str, Any]:
    events = list(_events(spans, frames))
    return {
        "type": "evented", "name": name, "unit": "nanoseconds", "startValue": events[0]["at"],
        "endValue": events[-1]["at"], "events": events,
    }  # fmt: skip


def _events(spans: Sequence[TraceSpan], frames: dict[str, int]) -> Iterator[dict[str, Any]]:
    stack: list[tuple[float, int]] = []
    for span in spans:
        while stack and stack[-1][0] <= span.start_ns:
            end, frame = stack.pop()
            yield {"type": "C", "frame": frame, "at": end}
        frame = frames[span.operation]
        yield {"type": "O", "frame": frame, "at": span.start_ns}
        stack.append((span.start_ns + span.duration_ns, frame))
    while stack:
        end, frame = stack.pop()
        yield {"type": "C", "frame": frame, "at": end}
