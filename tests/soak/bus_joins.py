"""Subscriptions that come and go at random while rings are full: content, and an exact account of each."""

from __future__ import annotations

import contextlib
import mmap
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from cfctl.bus import Bus, BusConfig, ResourceExhausted, Subscription
from tests.soak.bus_payloads import SIZE, Follower, WrongError, table

TOPIC = "joins"
CAPACITY = 256
PATIENCE_S = 60.0
AT_ONCE = 6
SENT, DONE, STOP = 0, 1, 2


@dataclass(slots=True)
class Account:
    """What a run has seen."""

    messages: int = 0
    joins: int = 0
    dropped: int = 0
    kinds: dict[str, int] = field(default_factory=dict)


def shared_words(count: int) -> memoryview:
    """Return words that a forked child shares, all 0."""
    return memoryview(mmap.mmap(-1, max(mmap.PAGESIZE, count * 8))).cast("Q")


@contextlib.contextmanager
def forked(work: Callable[[], None]) -> Iterator[int]:
    """Run `work` in a child that is killed at the end of the block."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException as error:  # noqa: BLE001 - the child's last words
            print(f"  child: {error!r}", flush=True)
        finally:
            os._exit(status)
    try:
        yield child
    finally:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def publish(config: BusConfig, shared: memoryview, seed: int) -> None:
    """Publish the payloads of 0, 1, 2 ... until told to stop; look at the readers at random moments.

    SENT runs ahead of what is published and DONE behind it, by a batch at most.
    """
    rng, payloads, number = random.Random(seed), table(), 0
    with Bus(config) as bus:
        publisher = bus.publisher(TOPIC)
        while not shared[STOP]:
            size = rng.choice((1, 3, 17, 64, 200))
            start = number % SIZE
            shared[SENT] = number + size
            if size == 1:
                with contextlib.suppress(ResourceExhausted):
                    publisher.publish(payloads[start], 0.01)
                    number += 1
            else:
                number += publisher.publish_many(payloads[start : start + size])
            shared[SENT] = shared[DONE] = number
            if rng.random() < 0.05:
                rng.choice((publisher.counts, bus.stats, bus.health))()


class Joiner:
    """One subscription's life, from its join to the account at its end."""

    def __init__(
        self, bus: Bus, config: BusConfig, shared: memoryview, rng: random.Random, payloads: list[bytes]
    ) -> None:
        self.kind = rng.choice(("plain", "plain", "lossy", "history", "pattern", "view"))
        self._rng = rng
        self._history = rng.choice((1, 7, CAPACITY // 2, CAPACITY)) if self.kind == "history" else 0
        self._low = shared[DONE]
        self._subscription: Subscription
        if self.kind == "pattern":
            self._subscription = bus.subscribe(pattern="join?")
        else:
            self._subscription = bus.subscribe(TOPIC, lossy=self.kind == "lossy", history=self._history)
        self._high = shared[SENT]
        lossless = not config.overwrite and self.kind not in ("lossy", "history")
        self._follower = Follower(payloads, lossless=lossless)
        self._lost_before = 0

    def take(self) -> None:
        """Take some messages, in one of the ways there are."""
        is_first = self._follower.next is None
        self._take()
        if is_first and self._follower.next is not None:
            self._take_one()
            counts = self._subscription.counts()
            self._lost_before = counts["dropped"] + counts["skipped"] - self._follower.missing

    def _take(self) -> None:
        rng, subscription = self._rng, self._subscription
        if self.kind == "view":
            for _ in range(rng.randrange(40)):
                with subscription.recv_view(0.0) as view:
                    if view is None:
                        break
                    data = bytes(view)
                self._follower.follow([data])
        elif rng.random() < 0.2:
            payload = subscription.recv(0.001)
            self._follower.follow([] if payload is None else [payload])
        else:
            self._follower.follow(subscription.recv_many(rng.choice((1, 16, 100, 2 * CAPACITY))))

    def _take_one(self) -> None:
        """Take one message: only then is all that is counted as lost before the last message received.

        A look that comes too late counts what was overwritten and may still find nothing.
        """
        end = time.monotonic() + PATIENCE_S
        while (data := self._subscription.try_recv()) is None:
            if self._subscription.counts()["pending"] == 0:
                return  # the others may hold the ring: nothing was overwritten since
            if time.monotonic() > end:
                raise WrongError(f"{self.kind}: nothing comes: {self._subscription.counts()}")
        self._follower.follow([data])

    def leave(self) -> tuple[int, int]:
        """End it; return how many it received and how many it lost. Raises WrongError."""
        if self._follower.next is not None:
            self._take_one()
        follower, counts = self._follower, self._subscription.counts()
        self._subscription.unsubscribe()
        if counts["damaged"]:
            raise WrongError(f"{self.kind}: damaged {counts['damaged']}")
        received, lost, skipped = follower.received, counts["dropped"], counts["skipped"]
        if counts["delivered"] + counts["history"] != received:
            raise WrongError(f"{self.kind}: received {received}, counted {counts}")
        if follower.lossless and lost:
            raise WrongError(f"{self.kind}: dropped {lost} where nothing may be lost")
        if follower.next is None:
            return received, lost
        if (follower.missing + self._lost_before - lost - skipped) % SIZE:
            raise WrongError(f"{self.kind}: {follower.missing} are missing after the first: {counts}")
        # Every message since the join was received, or counted as lost: by this account it joined when it did.
        joined = follower.next + self._history - received - lost - skipped
        if (joined - self._low) % SIZE > self._high - self._low and self._low >= CAPACITY:
            raise WrongError(
                f"{self.kind}: by its account it joined {(joined - self._low) % SIZE} after {self._low}, "
                f"not before {self._high}: {counts}"
            )
        return received, lost


def joins(total: int, report: Callable[[str], None], seed: int) -> Account:
    """Let so many subscriptions join and leave, half of them rings that overwrite; raises WrongError."""
    account, payloads, started = Account(), table(), time.monotonic()
    turn = 0
    while account.joins < total:
        for overwrite in (False, True):
            config = BusConfig(channel_buffer_size=CAPACITY, arena_bytes=1 << 17, overwrite=overwrite)
            _join(config, account, min(account.joins + 2000, total), payloads, seed + turn)
            turn += 1
        report(f"{account.joins} joins, {account.messages} messages, {account.dropped} lost and counted, "
               f"{time.monotonic() - started:.0f} s")  # fmt: skip
    return account


def _join(config: BusConfig, account: Account, until: int, payloads: list[bytes], seed: int) -> None:
    rng, shared = random.Random(seed), shared_words(3)
    with Bus(config) as bus, forked(lambda: publish(config, shared, seed)):
        # One stays, so that rings without overwrite are full all the time.
        alive: list[Joiner] = []
        while account.joins < until:
            if len(alive) < AT_ONCE and rng.random() < 0.3:
                alive.append(Joiner(bus, config, shared, rng, payloads))
                account.joins += 1
                account.kinds[alive[-1].kind] = account.kinds.get(alive[-1].kind, 0) + 1
            for each in alive:
                if rng.random() < 0.7:
                    each.take()
            if alive and rng.random() < 0.3:
                received, lost = alive.pop(rng.randrange(len(alive))).leave()
                account.messages += received
                account.dropped += lost
        for each in alive:
            received, lost = each.leave()
            account.messages += received
            account.dropped += lost
        shared[STOP] = 1
