"""The semantics that docs/bus.md states: deadlines, borrowed memory, processes, who shares a bus, costs."""

from __future__ import annotations

import gc
import os
import pickle
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cfctl.bus import (
    Bus,
    BusConfig,
    DependencyTimeout,
    Expiry,
    Packet,
    ResourceExhausted,
    Subscription,
    TemporalViolation,
    Wait,
)
from cfctl.errors import StateError
from tests.support.bus_programs import PATIENCE_S, eventually, finished, program

SECOND_NS = 1_000_000_000


@pytest.fixture
def config(tmp_path: Path) -> BusConfig:
    return BusConfig(directory=tmp_path / "rings", channel_buffer_size=2, wait=Wait.PARK)


@pytest.fixture
def bus(config: BusConfig) -> Iterator[Bus]:
    with Bus(config) as made:
        yield made


@pytest.fixture
def reader(config: BusConfig) -> Iterator[Bus]:
    with Bus(config) as made:
        yield made


def due(seconds: float) -> int:
    """Return a deadline that is so many seconds away."""
    return time.time_ns() + int(seconds * SECOND_NS)


def fill(bus: Bus, subscription: Subscription) -> None:
    """Fill the ring of a topic's scheduled packets, which holds two."""
    for _ in range(2):
        bus.publish_with_deadline(Packet(subscription.topic, b"filling"), due(3600))
    assert bus.flush(PATIENCE_S) == 0


def rest(subscription: Subscription, count: int) -> list[bytes | None]:
    """Return so many messages that come after the filling."""
    assert [subscription.recv(PATIENCE_S) for _ in range(2)] == [b"filling"] * 2
    return [subscription.recv(PATIENCE_S) for _ in range(count)]


def test_earliest_deadline_first(bus: Bus, reader: Bus) -> None:
    subscription = reader.subscribe("t")
    fill(bus, subscription)
    for seconds in (300, 100, 200):
        bus.publish_with_deadline(Packet("t", b"%d" % seconds), due(seconds))
    # By then the slots of all three have come, and the full ring still holds them back.
    assert bus.flush(0.05) == 3
    assert rest(subscription, 3) == [b"100", b"200", b"300"]


def test_passed_deadlines(config: BusConfig, reader: Bus) -> None:
    subscription = reader.subscribe("t")
    for expiry, late in ((Expiry.DROP, []), (Expiry.DELIVER, [True])):
        with Bus(BusConfig(directory=config.directory, channel_buffer_size=2, expiry=expiry)) as bus:
            with pytest.raises(TemporalViolation):
                bus.publish_with_deadline(Packet("t", b"x"), time.time_ns() - 1)
            fill(bus, subscription)
            deadline = due(0.05)
            bus.publish_with_deadline(Packet("t", b"x"), deadline)
            eventually(lambda passed=deadline: time.time_ns() > passed)  # type: ignore[misc]
            eventually(lambda on=bus: on.temporal_metrics().outgoing.expired or expiry is Expiry.DELIVER)  # type: ignore[misc] # noqa: B023
            assert [subscription.recv(PATIENCE_S) for _ in range(2)] == [b"filling"] * 2
            bus.flush(PATIENCE_S)
            messages = [subscription.recv_message(PATIENCE_S) for _ in late]
            assert [each and each.late for each in messages] == late
            assert subscription.try_recv() is None


def test_effects_after_causes(bus: Bus, reader: Bus) -> None:
    subscription = reader.subscribe("cause", "effect")
    cause = bus.publisher("cause").publish(b"cause")
    effect = Packet("effect", b"effect", priority=9)
    effect.add_temporal_correlation([cause])
    bus.publish(effect)
    assert bus.flush(PATIENCE_S) == 0
    assert [subscription.recv(PATIENCE_S) for _ in range(2)] == [b"cause", b"effect"]


