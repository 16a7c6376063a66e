"""Publishers, subscribers and members of groups that are killed at random moments; survivors check everything."""

from __future__ import annotations

import functools
import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from cfctl.bus import Bus, BusConfig, Publisher, ResourceExhausted, Subscription
from tests.soak.bus_joins import forked, shared_words
from tests.soak.bus_payloads import SIZE, Follower, WrongError, number_of, table, tag_of

TOPIC = "kills"
CAPACITY = 128
# Longer than this no survivor may wait because somebody died.
STALL_S = 5.0
BEFORE_KILL_S = 0.004
TAGS = 2
# Rounds of one bus: rings, seats and numbers of the dead have to be given back.
ROUNDS = 100


@dataclass(slots=True)
class Account:
    """What a run has seen."""

    kills: int = 0
    messages: int = 0
    dropped: int = 0
    stall_s: float = 0.0
    kinds: dict[str, int] = field(default_factory=dict)


class Killing:
    """A bus that survives, and whom it kills."""

    def __init__(
        self, config: BusConfig, tables: list[list[bytes]], account: Account, rng: random.Random
    ) -> None:
        self.config = config
        self.tables = tables
        self.account = account
        self.rng = rng

    def count(self, kind: str, kills: int, messages: int, dropped: int) -> None:
        """Add a round's figures."""
        self.account.kills += kills
        self.account.messages += messages
        self.account.dropped += dropped
        self.account.kinds[kind] = self.account.kinds.get(kind, 0) + kills

    def wait_and_kill(self, child: int, meanwhile: Callable[[], None]) -> None:
        """Kill a child at a random moment, doing something until then."""
        end = time.monotonic() + self.rng.random() * self.rng.choice(
            (0.001, BEFORE_KILL_S, 5 * BEFORE_KILL_S)
        )
        while time.monotonic() < end:
            meanwhile()
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status) or os.WTERMSIG(status) != signal.SIGKILL:
            raise WrongError(f"a child ended by itself: {status:#x}")

    def stalled(self, began: float) -> None:
        """Note how long a survivor waited."""
        self.account.stall_s = max(self.account.stall_s, time.monotonic() - began)


