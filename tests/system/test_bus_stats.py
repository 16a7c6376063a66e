"""`cfctl bus stats` on real buses: what is counted where, who is late, dead or missing, and health."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cfctl.bus import Bus, BusConfig, ResourceExhausted, Subscription
from cfctl.bus.reading import BusReader
from cfctl.bus.report import report_of
from tests.unit.bus_files import RingFile

if TYPE_CHECKING:
    from cfctl.bus.statistics import BusReport
    from tests.conftest import Cfctl

PATIENCE_S = 30.0
# Publishes on "prices" and waits; the ring is killed with it.
PUBLISHER = """
import sys
from cfctl.bus import Bus, BusConfig
bus = Bus(BusConfig(channel_buffer_size=64))
publisher = bus.publisher("prices")
for number in range(10):
    publisher.try_publish(b"%d" % number)
print(publisher.ring_id, flush=True)
sys.stdin.read()
"""
SUBSCRIBER = """
import sys
from cfctl.bus import Bus, BusConfig
subscription = Bus(BusConfig(wait="park")).subscribe("prices")
subscription.try_recv()
print(flush=True)
sys.stdin.read()
"""

# Takes a message, and never finishes it.
WORKER = """
import sys
from cfctl.bus import Bus
subscription = Bus().subscribe("jobs", group="workers")
print(flush=True)
assert subscription.recv(30.0) == b"x"
print("working", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CFCTL_SEGMENT_DIR", str(tmp_path / "bus"))
    return tmp_path / "bus"


@pytest.fixture
def config(directory: Path) -> BusConfig:
    return BusConfig(directory=directory, channel_buffer_size=64, payload_bytes=32)


@pytest.fixture
def program() -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Start a program and wait for its first line."""
    started: list[subprocess.Popen[str]] = []

    def start(source: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", source], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout is not None
        process.stdout.readline()
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def until(read: Callable[[], BusReport], holds: Callable[[BusReport], bool]) -> BusReport:
    """Read until something holds, patiently."""
    end = time.monotonic() + PATIENCE_S
    while not holds(found := read()):
        assert time.monotonic() < end, found
        time.sleep(0.01)
    return found


def joined(bus: Bus, topic: str) -> Subscription:
    subscription = bus.subscribe(topic)
    assert subscription.try_recv() is None
    return subscription


def test_messages_of_a_full_ring_are_rejected_and_pending_and_the_bus_is_unhealthy_in_that_window(
    config: BusConfig,
) -> None:
    reader = BusReader(config.directory)
    with Bus(config) as bus:
        publisher = bus.publisher("topic")
        subscription = joined(bus, "topic")
        before = reader.read()
        assert bus.publish_many("topic", [b"x"] * 100) == 64
        with pytest.raises(ResourceExhausted):
            publisher.try_publish(b"y")
        found = report_of(reader.read(), before)
        (ring,), (reading,), (topic,) = found.publishers, found.subscriptions, found.topics
        assert (ring.published, ring.rejected, ring.pending, ring.capacity) == (64, 1, 64, 64)
        assert (reading.copies, reading.delivered, reading.pending, reading.dropped) == (64, 0, 64, 0)
        assert (topic.publishers, topic.subscriptions, topic.pending) == (1, 1, 64)
        assert found.healthy is not True
        assert [c.name for c in found.conditions if c.holds is False] == ["no overrun"]
        assert len(subscription.recv_many(100)) == 64
        # Finding the ring empty tells the place.
        assert subscription.try_recv() is None
        middle = reader.read()
        later = report_of(reader.read(), middle)
        assert later.publishers[0].pending == 0
        assert later.conditions[-1].holds


def test_a_late_joiner_has_lost_nothing_and_an_overrun_one_exactly_what_was_overwritten(
    config: BusConfig,
) -> None:
    overwriting = BusConfig(directory=config.directory, channel_buffer_size=16, overwrite=True)
    reader = BusReader(config.directory)
    with Bus(overwriting) as bus:
        publisher = bus.publisher("topic")
        for number in range(100):
            publisher.try_publish(b"%d" % number)
        subscription = joined(bus, "topic")
        (late,) = report_of(reader.read()).subscriptions
        assert (late.copies, late.dropped, late.loss.value) == (0, 0, None)
        for number in range(100):
            publisher.try_publish(b"%d" % number)
        first = int(subscription.try_recv() or b"-1")
        (overrun,) = report_of(reader.read()).subscriptions
        assert overrun.dropped == first
        assert overrun.copies == 100 == overrun.delivered + overrun.dropped + overrun.pending
        assert overrun.loss.value == first / 100


def test_the_counts_of_a_bus_itself_and_those_seen_from_outside_agree(directory: Path, cfctl: Cfctl) -> None:
    source = """
import json, time
from cfctl.bus import Bus, BusConfig, Packet, TemporalViolation
with Bus(BusConfig(wait="park", dependency_timeout_ms=1e6)) as bus:
    kept, dropped, gone = (bus.subscribe(name) for name in ("orders", "prices", "prices"))
    del gone
    bus.unsubscribe(dropped)
    plain = bus.publisher("orders")
    for number in range(50):
        bus.publish_with_deadline(Packet("orders", b"x"), time.time_ns() + 60_000_000_000)
    received = [kept.recv_message(30.0) for _ in range(50)]
    assert None not in received
    try: bus.publish_with_deadline(Packet("orders", b"x"), time.time_ns() - 1000)
    except TemporalViolation: pass
    waits = Packet("orders", b"waits"); waits.add_temporal_correlation([(plain.number << 48) + 5]); bus.publish(waits)
    end = time.monotonic() + 30
    while bus.temporal_metrics().incoming.held_by_deps == 0 and time.monotonic() < end: kept.try_recv()
    import subprocess, sys
    shown = subprocess.run([sys.executable, "-m", "cfctl", "bus", "stats", "--window", "0", "--json"], capture_output=True, text=True)
    m = bus.temporal_metrics()
    print(json.dumps({"shown": json.loads(shown.stdout), "score": m.coherence.score, "expired": m.outgoing.expired}))
"""
    run = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    told = json.loads(run.stdout)
    (dispatcher,) = told["shown"]["dispatchers"]
    counts = dispatcher["counts"]
    assert (counts["accepted"], counts["refused"], counts["expired"]) == (51, 1, told["expired"])
    assert (counts["subscribed"], counts["unsubscribed"], dispatcher["open_subscriptions"]) == (3, 2, 1)
    assert (counts["received_due"], dispatcher["held"], dispatcher["queued"]) == (50, 1, 0)
    assert dispatcher["oldest_age_ns"] > 0
    assert dispatcher["lateness"]["count"] == counts["late"]
    assert dispatcher["coherence"]["score"] == pytest.approx(told["score"])
    assert dispatcher["miss_ratio"]["value"] == (counts["late"] + 1) / 51
    (subscription,) = [s for s in told["shown"]["subscriptions"] if s["topic"] == "orders"]
    assert subscription["delivered"] == 51
    assert subscription["latency"]["p50"]["value"] > 0
    assert subscription["latency"]["p99"]["reason"] == "low n"
    (clock,) = told["shown"]["clocks"]
    assert clock["refused"] == 0
    after = cfctl("bus", "stats")
    assert after.returncode == 0
    assert "not live" in after.stdout.splitlines()[0]
    # The first line names the directory.
    assert max(map(len, after.stdout.splitlines()[1:])) <= 80


def test_of_a_killed_publisher_ring_and_messages_remain_to_be_seen(
    directory: Path, program: Callable[[str], subprocess.Popen[str]], cfctl: Cfctl
) -> None:
    process = program(PUBLISHER)
    shown = json.loads(cfctl("bus", "stats", str(process.pid), "--json", "--window", "0").stdout)
    assert [each["state"] for each in shown["publishers"]] == ["live"]
    top = cfctl("top", "--interval", "10ms")
    assert "prices" in top.stdout
    assert (
        json.loads(cfctl("top", "--interval", "10ms", "--json").stdout)["bus"]["topics"][0]["publishers"] == 1
    )
    process.send_signal(signal.SIGKILL)
    process.wait()
    found = until(
        lambda: report_of(BusReader(directory).read(), None, "prices"),
        lambda report: report.publishers[0].state == "killed",
    )
    assert found.publishers[0].published == 10
    assert found.healthy is None
    assert not found.live
    # And without its segment: a ring alone.
    for segment in directory.glob("*.seg"):
        segment.unlink()
    alone = cfctl("bus", "stats", "prices")
    assert alone.returncode == 0
    assert "prices (killed)" in alone.stdout


def test_a_dead_reader_makes_the_bus_unhealthy_until_its_publisher_finds_out(
    config: BusConfig, program: Callable[[str], subprocess.Popen[str]]
) -> None:
    with Bus(config) as bus:
        publisher = bus.publisher("prices")
        process = program(SUBSCRIBER)
        reader = BusReader(config.directory)
        found = until(lambda: report_of(reader.read()), lambda report: report.publishers[0].readers == 1)
        assert found.conditions[2].holds
        process.send_signal(signal.SIGKILL)
        process.wait()
        found = until(lambda: report_of(reader.read()), lambda report: report.publishers[0].dead_readers == 1)
        assert found.conditions[2].holds is False
        assert str(process.pid) in found.conditions[2].why
        for _ in range(200):
            publisher.publish(b"x", PATIENCE_S)
        found = report_of(reader.read())
        assert (found.publishers[0].orphaned, found.publishers[0].dead_readers) == (1, 0)


def test_live_readings_go_on_while_either_side_is_killed(
    directory: Path, program: Callable[[str], subprocess.Popen[str]]
) -> None:
    publisher, subscriber = program(PUBLISHER), program(SUBSCRIBER)
    with subprocess.Popen(
        [sys.executable, "-m", "cfctl", "bus", "stats", "--live", "--interval", "5ms"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as looking:  # fmt: skip
        assert looking.stdout is not None
        assert "prices" in looking.stdout.readline()
        subscriber.kill()
        looking.stdout.readline()
        publisher.kill()
        rest, errors = looking.communicate(timeout=60)
    assert (looking.returncode, errors) == (0, "")
    assert rest.splitlines()[-1].startswith("not live: prices")


def test_without_a_bus_it_ends_with_3_and_says_so(directory: Path, cfctl: Cfctl) -> None:
    shown = cfctl("bus", "stats")
    assert (shown.returncode, "There is no bus" in shown.stderr) == (3, True)
    shown = cfctl("bus", "stats", "nobody's topic")
    assert (shown.returncode, "concerns" in shown.stderr) == (3, True)


def test_damaged_files_are_problems_and_hide_nothing(config: BusConfig, cfctl: Cfctl) -> None:
    with Bus(config) as bus:
        bus.publisher("whole").try_publish(b"x")
        # No Bus takes such a name; a file may hold it.
        RingFile(topic=b"to\x1b[31mpic").write(config.directory)
        (config.directory / "torn.ring").write_bytes(b"CFCTLRNG" + b"\0" * 9000)
        (config.directory / "garbage.seg").write_bytes(os.urandom(5000))
        (config.directory / "link.ring").symlink_to("/etc/passwd")
        shown = cfctl("bus", "stats", "--window", "0")
        listed = cfctl("bus", "topics")
    for each in (shown, listed):
        assert each.returncode == 0
        assert "\x1b" not in each.stdout
        assert "symbolic link" in each.stdout.replace("\n", " ")
        assert "another version" in each.stdout.replace("\n", " ")
        assert "whole" in each.stdout
    assert "[31mpic" in shown.stdout


def test_subscriptions_show_before_anything_is_published_and_groups_with_their_members(
    directory: Path, config: BusConfig, cfctl: Cfctl
) -> None:
    with Bus(config) as bus, Bus(config) as other:
        alone = bus.subscribe("prices")
        members = [each.subscribe("jobs", group="workers", redeliver=True) for each in (bus, other)]
        reader = BusReader(directory)
        (waiting,) = [each for each in report_of(reader.read()).subscriptions if each.topic == "prices"]
        assert (waiting.active, waiting.rings, waiting.pid, waiting.waits) == (True, 0, os.getpid(), "sleeps")
        publisher = bus.publisher("jobs")
        for _ in range(10):
            publisher.try_publish(b"x")
        assert [each.try_recv() for each in members] == [b"x", b"x"]
        found = report_of(reader.read())
        (group,) = found.groups
        assert (group.topic, group.group, group.members, group.redeliver) == ("jobs", "workers", 2, True)
        assert (group.delivered, group.pending, group.unfinished, group.abandoned) == (2, 8, 2, 0)
        assert [each.group for each in found.subscriptions if each.topic == "jobs"] == ["workers"] * 2
        (jobs, prices) = found.topics
        assert (jobs.subscriptions, jobs.groups, jobs.pending) == (2, 1, 8)
        assert (prices.publishers, prices.subscriptions) == (0, 1)
        shown = cfctl("bus", "stats", "--window", "0").stdout
        assert "workers on" in shown
        assert max(map(len, shown.splitlines()[1:])) <= 80
        alone.unsubscribe()
        assert not any(
            each.active for each in report_of(reader.read()).subscriptions if each.topic == "prices"
        )


def test_a_member_that_dies_leaves_its_work_to_be_seen(
    directory: Path, config: BusConfig, program: Callable[[str], subprocess.Popen[str]]
) -> None:
    with Bus(config) as bus:
        publisher = bus.publisher("jobs")
        worker = program(WORKER)
        publisher.try_publish(b"x")
        assert worker.stdout is not None
        assert worker.stdout.readline() == "working\n"
        survivor = bus.subscribe("jobs", group="workers")
        worker.kill()
        worker.wait()
        reader = BusReader(directory)
        group = until(lambda: report_of(reader.read()), lambda found: found.groups[0].members == 1).groups[0]
        assert (group.unfinished, group.abandoned) == (1, 0)
        until_abandoned = until(
            lambda: (survivor.recv(0.05), report_of(reader.read()))[1],
            lambda found: found.groups[0].abandoned == 1,
        )
        assert until_abandoned.groups[0].unfinished == 0


def test_topics_are_listed_with_who_is_there_and_what_waits(config: BusConfig, cfctl: Cfctl) -> None:
    with Bus(config) as bus:
        subscription = bus.subscribe("prices")
        publisher = bus.publisher("prices")
        bus.publisher("nobody's")
        for _ in range(5):
            publisher.try_publish(b"x")
        shown = cfctl("bus", "topics", "--json")
        document = json.loads(shown.stdout)
        rows = {row["topic"]: row for row in document["topics"]}
        assert (shown.returncode, document["schema"], document["window_ns"]) == (0, "cfctl.bus.topics", None)
        assert set(rows) == {"prices", "nobody's"}
        prices = rows["prices"]
        assert (prices["publishers"], prices["subscriptions"], prices["groups"], prices["pending"]) == (
            1,
            1,
            0,
            5,
        )
        assert (prices["published"], prices["rate"]["value"]) == (5, None)
        assert rows["nobody's"]["subscriptions"] == 0
        text = cfctl("bus", "topics", "prices", "--window", "50ms")
        assert "rate" in text.stdout
        assert "nobody's" not in text.stdout
        assert "None" not in text.stdout
        assert len(subscription.recv_many(10)) == 5
    gone = cfctl("bus", "topics", "elsewhere")
    assert (gone.returncode, "concerns the topic 'elsewhere'" in gone.stderr) == (3, True)


def test_an_unhealthy_bus_says_why_in_plain_words(config: BusConfig, cfctl: Cfctl) -> None:
    with Bus(config) as bus:
        subscription = joined(bus, "topic")
        bus.publish_many("topic", [b"x"] * 64)
        with pytest.raises(ResourceExhausted):
            bus.publisher("topic").try_publish(b"y")
        shown = cfctl("bus", "stats", "--window", "0").stdout
        assert "1 message rejected by a full ring since the start" in shown
        assert "not no" not in shown.lower()
        assert "None" not in shown
        assert subscription.try_recv() == b"x"
