"""What can be published, checked at the call; and its form on the ring."""

from __future__ import annotations

import array
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfctl.bus import names
from cfctl.bus.packet import (
    MAX_DEPENDENCIES,
    Extension,
    Packet,
    checked,
    checked_deadline,
    decode,
    encode,
)
from cfctl.errors import InputError
from cfctl.temporal import QuantumOffset

ROOM = 1 << 19
NOW_NS = 1_800_000_000_000_000_000


@pytest.mark.parametrize("data", [b"", b"x", bytearray(b"abc"), memoryview(b"abc"), array.array("d", [1.5])])
def test_a_bytes_like_payload_is_taken_as_its_bytes(data: Any) -> None:
    assert checked(Packet("t", data), ROOM).data == bytes(memoryview(data))


def test_bytes_are_not_copied_and_what_can_change_is() -> None:
    data, changing = b"x" * 1000, bytearray(b"AAAA")
    assert checked(Packet("t", data), ROOM).data is data
    accepted = checked(Packet("t", changing), ROOM)
    changing[:] = b"BBBB"
    assert accepted.data == b"AAAA"


def test_a_packet_that_changes_after_it_was_accepted_is_sent_as_it_was() -> None:
    packet = Packet("t", b"x", 3, (1,))
    accepted = checked(packet, ROOM)
    packet.topic, packet.priority, packet.dependencies = "other", 4, (2,)
    assert (accepted.topic, accepted.priority, accepted.dependencies) == ("t", 3, (1,))


@pytest.mark.parametrize("data", ["text", None, 5, 1.5, ["x"], object()])
def test_a_payload_that_is_not_bytes_like_is_refused_with_its_type(data: Any) -> None:
    with pytest.raises(InputError, match=rf"type {type(data).__name__}, which is not bytes-like"):
        checked(Packet("t", data), ROOM)


def test_a_payload_with_gaps_in_memory_is_refused() -> None:
    with pytest.raises(InputError, match="do not follow each other"):
        checked(Packet("t", memoryview(b"abcdef")[::2]), ROOM)


def test_the_extension_and_the_dependencies_count_against_the_ring() -> None:
    packet = Packet("t", b"x" * 100, dependencies=(1, 2, 3))
    size = len(encode(Extension(None, 1, packet.dependencies, 0), packet.data))
    assert size == 100 + 24 + 24
    assert checked(packet, size).data == packet.data
    with pytest.raises(InputError, match=rf"payload of 100 bytes .*takes {size} bytes .*accepts {size - 1}"):
        checked(packet, size - 1)
    with pytest.raises(InputError, match=r"Set BusConfig\.arena_bytes to 20000048 or more"):
        checked(Packet("t", b"x" * 10_000_000), ROOM)
    with pytest.raises(InputError, match=r"for one message\. Send it in parts"):
        checked(Packet("t", bytes(1 << 29)), ROOM)


@pytest.mark.parametrize("topic", ["", "x" * 1025, "\ud800", None, 5, b"t"])
def test_a_topic_that_is_not_1_to_1024_bytes_of_text_is_refused(topic: Any) -> None:
    for call in (lambda: names.public(topic), lambda: checked(Packet(topic, b"x"), ROOM)):
        with pytest.raises(InputError, match="topic"):
            call()


@pytest.mark.parametrize("priority", [-1, 256, 1.5, None, "1"])
def test_a_priority_is_an_int_of_8_bits(priority: Any) -> None:
    with pytest.raises(InputError, match=r"Priority .* cannot be used"):
        checked(Packet("t", b"x", priority), ROOM)


@pytest.mark.parametrize("dependency", [-1, 1 << 64, 1.5, None, "1"])
def test_a_dependency_is_an_int_of_64_bits(dependency: Any) -> None:
    with pytest.raises(InputError, match=r"Dependency .* cannot be used"):
        checked(Packet("t", b"x", dependencies=(3, dependency)), ROOM)
    packet = Packet("t", b"x")
    with pytest.raises(InputError, match=r"Dependency .* cannot be used"):
        packet.add_temporal_correlation([dependency])
    assert packet.dependencies == ()


def test_a_thousand_dependencies_fit_and_one_more_is_refused_however_they_were_given() -> None:
    most = tuple(range(MAX_DEPENDENCIES))
    assert checked(Packet("t", b"x", dependencies=most), ROOM).dependencies == most
    with pytest.raises(InputError, match="There are 1001; 1000 fit"):
        checked(Packet("t", b"x", dependencies=(*most, 1)), ROOM)
    packet = Packet("t", b"x", dependencies=most)
    with pytest.raises(InputError, match="There are 1001; 1000 fit"):
        packet.add_temporal_correlation([7])


def test_an_offset_is_a_quantum_offset() -> None:
    offset = QuantumOffset(0.2, 1.5, 1800.0)
    assert checked(Packet("t", b"x", offset=offset), ROOM).offset is offset
    with pytest.raises(InputError, match="Pass a QuantumOffset"):
        checked(Packet("t", b"x", offset=0.5), ROOM)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("deadline", "hint"),
    [
        (NOW_NS // 10**9 + 1, "looks like seconds .* Multiply it by 1000000000"),
        (NOW_NS // 10**6 + 1, "looks like milliseconds .* Multiply it by 1000000"),
        (NOW_NS // 10**3 + 1, "looks like microseconds .* Multiply it by 1000"),
        (20_000, "not a duration"),
        (0, "not a duration"),
        (-1, "int of 0 to"),
        (1 << 64, "int of 0 to"),
        (1.8e18, "of type float"),
        (None, "of type NoneType"),
    ],
)
def test_a_deadline_in_another_unit_or_type_is_refused_with_a_hint(deadline: Any, hint: str) -> None:
    with pytest.raises(InputError, match=hint):
        checked_deadline(deadline, NOW_NS)


def test_a_deadline_in_nanoseconds_is_taken_whether_it_has_passed_or_not() -> None:
    for deadline in (NOW_NS - 10**9, NOW_NS, NOW_NS + 10**15, (1 << 64) - 1):
        assert checked_deadline(deadline, NOW_NS) == deadline


@given(
    deadline=st.one_of(st.none(), st.integers(1, (1 << 64) - 1)),
    ticket=st.integers(0, (1 << 47) - 1),
    dependencies=st.lists(st.integers(0, (1 << 64) - 1), max_size=20),
    priority=st.integers(0, 255),
    data=st.binary(max_size=50),
)
def test_what_is_encoded_is_decoded(
    deadline: int | None, ticket: int, dependencies: list[int], priority: int, data: bytes
) -> None:
    extension = Extension(deadline, ticket, tuple(dependencies), priority)
    assert decode(encode(extension, data)) == (extension, data)


@pytest.mark.parametrize("size", [0, 23, 31])
def test_a_message_cut_short_is_no_message(size: int) -> None:
    assert decode(encode(Extension(5, 1, (1,), 0), b"")[:size]) is None


def test_a_message_with_more_dependencies_than_there_can_be_is_no_message() -> None:
    assert decode(encode(Extension(5, 1, tuple(range(1001)), 0), b"")) is None