@pytest.mark.parametrize("timeout", DependencyTimeout)
def test_missing_causes(bus: Bus, config: BusConfig, timeout: DependencyTimeout) -> None:
    waits = BusConfig(directory=config.directory, dependency_timeout=timeout, dependency_timeout_ms=1.0)
    with Bus(waits) as reading:
        subscription = reading.subscribe("cause", "effect")
        missing = bus.publisher("cause").number << 48 | 99
        bus.publish(Packet("effect", b"x", dependencies=(missing,)))
        if timeout is DependencyTimeout.DELIVER:
            message = subscription.recv_message(PATIENCE_S)
            assert message is not None
            assert message.unmet == {missing}
        else:
            assert subscription.recv(timeout_s=0.1) is None
            assert reading.temporal_metrics().incoming.dropped_by_deps == 1
        unread = bus.publisher("unread").publish(b"")
        bus.publish(Packet("effect", b"y", dependencies=(unread,)))
        message = subscription.recv_message(PATIENCE_S)
        assert message is not None
        assert (message.payload, message.unmet) == (b"y", frozenset())


def test_not_held(bus: Bus, reader: Bus) -> None:
    subscription = reader.subscribe("cause", "effect", held=False)
    cause = bus.publisher("cause").publish(b"cause")
    bus.publish(Packet("effect", b"effect", priority=9, dependencies=(cause,)))
    assert bus.flush(PATIENCE_S) == 0
    assert [subscription.recv(PATIENCE_S) for _ in range(2)] == [b"effect", b"cause"]


def test_accepted_packets_are_copies(bus: Bus, reader: Bus) -> None:
    subscription = reader.subscribe("t")
    fill(bus, subscription)
    data = bytearray(b"before")
    bus.publish_with_deadline(Packet("t", data), due(100))
    data[:] = b"after!"
    assert rest(subscription, 1) == [b"before"]


def test_close_sends_what_was_accepted(config: BusConfig, reader: Bus) -> None:
    subscription = reader.subscribe("t")
    slow = BusConfig(directory=config.directory, quantum_us=1e6)
    with Bus(slow) as bus:
        for number in range(100):
            bus.publish_with_deadline(Packet("t", b"%d" % number), due(100 + number))
    assert bus.unsent == 0
    assert [subscription.recv(PATIENCE_S) for _ in range(100)] == [b"%d" % number for number in range(100)]
    with Bus(config) as full:
        fill(full, subscription)
        for _ in range(3):
            full.publish_with_deadline(Packet("t", b"x"), due(100))
        assert full.flush(timeout_s=0.01) == 3
        assert full.close(timeout_s=0.01) == 3
    assert full.unsent == 3


def test_view_is_in_the_ring(bus: Bus, reader: Bus) -> None:
    subscription = reader.subscribe("t")
    publisher = bus.publisher("t")
    publisher.publish_many([b"1", b"2"])
    with subscription.recv_view() as view:
        assert bytes(view or b"") == b"1"
        with pytest.raises(ResourceExhausted):
            publisher.try_publish(b"3")
    publisher.try_publish(b"3")
    assert subscription.recv_many(9) == [b"2", b"3"]
    with subscription.recv_view(timeout_s=0.01) as nothing:
        assert nothing is None


# What is made of a memoryview may keep it from being released, or only its memory.
@pytest.mark.parametrize("keep", [memoryview, lambda view: view[1:], pickle.PickleBuffer])
def test_view_rules(bus: Bus, reader: Bus, keep: Callable[[memoryview], object]) -> None:
    subscription = reader.subscribe("t")
    bus.publish_many("t", [b"one", b"two"])
    with subscription.recv_view(), pytest.raises(StateError):
        subscription.recv()
    view = subscription.recv_view()
    memory = view.__enter__()
    assert memory is not None
    kept = keep(memory)
    with pytest.raises(StateError):
        view.__exit__(None, None, None)
    # Until it is given back it is there, whatever ends meanwhile.
    subscription.unsubscribe()
    assert bytes(memoryview(kept))[-2:] == b"wo"  # type: ignore[arg-type]
    del kept
    view.__exit__(None, None, None)


def test_view_of_a_copy(bus: Bus, reader: Bus) -> None:
    lossy = reader.subscribe("t", lossy=True)
    bus.publisher("t").publish(b"old")
    with lossy.recv_view() as view:
        bus.publish_many("t", [b"new"] * 2)
        assert bytes(view or b"") == b"old"


