"""The temporal queue on a fake clock, and against a model that looks at every message at every step."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cfctl.errors import InputError, TemporalViolation
from cfctl.temporal import Durations, Message, QuantumOffset, TemporalQueue, next_slot_ns
from cfctl.temporal.deadlines import DependencyTimeout, Expiry

if TYPE_CHECKING:
    from cfctl.temporal.awaited import MessageId


def message(sequence: int, publisher: int = 1, **fields: object) -> Message:
    return replace(Message((publisher, sequence), hlc=1000 + sequence), **fields)  # type: ignore[arg-type]


def ids(queue: TemporalQueue, now_ns: int) -> list[MessageId]:
    """Dispatch all that is due at one moment."""
    found = []
    while (dispatch := queue.dispatch(now_ns)) is not None:
        found.append(dispatch.message.id)
    return found


def test_the_earliest_deadline_goes_first_whatever_the_order_of_publication() -> None:
    queue = TemporalQueue()
    for sequence, deadline_ns in enumerate((300, None, 100, 200)):
        queue.add(message(sequence, deadline_ns=deadline_ns), 0)
    assert ids(queue, 50) == [(1, 2), (1, 3), (1, 0), (1, 1)]
    assert len(queue) == 0


def test_equal_deadlines_go_by_priority_then_by_stamp() -> None:
    queue = TemporalQueue()
    queue.add(message(1, hlc=30, deadline_ns=100), 0)
    queue.add(message(2, hlc=20, deadline_ns=100), 0)
    queue.add(message(3, hlc=40, deadline_ns=100, priority=1), 0)
    assert ids(queue, 0) == [(1, 3), (1, 2), (1, 1)]


def test_a_past_deadline_is_refused_and_counted_and_nothing_is_queued() -> None:
    queue = TemporalQueue()
    with pytest.raises(TemporalViolation, match="passed 5 ns ago"):
        queue.add(message(1, deadline_ns=95), 100)
    queue.add(message(2, deadline_ns=100), 100)
    assert (queue.counts.refused, queue.counts.accepted, len(queue)) == (1, 1, 1)
    assert queue.counts.deadline_violations == 0


def test_a_message_that_expires_is_never_delivered_and_is_a_violation() -> None:
    queue = TemporalQueue(expiry=Expiry.DROP)
    queue.add(message(1, deadline_ns=100), 0)
    assert ids(queue, 101) == []
    assert (queue.counts.expired, queue.counts.deadline_violations, queue.counts.miss_ratio) == (1, 1, 1.0)


def test_at_its_deadline_a_message_is_still_in_time() -> None:
    queue = TemporalQueue(expiry=Expiry.DROP)
    queue.add(message(1, deadline_ns=100), 0)
    assert ids(queue, 100) == [(1, 1)]
    assert queue.counts.deadline_violations == 0


def test_a_message_is_queued_until_its_last_copy_has_had_its_turn_or_expired() -> None:
    queue = TemporalQueue()
    queue.add(message(1), 0)
    queue.add(message(1), 0)
    queue.add(message(2, deadline_ns=10), 0)
    assert queue.is_queued((1, 1))
    assert not queue.is_queued((1, 3))
    assert queue.dispatch(11) is not None
    assert queue.is_queued((1, 1))
    assert not queue.is_queued((1, 2))
    assert queue.dispatch(11) is not None
    assert not queue.is_queued((1, 1))


def test_what_was_forgotten_of_a_publisher_has_to_come_again() -> None:
    queue = TemporalQueue(dependency_timeout_ns=None)
    queue.advance(7, 5, 0)
    assert queue.is_met((7, 5))
    queue.forget(7)
    queue.forget(8)
    assert not queue.is_met((7, 5))
    queue.add(message(1, dependencies=((7, 5),)), 0)
    assert ids(queue, 0) == []
    queue.advance(7, 5, 0)
    assert ids(queue, 0) == [(1, 1)]


def test_a_message_that_is_put_back_has_its_turn_again_and_was_not_delivered() -> None:
    queue = TemporalQueue()
    queue.add(message(1, deadline_ns=100), 0)
    assert queue.take(0) is not None
    queue.put_back(50, 0)
    counts = queue.counts
    assert (counts.accepted, counts.delivered, counts.with_deadline, len(queue)) == (1, 0, 1, 1)
    assert queue.is_queued((1, 1))
    assert queue.oldest_age_ns(20) == 20
    assert ids(queue, 49) == []
    assert queue.next_event_ns() == 50
    assert ids(queue, 50) == [(1, 1)]
    assert (queue.counts.accepted, queue.counts.delivered) == (1, 1)


def test_a_message_that_is_put_back_after_its_deadline_is_expired_or_late_by_policy() -> None:
    for expiry, expired, late in ((Expiry.DROP, 1, 0), (Expiry.DELIVER, 0, 1)):
        queue = TemporalQueue(expiry=expiry)
        queue.add(message(1, deadline_ns=100), 0)
        assert queue.take(90) is not None
        queue.put_back(150, 101)
        assert ids(queue, 150) == ([(1, 1)] if late else [])
        counts = queue.counts
        assert (counts.accepted, counts.delivered, counts.late, counts.expired) == (1, late, late, expired)
        assert len(queue) == 0


def test_a_message_that_is_put_back_keeps_what_it_did_not_wait_for_and_is_counted_once() -> None:
    queue = TemporalQueue(expiry=Expiry.DELIVER, dependency_timeout_ns=5)
    queue.add(message(1, deadline_ns=10, dependencies=((9, 9),)), 0)
    first = queue.take(20)
    assert first is not None
    assert first.late
    assert first.unmet == ((9, 9),)
    queue.put_back(30, 20)
    assert (queue.counts.delivered, queue.counts.late, queue.counts.unmet_delivered) == (0, 0, 0)
    second = queue.dispatch(30)
    assert second is not None
    assert second.unmet == ((9, 9),)
    assert (queue.counts.delivered, queue.counts.late, queue.counts.unmet_delivered) == (1, 1, 1)


def test_a_dependent_does_not_overtake_a_cause_that_was_put_back() -> None:
    queue = TemporalQueue()
    queue.add(message(1, deadline_ns=500), 0)
    queue.add(message(2, deadline_ns=100, dependencies=((1, 1),)), 0)
    cause = queue.take(0)
    assert cause is not None
    assert cause.message.id == (1, 1)
    queue.put_back(50, 0)
    assert ids(queue, 49) == []
    assert ids(queue, 50) == [(1, 1), (1, 2)]


@pytest.mark.parametrize("policy", list(DependencyTimeout))
def test_who_waits_for_a_message_that_failed_is_answered_by_policy(policy: DependencyTimeout) -> None:
    queue = TemporalQueue(dependency_timeout=policy)
    queue.add(message(1), 0)
    queue.add(message(2, dependencies=((1, 1),)), 0)
    assert queue.take(0) is not None
    queue.fail(0)
    dispatch = queue.dispatch(0)
    counts = queue.counts
    if policy is DependencyTimeout.DELIVER:
        assert dispatch is not None
        assert dispatch.unmet == ((1, 1),)
        assert (counts.failed, counts.delivered, counts.dropped_by_deps) == (1, 1, 0)
    else:
        assert dispatch is None
        assert (counts.failed, counts.delivered, counts.dropped_by_deps) == (1, 0, 1)
    assert len(queue) == 0


def test_a_message_whose_handler_never_came_back_has_failed() -> None:
    queue = TemporalQueue()
    queue.add(message(1), 0)
    queue.add(message(2), 0)
    assert queue.take(0) is not None
    second = queue.take(0)
    assert second is not None
    assert second.message.id == (1, 2)
    assert (queue.counts.failed, len(queue)) == (1, 1)


def test_what_is_not_to_be_waited_for_any_more_is_not_and_was_not_received() -> None:
    queue = TemporalQueue(dependency_timeout_ns=None)
    queue.add(message(1, dependencies=((7, 5), (7, 6))), 0)
    queue.settle((7, 5), 0)
    assert ids(queue, 0) == []
    queue.settle((7, 6), 0)
    dispatch = queue.dispatch(0)
    assert dispatch is not None
    assert dispatch.unmet == ()
    assert not queue.is_met((7, 5))


def test_without_slots_all_goes_at_once_in_the_order_of_deadlines_and_causes() -> None:
    queue = TemporalQueue()
    queue.add(message(1, deadline_ns=900, release_ns=800), 0)
    queue.add(message(2, deadline_ns=500, release_ns=400, dependencies=((1, 1),)), 0)
    queue.add(message(3, deadline_ns=700, release_ns=600), 0)
    queue.add(message(4, deadline_ns=990), 0)
    assert [each.id for each in queue.release_all(0)] == [(1, 1), (1, 2), (1, 3)]
    assert ids(queue, 0) == [(1, 3), (1, 1), (1, 2), (1, 4)]


def test_what_was_waited_for_in_vain_takes_no_room() -> None:
    queue = TemporalQueue(dependency_timeout_ns=5)
    for number in range(1000):
        queue.add(message(number, dependencies=((1 << 48 | number, 0),)), number * 10)
        assert len(ids(queue, number * 10 + 5)) == 1
    assert not queue._awaited._sequences
    assert not queue._awaited._dependents


def test_late_delivery_by_choice_is_a_violation_with_its_lateness() -> None:
    lateness, slack = Durations(), Durations()
    queue = TemporalQueue(expiry=Expiry.DELIVER, lateness=lateness, slack=slack)
    queue.add(message(1, deadline_ns=100), 0)
    queue.add(message(2, deadline_ns=200), 0)
    assert ids(queue, 140) == [(1, 1), (1, 2)]
    assert (queue.counts.late, lateness.max_ns, slack.min_ns) == (1, 40, 60)
    assert queue.counts.miss_ratio == 0.5


def test_a_dependent_waits_for_its_dependency_and_the_wait_is_measured() -> None:
    held = Durations()
    queue = TemporalQueue(held=held)
    queue.add(message(1, publisher=2, dependencies=((1, 7),)), 0)
    queue.advance(1, 6, 10)
    assert ids(queue, 10) == []
    queue.advance(1, 7, 30)
    assert ids(queue, 30) == [(2, 1)]
    assert (queue.counts.held_by_deps, held.count, held.max_ns) == (1, 1, 30)
    assert queue.counts.unmet_delivered == 0


def test_a_dependency_that_is_in_the_queue_itself_has_to_have_its_turn() -> None:
    queue = TemporalQueue()
    queue.add(message(7, deadline_ns=500), 0)
    queue.advance(1, 7, 0)
    queue.add(message(1, publisher=2, deadline_ns=100, dependencies=((1, 7),)), 0)
    assert ids(queue, 10) == [(1, 7), (2, 1)]


@pytest.mark.parametrize("policy", list(DependencyTimeout))
def test_a_dependency_that_does_not_come_is_answered_by_policy(policy: DependencyTimeout) -> None:
    queue = TemporalQueue(dependency_timeout=policy, dependency_timeout_ns=50)
    queue.add(message(1, publisher=2, dependencies=((1, 7), (1, 8))), 0)
    queue.advance(1, 7, 10)
    assert queue.dispatch(49) is None
    dispatch = queue.dispatch(50)
    if policy is DependencyTimeout.DELIVER:
        assert dispatch is not None
        assert dispatch.unmet == ((1, 8),)
        assert queue.counts.unmet_delivered == 1
    else:
        assert dispatch is None
        assert queue.counts.dropped_by_deps == 1
    assert len(queue) == 0


def test_a_long_chain_whose_first_message_expires_is_dropped_as_a_whole() -> None:
    queue = TemporalQueue(dependency_timeout=DependencyTimeout.DROP, dependency_timeout_ns=None)
    queue.add(message(0, deadline_ns=10, release_ns=1000), 0)
    for sequence in range(1, 5000):
        queue.add(message(sequence, dependencies=((1, sequence - 1),)), 0)
    assert ids(queue, 11) == []
    assert (queue.counts.expired, queue.counts.dropped_by_deps, len(queue)) == (1, 4999, 0)


def test_a_message_is_not_released_before_its_slot() -> None:
    queue = TemporalQueue()
    slot_ns = QuantumOffset(amplitude=0.2, frequency=0.0, phase=1800).slot_ns(3, 0, 1_000_000)
    release_ns = next_slot_ns(2_500_000, slot_ns, 1_000_000)
    queue.add(message(1, release_ns=release_ns), 2_500_000)
    assert queue.next_event_ns() == release_ns
    assert queue.dispatch(release_ns - 1) is None
    assert ids(queue, release_ns) == [(1, 1)]
    assert release_ns % 1_000_000 == slot_ns


def test_far_deadlines_of_delivered_messages_take_no_room() -> None:
    queue = TemporalQueue()
    for sequence in range(20_000):
        queue.add(message(sequence, deadline_ns=10**18), sequence)
        assert queue.dispatch(sequence) is not None
    assert len(queue._timers) < 200
    assert queue.oldest_age_ns(30_000) is None


def test_a_closing_bus_gets_its_pending_messages_back() -> None:
    queue = TemporalQueue()
    queue.add(message(2, release_ns=50), 0)
    queue.add(message(1), 10)
    assert queue.oldest_age_ns(25) == 25
    assert [each.id for each in queue.drain()] == [(1, 2), (1, 1)]
    assert queue.dispatch(1000) is None
    assert (queue.counts.accepted, queue.counts.undelivered, queue.counts.delivered) == (2, 2, 0)


@dataclass
class Model:
    """The queue's rules over plain lists, each applied to every message at every step."""

    expiry: Expiry
    policy: DependencyTimeout
    timeout_ns: int | None
    pending: list[tuple[Message, int, set[MessageId], set[MessageId]]] = field(default_factory=list)
    watermarks: dict[int, int] = field(default_factory=dict)
    expired: int = 0
    dropped: int = 0
    failed: int = 0

    def queued(self) -> set[MessageId]:
        return {each[0].id for each in self.pending}

    def come(self, dependency: MessageId) -> bool:
        return self.watermarks.get(dependency[0], -1) >= dependency[1] and dependency not in self.queued()

    def add(self, new: Message, now_ns: int) -> None:
        missing = {each for each in new.dependencies if not self.come(each)}
        self.pending.append((new, now_ns, missing, set()))

    def settle(self) -> None:
        for _, _, missing, _ in self.pending:
            missing -= {each for each in missing if self.come(each)}

    def advance(self, publisher: int, sequence: int) -> None:
        self.watermarks[publisher] = max(sequence, self.watermarks.get(publisher, -1))
        self.settle()

    def remove(self, gone: list[MessageId], counter: str) -> None:
        for identity in gone:
            entry = next((each for each in self.pending if each[0].id == identity), None)
            if entry is None:
                continue
            self.pending.remove(entry)
            setattr(self, counter, getattr(self, counter) + 1)
            waiting = [each for each in self.pending if identity in each[2]]
            for each in waiting:
                each[3].update(each[2])
                each[2].clear()
            if self.policy is DependencyTimeout.DROP:
                self.remove([each[0].id for each in waiting], "dropped")

    def take(self, now_ns: int) -> tuple[Message, tuple[MessageId, ...]] | None:
        def late(each: Message) -> bool:
            return each.deadline_ns is not None and now_ns > each.deadline_ns

        events = []
        for each, accepted_ns, missing, _ in self.pending:
            if late(each) and self.expiry is Expiry.DROP:
                events.append((each.deadline_ns or 0, "expired", each.id))
            if missing and self.timeout_ns is not None and now_ns >= accepted_ns + self.timeout_ns:
                events.append((accepted_ns + self.timeout_ns, "dropped", each.id))
        for _, counter, identity in sorted(events, key=lambda event: event[1] != "expired"):
            entry = next((each for each in self.pending if each[0].id == identity), None)
            if entry is None or (counter == "dropped" and not entry[2]):
                continue
            if counter == "expired" or self.policy is DependencyTimeout.DROP:
                self.remove([identity], counter)
            else:
                entry[3].update(entry[2])
                entry[2].clear()
        ready = [each for each in self.pending if not each[2] and each[0].release_ns <= now_ns]
        if not ready:
            return None
        first = min(
            ready,
            key=lambda each: (
                1 << 64 if each[0].deadline_ns is None else each[0].deadline_ns,
                -each[0].priority,
                each[0].hlc,
            ),
        )
        return first[0], tuple(sorted(first[3]))

    def dispatch(self, now_ns: int) -> tuple[MessageId, tuple[MessageId, ...]] | None:
        taken = self.take(now_ns)
        if taken is None:
            return None
        self.pending = [each for each in self.pending if each[0] is not taken[0]]
        self.advance(*taken[0].id)
        return taken[0].id, taken[1]

    def put_back(self, taken: Message, release_ns: int) -> None:
        self.pending = [
            (replace(each[0], release_ns=release_ns), *each[1:]) if each[0] is taken else each
            for each in self.pending
        ]


STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("add"),
            st.integers(1, 3),
            st.one_of(st.none(), st.integers(0, 40)),
            st.integers(0, 20),
            st.lists(st.tuples(st.integers(1, 3), st.integers(0, 5)), max_size=2),
            st.integers(0, 1),
        ),
        st.tuples(st.just("advance"), st.integers(1, 3), st.integers(0, 5)),
        st.tuples(st.just("dispatch")),
        st.tuples(st.just("put back"), st.integers(1, 30)),
        st.tuples(st.just("fail")),
        st.tuples(st.just("pass"), st.integers(1, 30)),
    ),
    max_size=40,
)


@settings(max_examples=300)
@given(steps=STEPS, expiry=st.sampled_from(Expiry), timeout_ns=st.sampled_from([15, 60]))
def test_the_queue_does_what_the_model_does(
    steps: list[tuple[object, ...]], expiry: Expiry, timeout_ns: int
) -> None:
    # With the policy "drop" expiry and time-out of one moment have no order to compare: policy "deliver".
    policy = DependencyTimeout.DELIVER
    queue = TemporalQueue(expiry=expiry, dependency_timeout=policy, dependency_timeout_ns=timeout_ns)
    model = Model(expiry, policy, timeout_ns)
    now_ns, next_sequence = 0, {1: 0, 2: 0, 3: 0}
    for number, step in enumerate(steps):
        match step:
            case ("add", int(publisher), deadline, int(release), list(dependencies), int(priority)):
                new = Message(
                    (publisher, next_sequence[publisher]),
                    hlc=number,
                    deadline_ns=None if deadline is None else now_ns + int(str(deadline)),
                    release_ns=now_ns + release,
                    dependencies=tuple(dependencies),
                    priority=priority,
                )
                next_sequence[publisher] += 1
                queue.add(new, now_ns)
                model.add(new, now_ns)
            case ("advance", int(publisher), int(sequence)):
                # What a ring hands over is in order: never beyond the last one published.
                upto = min(sequence, next_sequence[publisher] - 1)
                queue.advance(publisher, upto, now_ns)
                model.advance(publisher, upto)
            case ("dispatch",):
                got = queue.dispatch(now_ns)
                assert (got and (got.message.id, got.unmet)) == model.dispatch(now_ns)
            case ("put back" | "fail" as what, *rest):
                dispatch, taken = queue.take(now_ns), model.take(now_ns)
                assert (dispatch and dispatch.message.id) == (taken and taken[0].id)
                if taken is not None and what == "fail":
                    queue.fail(now_ns)
                    model.remove([taken[0].id], "failed")
                elif taken is not None:
                    release_ns = now_ns + int(str(rest[0]))
                    queue.put_back(release_ns, now_ns)
                    model.put_back(taken[0], release_ns)
            case ("pass", int(elapsed)):
                now_ns += elapsed
                # Timers are looked at when something is dispatched: at the same moments in both.
                got = queue.dispatch(now_ns)
                assert (got and (got.message.id, got.unmet)) == model.dispatch(now_ns)
    counts = queue.counts
    assert (counts.expired, counts.failed) == (model.expired, model.failed)
    assert len(queue) == len(model.pending)
    assert (
        counts.accepted
        == counts.delivered + counts.expired + counts.dropped_by_deps + counts.failed + len(queue)
        == sum(next_sequence.values())
    )


