"""The checks of the bus: each on a real bus with the fault planted, and on one without it."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cfctl import _native
from cfctl.bus import Bus, Packet, ResourceExhausted, TemporalViolation
from cfctl.bus.reading import CLOCK
from cfctl.diagnose.bus import NO_BUS, BusWatch, channel_size, waiting_messages
from cfctl.diagnose.engine import catalogue, run_check
from cfctl.diagnose.record import Status, Subject
from cfctl.diagnose.subject import Facts
from cfctl.errors import ClockOffsetError
from cfctl.host.view import HostView
from cfctl.records import Severity
from tests.bus_plant import CHECKS, SECOND_NS, Plant, joined, until

NODES = itertools.count(60000)


@pytest.fixture
def plant(tmp_path: Path) -> Iterator[Plant]:
    made = Plant(tmp_path / "rings")
    yield made
    made.close()


KEPT: list[Any] = []


def scheduled(plant: Plant, quantum_us: float, count: int, **settings: Any) -> Bus:
    bus = plant.bus(quantum_us=quantum_us, channel_buffer_size=1024, **settings)
    plant.mark()
    for _ in range(count):
        bus.publish_with_deadline(Packet("topic", b"x"), time.time_ns() + 100 * SECOND_NS)
        if quantum_us < 1000:
            time.sleep(0.0003)
    until(lambda: bus.temporal_metrics().outgoing.delivered == count)
    bus.process_temporal_queue()
    return bus


def jittery(plant: Plant) -> None:
    # A wake-up is off by more than the whole quantum.
    scheduled(plant, 10.0, 300)


def regular(plant: Plant) -> None:
    scheduled(plant, 1e6, 40)


def overloaded(plant: Plant) -> None:
    scheduled(plant, 1e5, 300)
    busy = [
        entry.values["busy"]
        for entry in plant.read().segments[0][0].entries
        if entry.kind == "bus_dispatcher"
    ]
    plant.window_ns = sum(int(each) for each in busy if isinstance(each, int)) * 10 // 9


def expired(plant: Plant) -> None:
    bus = plant.bus(quantum_us=1e6)
    plant.mark()
    # What is published in the second half of a quantum may still be in time; a busy machine takes longer to publish.
    while bus.temporal_metrics().outgoing.expired == 0:
        with contextlib.suppress(TemporalViolation):
            bus.publish_with_deadline(Packet("topic", b"x"), time.time_ns() + 200_000_000)
        until(lambda: bus.temporal_metrics().pending_messages == 0)


def in_time(plant: Plant) -> None:
    scheduled(plant, 1000.0, 5)


def caused(plant: Plant, cause_comes: bool) -> None:
    bus = plant.bus(dependency_timeout_ms=1e6 if cause_comes else 1.0)
    subscription = joined(bus)
    plant.mark()
    cause = bus.publish(Packet("topic", b"cause"))
    effect = Packet("topic", b"effect")
    effect.add_temporal_correlation([cause if cause_comes else cause + 1000])
    bus.publish(effect)
    until(lambda: (message := subscription.try_recv_message()) is not None and message.payload == b"effect")


def driven(plant: Plant, ahead_ns: int) -> None:
    clock = _native.Hlc(next(NODES), 100_000_000)
    clock.tick()
    KEPT.append(clock)
    try:
        clock.receive(time.time_ns() + ahead_ns, 7)
    except ClockOffsetError:
        assert ahead_ns > 100_000_000


def with_clock(ahead_ns: int) -> Callable[[Plant], None]:
    def plant_it(plant: Plant) -> None:
        joined(plant.bus())
        driven(plant, ahead_ns)

    return plant_it


def piled_up(plant: Plant) -> None:
    bus = plant.bus(channel_buffer_size=2048)
    KEPT.append(joined(bus))
    plant.mark()
    assert bus.publish_many("topic", [b"x"] * 1500) == 1500


def rejected(plant: Plant) -> None:
    bus = plant.bus()
    KEPT.append(subscription := joined(bus))
    plant.mark()
    assert bus.publish_many("topic", [b"x"] * 100) == 64
    for _ in range(20):
        with pytest.raises(ResourceExhausted):
            bus.publisher("topic").try_publish(b"x")
    subscription.recv_many(40)


def flowing(plant: Plant) -> None:
    bus = plant.bus(channel_buffer_size=2048)
    KEPT.append(subscription := joined(bus))
    plant.mark()
    publish = bus.publisher("topic").try_publish
    for _ in range(1000):
        publish(b"x")
        assert subscription.try_recv() == b"x"
    assert subscription.try_recv() is None


def overrun(plant: Plant) -> None:
    bus = plant.bus(channel_buffer_size=16, overwrite=True)
    KEPT.append(subscription := joined(bus))
    plant.mark()
    for _ in range(100):
        bus.publisher("topic").try_publish(b"x")
    subscription.recv_many(100)


def slow(plant: Plant) -> None:
    bus = plant.bus()
    KEPT.append(subscription := joined(bus))
    plant.mark()
    bus.publish_many("topic", [b"x"] * 60)
    time.sleep(0.003)
    subscription.recv_many(100)


def fast_under_load(plant: Plant) -> None:
    bus = plant.bus(channel_buffer_size=2048)
    KEPT.append(subscription := joined(bus))
    plant.mark()
    bus.publish_many("topic", [b"x"] * 2000)
    subscription.recv_many(1500)
    plant.window_ns = 1_000_000


def piling_subscriptions(plant: Plant) -> None:
    bus = plant.bus()
    plant.mark()
    KEPT.extend(bus.subscribe("topic") for _ in range(3))


def unheard(plant: Plant) -> None:
    bus = plant.bus()
    plant.mark()
    bus.publisher("topic").try_publish(b"x")


Planter = Callable[[Plant], None]
CASES: dict[str, tuple[list[tuple[Severity, Planter]], Planter]] = {
    "QUANTUM_COHERENCE": ([(Severity.MEDIUM, jittery)], regular),
    "SCHEDULE_OVERLOAD": ([(Severity.MEDIUM, overloaded)], in_time),
    "DEADLINE_MISSES": ([(Severity.HIGH, expired)], in_time),
    "CAUSALITY_VIOLATIONS": (
        [(Severity.HIGH, lambda plant: caused(plant, False))],
        lambda plant: caused(plant, True),
    ),
    "HLC_DRIFT": (
        [(Severity.MEDIUM, with_clock(50_000_000)), (Severity.HIGH, with_clock(10 * SECOND_NS))],
        with_clock(0),
    ),
    "BUFFER_OVERFLOW": ([(Severity.HIGH, piled_up), (Severity.HIGH, rejected)], flowing),
    "MESSAGE_LOSS": ([(Severity.CRITICAL, overrun)], flowing),
    "MESSAGE_LATENCY": ([(Severity.MEDIUM, slow)], flowing),
    "THROUGHPUT_LOW": ([(Severity.MEDIUM, rejected)], fast_under_load),
    "ROUTER_UNHEALTHY": ([(Severity.HIGH, rejected), (Severity.HIGH, overrun)], flowing),
    "NO_SUBSCRIBER": ([(Severity.MEDIUM, unheard)], flowing),
    "SUBSCRIPTION_LEAK": ([(Severity.MEDIUM, piled_up), (Severity.MEDIUM, piling_subscriptions)], flowing),
}  # fmt: skip


def test_every_check_of_the_bus_has_a_bus_that_triggers_it_and_one_that_does_not() -> None:
    assert set(CASES) == set(CHECKS) - {"BUS_NOT_RUNNING"}
    # The bus part of `diagnose latency`.
    assert set(CHECKS) <= {check.id for check in catalogue(Subject.LATENCY)}
    assert {"TSC_CALIBRATION", "TSC_CPU_SKEW"} <= {check.id for check in catalogue(Subject.TEMPORAL)}


@pytest.mark.parametrize(
    ("name", "index"), [(name, i) for name, case in CASES.items() for i in range(len(case[0]))]
)
def test_a_bus_with_the_fault_has_the_issue_with_numbers_and_a_remedy(
    name: str, index: int, plant: Plant
) -> None:
    severity, fault = CASES[name][0][index]
    fault(plant)
    found = plant.result(name)
    assert (found.status, found.severity, found.reason) == (Status.ISSUE, severity, None)
    assert found.description is not None
    assert found.description.endswith(".")
    assert any(character.isdigit() for character in found.description)
    assert found.solution
    assert "None" not in f"{found.description} {found.solution}"
    assert found.evidence
    assert found.verify == f"cfctl diagnose temporal --only {name}"


@pytest.mark.parametrize("name", CASES)
def test_a_bus_without_the_fault_passes(name: str, plant: Plant) -> None:
    CASES[name][1](plant)
    found = plant.result(name)
    assert (found.status, found.reason) == (Status.PASS, None)


@pytest.mark.parametrize("name", CHECKS)
def test_without_a_bus_all_is_unobservable(name: str, tmp_path: Path) -> None:
    watch = BusWatch(tmp_path / "nothing", sleep=lambda _: None)
    watch.watch(1.0)
    found = run_check(CHECKS[name], Facts(HostView(), None, "timer", None, live=watch.seen()))
    assert (found.status, found.reason) == (Status.UNOBSERVABLE, NO_BUS)


@pytest.mark.parametrize("name", CHECKS)
def test_a_topic_that_nobody_uses_is_unobservable(name: str, plant: Plant) -> None:
    joined(plant.bus())
    watch = BusWatch(plant.directory, "other", sleep=lambda _: None)
    found = run_check(CHECKS[name], Facts(HostView(), None, "timer", None, live=watch.seen()))
    assert found.status is Status.UNOBSERVABLE
    assert "'other'" in (found.reason or "")


def test_a_bus_that_runs_is_a_pass_and_one_that_ended_is_not(plant: Plant) -> None:
    bus = plant.bus()
    KEPT.append(joined(bus))
    assert plant.result("BUS_NOT_RUNNING").status is Status.PASS


def test_the_channel_size_of_a_burst_is_the_code_to_write(plant: Plant) -> None:
    rejected(plant)
    solution = plant.result("BUFFER_OVERFLOW").solution or ""
    # 64 waited and 20 were rejected.
    assert "Bus(BusConfig(channel_buffer_size=128))" in solution
    overrun_plant = Plant(plant.directory.parent / "others")
    overrun(overrun_plant)
    solution = overrun_plant.result("MESSAGE_LOSS").solution or ""
    overrun_plant.close()
    assert "overwrite=False" in solution


def test_a_ring_that_nobody_reads_is_no_burst(plant: Plant) -> None:
    piled_up(plant)
    assert "took nothing in the interval" in (plant.result("BUFFER_OVERFLOW").solution or "")


def test_a_channel_holds_what_littles_law_says_and_is_a_power_of_two() -> None:
    assert waiting_messages(1e6, 2_500_000) == 2500
    assert channel_size(2500) == 4096
    assert channel_size(2) == channel_size(0) == 2
    assert channel_size(1e12) == 1 << 20


def test_an_earlier_loss_is_told_with_less_weight(plant: Plant) -> None:
    overrun(plant)
    plant.mark()
    found = plant.result("MESSAGE_LOSS")
    assert (found.status, found.severity) == (Status.ISSUE, Severity.MEDIUM)
    assert "None of it in the interval" in (found.description or "")


def test_too_few_messages_are_unobservable_and_say_so(plant: Plant) -> None:
    bus = plant.bus()
    subscription = joined(bus)
    bus.publish_many("topic", [b"x"] * 5)
    subscription.recv_many(5)
    found = plant.result("MESSAGE_LATENCY")
    assert found.status is Status.UNOBSERVABLE
    assert "low n" in (found.reason or "")
    assert plant.result("THROUGHPUT_LOW").reason == "needs an interval: run with --duration"


def test_the_clocks_of_the_processes_are_looked_at(plant: Plant) -> None:
    joined(plant.bus())
    assert not [entry for entry in plant.read().segments[0][0].entries if entry.kind == CLOCK]
    assert plant.result("HLC_DRIFT").status is Status.NOT_APPLICABLE
