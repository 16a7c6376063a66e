"""`cfctl bus pub` as a user runs it: one message, at a rate, from a pipe; to somebody, to nobody, to a full ring."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cfctl.bus import Bus, BusConfig, Subscription
from cfctl.bus.sending import send
from cfctl.errors import InputError, ResourceExhausted

if TYPE_CHECKING:
    from tests.conftest import Cfctl

PATIENCE_S = 30.0
COMMAND = [sys.executable, "-m", "cfctl", "bus", "pub"]


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BusConfig:
    monkeypatch.setenv("CFCTL_SEGMENT_DIR", str(tmp_path / "bus"))
    return BusConfig(directory=tmp_path / "bus")


@pytest.fixture
def orders(config: BusConfig) -> Iterator[Subscription]:
    with Bus(config) as bus, bus.subscribe("orders") as subscription:
        yield subscription


def received(subscription: Subscription) -> list[bytes]:
    """Return what a publisher that has ended left."""
    return subscription.recv_many(100_000)


# What is published


def test_one_message_reaches_who_subscribes_after_the_command_has_ended(
    orders: Subscription, cfctl: Cfctl
) -> None:
    shown = cfctl("bus", "pub", "orders", '{"id": 7}')
    assert (shown.returncode, shown.stdout) == (0, "")
    assert shown.stderr == "cfctl: 1 message published for 1 subscription.\n"
    assert received(orders) == [b'{"id": 7}']


@pytest.mark.parametrize(
    ("arguments", "payload"),
    [
        ([""], b""),
        (["ü €"], "ü €".encode()),
        (["00 ff1b", "--hex"], b"\0\xff\x1b"),
        (["", "--hex"], b""),
        (["--", "-1"], b"-1"),
    ],
)
def test_data_is_text_or_hexadecimal(
    orders: Subscription, cfctl: Cfctl, arguments: list[str], payload: bytes
) -> None:
    assert cfctl("bus", "pub", "orders", *arguments).returncode == 0
    assert received(orders) == [payload]


def test_bytes_of_the_command_line_that_are_no_utf8_are_sent_as_they_are(orders: Subscription) -> None:
    subprocess.run([*map(os.fsencode, COMMAND), b"orders", b"\xff\x1b[31m"], check=True, capture_output=True)
    assert received(orders) == [b"\xff\x1b[31m"]


@pytest.mark.parametrize("size", [0, 500_000, 3_000_000])
def test_a_file_is_one_message_whatever_it_holds_and_the_ring_is_as_large_as_it_needs(
    orders: Subscription, cfctl: Cfctl, tmp_path: Path, size: int
) -> None:
    content = os.urandom(size)
    (tmp_path / "work" / "file").write_bytes(content)
    assert cfctl("bus", "pub", "orders", "--file", "file").returncode == 0
    assert received(orders) == [content]
    with (tmp_path / "work" / "file").open("rb") as file:
        assert cfctl("bus", "pub", "orders", "--file", "-", stdin=file).returncode == 0
    assert received(orders) == [content]


def test_each_line_of_standard_input_is_a_message_and_the_last_needs_no_end(
    orders: Subscription, cfctl: Cfctl
) -> None:
    shown = cfctl("bus", "pub", "orders", "-", input="one\n\nthree\r\n\x1b[31mfour")
    assert (shown.returncode, shown.stderr) == (0, "cfctl: 4 messages published for 1 subscription.\n")
    assert received(orders) == [b"one", b"", b"three\r", b"\x1b[31mfour"]
    assert cfctl("bus", "pub", "orders", "-", "--hex", "--count", "2", input="00\nff\n11\n").returncode == 0
    assert received(orders) == [b"\0", b"\xff"]
    shown = cfctl("bus", "pub", "orders", "-", input="")
    assert (shown.returncode, shown.stderr) == (0, "cfctl: 0 messages published for 1 subscription.\n")


def test_a_line_is_published_when_it_comes_and_not_when_the_pipe_ends(orders: Subscription) -> None:
    pipe = subprocess.PIPE
    with subprocess.Popen([*COMMAND, "orders", "-"], stdin=pipe, stderr=pipe) as process:
        assert process.stdin is not None
        for line in (b"one", b"two"):
            process.stdin.write(line + b"\n")
            process.stdin.flush()
            assert orders.recv(PATIENCE_S) == line
        process.stdin.close()
        assert process.wait(PATIENCE_S) == 0


def test_more_lines_than_the_ring_holds_wait_for_room_and_none_is_lost(orders: Subscription) -> None:
    text = b"".join(b"%d\n" % number for number in range(5000))
    with subprocess.Popen(
        [*COMMAND, "orders", "-"], stdin=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        process.stdin.write(text)
        process.stdin.close()
        for number in range(5000):
            assert orders.recv(PATIENCE_S) == b"%d" % number
        assert process.wait(PATIENCE_S) == 0
        assert process.stderr is not None
        assert process.stderr.read() == b"cfctl: 5000 messages published for 1 subscription.\n"


def test_a_message_may_be_repeated_at_a_rate(orders: Subscription, cfctl: Cfctl) -> None:
    shown = cfctl("bus", "pub", "orders", "x", "--rate", "1000", "--count", "20")
    assert (shown.returncode, shown.stderr) == (0, "cfctl: 20 messages published for 1 subscription.\n")
    assert received(orders) == [b"x"] * 20


def test_a_higher_priority_overtakes(config: BusConfig, orders: Subscription, cfctl: Cfctl) -> None:
    assert cfctl("bus", "pub", "orders", "low").returncode == 0
    assert cfctl("bus", "pub", "orders", "high", "--priority", "9").returncode == 0
    assert [orders.recv(PATIENCE_S) for _ in range(2)] == [b"high", b"low"]


# To whom


def test_publishing_to_nobody_is_said_with_the_nearest_topic_that_is_subscribed_to(
    orders: Subscription, cfctl: Cfctl
) -> None:
    shown = cfctl("bus", "pub", "ordrs", "x", "--timeout", "10ms")
    assert (shown.returncode, received(orders)) == (0, [])
    assert shown.stderr.splitlines() == [
        "cfctl: Nobody subscribes to 'ordrs'. There are subscriptions to 'orders'.",
        "cfctl: 1 message published for 0 subscriptions.",
    ]
    shown = cfctl("bus", "pub", "another", "x", "--timeout", "10ms")
    assert shown.stderr.splitlines()[0] == "cfctl: Nobody subscribes to 'another'."


def test_a_topic_that_is_only_published_on_is_not_proposed(config: BusConfig, cfctl: Cfctl) -> None:
    with Bus(config) as bus:
        publisher = bus.publisher("orders")
        assert "orders" not in cfctl("bus", "pub", "ordrs", "x", "--timeout", "0").stderr.replace("ordrs", "")
        del publisher


def test_a_hostile_name_is_shown_as_safe_text(config: BusConfig, cfctl: Cfctl) -> None:
    hostile = "ord\N{RIGHT-TO-LEFT OVERRIDE}ers <b>[red]"
    with Bus(config) as bus, bus.subscribe(hostile + "s"):
        shown = cfctl("bus", "pub", hostile, "x", "--timeout", "0")
        assert (shown.returncode, shown.stderr.count("\N{REPLACEMENT CHARACTER}")) == (0, 2)
        assert "\N{RIGHT-TO-LEFT OVERRIDE}" not in shown.stderr


def test_it_waits_for_a_subscription_that_comes(config: BusConfig) -> None:
    command = [*COMMAND, "orders", "x", "--wait-for", "2", "--timeout", "1min"]
    with Bus(config) as bus, subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        presence = bus.presence("orders")
        while not presence.peers():
            presence.wait(PATIENCE_S)
        with bus.subscribe("orders") as first, bus.subscribe("orders") as second:
            assert [each.recv(PATIENCE_S) for each in (first, second)] == [b"x", b"x"]
            assert process.wait(PATIENCE_S) == 0


def test_without_the_subscriptions_it_was_to_wait_for_it_publishes_nothing(
    orders: Subscription, cfctl: Cfctl
) -> None:
    shown = cfctl("bus", "pub", "orders", "x", "--wait-for", "2", "--timeout", "20ms")
    assert (shown.returncode, received(orders)) == (3, [])
    assert shown.stderr.startswith("cfctl: 2 subscriptions did not come in time: nothing was published.\n")
    assert "1 is there." in shown.stderr
    shown = cfctl("bus", "pub", "ordrs", "x", "--wait-for", "1", "--timeout", "20ms")
    assert (shown.returncode, "There are subscriptions to 'orders'." in shown.stderr) == (3, True)


def test_messages_that_found_the_ring_full_are_refused_and_counted(
    orders: Subscription, cfctl: Cfctl
) -> None:
    shown = cfctl("bus", "pub", "orders", "x", "--rate", "1e6", "--count", "2000")
    refused = re.search(r"(\d+) refused, as the ring was full", shown.stderr)
    assert refused is not None
    assert shown.returncode == 3
    assert (int(refused[1]), len(received(orders))) == (2000 - 1024, 1024)
    shown = cfctl("bus", "pub", "orders", "x", "--count", "1025", "--timeout", "10ms")
    assert (shown.returncode, len(received(orders))) == (3, 1024)
    assert "1024 messages published for 1 subscription, 1 refused" in shown.stderr


def test_an_interrupt_ends_with_130_and_says_what_was_published(orders: Subscription) -> None:
    command = [*COMMAND, "orders", "x", "--rate", "1000"]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        assert orders.recv(PATIENCE_S) == b"x"
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(PATIENCE_S) == 130
        assert process.stderr is not None
        shown = re.fullmatch(
            rb"cfctl: (\d+) messages? published for 1 subscription\.\n", process.stderr.read()
        )
    assert shown is not None
    assert int(shown[1]) == 1 + len(received(orders))


def test_an_interrupt_ends_it_while_it_waits_for_subscriptions_or_for_input(config: BusConfig) -> None:
    for arguments in (["x", "--wait-for", "1", "--timeout", "1h"], ["-", "--wait-for", "0"]):
        command, pipe = [*COMMAND, "orders", *arguments], subprocess.PIPE
        with Bus(config) as bus, subprocess.Popen(command, stdin=pipe, stderr=pipe) as process:
            presence = bus.presence("orders")
            while not presence.peers():
                presence.wait(PATIENCE_S)
            os.kill(process.pid, signal.SIGINT)
            assert process.wait(PATIENCE_S) == 130


# What cannot be published


@pytest.mark.parametrize(
    "arguments",
    [
        ["orders"], ["orders", "x", "--file", "f"], ["orders", "0", "--hex"], ["orders", "xy", "--hex"],
        ["orders", "--file", "nothing"], ["orders", "--file", "."], ["orders", "--file", ""], ["", "x"], ["a\nb", "x"],
        ["rpc:orders", "x"], ["x" * 1025, "x"], ["orders", "x", "--rate", "0"], ["orders", "x", "--rate", "nan"],
        ["orders", "x", "--rate", "inf"], ["orders", "x", "--count", "0"], ["orders", "x", "--priority", "256"],
        ["orders", "x", "--wait-for", "257"], ["orders", "x", "--timeout", "soon"],
        ["orders", "\x1b[31m", "--hex"],
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_a_usage_error(
    orders: Subscription, cfctl: Cfctl, arguments: list[str]
) -> None:
    shown = cfctl("bus", "pub", *arguments)
    assert (shown.returncode, shown.stdout) == (2, "")
    assert "bug in cfctl" not in shown.stderr
    assert "\x1b" not in shown.stderr
    assert received(orders) == []


@pytest.mark.parametrize(("line", "as_hex"), [("x" * 600_000, False), ("00" * 600_000, True), ("zz", True)])
def test_a_line_that_cannot_be_sent_ends_it_after_those_before_were_counted(
    orders: Subscription, cfctl: Cfctl, line: str, as_hex: bool
) -> None:
    arguments = ["--hex"] if as_hex else []
    shown = cfctl("bus", "pub", "orders", "-", *arguments, input=f"00\n{line}\n11\n")
    assert (shown.returncode, received(orders)) == (2, [b"\0" if as_hex else b"00"])
    assert shown.stderr.startswith("cfctl: 1 message published for 1 subscription.\n")


def test_a_line_of_the_largest_size_is_sent(orders: Subscription, cfctl: Cfctl) -> None:
    line = "x" * (1 << 19)
    for text in (line, line + "\n"):
        assert cfctl("bus", "pub", "orders", "-", input=text).returncode == 0
        assert received(orders) == [line.encode()]


# The open loop


class FakePublisher:
    """Notes when it was called, refuses what it is told to, and takes time for each."""

    def __init__(self, clock: list[int], took_ns: int, refused: set[int]) -> None:
        self.clock = clock
        self.took_ns = took_ns
        self.refused = refused
        self.calls: list[tuple[int, Any]] = []

    def try_publish(self, payload: bytes) -> int:
        return self.publish(payload, "at once")

    def publish(self, payload: bytes, timeout_s: Any) -> int:
        self.calls.append((self.clock[0], timeout_s))
        self.clock[0] += self.took_ns
        if payload == b"bad":
            raise InputError("The payload cannot be sent.")
        if len(self.calls) - 1 in self.refused:
            raise ResourceExhausted("The ring is full.")
        return 1


def send_by(publisher: FakePublisher, payloads: list[bytes], rate_hz: float | None) -> None:
    def sleep(seconds: float) -> None:
        publisher.clock[0] += round(seconds * 1e9)

    fake: Any = publisher
    send(fake, payloads, rate_hz=rate_hz, timeout_s=7.0, clock_ns=lambda: publisher.clock[0], sleep=sleep)


def test_messages_at_a_rate_are_due_from_the_first_on_and_a_refused_one_delays_none() -> None:
    publisher = FakePublisher([5_000], 10, {1, 2})
    send_by(publisher, [b"x"] * 5, 1e6)
    assert publisher.calls == [(5_000 + number * 1_000, "at once") for number in range(5)]


def test_what_is_late_goes_at_once_and_the_rate_is_caught_up() -> None:
    publisher = FakePublisher([0], 2_500, set())
    send_by(publisher, [b"x"] * 4, 1e6)
    assert [at for at, _ in publisher.calls] == [0, 2_500, 5_000, 7_500]


def test_without_a_rate_each_message_waits_for_room_and_a_bad_one_ends_it() -> None:
    publisher = FakePublisher([0], 10, {1})
    with pytest.raises(InputError):
        send_by(publisher, [b"x", b"x", b"x", b"bad", b"x"], None)
    assert [timeout for _, timeout in publisher.calls] == [7.0] * 4
