"""Names of topics, patterns and groups: what is taken, and what is refused with what to do instead."""

from __future__ import annotations

from typing import Any

import pytest

from cfctl.bus import names
from cfctl.errors import InputError


@pytest.mark.parametrize("topic", ["a", "a/b.c", "../../etc/passwd", ".", "ü" * 512, "x" * 1024, "two words"])
def test_any_text_without_wildcards_and_control_characters_is_a_topic(topic: str) -> None:
    assert names.public(topic) == topic


@pytest.mark.parametrize(
    ("topic", "why"),
    [
        (None, "NoneType"),
        (5, "int"),
        (b"t", "bytes"),
        ("", "0 bytes"),
        ("x" * 1025, "1025 bytes"),
        ("\ud800", "no Unicode text"),
        ("a\0b", "control characters"),
        ("\x1b[31m", "control characters"),
        ("prices.*", "pattern="),
        ("prices.?", "pattern="),
        ("rpc:sum", "bus.request"),
    ],
)
def test_what_is_no_topic_is_refused_with_the_reason_or_the_way(topic: Any, why: str) -> None:
    with pytest.raises(InputError) as raised:
        names.public(topic)
    assert why in str(raised.value)


def test_a_subscription_is_to_topics_or_to_a_pattern() -> None:
    assert names.plan(("a", "b", "a"), None, 0, None, lossy=False).topics == ("a", "b")
    assert names.plan((), "a.*", 0, None, lossy=False).pattern == "a.*"
    for topics, pattern in ((("a",), "b*"), ((), None)):
        with pytest.raises(InputError, match="Topics and a pattern were given, or neither"):
            names.plan(topics, pattern, 0, None, lossy=False)


@pytest.mark.parametrize("options", [{"history": 1}, {"lossy": True}, {"pattern": "a*"}])
def test_a_group_has_no_history_no_pattern_and_loses_nothing(options: dict[str, Any]) -> None:
    wanted: dict[str, Any] = {"pattern": None, "history": 0, "lossy": False} | options
    topics = () if wanted["pattern"] else ("a",)
    with pytest.raises(InputError, match="group cannot be joined"):
        names.plan(topics, wanted["pattern"], wanted["history"], "workers", lossy=wanted["lossy"])


@pytest.mark.parametrize("history", [-1, (1 << 20) + 1, 1.5, "1"])
def test_a_history_is_a_number_of_messages(history: Any) -> None:
    with pytest.raises(InputError, match="history"):
        names.plan(("a",), None, history, None, lossy=False)


@pytest.mark.parametrize("group", ["", "x" * 25, "a\nb", 5])
def test_a_group_has_a_short_name(group: Any) -> None:
    with pytest.raises(InputError, match="group"):
        names.plan(("a",), None, 0, group, lossy=False)
