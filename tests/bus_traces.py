"""Lines of traces of the bus, as a recorder writes them, for tests to plant faults in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cfctl.bus.packet import join_id, split_id, ticket_id
from cfctl.bus.trace_file import SCHEMA

HEADER = {"schema": SCHEMA, "version": 1, "topics": [], "unix_ns": 0, "lossless": False}
RINGS = "abcdefgh"
A1, A2, A3 = (join_id(1, number) for number in (1, 2, 3))
B1, B2 = join_id(2, 1), join_id(2, 2)
T3, T4 = ticket_id(3, 3), ticket_id(3, 4)


def message(identity: int, at: int, *dependencies: int, **changed: Any) -> dict[str, Any]:
    """Return the line of a message whose ticks and stamps are all of one moment; ring a is publisher 1's."""
    publisher, number = split_id(identity)
    line = {
        "id": identity, "topic": "t", "ring": RINGS[publisher - 1], "sequence": number, "hlc": at * 32,
        "published_tick": at, "received_tick": at + 1, "received_hlc": at * 32 + 16, "bytes": 0,
        "dependencies": list(dependencies),
    }  # fmt: skip
    return line | changed


def ring(name: str, **changed: Any) -> dict[str, Any]:
    number = RINGS.index(name) + 1
    line = {
        "ring": name,
        "publisher": number,
        "pid": 9,
        "of_topic": "t",
        "scheduled": number == 3,
        "opened_unix_ns": 0,
    }
    return line | changed


def end(messages: list[dict[str, Any]], **changed: Any) -> dict[str, Any]:
    topics = sorted({str(each["topic"]) for each in messages if "id" in each})
    count = sum("id" in each for each in messages)
    return {
        "end": True,
        "messages": count,
        "dropped": 0,
        "damaged": 0,
        "rejected": None,
        "topics": topics,
    } | changed


def written(path: Path, messages: list[dict[str, Any]], *last: dict[str, Any]) -> Path:
    """Write a trace, with a line for each ring that has none; `last` replaces the end line, if given."""
    known = {each["ring"] for each in messages if "of_topic" in each}
    names = sorted(
        {each["ring"] for each in messages if "id" in each and isinstance(each["ring"], str)} - known
    )
    rings = [ring(name) for name in names if name in RINGS and name]
    lines = [HEADER, *rings, *messages, *(last or [end(messages)])]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path
