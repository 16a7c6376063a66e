"""`cfctl bus record` and `verify` on real buses: what was received is what stands there."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cfctl.bus import Bus, BusConfig, Packet, ResourceExhausted
from cfctl.bus.packet import join_id
from cfctl.bus.trace import Limits, Recorder
from cfctl.bus.verification import verify_trace
from cfctl.records import Verdict

if TYPE_CHECKING:
    from tests.conftest import Cfctl

PATIENCE_NS = 30_000_000_000


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BusConfig:
    monkeypatch.setenv("CFCTL_SEGMENT_DIR", str(tmp_path / "bus"))
    return BusConfig(directory=tmp_path / "bus", channel_buffer_size=256)


def recorded(path: Path, recorder: Recorder, bus: Bus, publish: Any, count: int) -> list[dict[str, Any]]:
    """Publish once the recorder has joined, and return the lines of its trace."""
    published = False

    def joined() -> bool:
        nonlocal published
        if not published and all(each.readers for each in bus.stats().publishers):
            publish()
            published = True
        return False

    with path.open("w") as file:
        recorder.record(file.write, Limits(count, PATIENCE_NS), joined)
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_messages_stand_in_the_trace_with_id_sender_stamps_and_causes(
    config: BusConfig, tmp_path: Path
) -> None:
    with Bus(config) as bus:
        causes, effects = bus.publisher("cause"), bus.publisher("effect")
        ids: list[int] = []

        def publish() -> None:
            ids.extend(causes.publish(b"%d" % number) for number in range(20))
            packet = Packet("effect", b"effect")
            packet.add_temporal_correlation(ids[:3])
            ids.append(bus.publish(packet))
            ids.append(effects.publish(b"plain"))

        recorder = Recorder(config.directory, (), with_payload=True, lossless=True)
        lines = recorded(tmp_path / "trace", recorder, bus, publish, 22)
    messages = [line for line in lines if "id" in line]
    assert sorted(line["id"] for line in messages) == sorted(ids)
    (effect,) = [line for line in messages if "dependencies" in line]
    assert effect["dependencies"] == ids[:3]
    assert base64.b64decode(effect["payload"]) == b"effect"
    assert all(line["received_hlc"] > line["hlc"] for line in messages)
    assert all(line["received_tick"] >= line["published_tick"] for line in messages)
    assert {line["pid"] for line in lines if "of_topic" in line} == {os.getpid()}
    assert lines[-1] == {
        "end": True, "messages": 22, "dropped": 0, "damaged": 0, "rejected": 0, "topics": ["cause", "effect"]
    }  # fmt: skip
    found = verify_trace(tmp_path / "trace")
    assert (found.verdict, found.messages, found.dependencies) == (Verdict.PASS, 22, 3)


def test_an_effect_that_waits_for_its_cause_is_recorded_at_its_place_on_the_ring(
    config: BusConfig, tmp_path: Path
) -> None:
    """A dispatcher would hold the first effect back for its cause, and hand the second out before it."""
    with Bus(config) as bus:
        bus.publisher("effect")
        ids: list[int] = []

        def publish() -> None:
            ids.append(bus.publish(Packet("effect", b"1", dependencies=(join_id(7, 1),))))
            bus.process_temporal_queue()
            ids.append(bus.publish(Packet("effect", b"2", dependencies=(ids[0],))))

        recorder = Recorder(config.directory, ["effect"], lossless=True)
        lines = recorded(tmp_path / "trace", recorder, bus, publish, 2)
    messages = [line for line in lines if "id" in line]
    assert [(line["id"], line["sequence"]) for line in messages] == [(ids[0], 1), (ids[1], 2)]
    found = verify_trace(tmp_path / "trace")
    assert (found.verdict, found.outside) == (Verdict.PASS, 1)


def test_what_publishers_rejected_because_they_waited_for_the_recording_is_reported(
    config: BusConfig, tmp_path: Path
) -> None:
    with Bus(config) as bus:
        publisher = bus.publisher("topic")
        refused = 0

        def publish() -> None:
            nonlocal refused
            for _ in range(300):
                try:
                    publisher.try_publish(b"x")
                except ResourceExhausted:
                    refused += 1

        recorder = Recorder(config.directory, ["topic"], lossless=True)
        lines = recorded(tmp_path / "trace", recorder, bus, publish, 200)
    assert lines[-1]["rejected"] == refused > 0
    found = verify_trace(tmp_path / "trace")
    assert (found.verdict, found.rejected) == (Verdict.PASS, refused)


def test_a_recording_that_is_too_slow_disturbs_nobody_and_counts_all_that_it_lost(
    config: BusConfig, tmp_path: Path
) -> None:
    """The ring holds 256 messages, and 2000 are published between two of the recorder's looks."""
    with Bus(config) as bus:
        publisher = bus.publisher("topic")
        path = tmp_path / "trace"
        looks = 0

        def publish_at_first() -> bool:
            """The recorder takes one message a look: after 400 all that the ring still held are taken."""
            nonlocal looks
            if not looks:
                for _ in range(2000):
                    publisher.try_publish(b"x")
            looks += 1
            return looks > 400

        with path.open("w") as file:
            recorder = Recorder(config.directory, ["topic"])
            totals = recorder.record(file.write, Limits(2000, PATIENCE_NS), publish_at_first)
        assert publisher.counts()["rejected"] == 0
    assert totals.messages > 0
    assert totals.dropped > 0
    assert totals.messages + totals.dropped == 2000
    found = verify_trace(path)
    assert (found.verdict, found.dropped) == (Verdict.INCONCLUSIVE, totals.dropped)


