"""The dispatcher on a fake clock: what it survives, what it says of itself, flush, close, forks, what it holds."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from cfctl import _native
from cfctl.bus import held
from cfctl.bus.config import BusConfig
from cfctl.bus.dispatcher import Dispatcher
from cfctl.bus.packet import Extension, Packet, decode, encode, ticket_id
from cfctl.bus.subscription import Message
from cfctl.bus.temporal_metrics import DispatcherThread
from cfctl.errors import ResourceExhausted, StateError, TemporalViolation
from cfctl.segment.process import open_segment
from cfctl.segment.reader import parse_segment
from cfctl.temporal import global_hlc

# Here, where the directory of the tests' one segment is still named.
open_segment()

T = 1_800_000_000_000_000_000
QUANTUM_NS = 1_000_000


class FakeClock:
    """A clock that stands until it is moved; with `step_ns` it goes on by each look."""

    def __init__(self, step_ns: int = 0) -> None:
        self.time_ns = T
        self.step_ns = step_ns
        self.last = T

    def now_ns(self) -> int:
        self.time_ns += self.step_ns
        return self.time_ns

    def tick(self) -> int:
        self.last = max(self.last + 1, self.time_ns)
        return self.last


@dataclass
class RawMessage:
    """What the core gives for a message on the ring."""

    payload: bytes
    id: int
    hlc: int = T
    published_tick: int = 0
    received_tick: int = 0
    topic: str = "t"
    redelivered: bool = False


class Ring:
    """A ring with room for so many messages, or none that ends."""

    def __init__(self, room: int = 1 << 30) -> None:
        self.room = room
        self.taken: list[bytes] = []

    def publish(self, encoded: bytes) -> int:
        if self.room <= 0:
            raise ResourceExhausted("full")
        self.room -= 1
        self.taken.append(encoded)
        return len(self.taken)

    def payloads(self) -> list[bytes]:
        decoded = [decode(each) for each in self.taken]
        return [each[1] for each in decoded if each is not None]


class Still(Dispatcher):
    """A dispatcher whose thread does nothing: the test makes the rounds."""

    def _work(self) -> None:
        while not self._closed:
            self._changed.wait()


NAMES = (f"test {number}" for number in itertools.count())


@dataclass
class World:
    dispatcher: Dispatcher
    clock: FakeClock
    name: str
    marks: dict[int, int]
    tickets: itertools.count[int]

    def schedule(self, ring: Ring, data: bytes, in_ns: int | None = None, *causes: int) -> int:
        message_id = ticket_id(5, next(self.tickets))
        deadline = None if in_ns is None else self.clock.time_ns + in_ns
        self.dispatcher.schedule(
            Packet("t", data, dependencies=causes), message_id, 0, deadline, ring.publish
        )
        return message_id

    def go(self, ns: int = QUANTUM_NS) -> int:
        self.clock.time_ns += ns
        return self.dispatcher.process()

    def receive(self, data: bytes, into: list[Message], ticket: int, *causes: int) -> Message | None:
        raw = RawMessage(encode(Extension(None, ticket, causes, 0), data), 9 << 48 | ticket)
        return self.dispatcher.hold(raw, into.append)  # type: ignore[arg-type]

    def segment(self) -> Mapping[str, Any]:
        entries = parse_segment(_native.segment_bytes()).entries
        return next(
            each.values for each in entries if each.kind == "bus_dispatcher" and each.name == self.name
        )


def world(
    joined: Callable[[], set[int]] | None = None,
    step_ns: int = 0,
    kind: type[Dispatcher] = Still,
    **settings: Any,
) -> World:
    clock, name, marks = FakeClock(step_ns), next(NAMES), dict[int, int]()
    config = BusConfig(quantum_us=QUANTUM_NS / 1000, **settings)
    dispatcher = kind(config, clock, name, lambda: marks, joined)
    return World(dispatcher, clock, name, marks, itertools.count(1))


def failing(error: BaseException) -> Ring:
    ring = Ring()

    def publish(encoded: bytes) -> int:
        raise error

    ring.publish = publish  # type: ignore[method-assign]
    return ring


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), ValueError("publisher is closed"), MemoryError()]
)
def test_an_error_on_one_message_is_counted_and_named_and_the_next_one_leaves(error: Exception) -> None:
    here, ring = world(), Ring()
    here.schedule(failing(error), b"bad", 10**9)
    here.schedule(ring, b"good", 10**9)
    assert here.go() == 1
    assert ring.payloads() == [b"good"]
    metrics = here.dispatcher.metrics()
    counts = metrics.outgoing
    assert (counts.accepted, counts.delivered, counts.failed, metrics.pending_messages) == (2, 1, 1, 0)
    assert metrics.last_error is not None
    assert metrics.last_error.startswith(type(error).__name__)
    assert here.dispatcher.alive
    assert here.segment()["failed"] == 1
    assert here.dispatcher.close() == 0


def test_what_cannot_be_encoded_is_refused_at_the_call_and_nothing_is_queued() -> None:
    here = world()
    with pytest.raises(TypeError):
        here.schedule(Ring(), "text")  # type: ignore[arg-type]
    assert here.dispatcher.metrics().pending_messages == 0
    here.dispatcher.close()


def test_an_error_of_a_receiver_is_counted_and_the_next_message_is_delivered() -> None:
    here, got = world(dependency_timeout_ms=5.0), list[Message]()
    here.marks[3] = 0

    def refuse(message: Message) -> None:
        raise OSError(5, "broken")

    raw = RawMessage(encode(Extension(None, 1, (3 << 48 | 7,), 0), b"bad"), 9 << 48 | 1)
    assert here.dispatcher.hold(raw, refuse) is None  # type: ignore[arg-type]
    assert here.receive(b"good", got, 2, 3 << 48 | 7) is None
    here.go(5 * QUANTUM_NS)
    assert [each.payload for each in got] == [b"good"]
    metrics = here.dispatcher.metrics()
    assert (metrics.incoming.failed, metrics.incoming.delivered) == (1, 1)
    assert metrics.last_error == "OSError: [Errno 5] broken"
    here.dispatcher.close()


class Dying(Dispatcher):
    def _work(self) -> None:
        while not len(self._outgoing) and not len(self._incoming):
            self._changed.wait()
        raise MemoryError("no more")


def test_a_thread_that_ended_by_an_error_is_seen_and_nothing_more_is_accepted() -> None:
    here, ring = world(kind=Dying), Ring()
    assert here.dispatcher.metrics().thread is DispatcherThread.NOT_STARTED
    here.schedule(ring, b"last", 10**9)
    thread = here.dispatcher._thread
    assert thread is not None
    thread.join(30)
    metrics = here.dispatcher.metrics()
    assert (metrics.thread, metrics.thread_error) == (DispatcherThread.FAILED, "MemoryError: no more")
    assert not here.dispatcher.alive
    with pytest.raises(StateError, match="dispatcher has ended: MemoryError: no more"):
        here.schedule(ring, b"next", 10**9)
    found = here.segment()
    assert (found["threads_started"], found["threads_ended"], found["threads_failed"]) == (1, 1, 1)
    assert here.dispatcher.close() == 0
    assert ring.payloads() == [b"last"]


def test_what_a_dying_thread_held_is_delivered_without_its_dependencies_and_nothing_is_held_later() -> None:
    here, got = world(kind=Dying), list[Message]()
    here.marks[3] = 0
    cause = 3 << 48 | 7
    assert here.receive(b"held", got, 1, cause) is None
    thread = here.dispatcher._thread
    assert thread is not None
    thread.join(30)
    later = here.receive(b"later", got, 2, cause)
    assert later is not None
    assert [(each.payload, set(each.unmet)) for each in (*got, later)] == [
        (b"held", {cause}),
        (b"later", {cause}),
    ]
    metrics = here.dispatcher.metrics()
    assert (metrics.causality.dependency, metrics.not_held, metrics.pending_messages) == (2, 1, 0)
    here.dispatcher.close()


def test_a_thread_that_cannot_be_started_refuses_the_packet(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    here = world()
    with pytest.raises(StateError, match="can't start new thread"):
        here.schedule(Ring(), b"x")
    assert here.dispatcher.metrics().pending_messages == 0
    here.dispatcher.close()


def test_what_need_not_wait_is_received_without_a_thread() -> None:
    here, got = world(), list[Message]()
    message = here.receive(b"x", got, 1)
    assert message is not None
    assert message.payload == b"x"
    assert here.dispatcher.metrics().thread is DispatcherThread.NOT_STARTED
    here.dispatcher.close()


def test_the_thread_runs_from_the_first_message_to_the_close() -> None:
    here = world()
    here.schedule(Ring(), b"x")
    assert here.dispatcher.metrics().thread is DispatcherThread.RUNNING
    here.dispatcher.close()
    metrics = here.dispatcher.metrics()
    assert (metrics.thread, metrics.thread_error) == (DispatcherThread.CLOSED, None)
    found = here.segment()
    assert (found["threads_started"], found["threads_ended"], found["threads_failed"]) == (1, 1, 0)


def test_a_damaged_message_is_counted_and_not_delivered() -> None:
    here = world()
    assert here.dispatcher.hold(RawMessage(b"short", 9 << 48 | 1), print) is None  # type: ignore[arg-type]
    assert here.dispatcher.metrics().damaged == 1
    assert here.segment()["damaged"] == 1
    here.dispatcher.close()


def test_close_sends_what_was_scheduled_at_once_a_cause_before_its_dependent() -> None:
    here, ring = world(), Ring()
    here.clock.time_ns += 1  # all slots of this quantum are over
    cause = here.schedule(ring, b"cause", 10**9)
    here.schedule(ring, b"effect", 10**6, cause)
    for number in range(100):
        here.schedule(ring, b"%d" % number, 10**8 + number)
    assert here.dispatcher.close() == 0
    assert ring.payloads() == [*(b"%d" % number for number in range(100)), b"cause", b"effect"]
    assert here.dispatcher.metrics().coherence.samples == 0
    assert here.segment()["unsent"] == 0


def test_close_counts_and_returns_what_the_ring_did_not_take() -> None:
    here, ring = world(), Ring(room=2)
    for number in range(5):
        here.schedule(ring, b"%d" % number, 10**9)
    assert here.dispatcher.close(timeout_s=0) == 3
    assert ring.payloads() == [b"0", b"1"]
    counts = here.dispatcher.metrics().outgoing
    assert (counts.accepted, counts.delivered, counts.undelivered) == (5, 2, 3)
    assert here.segment()["unsent"] == 3
    assert here.dispatcher.close() == 0


def test_close_lets_expire_what_is_too_late() -> None:
    here, ring = world(), Ring()
    here.schedule(ring, b"late", 1000)
    here.clock.time_ns += 2000
    assert here.dispatcher.close() == 0
    assert (ring.payloads(), here.dispatcher.metrics().outgoing.expired) == ([], 1)


def test_a_closed_dispatcher_accepts_nothing_and_holds_nothing() -> None:
    here, got = world(), list[Message]()
    here.marks[3] = 0
    assert here.receive(b"held", got, 1, 3 << 48 | 7) is None
    here.dispatcher.close()
    with pytest.raises(StateError, match="closed"):
        here.schedule(Ring(), b"x")
    later = here.receive(b"later", got, 2, 3 << 48 | 7)
    assert later is not None
    assert later.unmet == {3 << 48 | 7}
    assert got == []
    assert here.dispatcher.metrics().incoming.undelivered == 1
    assert here.segment()["undelivered"] == 1


class SlowRing(Ring):
    """A ring that gets room for one message every 30 us of a clock."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self.clock, self.since_ns = clock, clock.time_ns

    def publish(self, encoded: bytes) -> int:
        self.room = (self.clock.time_ns - self.since_ns) // 30_000 - len(self.taken)
        return super().publish(encoded)


