"""A timeline as a speedscope file (speedscope.app): one evented profile for each thread.

Format: file-format-schema.json of speedscope, and src/lib/file-format-spec.ts for what a schema can
not say. Its events must nest, so each lane of a thread is a profile.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from cfctl import __version__
from cfctl.errors import InputError
from cfctl.profile.report import ProfileReport
from cfctl.profile.stacks import function_of
from cfctl.profile.trace import Lane, Trace, lanes
from cfctl.text import safe_text

if TYPE_CHECKING:
    from cfctl.profile.stacks import StackProfile
    from cfctl.records import Document

FORMAT: Final = "speedscope"
MEDIA_TYPE: Final = "application/json"

_SCHEMA: Final = "https://www.speedscope.app/file-format-schema.json"


def export(document: Document) -> str:
    """Return the threads of a timeline, or the sampled stacks of a profile; raises InputError without either."""
    if isinstance(document, ProfileReport) and document.stacks is not None:
        return _file(document.stacks.sampler, *_sampled(document.stacks))
    if not isinstance(document, Trace):
        raise InputError(
            f"{document.SCHEMA} has neither a timeline nor stacks here.",
            "speedscope shows nothing else.",
            "Use: cfctl profile timeline, or cfctl profile run --stacks",
        )
    frames = {name: index for index, name in enumerate(dict.fromkeys(s.operation for s in document.spans))}
    profiles = [_profile(lane, frames) for lane in lanes(document.spans)]
    named = [{"name": safe_text(frame)} for frame in frames]
    return _file(" ".join(document.command_line) or "process", named, profiles)


def _file(name: str, frames: list[dict[str, Any]], profiles: list[dict[str, Any]]) -> str:
    document = {
        "$schema": _SCHEMA, "name": safe_text(name), "exporter": f"cfctl@{__version__}",
        "shared": {"frames": frames}, "profiles": profiles,
    }  # fmt: skip
    return json.dumps(document) + "\n"


def _sampled(stacks: StackProfile) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the frames and the one profile of stacks; a sample weighs the time between two of them."""
    names = list(dict.fromkeys(frame for stack in stacks.stacks for frame in stack.frames))
    index = {name: number for number, name in enumerate(names)}
    frames = [_frame(name) for name in names]
    weight, unit = (1.0 / stacks.rate_hz, "seconds") if stacks.rate_hz else (1.0, "none")
    profile = {
        "type": "sampled", "name": safe_text(stacks.sampler), "unit": unit, "startValue": 0,
        "endValue": stacks.samples * weight,
        "samples": [[index[frame] for frame in stack.frames] for stack in stacks.stacks],
        "weights": [stack.samples * weight for stack in stacks.stacks],
    }  # fmt: skip
    return frames, [profile]


def _frame(frame: str) -> dict[str, Any]:
    name, file = function_of(frame)
    line = frame.rstrip(")").rpartition(":")[2]
    shown: dict[str, Any] = {"name": safe_text(name, 1000)}
    if file:
        shown["file"] = safe_text(file, 1000)
        if line.isascii() and line.isdigit():
            shown["line"] = int(line)
    return shown


def _profile(lane: Lane, frames: dict[str, int]) -> dict[str, Any]:
    events = list(_events(lane, frames))
    return {
        "type": "evented", "name": lane.name, "unit": "nanoseconds", "startValue": events[0]["at"],
        "endValue": events[-1]["at"], "events": events,
    }  # fmt: skip


def _events(lane: Lane, frames: dict[str, int]) -> Iterator[dict[str, Any]]:
    stack: list[tuple[int, int]] = []
    for start, end, span in lane.samples:
        while stack and stack[-1][0] <= start:
            yield _closing(stack.pop())
        frame = frames[span.operation]
        yield {"type": "O", "frame": frame, "at": start}
        stack.append((end, frame))
    while stack:
        yield _closing(stack.pop())


def _closing(opened: tuple[int, int]) -> dict[str, Any]:
    end, frame = opened
    return {"type": "C", "frame": frame, "at": end}