def test_loan_rules(bus: Bus, reader: Bus) -> None:
    subscription = reader.subscribe("t")
    publisher = bus.publisher("t")
    with publisher.loan(3) as memory:
        memory[:] = b"abc"
        with pytest.raises(StateError):
            publisher.publish(b"x")
    with pytest.raises(ZeroDivisionError), publisher.loan(3):
        raise ZeroDivisionError
    publisher.publish(b"next")
    assert subscription.recv_many(9) == [b"abc", b"next"]
    loan = publisher.loan(3)
    part = loan.__enter__()[1:]
    with pytest.raises(StateError):
        loan.__exit__(None, None, None)
    publisher.close()
    part[:] = b"bc"
    del part
    with pytest.raises(StateError):
        loan.__exit__(None, None, None)
    assert subscription.try_recv() is None


def test_fork(bus: Bus, config: BusConfig) -> None:
    text = """
bus = Bus(); publisher = bus.publisher("t"); subscription = bus.subscribe("t"); publisher.publish(b"parent's")
ready()
if os.fork() == 0:
    calls = (lambda: publisher.publish(b"child's"), lambda: bus.subscribe("t"), subscription.try_recv,
             lambda: bus.publish_with_deadline(Packet("t", b"child's"), time.time_ns() + 10**9))
    for call in calls:
        try: print(call())
        except Exception as error: print(type(error).__name__)
    print(bus.close(), Bus().publisher("own").publish(b"x") > 0, flush=True)
    os._exit(0)
os.wait()
print(subscription.recv_many(9), flush=True)
"""
    with program(text, config.directory) as forking:
        assert finished(forking).split("\n")[:-1] == ["StateError"] * 4 + ["0 True", '[b"parent\'s"]']
    assert bus.publisher("own").readers == 0


def test_exec(bus: Bus, config: BusConfig) -> None:
    text = "s = Bus().subscribe('t'); publisher = Bus().publisher('u'); ready(); os.execvp('sleep', ['sleep', '60'])"
    publisher = bus.publisher("t")
    with program(text, config.directory) as executing:
        for _ in range(10):
            publisher.publish(b"x", timeout_s=PATIENCE_S)
        assert publisher.counts()["orphaned"] == 1
        assert executing.poll() is None


def test_multiprocessing_children(bus: Bus, reader: Bus, config: BusConfig) -> None:
    subscription = reader.subscribe("last")
    publisher = bus.publisher("t")
    text = """
import multiprocessing
def child():
    global bus, kept
    bus = Bus(); kept = bus.subscribe("t")
process = multiprocessing.get_context("fork").Process(target=child)
process.start(); process.join()
bus = Bus(BusConfig(quantum_us=1e6)); bus.publish_with_deadline(Packet("last", b"words"), time.time_ns() + 10**11)
ready()
"""
    with program(text, config.directory) as ending:
        assert ending.wait(PATIENCE_S) == 0
    assert subscription.recv(PATIENCE_S) == b"words"
    for _ in range(10):
        publisher.publish(b"x", timeout_s=PATIENCE_S)
    assert publisher.counts()["orphaned"] == 1