def kills(total: int, report: Callable[[str], None], seed: int) -> Account:
    """Kill so many processes; raises WrongError."""
    account, started = Account(), time.monotonic()
    tables = [table(tag) for tag in range(TAGS)]
    rounds: tuple[Callable[[Killing], None], ...] = (_publishers, _subscribers, _members)
    turn = 0
    while account.kills < total:
        overwrite = turn % 2 == 1
        config = BusConfig(channel_buffer_size=CAPACITY, arena_bytes=1 << 17, overwrite=overwrite)
        killing = Killing(config, tables, account, random.Random(seed + turn))
        rounds[turn // 2 % len(rounds)](killing)
        _check_nothing_left(config.directory)
        turn += 1
        report(f"{account.kills} kills {account.kinds}, {account.messages} messages, {account.dropped} lost and "
               f"counted, longest stall {account.stall_s:.2f} s, {time.monotonic() - started:.0f} s")  # fmt: skip
    return account


def _check_nothing_left(directory: Path) -> None:
    """Raise WrongError when the dead have left files that nobody will remove."""
    left = [each.name for each in directory.iterdir() if each.suffix in (".ring", ".topic")]
    if left:
        raise WrongError(f"{len(left)} files are left: {left[:4]}")


def _publish(config: BusConfig, payloads: list[bytes], seed: int) -> None:
    rng, number = random.Random(seed), 0
    with Bus(config) as bus:
        publisher = bus.publisher(TOPIC)
        while True:
            start, size = number % SIZE, rng.choice((1, 5, 40))
            number += publisher.publish_many(payloads[start : start + size])
            if size == 1:
                publisher.publish(payloads[number % SIZE], STALL_S)
                number += 1


class _ByTag:
    """Follows the publishers of one subscription, which their payloads' tags tell apart."""

    def __init__(self, tables: list[list[bytes]], *, lossless: bool) -> None:
        self.followers = [Follower(each, lossless=lossless) for each in tables]
        for each in self.followers:
            # They are gated from their first message on.
            each.next = 0 if lossless else None

    def follow(self, payloads: list[bytes]) -> None:
        for tag, follower in enumerate(self.followers):
            follower.follow([each for each in payloads if tag_of(each) == tag])

    def sum_of(self, figure: str) -> int:
        return sum(int(getattr(each, figure)) for each in self.followers)


def _publishers(killing: Killing) -> None:
    """Kill publishers, two at a time: what they published is there, whole, in order, to its end."""
    with Bus(killing.config) as bus:
        lossless = not killing.config.overwrite
        for _ in range(ROUNDS // TAGS):
            subscription = bus.subscribe(TOPIC)
            streams = _ByTag(killing.tables, lossless=lossless)
            _kill_publishers(killing, subscription, streams)
            counts = subscription.counts()
            subscription.unsubscribe()
            received, missing = streams.sum_of("received"), streams.sum_of("missing")
            if counts["delivered"] != received or counts["damaged"] or counts["pending"]:
                raise WrongError(f"received {received} of killed publishers, counted {counts}")
            if lossless and counts["dropped"]:
                raise WrongError(f"lost of killed publishers: {counts}")
            firsts = sum((each.next or 0) - each.received - each.missing for each in streams.followers)
            if (missing + firsts - counts["dropped"]) % SIZE:
                raise WrongError(f"{missing} are missing and {firsts} before the first: {counts}")
            killing.count("publishers", TAGS, received, counts["dropped"])


def _kill_publishers(killing: Killing, subscription: Subscription, streams: _ByTag) -> None:
    def take() -> None:
        streams.follow(subscription.recv_many(killing.rng.choice((1, 10, 300))))

    seeds = [killing.rng.random() for _ in range(TAGS)]
    with (
        forked(lambda: _publish(killing.config, killing.tables[0], hash(seeds[0]))) as first,
        forked(lambda: _publish(killing.config, killing.tables[1], hash(seeds[1]))) as second,
    ):
        killing.wait_and_kill(first, take)
        killing.wait_and_kill(second, take)
    while many := subscription.recv_many(1000):
        streams.follow(many)


def _receive(config: BusConfig, payloads: list[bytes], seed: int, *, lossy: bool) -> None:
    rng = random.Random(seed)
    with Bus(config) as bus:
        subscription = bus.subscribe(TOPIC, lossy=lossy)
        follower = Follower(payloads, lossless=not lossy and not config.overwrite)
        while True:
            kind = rng.random()
            if kind < 0.2:
                with subscription.recv_view(STALL_S) as view:
                    follower.follow([] if view is None else [bytes(view)])
            elif kind < 0.4:
                data = subscription.recv(STALL_S)
                follower.follow([] if data is None else [data])
            else:
                follower.follow(subscription.recv_many(100))


def _subscribers(killing: Killing) -> None:
    """Kill one of two subscribers: the other misses nothing, and the publisher does not wait for the dead."""
    with Bus(killing.config) as bus, Bus(killing.config) as other:
        publisher, survivor, number = bus.publisher(TOPIC), other.subscribe(TOPIC), 0
        follower = Follower(killing.tables[0], lossless=not killing.config.overwrite)
        for _ in range(ROUNDS):
            seed, lossy = killing.rng.getrandbits(32), killing.rng.random() < 0.3
            before, received = number, follower.received

            def publish() -> None:
                nonlocal number
                number += _publish_one(killing, publisher, number)
                if killing.rng.random() < 0.1:
                    follower.follow(survivor.recv_many(50))

            receive = functools.partial(_receive, killing.config, killing.tables[0], seed, lossy=lossy)
            with forked(receive) as child:
                killing.wait_and_kill(child, publish)
            began = time.monotonic()
            for _ in range(2 * CAPACITY):
                sent = 0
                while not sent:
                    sent = _publish_one(killing, publisher, number)
                    number += sent
                    follower.follow(survivor.recv_many(50))
                    if time.monotonic() - began > STALL_S:
                        raise WrongError(f"the dead are waited for: {publisher.counts()}")
            killing.stalled(began)
            follower.follow(survivor.recv_many(2 * CAPACITY))
            killing.count("subscribers", 1, follower.received - received, 0)
            if number == before:
                raise WrongError("nothing was published")
        counts = survivor.counts()
        killing.account.dropped += counts["dropped"]
        if follower.received + counts["dropped"] != number or counts["damaged"]:
            raise WrongError(f"of {number} messages the survivor received {follower.received}: {counts}")


def _publish_one(killing: Killing, publisher: Publisher, number: int) -> int:
    payload = killing.tables[0][number % SIZE]
    try:
        if killing.rng.random() < 0.1:
            with publisher.loan(len(payload)) as place:
                place[:] = payload
        else:
            publisher.try_publish(payload)
    except ResourceExhausted:
        return 0
    return 1


def _work(config: BusConfig, done: memoryview) -> None:
    """Take messages as a member of the group, and note each."""
    with Bus(config) as bus:
        member = bus.subscribe(TOPIC, group="workers", redeliver=True)
        while True:
            data = member.recv(STALL_S)
            if data is not None:
                done[number_of(data)] += 1


@dataclass
class _Feeding:
    """Publishes for a group and takes as one of its members, a step at a time."""

    killing: Killing
    publisher: Publisher
    survivor: Subscription
    own: list[int]
    again: list[int]
    number: int = 0

    def step(self) -> None:
        if self.number < SIZE - CAPACITY:
            self.number += _publish_one(self.killing, self.publisher, self.number)
        if self.killing.rng.random() < 0.3:
            _take_as_member(self.killing, self.survivor, self.own, self.again)


def _members(killing: Killing) -> None:
    """Kill members of a group: each message is done by one of them; what a dead one had comes again, marked."""
    if killing.config.overwrite:
        # A group's messages can only be accounted for where none is overwritten.
        return
    for _ in range(ROUNDS // 10):
        done, own, again = shared_words(SIZE), [0] * SIZE, [0] * SIZE
        with Bus(killing.config) as bus:
            publisher = bus.publisher(TOPIC)
            survivor = bus.subscribe(TOPIC, group="workers", redeliver=True)

            feeding = _Feeding(killing, publisher, survivor, own, again)
            for _ in range(10):
                with forked(functools.partial(_work, killing.config, done)) as child:
                    killing.wait_and_kill(child, feeding.step)
                killing.count("members", 1, 0, 0)
            _finish_group(killing, survivor, own, again, feeding.number)
        _check_group(done, own, again, feeding.number)
        killing.account.messages += feeding.number


def _take_as_member(killing: Killing, survivor: Subscription, own: list[int], again: list[int]) -> bool:
    message = survivor.try_recv_message()
    if message is None:
        return False
    number = number_of(message.payload)
    if message.payload != killing.tables[0][number]:
        raise WrongError(f"torn: {message.payload[:24]!r}")
    (again if message.redelivered else own)[number] += 1
    return True


def _finish_group(
    killing: Killing, survivor: Subscription, own: list[int], again: list[int], number: int
) -> None:
    """Take what is left, also what the dead had: it comes when they are looked for, every 100 ms."""
    end, began = time.monotonic() + 0.5, time.monotonic()
    while time.monotonic() < end:
        message = survivor.recv_message(0.12)
        if message is None:
            continue
        data = number_of(message.payload)
        if message.payload != killing.tables[0][data]:
            raise WrongError(f"torn: {message.payload[:24]!r}")
        (again if message.redelivered else own)[data] += 1
        if time.monotonic() - began > STALL_S:
            raise WrongError(f"{number} messages do not end")


def _check_group(done: memoryview, own: list[int], again: list[int], number: int) -> None:
    for each in range(number):
        noted, taken = done[each], own[each]
        if noted + taken + again[each] == 0:
            raise WrongError(f"message {each} of {number} was lost with its worker")
        if noted + taken > 1:
            raise WrongError(
                f"message {each} was given out twice: {noted} to workers, {taken} to the survivor"
            )