def test_flush_waits_for_the_slots_and_sends_as_fast_as_the_ring_takes_it() -> None:
    here = world(step_ns=1000)
    ring = SlowRing(here.clock)
    sent = [b"%d" % number for number in range(100)]
    for number, data in enumerate(sent):
        here.schedule(ring, data, 10**10 + number)
    assert here.dispatcher.flush(0) == 100
    ring.since_ns = here.clock.time_ns + QUANTUM_NS
    assert here.dispatcher.flush(30.0) == 0
    assert ring.payloads() == sent
    # Tried again in the next quantum they would take a hundred of them.
    assert here.clock.time_ns < T + 10 * QUANTUM_NS
    metrics = here.dispatcher.metrics()
    assert metrics.outgoing.delivered == 100
    assert metrics.coherence.samples < 100
    here.dispatcher.close()


def test_flush_returns_what_is_left_when_the_ring_takes_nothing() -> None:
    here, ring = world(step_ns=1000), Ring(room=1)
    for number in range(4):
        here.schedule(ring, b"%d" % number, 10**10)
    assert here.dispatcher.flush(0.001) == 4 - len(ring.taken)
    assert here.dispatcher.metrics().outgoing.undelivered == 0
    ring.room = 10
    assert here.dispatcher.flush(30.0) == 0
    assert ring.payloads() == [b"0", b"1", b"2", b"3"]
    here.dispatcher.close()


