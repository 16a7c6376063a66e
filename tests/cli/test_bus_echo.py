"""`cfctl bus echo` and `cfctl bus hz` as a user runs them: in a pipe, with publishers in other processes."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cfctl.bus import Bus, BusConfig, Message, Packet, Publisher
from cfctl.bus.listening import Heard, Listener
from cfctl.bus.packet import join_id, ticket_id
from cfctl.bus.rates import MAX_TOPICS, Rates
from cfctl.render.bus_rates import lines
from cfctl.render.messages import json_line, payload_text, text_line

if TYPE_CHECKING:
    from tests.conftest import Cfctl

PATIENCE_S = 30.0
HOSTILE = "pr\N{RIGHT-TO-LEFT OVERRIDE}ices <b>[red]\N{ZERO WIDTH SPACE}"
Popen = subprocess.Popen[bytes]
Started = Callable[..., "contextlib.AbstractContextManager[Popen]"]


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BusConfig:
    monkeypatch.setenv("CFCTL_SEGMENT_DIR", str(tmp_path / "bus"))
    return BusConfig(directory=tmp_path / "bus", channel_buffer_size=256)


@pytest.fixture
def started(cfctl: Cfctl, tmp_path: Path) -> Started:
    @contextlib.contextmanager
    def start(*arguments: str, **options: Any) -> Iterator[Popen]:
        settings: dict[str, Any] = {
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "cwd": tmp_path / "work",
        }
        command = [sys.executable, "-m", "cfctl", "bus", *arguments]
        with subprocess.Popen(command, **(settings | options)) as process:
            try:
                yield process
            finally:
                process.kill()

    return start


def ended(process: Popen) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=PATIENCE_S)
    return process.returncode, out.decode(), err.decode()


def publish(publisher: Publisher, *payloads: bytes) -> list[int]:
    """Publish once somebody subscribes."""
    publisher.wait_for_subscribers(1, PATIENCE_S)
    return [publisher.publish(payload, PATIENCE_S) for payload in payloads]


def heard(payload: bytes, *, topic: str = "prices", delay_ns: float | None = 1500.0, **fields: Any) -> Heard:
    stamps = {"id": 5, "hlc": 1_700_000_000_123_456_789, "published_tick": 1, "received_tick": 2} | fields
    return Heard(Message(payload, topic=topic, **stamps), delay_ns)


# What it shows


def test_a_line_holds_time_topic_size_delay_and_payload(config: BusConfig, started: Started) -> None:
    with Bus(config) as bus, started("echo", "prices", "--count", "2") as process:
        publish(bus.publisher("prices"), b"EURUSD 1.0843", b"")
        status, out, err = ended(process)
    assert (status, err) == (0, "")
    time, delay = r"\d\d:\d\d:\d\d\.\d{6}", r"\d[\d.]* (ns|us|ms|s)"
    first, second = out.splitlines()
    assert re.fullmatch(rf"{time}  prices  13 B  {delay}  EURUSD 1\.0843", first)
    assert re.fullmatch(rf"{time}  prices  0 B  {delay}  ", second)


def test_json_is_an_object_for_each_message_with_id_stamp_and_delay(
    config: BusConfig, started: Started
) -> None:
    payloads = [b"text \x1b[31m\x7f \xc3\xbc", b"\xff\x00", b"\0", b"x" * 500_000]
    with Bus(config) as bus, started("echo", HOSTILE, "--json", "--count", "4") as process:
        ids = publish(bus.publisher(HOSTILE), *payloads)
        status, out, err = ended(process)
    assert (status, err) == (0, "")
    assert out.isascii()
    assert out.replace("\n", "").isprintable()
    records = [json.loads(line) for line in out.splitlines()]
    assert [each["id"] for each in records] == ids
    for record, payload in zip(records, payloads, strict=True):
        assert list(record)[:2] == ["schema", "version"]
        assert (record["topic"], record["size"], record["history"]) == (HOSTILE, len(payload), False)
        assert record["delay_ns"] >= 0
        text = record["payload"]
        found = base64.b64decode(text) if record["encoding"] == "base64" else text.encode()
        assert found == payload
    assert [each["encoding"] for each in records] == ["utf-8", "base64", "utf-8", "utf-8"]


def test_raw_writes_the_payloads_alone_as_they_are(config: BusConfig, started: Started) -> None:
    payloads = [b"\x1b[31m\xff\0", b"x" * 500_000, b""]
    with Bus(config) as bus, started("echo", "prices", "--raw", "--count", "3") as process:
        publish(bus.publisher("prices"), *payloads)
        out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, err) == (0, b"")
    assert out == b"".join(payload + b"\n" for payload in payloads)


def test_the_history_comes_first_and_has_no_delay(config: BusConfig, started: Started) -> None:
    with Bus(config) as bus:
        publisher = bus.publisher("prices")
        for number in range(5):
            publisher.publish(b"%d" % number)
        with started("echo", "prices", "--history", "2", "--count", "3", "--json") as process:
            publish(publisher, b"new")
            status, out, _ = ended(process)
    records = [json.loads(line) for line in out.splitlines()]
    assert status == 0
    assert [(each["payload"], each["history"], each["delay_ns"] is None) for each in records] == [
        ("3", True, True), ("4", True, True), ("new", False, False),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [([], {"a1", "a2", "b"}), (["--pattern", "a?"], {"a1", "a2"}), (["a1", "b"], {"a1", "b"})],
)
def test_topics_are_named_or_match_or_are_all_and_those_that_come_later_too(
    config: BusConfig, started: Started, arguments: list[str], expected: set[str]
) -> None:
    with Bus(config) as bus, started("echo", *arguments, "--json", "--count", str(len(expected))) as process:
        for name in ("a1", "a2", "b"):
            # Its subscription takes its seat at one topic after another.
            if name in expected:
                publish(bus.publisher(name), b"x")
            else:
                bus.publisher(name).publish(b"x")
        status, out, _ = ended(process)
    assert status == 0
    assert {json.loads(line)["topic"] for line in out.splitlines()} == expected


def test_deadlines_and_dependencies_are_shown_and_nothing_waits_for_a_dependency(
    config: BusConfig, started: Started
) -> None:
    with Bus(config) as bus, started("echo", "t", "--json", "--count", "1") as process:
        cause = bus.publisher("other").publish(b"")
        bus.publisher("t").wait_for_subscribers(1, PATIENCE_S)
        bus.publish(Packet("t", b"effect", dependencies=(cause,)))
        status, out, _ = ended(process)
    record = json.loads(out)
    assert (status, record["payload"], record["dependencies"]) == (0, "effect", [cause])


@pytest.mark.parametrize(
    ("payload", "shown"),
    [
        (b"", ""),
        (b"plain", "plain"),
        ("ü €".encode(), "ü €"),
        (b"line\r\n\tnext", r"line\r\n\tnext"),
        (b"\x1b]0;title\x07", r"b'\x1b]0;title\x07'"),
        (b"\0\0", r"b'\x00\x00'"),
        (b"\xff\xfe", r"b'\xff\xfe'"),
        (b"\x7f", r"b'\x7f'"),
        ("\x9b31m".encode(), r"b'\xc2\x9b31m'"),
        ("a\N{RIGHT-TO-LEFT OVERRIDE}b\N{LINE SEPARATOR}".encode(), "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}"),
        (b"x" * 500_000, "x" * 199 + "…"),
        ("€".encode() * 500_000, "€" * 199 + "…"),
        (b"\0" * 500_000, ("b'" + r"\x00" * 200)[:199] + "…"),
        (b"x" * 200, "x" * 200),
    ],
)  # fmt: skip
def test_a_payload_is_shown_without_what_a_terminal_interprets(payload: bytes, shown: str) -> None:
    assert payload_text(payload) == shown
    assert payload_text(payload).isprintable() or "\N{REPLACEMENT CHARACTER}" in shown


def test_a_cut_through_a_character_is_no_binary_payload() -> None:
    for shift in range(5):
        assert payload_text(b"x" * shift + "€😀ü".encode() * 1000).endswith("…")
        assert not payload_text(b"x" * shift + "€😀ü".encode() * 1000).startswith("b'")
    assert payload_text(("é" * 201).encode()[:-1]) == repr(("é" * 201).encode()[:-1])[:199] + "…"


def test_a_line_may_be_hexadecimal_whole_or_timed_from_the_start() -> None:
    assert text_line(heard(b"\0\xff"), as_hex=True).endswith("  2 B  1.50 us  00ff\n")
    assert text_line(heard(b"\xff" * 300), as_hex=True).endswith("  " + "f" * 199 + "…\n")
    assert text_line(heard(b"\xff" * 300), as_hex=True, whole=True).endswith("  " + "f" * 600 + "\n")
    assert text_line(heard(b"y" * 500_000), whole=True).endswith("  " + "y" * 500_000 + "\n")
    assert text_line(heard(b"\0" * 9), whole=True).endswith("b'" + r"\x00" * 9 + "'\n")
    since = text_line(heard(b"x"), since_unix_ns=1_700_000_000_000_000_000)
    assert since == "+0.123457 s  prices  1 B  1.50 us  x\n"
    assert text_line(heard(b"x", late=True)).endswith("1.50 us  (late)  x\n")


@pytest.mark.parametrize("topic", ["\x1b[31m", "a\nb", HOSTILE, "x" * 1024, "\ud800"])
def test_a_topic_that_a_hostile_file_names_stays_one_line_of_safe_text(topic: str) -> None:
    for line in (text_line(heard(b"x", topic=topic)), json_line(heard(b"x", topic=topic))):
        assert line.count("\n") == 1
        assert not set(line) & {"\x1b", "\N{RIGHT-TO-LEFT OVERRIDE}", "\N{ZERO WIDTH SPACE}", "\ud800"}
    assert len(text_line(heard(b"x", topic=topic))) < 100


# What it does to others, and how it ends


def test_no_publisher_waits_for_it_and_what_it_lost_is_said(config: BusConfig, started: Started) -> None:
    with Bus(config) as bus, started("echo", "prices", "--duration", "0") as process:
        publisher = bus.publisher("prices")
        publish(publisher, b"first")
        assert process.stdout is not None
        assert process.stdout.readline().endswith(b"first\n")
        os.kill(process.pid, signal.SIGSTOP)
        for number in range(1000):
            publisher.try_publish(b"%d" % number)
        assert publisher.counts()["rejected"] == 0
        os.kill(process.pid, signal.SIGCONT)
        for line in process.stdout:
            if line.endswith(b"  999\n"):
                break
        os.kill(process.pid, signal.SIGINT)
        status, out, err = ended(process)
    (lost,) = re.findall(r"cfctl: (\d+) messages lost here so far", err)
    assert (status, out) == (130, "")
    assert int(lost) >= 1000 - 256


def test_it_is_marked_as_cfctls_own_and_lossy(config: BusConfig, started: Started) -> None:
    with Bus(config) as bus:
        presence = bus.presence("prices")
        with started("echo", "prices") as process:
            (came,) = presence.wait(PATIENCE_S)
            assert (came.peer.pid, came.peer.own, came.peer.lossy) == (process.pid, True, True)


def test_an_interrupt_ends_it_with_130(config: BusConfig, started: Started) -> None:
    with Bus(config) as bus, started("echo", "prices") as process:
        publish(bus.publisher("prices"), b"x")
        assert process.stdout is not None
        process.stdout.readline()
        os.kill(process.pid, signal.SIGINT)
        assert ended(process) == (130, "", "")


@pytest.mark.parametrize("command", ["echo", "hz"])
def test_nothing_in_the_duration_ends_with_3(config: BusConfig, cfctl: Cfctl, command: str) -> None:
    shown = cfctl("bus", command, "nobody", "--duration", "50ms", "--json")
    assert shown.returncode == 3
    assert shown.stderr.startswith("cfctl: ")
    assert "nobody" in shown.stderr


def test_fewer_than_the_count_in_the_duration_end_with_3(config: BusConfig, cfctl: Cfctl) -> None:
    with Bus(config) as bus:
        bus.publisher("prices").publish(b"old")
        arguments = ["prices", "--history", "1", "--duration", "300ms"]
        assert cfctl("bus", "echo", *arguments).returncode == 0
        shown = cfctl("bus", "echo", *arguments, "--count", "2")
    assert (shown.returncode, shown.stderr) == (3, "cfctl: 1 of 2 messages came on prices in 300ms.\n")


@pytest.mark.parametrize("publishes_on", [True, False])
@pytest.mark.parametrize(
    "arguments", [["echo"], ["echo", "--json"], ["echo", "--raw"], ["hz", "--interval", "20ms"]]
)
def test_it_ends_quietly_when_its_reader_has_gone_also_when_no_message_comes(
    config: BusConfig, started: Started, arguments: list[str], publishes_on: bool
) -> None:
    with Bus(config) as bus, started(*arguments) as process:
        publisher = bus.publisher("prices")
        publish(publisher, b"x")
        assert process.stdout is not None
        assert process.stdout.readline()
        process.stdout.close()
        while publishes_on and process.poll() is None:
            publisher.try_publish(b"y")
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.01)
        assert process.wait(PATIENCE_S) == 0
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read().decode()


def test_another_live_view_ends_when_its_reader_has_gone_too(config: BusConfig, started: Started) -> None:
    arguments = ["stats", "--live", "--interval", "20ms"]
    with Bus(config) as bus, bus.subscribe("prices"), started(*arguments) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        process.stdout.close()
        assert process.wait(PATIENCE_S) == 0


def test_what_cannot_be_written_is_reported(config: BusConfig, started: Started) -> None:
    with Bus(config) as bus, open("/dev/full", "wb") as full, started("echo", stdout=full) as process:
        publish(bus.publisher("prices"), b"x")
        status, _, err = process.wait(PATIENCE_S), None, process.stderr
        assert err is not None
        assert (status, "could not be written" in err.read().decode()) == (3, True)


@pytest.mark.parametrize(
    "arguments",
    [["--json", "--raw"], ["--raw", "--hex"], ["t", "--pattern", "*"], ["a\nb"], ["rpc:t"], ["x" * 1025], [""],
     ["--pattern", ""], ["--history", "-1"], ["--count", "0"], ["--duration", "soon"]],
)  # fmt: skip
def test_what_cannot_be_meant_is_a_usage_error(config: BusConfig, cfctl: Cfctl, arguments: list[str]) -> None:
    shown = cfctl("bus", "echo", *arguments)
    assert (shown.returncode, shown.stdout) == (2, "")
    assert "\x1b" not in shown.stderr
    assert "bug in cfctl" not in shown.stderr


def test_raw_is_refused_on_a_terminal(config: BusConfig, started: Started) -> None:
    master, slave = os.openpty()
    try:
        with started("echo", "--raw", stdout=slave) as process:
            assert process.wait(PATIENCE_S) == 2
            assert process.stderr is not None
            assert b"terminal" in process.stderr.read()
    finally:
        os.close(master)
        os.close(slave)


def test_the_topics_of_publishers_and_of_subscribers_are_completed(config: BusConfig, cfctl: Cfctl) -> None:
    with Bus(config) as bus, bus.subscribe("price list"):
        publisher = bus.publisher("prices")
        for command in ("echo", "hz", "pub"):
            env = {"_CFCTL_COMPLETE": "complete_bash", "_CFCTL_LINE": f"cfctl bus {command} pri"}
            shown = cfctl(env=env)
            assert shown.stderr == ""
            assert [row.split("\t")[1] for row in shown.stdout.splitlines()] == ["price list", "prices"]
        del publisher


def test_a_delay_is_never_negative(config: BusConfig) -> None:
    with Bus(config) as bus, Listener(config.directory, ("prices",)) as listener:
        publisher = bus.publisher("prices")
        for _ in range(100):
            publisher.publish(b"x")
        found = listener.hear(PATIENCE_S)
    assert len(found) == 100
    assert all(each.delay_ns is not None and each.delay_ns >= 0 for each in found)


def test_no_more_messages_are_taken_than_are_wanted(config: BusConfig) -> None:
    with Bus(config) as bus, Listener(config.directory, ("prices",)) as listener:
        publisher = bus.publisher("prices")
        for number in range(5):
            publisher.publish(b"%d" % number)
        assert [each.message.payload for each in listener.hear(PATIENCE_S, 2)] == [b"0", b"1"]
        assert len(listener.hear(PATIENCE_S)) == 3
        assert listener.hear(0.0) == []


# Rates


def stamped(
    number: int, tick: int, *, publisher: int = 20, topic: str = "t", delay_ns: float = 100.0
) -> Heard:
    return heard(b"x", topic=topic, id=join_id(publisher, number), published_tick=tick, delay_ns=delay_ns)


def test_a_regular_topic_has_its_rate_gaps_and_delays() -> None:
    rates = Rates(2.0, 10_000)
    rates.add(stamped(n, 5_000 * n, delay_ns=float(n)) for n in range(1, 1002))
    report = rates.report(1, 2, 5_000 * 1001, 0)
    (found,) = report.topics
    assert found.rate.value == pytest.approx(100_000)
    assert found.rate.uncertainty is not None
    assert found.rate.uncertainty < 1
    assert (found.gap_min.value, found.gap_max.value, found.gap_std.value) == (10_000, 10_000, 0)
    assert (found.delay_p50.value, found.delay_p99.value) == (501, 991)
    assert (found.received, found.lost, found.window, found.silent_ns) == (1001, 0, 1001, 0)
    assert (report.received, report.lost) == (1001, 0)


def test_the_interval_of_a_rate_is_that_of_the_mean_gap() -> None:
    rates = Rates(1.0)
    ticks = 0
    for number in range(1, 102):
        ticks += 1_000 if number % 2 else 3_000
        rates.add([stamped(number, ticks)])
    (found,) = rates.report(0, 0, ticks, 0).topics
    assert found.rate.value == pytest.approx(1e9 / 2_000)
    # 100 gaps of 2000 with a standard deviation of 1005: 1.96 * 1005 / 10 is 9.85 % of them.
    assert found.rate.uncertainty == pytest.approx(0.0985 * 1e9 / 2_000, rel=1e-3)


def test_lost_messages_count_in_the_rate_and_not_in_the_gaps() -> None:
    rates = Rates(1.0)
    rates.add(stamped(n, 1_000 * n) for n in (*range(1, 31), *range(41, 71)))
    (found,) = rates.report(0, 0, 70_000, 10).topics
    assert found.rate.value == pytest.approx(1e6)
    assert (found.received, found.lost, found.gap_max.value) == (60, 10, 1_000)


def test_publishers_of_a_topic_are_counted_apart_and_a_number_that_comes_again_is_no_loss() -> None:
    rates = Rates(1.0)
    rates.add(stamped(n, 1_000 * n, publisher=20 + n % 2) for n in (1, 2, 1, 2, 1))
    (found,) = rates.report(0, 0, 0, 0).topics
    assert found.lost == 0


def test_the_loss_of_what_went_through_a_dispatcher_is_not_known() -> None:
    rates = Rates(1.0)
    rates.add(heard(b"x", topic="t", id=ticket_id(20, n), published_tick=n * 1_000) for n in (1, 5, 3))
    (found,) = rates.report(0, 0, 0, 0).topics
    assert found.lost is None
    assert "lost not known" in lines(rates.report(0, 0, 0, 0))


def test_a_few_messages_have_no_interval_and_no_percentile() -> None:
    rates = Rates(1.0)
    rates.add([stamped(1, 1_000)])
    assert lines(rates.report(0, 0, 1_000, 0)) == (
        "t: low n  gap min low n max low n std low n delay p50 low n p99 low n  window 1  lost 0"
    )
    rates.add([stamped(2, 2_000)])
    assert lines(rates.report(0, 0, 2_000, 0)).startswith("t: about 1.0 MHz  gap min 1.00 us ")


def test_a_slow_topic_is_not_silent_between_two_messages_and_one_that_ended_is() -> None:
    rates = Rates(1.0)
    rates.add(stamped(n, n * 10**9) for n in range(1, 11))
    for tick, silent in ((10.0, False), (12.9, False), (13.1, True), (100.0, True)):
        (found,) = rates.report(0, 0, round(tick * 1e9), 0).topics
        assert (found.rate.value is None) is silent
    assert lines(rates.report(0, 0, 100 * 10**9, 0)).startswith("t: silent 90 s")
    assert lines(Rates(1.0).report(0, 0, 0, 0)) == "no message yet"


def test_the_window_and_the_number_of_topics_are_bounded() -> None:
    rates = Rates(1.0, 10)
    rates.add(stamped(n, 1_000 * n) for n in range(1, 100))
    rates.add(stamped(100 + n, 100_000 + 10 * n) for n in range(1, 30))
    (found,) = rates.report(0, 0, 0, 0).topics
    assert (found.window, found.received, found.gap_max.value) == (10, 128, 10)
    rates.add(stamped(1, 1, topic=f"topic {n}") for n in range(2 * MAX_TOPICS))
    report = rates.report(0, 0, 0, 0)
    assert (len(report.topics), report.received) == (MAX_TOPICS, 128 + 2 * MAX_TOPICS)


def test_hz_writes_a_report_for_each_interval(config: BusConfig, started: Started) -> None:
    arguments = ["hz", "prices", "--json", "--interval", "50ms", "--updates", "3"]
    with Bus(config) as bus, started(*arguments) as process:
        publisher = bus.publisher("prices")
        publish(publisher, *[b"x"] * 100)
        status, out, err = ended(process)
    assert (status, err) == (0, "")
    reports = [json.loads(line) for line in out.splitlines()]
    assert [each["schema"] for each in reports] == ["cfctl.bus.rates"] * 3
    (topic,) = reports[-1]["topics"]
    assert (topic["topic"], topic["received"], topic["lost"]) == ("prices", 100, 0)
    assert topic["delay_p50"]["value"] >= 0
    assert topic["delay_p99"]["reason"] == "low n"
