"""A billion messages between two processes, by rings that refuse and rings that overwrite."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from cfctl.bus import Bus, BusConfig
from tests.soak.bus_joins import forked
from tests.soak.bus_payloads import SIZE, Follower, WrongError, table

TOPIC = "content"
CAPACITY = 4096
BATCH = 256
STALL_S = 60.0
REPORT_S = 20.0


@dataclass(slots=True)
class Account:
    """What a run has seen."""

    received: int = 0
    dropped: int = 0


def content(total: int, report: Callable[[str], None], seed: int) -> Account:
    """Pass so many messages, nine in ten of them by rings that refuse; raises WrongError."""
    account = Account()
    lossless = total * 9 // 10
    _pass(lossless, BusConfig(CAPACITY), account, report, seed)
    _pass(total - lossless, BusConfig(CAPACITY, overwrite=True), account, report, seed)
    return account


def _publish(total: int, config: BusConfig, seed: int) -> None:
    rng, payloads, number = random.Random(seed), table(), 0
    with Bus(config) as bus:
        publisher = bus.publisher(TOPIC)
        publisher.wait_for_subscribers(1, STALL_S)
        while number < total:
            start, most = number % SIZE, min(BATCH, total - number)
            sent = publisher.publish_many(payloads[start : start + most])
            if sent == 0:
                publisher.publish(payloads[start], STALL_S)
                sent = 1
            number += sent
            if rng.random() < 0.001:
                publisher.counts()


def _pass(total: int, config: BusConfig, account: Account, report: Callable[[str], None], seed: int) -> None:
    payloads, started = table(), time.monotonic()
    look_s = started + REPORT_S
    with Bus(config) as bus, forked(lambda: _publish(total, config, seed)):
        subscription = bus.subscribe(TOPIC)
        follower, silent_s = Follower(payloads, lossless=not config.overwrite), 0.0
        while (done := follower.received + subscription.counts()["dropped"]) < total:
            first = subscription.recv(1.0)
            if first is None:
                silent_s += 1.0
                if silent_s >= STALL_S:
                    raise WrongError(f"silence after {done} messages: {subscription.counts()}")
                continue
            silent_s = 0.0
            follower.follow([first, *subscription.recv_many(BATCH)])
            if time.monotonic() > look_s:
                look_s += REPORT_S
                rate = done / (time.monotonic() - started)
                report(
                    f"{done} of {total}, {'overwriting' if config.overwrite else 'refusing'}, {rate:.3g}/s"
                )
        counts = subscription.counts()
    lost = counts["dropped"]
    if follower.received + lost != total or counts["damaged"] or follower.next is None:
        raise WrongError(f"of {total} messages {follower.received} came: {counts}")
    if (follower.next - total) % SIZE:
        raise WrongError(f"the last message was {follower.next - 1} modulo {SIZE}, not {total - 1}: {counts}")
    account.received += follower.received
    account.dropped += lost