def test_flush_without_anything_scheduled_returns_at_once() -> None:
    here = world()
    assert here.dispatcher.flush(30.0) == 0
    assert here.dispatcher._thread is None
    here.dispatcher.close()


def test_behind_a_message_that_found_no_room_none_goes_to_the_same_ring() -> None:
    here, other, refusals = world(), Ring(), 0

    class RoomAfterOneRefusal(Ring):
        def publish(self, encoded: bytes) -> int:
            nonlocal refusals
            refusals += 1
            if refusals == 1:
                raise ResourceExhausted("full")
            return super().publish(encoded)

    ring = RoomAfterOneRefusal()
    here.schedule(ring, b"first", 10**8)
    here.schedule(other, b"other", 10**8 + 1)
    here.schedule(ring, b"second", 10**8 + 2)
    assert here.go() == 1
    assert (ring.payloads(), other.payloads()) == ([], [b"other"])
    assert here.go() == 2
    assert ring.payloads() == [b"first", b"second"]
    here.dispatcher.close()


def test_a_dependent_does_not_overtake_a_cause_whose_ring_was_full() -> None:
    here, ring, other = world(), Ring(room=0), Ring()
    cause = here.schedule(ring, b"cause", 10**9)
    here.schedule(other, b"effect", 10**8, cause)
    assert here.go() == 0
    ring.room = 1
    assert here.go() == 2
    assert (ring.payloads(), other.payloads()) == ([b"cause"], [b"effect"])
    here.dispatcher.close()