def test_threads(bus: Bus) -> None:
    came: dict[str, list[bytes | None]] = {}

    def run(name: str) -> None:
        subscription = bus.subscribe(name)
        for number in range(100):
            bus.publisher(name).publish(b"%d" % number, timeout_s=PATIENCE_S)
            came.setdefault(name, []).append(subscription.recv(PATIENCE_S))

    threads = [threading.Thread(target=run, args=(f"t{number}",)) for number in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert list(came.values()) == [[b"%d" % number for number in range(100)]] * 8


def test_signals(config: BusConfig) -> None:
    text = """
bus = Bus(); subscription = bus.subscribe("t"); publisher = bus.publisher("t"); ready()
signal.signal(signal.SIGALRM, lambda *_: publisher.publish(b"from the handler"))
signal.setitimer(signal.ITIMER_REAL, 0.05)
print(subscription.recv())
signal.signal(signal.SIGALRM, signal.default_int_handler)
signal.setitimer(signal.ITIMER_REAL, 0.05)
try: print(subscription.recv())
except KeyboardInterrupt: print("interrupted")
publisher.publish(b"after it")
print(subscription.recv(), flush=True)
"""
    with program(text, config.directory) as interrupted:
        assert finished(interrupted) == "b'from the handler'\ninterrupted\nb'after it'\n"


def test_one_bus_per_directory(
    bus: Bus, config: BusConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Bus(BusConfig(directory=tmp_path / "another")) as another:
        assert bus.subscribe("t").topics == ("t",)
        assert another.publisher("t").readers == 0
    monkeypatch.delenv("CFCTL_SEGMENT_DIR", raising=False)
    assert BusConfig().directory == Path(f"/dev/shm/cfctl-{os.geteuid()}")
    monkeypatch.setenv("CFCTL_SEGMENT_DIR", str(config.directory))
    assert BusConfig().directory == config.directory


def test_directory_is_private(bus: Bus, config: BusConfig, tmp_path: Path) -> None:
    assert config.directory.stat().st_mode & 0o777 == 0o700
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o755)
    with pytest.raises(StateError):
        Bus(BusConfig(directory=shared))
    assert shared.stat().st_mode & 0o777 == 0o755
    if os.geteuid() == 0:
        shared.chmod(0o700)
        os.chown(shared, 65534, 65534)
        with pytest.raises(StateError):
            Bus(BusConfig(directory=shared))
    assert bus.publisher("t").readers == 0


def test_another_mount_is_another_bus(tmp_path: Path) -> None:
    text = """
from cfctl.bus import *
with Bus() as bus:
    publisher = bus.publisher("t"); publisher.publish(b"x")
    print(publisher.readers, publisher.counts()["published"])
    try: publisher.wait_for_subscribers(1, timeout_s=0.01)
    except BusTimeout: print("nobody")
"""
    if shutil.which("unshare") is None:
        pytest.skip("there is no unshare to make a /dev/shm of its own")
    directory = Path(f"/dev/shm/cfctl-test-{os.getpid()}")
    environment = os.environ | {"CFCTL_SEGMENT_DIR": str(directory)}
    shell = 'mount -t tmpfs tmpfs /dev/shm && exec "$0" -c "$1"'
    try:
        with Bus(BusConfig(directory=directory)) as bus:
            assert bus.subscribe("t").topics == ("t",)
            inside = subprocess.run(
                ["unshare", "-rm", "sh", "-c", shell, sys.executable, text],
                capture_output=True, text=True, env=environment, cwd=tmp_path, check=False,
            )  # fmt: skip
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    if "unshare" in inside.stderr or "mount" in inside.stderr:
        pytest.skip(f"no mount of its own can be had: {inside.stderr.strip()}")
    assert (inside.stdout, inside.stderr) == ("0 1\nnobody\n", "")


def test_parked_waiting_is_free(config: BusConfig) -> None:
    def cpu_ns(wait: Wait) -> int:
        with Bus(BusConfig(directory=config.directory, wait=wait)) as bus:
            subscription = bus.subscribe("t")
            began = time.thread_time_ns()
            assert subscription.recv(timeout_s=0.3) is None
            return time.thread_time_ns() - began

    assert cpu_ns(Wait.PARK) < cpu_ns(Wait.SPIN) / 4


@pytest.mark.parametrize("count", [100, 200])
def test_many_topics_wake(bus: Bus, reader: Bus, count: int) -> None:
    subscription = reader.subscribe(*(f"t{number}" for number in range(count)))
    thread = threading.Thread(target=lambda: bus.publisher(f"t{count - 1}").publish(b"x"))
    thread.start()
    assert subscription.recv(PATIENCE_S) == b"x"
    thread.join()


def test_no_descriptors_per_topic(bus: Bus) -> None:
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    subscription = bus.subscribe("t")
    gc.collect()
    before = descriptors()
    kept = [(bus.publisher(f"t{number}"), bus.subscribe(f"t{number}")) for number in range(50)]
    assert (len(kept), descriptors()) == (50, before)
    assert subscription.fileno() >= 0
    assert descriptors() == before + 1
