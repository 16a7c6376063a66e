"""The table of limits in docs/bus.md is what the bus does; what is no setting or packet is refused with the way."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cfctl.bus import Bus, BusConfig, LimitError, Packet, failures, names, packet, requests
from cfctl.bus import config as settings
from cfctl.errors import InputError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[Bus]:
    with Bus(BusConfig(directory=tmp_path / "rings")) as made:
        yield made


def stated_limits() -> dict[str, tuple[set[int], str]]:
    """Return the table of limits of the document: by what is limited, the numbers and the error."""
    table = (ROOT / "docs" / "bus.md").read_text().split("\n## Limits\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (.+?) \| (.+?) \| (.+?) \|$", table, re.MULTILINE)[1:]
    return {
        what: ({int(each) for each in re.findall(r"\b\d+\b", limit)}, error) for what, limit, error in rows
    }


LIMITS: dict[str, tuple[int, Callable[[Bus], object] | None]] = {
    "rings of a topic": (failures.RINGS, None),
    "subscriptions of a topic": (failures.SEATS, lambda bus: [bus.subscribe("t") for _ in range(257)]),
    "patterns of a directory": (
        failures.PATTERNS,
        lambda bus: [bus.subscribe(pattern="p") for _ in range(65)],
    ),
    "publishers of a directory": (failures.PUBLISHERS, None),
    "topic": (names.TOPIC_BYTES, lambda bus: bus.publisher("x" * 1025)),
    "topic of requests": (requests.TOPIC_BYTES, lambda bus: bus.serve("x" * 961)),
    "group name": (names.GROUP_BYTES, lambda bus: bus.subscribe("t", group="x" * 25)),
    "pattern": (names.PATTERN_BYTES, lambda bus: bus.subscribe(pattern="x" * 209)),
    "history": (names.MAX_HISTORY, lambda bus: bus.subscribe("t", history=names.MAX_HISTORY + 1)),
    "`channel_buffer_size`": (settings.MAX_CAPACITY, lambda _: BusConfig(channel_buffer_size=1)),
    "`arena_bytes`": (settings.MAX_ARENA_BYTES >> 30, lambda _: BusConfig(arena_bytes=(1 << 30) + 1)),
    "payload": (0, lambda bus: bus.publisher("t").publish(bytes((1 << 19) + 1))),
    "priority": (packet.MAX_PRIORITY, lambda bus: bus.publisher("t", priority=256)),
    "dependencies of a packet": (
        packet.MAX_DEPENDENCIES,
        lambda bus: bus.publish(Packet("t", b"", dependencies=(1,) * 1001)),
    ),
    "topics that a subscription sleeps on": (128, None),
}
ERRORS: dict[str, type[Exception]] = {"`LimitError`": LimitError, "`InputError`": InputError}


@pytest.mark.parametrize("what", LIMITS)
def test_the_limits_of_the_document_are_the_programs(bus: Bus, what: str) -> None:
    numbers, error = stated_limits()[what]
    limit, exceed = LIMITS[what]
    assert not limit or limit in numbers
    if exceed is not None:
        with pytest.raises(ERRORS[error]):
            exceed(bus)


def test_the_document_names_each_limit() -> None:
    assert stated_limits().keys() == LIMITS.keys()


def test_a_topic_in_place_of_a_packet_is_refused_with_the_way_to_publish(bus: Bus) -> None:
    topic: Any = "t"
    calls: list[Callable[[], int]] = [
        lambda: bus.publish(topic),
        lambda: bus.try_publish(topic),
        lambda: bus.publish_with_deadline(topic, 1),
    ]
    for call in calls:
        with pytest.raises(InputError, match=r"bus\.publisher\(topic\)\.publish"):
            call()


@pytest.mark.parametrize("setting", ["wait", "expiry", "dependency_timeout"])
def test_a_setting_that_does_not_exist_is_refused_with_those_that_do(setting: str) -> None:
    choices: dict[str, Any] = {setting: "sleep"}
    with pytest.raises(InputError, match=rf"BusConfig\.{setting} cannot be used.*one of '"):
        BusConfig(**choices)


def test_a_bus_takes_only_a_config() -> None:
    topic: Any = "t"
    with pytest.raises(InputError, match="Pass a BusConfig"):
        Bus(topic)
