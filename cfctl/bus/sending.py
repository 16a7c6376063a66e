"""Payloads that are published one after another, at a rate or as fast as the ring takes them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from cfctl.errors import ResourceExhausted

if TYPE_CHECKING:
    from cfctl.bus.bus import Publisher


def send(
    publisher: Publisher,
    payloads: Iterable[bytes],
    *,
    rate_hz: float | None = None,
    timeout_s: float = 1.0,
    clock_ns: Callable[[], int] = time.monotonic_ns,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Publish payloads; the publisher counts those accepted and refused, right also after an interrupt.

    With a rate each is due at a moment of its own, counted from the first, in an open loop: one that finds the ring
    full is refused and does not delay the next; what is late goes at once. Without a rate each waits for room,
    `timeout_s` at most. Raises InputError for a payload that cannot be sent.
    """
    began_ns = clock_ns()
    for number, payload in enumerate(payloads):
        with contextlib.suppress(ResourceExhausted):
            if rate_hz is None:
                publisher.publish(payload, timeout_s)
                continue
            left_ns = began_ns + round(number * 1e9 / rate_hz) - clock_ns()
            if left_ns > 0:
                sleep(left_ns / 1e9)
            publisher.try_publish(payload)
