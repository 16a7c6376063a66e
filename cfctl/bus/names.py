"""Names that users give to topics, patterns and groups, checked."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import Final

from cfctl.errors import InputError

TOPIC_BYTES: Final = 1024
GROUP_BYTES: Final = 24
PATTERN_BYTES: Final = 208
MAX_HISTORY: Final = 1 << 20
# Topics of requests and replies.
PRIVATE: Final = "rpc:"


@dataclass(frozen=True, slots=True)
class Plan:
    """What a subscription reads: topics or a pattern, how much history, in which group."""

    topics: tuple[str, ...]
    pattern: str | None = None
    history: int = 0
    group: str | None = None


def public(topic: object) -> str:
    """Return a topic's name as it is; raises InputError for one that cannot be used, or is private."""
    name = checked(topic, "topic", TOPIC_BYTES)
    if name.startswith(PRIVATE):
        raise InputError(
            f"The topic {name[:64]!r} cannot be used.",
            f"Names that begin with {PRIVATE!r} are reserved for requests and replies.",
            "Use bus.request and bus.serve, or another name.",
        )
    if "*" in name or "?" in name:
        raise InputError(
            f"The topic {name[:64]!r} cannot be used.",
            "* and ? stand for other characters in a pattern.",
            "Subscribe with bus.subscribe(pattern=...), or use another name.",
        )
    return name


def checked(name: object, what: str, most: int) -> str:
    """Return a name of 1 to `most` bytes of UTF-8 without control characters; raises InputError for others."""
    if not isinstance(name, str):
        raise InputError(
            f"The {what} {name!r:.64} cannot be used.", f"It is of type {type(name).__name__}.", "Pass a str."
        )
    try:
        size = len(name.encode())
    except UnicodeEncodeError as error:
        raise InputError(f"The {what} cannot be used.", f"It is no Unicode text: {error.reason}.") from error
    if not 1 <= size <= most:
        raise InputError(
            f"The {what} {name[:32]!r} cannot be used.", f"It has {size} bytes of UTF-8.", f"Use 1 to {most}."
        )
    if any(unicodedata.category(character) == "Cc" for character in name):
        raise InputError(
            f"The {what} {name[:64]!r} cannot be used.", "It holds control characters.", "Leave them out."
        )
    return name


def plan(
    topics: tuple[str, ...], pattern: str | None, history: int, group: str | None, *, lossy: bool
) -> Plan:
    """Return what a subscription is to read; raises InputError for what contradicts itself."""
    if bool(topics) == (pattern is not None):
        raise InputError(
            "Nothing was subscribed to.",
            "Topics and a pattern were given, or neither.",
            "Give one of the two.",
        )
    if not isinstance(history, int) or not 0 <= history <= MAX_HISTORY:
        raise InputError(f"A history of {history!r} cannot be had.", f"It is 0 to {MAX_HISTORY} messages.")
    if group is not None and (history or lossy or pattern is not None):
        raise InputError(
            "The group cannot be joined.",
            "history, lossy and pattern cannot be combined with group.",
            "Leave them out.",
        )
    return Plan(
        tuple(dict.fromkeys(public(topic) for topic in topics)),
        None if pattern is None else checked(pattern, "pattern", PATTERN_BYTES),
        history,
        None if group is None else checked(group, "group", GROUP_BYTES),
    )