def test_a_recording_is_bounded_and_holds_no_payload_unless_asked(
    config: BusConfig, tmp_path: Path, cfctl: Cfctl
) -> None:
    with Bus(config) as bus:
        publisher = bus.publisher("topic")
        lines = recorded(
            tmp_path / "trace", Recorder(config.directory, ["topic"], lossless=True), bus,
            lambda: [publisher.publish(b"secret") for _ in range(50)], 7,
        )  # fmt: skip
    assert sum("id" in line for line in lines) == 7
    assert "payload" not in (tmp_path / "trace").read_text()
    shown = cfctl("bus", "verify", str(tmp_path / "trace"))
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "no violation in 7 messages" in shown.stdout.replace("\n", " ")


def test_nothing_recorded_ends_with_3_and_a_bad_file_with_2(
    config: BusConfig, cfctl: Cfctl, tmp_path: Path
) -> None:
    shown = cfctl("bus", "record", "nobody", "-o", "trace", "--duration", "20ms")
    assert (shown.returncode, "recorded 0 messages on 1 topic;" in shown.stderr) == (3, True)
    assert cfctl("bus", "verify", "trace").returncode == 3
    assert cfctl("bus", "record", "-o", "/nowhere/trace").returncode == 2
    assert cfctl("bus", "record", "-o", "-").returncode == 2
    (tmp_path / "work" / "garbage").write_bytes(os.urandom(3000))
    shown = cfctl("bus", "verify", "garbage")
    assert (shown.returncode, shown.stdout) == (2, "")
    assert "garbage is not a trace of the bus" in shown.stderr
    full = cfctl("bus", "record", "-o", "/dev/full", "--duration", "20ms")
    assert (full.returncode, "could not be written" in full.stderr) == (3, True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupt_ends_a_trace_well_and_a_kill_leaves_one_that_says_that_it_is_cut_off(
    config: BusConfig, tmp_path: Path, number: int
) -> None:
    path = tmp_path / "trace"
    with Bus(config) as bus:
        publisher = bus.publisher("topic")
        command = [
            sys.executable,
            "-m",
            "cfctl",
            "bus",
            "record",
            "-o",
            str(path),
            "--duration",
            "0",
            "--lossless",
        ]
        with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
            end = time.monotonic_ns() + PATIENCE_NS
            while publisher.counts()["readers"] == 0 and time.monotonic_ns() < end:
                publisher.try_publish(b"x")
                time.sleep(0.01)
            # Enough for what the file holds back to be written.
            for _ in range(2000):
                publisher.publish(b"x", 30.0)
            process.send_signal(number)
            process.communicate()
    assert process.returncode == (0 if number == signal.SIGINT else -number)
    found = verify_trace(path)
    assert found.verdict is (Verdict.PASS if number == signal.SIGINT else Verdict.INCONCLUSIVE)
    assert found.messages > 0