@pytest.mark.parametrize(("expiry", "left"), [("deliver", 20), ("drop", 2)])
def test_under_back_pressure_the_policy_of_expiry_is_kept(expiry: str, left: int) -> None:
    here, ring = world(expiry=expiry), Ring(room=2)
    for number in range(20):
        here.schedule(ring, b"%d" % number, 50_000_000)
    here.go()
    here.go(60_000_000)
    ring.room = 100
    here.go()
    counts = here.dispatcher.metrics().outgoing
    assert (len(ring.taken), counts.delivered, counts.expired) == (left, left, 20 - left)
    here.dispatcher.close()


def test_a_deadline_that_passed_is_refused_and_counted() -> None:
    here = world()
    with pytest.raises(TemporalViolation):
        here.schedule(Ring(), b"x", -1)
    assert here.dispatcher.metrics().outgoing.refused == 1
    here.dispatcher.close()


def in_child(check: Callable[[], bool]) -> bool:
    child = os.fork()
    if child == 0:
        good = False
        try:
            good = check()
        finally:
            os._exit(0 if good else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_is_refused_at_once_though_the_lock_was_held_at_the_fork() -> None:
    here, ring = world(), Ring()
    here.schedule(ring, b"parents", 10**9)
    held_now, done = threading.Event(), threading.Event()

    def hold_the_lock() -> None:
        with here.dispatcher._changed:
            held_now.set()
            done.wait(60)

    holder = threading.Thread(target=hold_the_lock)
    holder.start()
    held_now.wait(60)

    def refused(call: Callable[[], object]) -> bool:
        try:
            call()
        except StateError as error:
            return "forked" in str(error)
        return False

    def check() -> bool:
        dispatcher, got = here.dispatcher, list[Message]()
        return (
            refused(lambda: here.schedule(ring, b"child"))
            and refused(lambda: here.receive(b"x", got, 1))
            and refused(dispatcher.process)
            and refused(lambda: dispatcher.flush(1.0))
            and refused(dispatcher.metrics)
            and not dispatcher.alive
            and dispatcher.close() == 0
        )

    good = in_child(check)
    done.set()
    holder.join()
    assert good
    assert here.dispatcher.close() == 0
    assert ring.payloads() == [b"parents"]


def test_a_dependency_on_a_publisher_that_is_read_here_is_awaited_and_missed_by_its_time() -> None:
    here, got = world(dependency_timeout_ms=50.0), list[Message]()
    here.marks[3] = 6
    assert here.receive(b"effect", got, 1, 3 << 48 | 7) is None
    here.go(20_000_000)
    assert got == []
    here.marks[3] = 7
    here.go()
    assert [each.unmet for each in got] == [frozenset()]
    assert here.receive(b"alone", got, 2, 3 << 48 | 8) is None
    here.go(50_000_000)
    assert got[1].unmet == {3 << 48 | 8}
    assert here.dispatcher.metrics().causality.dependency == 1
    here.dispatcher.close()


@pytest.mark.parametrize("timeout_ms", [100.0, None])
def test_a_dependency_on_a_publisher_not_read_here_is_told_apart_and_waited_for_but_once(
    timeout_ms: float | None,
) -> None:
    here, got = world(dependency_timeout_ms=timeout_ms, dependency_timeout="drop"), list[Message]()
    assert here.receive(b"first", got, 1, 4 << 48 | 7) is None
    here.go(held.JOIN_GRACE_NS - 1)
    assert got == []
    here.go(1)
    assert [(each.payload, each.unmet) for each in got] == [(b"first", frozenset())]
    second = here.receive(b"second", got, 2, 4 << 48 | 8)
    assert second is not None
    assert second.unmet == frozenset()
    metrics = here.dispatcher.metrics()
    assert (metrics.unknown_dependencies, metrics.causality.violations, metrics.not_held) == (2, 0, 0)
    assert here.segment()["unknown_dependencies"] == 2
    here.go(held.UNREAD_NS)
    assert here.receive(b"third", got, 3, 4 << 48 | 9) is None
    here.dispatcher.close()


def test_a_publisher_that_is_joined_within_the_grace_is_waited_for_as_any_other() -> None:
    here, got = world(dependency_timeout_ms=100.0), list[Message]()
    assert here.receive(b"effect", got, 1, 4 << 48 | 7) is None
    here.go(held.JOIN_GRACE_NS // 2)
    here.marks[4] = 6
    here.go(held.JOIN_GRACE_NS)
    assert got == []
    here.marks[4] = 7
    here.go()
    assert [each.unmet for each in got] == [frozenset()]
    metrics = here.dispatcher.metrics()
    assert (metrics.unknown_dependencies, metrics.causality.violations) == (0, 0)
    here.dispatcher.close()


def test_a_publisher_that_turns_up_after_it_was_taken_for_unread_is_waited_for_again() -> None:
    here, got = world(), list[Message]()
    assert here.receive(b"first", got, 1, 4 << 48 | 7) is None
    here.go(held.JOIN_GRACE_NS)
    here.marks[4] = 7
    assert here.receive(b"second", got, 2, 4 << 48 | 8) is None
    here.marks[4] = 8
    here.go()
    assert [each.payload for each in got] == [b"first", b"second"]
    here.dispatcher.close()


def test_tickets_are_told_apart_where_the_bus_names_the_publishers_it_has_joined() -> None:
    joined = {5}
    here, got = world(joined=lambda: joined), list[Message]()
    read, unread = ticket_id(5, 1), ticket_id(6, 1)
    assert here.receive(b"of unread", got, 1, unread) is None
    assert here.receive(b"of read", got, 2, read) is None
    here.go(held.JOIN_GRACE_NS)
    assert [(each.payload, each.unmet) for each in got] == [(b"of unread", frozenset())]
    here.go(100_000_000)
    assert [(each.payload, set(each.unmet)) for each in got[1:]] == [(b"of read", {read})]
    here.dispatcher.close()


def test_one_message_more_than_can_be_held_is_delivered_without_its_dependencies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(held, "MAX_HELD", 3)
    here, got = world(dependency_timeout_ms=None), list[Message]()
    here.marks[3] = 0
    cause = 3 << 48 | 7
    assert [here.receive(b"x", got, ticket, cause) for ticket in range(3)] == [None] * 3
    more = here.receive(b"more", got, 3, cause)
    assert more is not None
    assert more.unmet == {cause}
    metrics = here.dispatcher.metrics()
    assert (metrics.not_held, metrics.pending_messages, metrics.causality.dependency) == (1, 3, 1)
    assert here.segment()["not_held"] == 1
    here.dispatcher.close()


def feed(
    dispatcher: Dispatcher, ring: Ring, publisher: int, accepted: list[int], start: threading.Barrier
) -> None:
    start.wait(60)
    for ticket in itertools.count(1):
        try:
            dispatcher.schedule(Packet("t", b"x"), ticket_id(publisher, ticket), 0, None, ring.publish)
        except StateError:
            return
        accepted.append(ticket)


def test_many_threads_schedule_while_the_dispatcher_closes_and_all_that_was_accepted_is_sent() -> None:
    for _ in range(10):
        ring, start, accepted = Ring(), threading.Barrier(5), list[int]()
        dispatcher = Dispatcher(BusConfig(quantum_us=10.0), global_hlc(), next(NAMES), dict)
        threads = [
            threading.Thread(target=feed, args=(dispatcher, ring, publisher, accepted, start))
            for publisher in range(1, 5)
        ]
        for thread in threads:
            thread.start()
        start.wait(60)
        while len(accepted) < 50:
            time.sleep(0)
        assert dispatcher.close(30.0) == 0
        for thread in threads:
            thread.join()
        assert len(ring.taken) == len(accepted)
        counts = dispatcher.metrics().outgoing
        assert counts.accepted == counts.delivered == len(accepted)


def test_closing_and_flushing_end_in_time_beside_a_ring_that_stays_full() -> None:
    # Each look at the clock takes longer than a full ring is left alone: something is always due.
    here, ring, left = world(step_ns=200_000), Ring(room=0), list[int]()
    for number in range(3):
        here.schedule(ring, b"%d" % number)

    def end() -> None:
        left.append(here.dispatcher.flush(0.0))
        left.append(here.dispatcher.close(0.0))

    ending = threading.Thread(target=end, daemon=True)
    ending.start()
    ending.join(30.0)
    assert left == [3, 3]
    assert here.dispatcher.metrics().outgoing.undelivered == 3