@given(values=st.lists(st.integers(0, (1 << 40) - 1), min_size=1, max_size=200))
def test_durations_keep_their_sum_exactly_and_their_quantiles_within_a_bucket(values: list[int]) -> None:
    durations = Durations()
    for value in values:
        durations.record(value)
    assert (durations.count, durations.sum_ns, durations.max_ns) == (len(values), sum(values), max(values))
    median = sorted(values)[(len(values) + 1) // 2 - 1]
    assert durations.quantiles([0.5])[0] == pytest.approx(median, rel=0.004, abs=0.5)


def _all_slots(
    offset: QuantumOffset, publishers: Iterable[int], quantum_ns: int, at_ns: int = 0
) -> list[int]:
    return sorted(offset.slot_ns(each, at_ns, quantum_ns) for each in publishers)


@pytest.mark.parametrize(("publishers", "aligned_us"), [(8, 140), (32, 620)])
def test_the_golden_stagger_removes_the_queueing_of_aligned_slots(publishers: int, aligned_us: int) -> None:
    def longest_wait_us(slots: list[int]) -> float:
        free_ns, longest_ns = 0, 0
        for slot in slots:
            longest_ns = max(longest_ns, free_ns - slot)
            free_ns = max(free_ns, slot) + 20_000
        return longest_ns / 1000

    golden = _all_slots(QuantumOffset(amplitude=1.0), range(publishers), 1_000_000)
    assert longest_wait_us([0] * publishers) == aligned_us
    assert longest_wait_us(golden) == 0


def test_slots_stay_within_their_share_and_rotate() -> None:
    offset = QuantumOffset(amplitude=0.2, frequency=1.5, phase=1800)
    seen = {offset.slot_ns(k, t * 10_000_000, 1_000_000) for k in range(20) for t in range(100)}
    assert min(seen) >= 1800
    assert max(seen) < 1800 + 200_000
    first = [min(range(8), key=lambda k: offset.slot_ns(k, t * 10**8, 10**6)) for t in range(10)]
    assert len(set(first)) > 1
    assert QuantumOffset(0.2, 1.5, 1800.0) == QuantumOffset(amplitude=0.2, frequency=1.5, phase=1800.0)


@pytest.mark.parametrize(
    "values", [(1.5,), (-0.1,), (float("nan"),), (0.2, float("inf")), ("0.2",), (0.2, 1.5, None)]
)
def test_an_offset_out_of_its_range_is_refused(values: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="QuantumOffset"):
        QuantumOffset(*values)
