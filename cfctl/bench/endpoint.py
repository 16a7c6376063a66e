"""One side of a bus benchmark, in a process of its own: `python -m cfctl.bench.endpoint PLANS`.

PLANS is a JSON list: each plan is run by a thread of this process, and what they measured is printed as
a JSON list. A message starts with the tick it was due and whether it is the last.
"""

from __future__ import annotations

import gc
import json
import os
import struct
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final

from cfctl import _native
from cfctl.bus import Bus, BusConfig, Packet, Publisher, Subscription, Wait
from cfctl.errors import BusTimeout, ResourceExhausted, StateError
from cfctl.segment.reader import parse_segment

HEAD: Final = struct.Struct("<QQ")
# Between two receipts, or a message's due time and its receipt: no longer Python's own work (0.3 us a
# turn), but a CPU that was taken away.
STALL_NS: Final = 5_000
_LAST: Final = 1
_JOIN_S: Final = 10.0
_SILENCE_S: Final = 10.0
# A refused message is tried this long before it counts as never accepted.
_RETRY_S: Final = 0.1
# The idle phase's length: the CPU of a waiting receiver without a message.
IDLE_S: Final = 0.3
_START_S: Final = 0.02
_OWN_MESSAGES: Final = 2_000
_DEADLINE_QUANTA: Final = 20


@dataclass(frozen=True, slots=True)
class Plan:
    """What a side does. `role` is a key of ROLES; `index` tells receivers apart; a rate is messages a second."""

    role: str
    index: int
    topic: str
    wait: str
    size: int
    rate: float
    duration_ns: int
    subscribers: int
    cpu: int | None
    ns_per_tick: float
    shares_interpreter: bool
    scheduled: bool = False
    batch: int = 0
    quantum_us: float = 1000.0

    @property
    def config(self) -> BusConfig:
        """Return the bus's settings: the slot class that fits the payload, a ring for bursts of 4096."""
        return BusConfig(
            4096, quantum_us=self.quantum_us, payload_bytes=min(96, self.size), wait=Wait(self.wait)
        )

    @property
    def duration_ticks(self) -> int:
        """Return the duration in ticks."""
        return round(self.duration_ns / self.ns_per_tick)


def send_paced(plan: Plan, bus: Bus) -> dict[str, Any]:
    """Publish a message at each of its due times, late ones at once; open loop."""
    publisher = _joined(plan, bus)
    time.sleep(IDLE_S * 1.5)
    send = _scheduled_send(plan, bus) if plan.scheduled else _send(publisher)
    padding = bytes(plan.size - HEAD.size)
    interval, total = 1e9 / plan.rate / plan.ns_per_tick, int(plan.duration_ns * 1e-9 * plan.rate)
    ticks, pack, shares = _native.ticks, HEAD.pack, plan.shares_interpreter
    refused = lost = 0
    cpu_ns = time.thread_time_ns()
    start = ticks() + round(_START_S * 1e9 / plan.ns_per_tick)
    for number in range(total):
        due = start + int(number * interval)
        data = pack(due, 0) + padding
        while ticks() < due:
            if shares:
                # The receiver needs the interpreter, too.
                time.sleep(0)
        try:
            send(data)
        except ResourceExhausted:
            refused += 1
            lost += not _retried(publisher, data)
    ended = ticks()
    cpu_ns = time.thread_time_ns() - cpu_ns
    found: dict[str, Any] = {
        "offered": total, "never_accepted": lost, "refused": refused, "cpu_ns": cpu_ns,
        "wall_ns": (ended - start) * plan.ns_per_tick,
    }  # fmt: skip
    if plan.scheduled:
        time.sleep(_DEADLINE_QUANTA * plan.quantum_us * 1e-6)
        metrics = bus.temporal_metrics()
        found["temporal"] = asdict(metrics)
    publisher.publish(pack(ended, _LAST) + padding, _SILENCE_S)
    time.sleep(0.05)
    return found


def _send(publisher: Publisher) -> Callable[[bytes], object]:
    return publisher.try_publish


def _scheduled_send(plan: Plan, bus: Bus) -> Callable[[bytes], object]:
    allowed_ns = round(_DEADLINE_QUANTA * plan.quantum_us * 1000)
    topic = plan.topic

    def send(data: bytes) -> object:
        return bus.publish_with_deadline(Packet(topic, data), time.time_ns() + allowed_ns)

    return send


def _retried(publisher: Publisher, data: bytes) -> bool:
    try:
        publisher.publish(data, _RETRY_S)
    except ResourceExhausted:
        return False
    return True


def receive_paced(plan: Plan, bus: Bus) -> dict[str, Any]:
    """Receive until the last message; the latency of each from its due time."""
    name, calm_name = f"one way {plan.index}", f"calm {plan.index}"
    record, calm = (_native.Operation(each).record_ticks for each in (name, calm_name))
    service_ns = _service_ns(plan, bus)
    subscription = bus.subscribe(plan.topic)
    idle_ratio = _idle_ratio(subscription)
    receive, ticks, unpack = _received_payload(plan, subscription), _native.ticks, HEAD.unpack_from
    stall = round(STALL_NS / plan.ns_per_tick)
    stalls = stalled = stall_end = previous = 0
    began, cpu_ns = ticks(), time.thread_time_ns()
    while True:
        payload = receive(_SILENCE_S)
        now = ticks()
        if payload is None:
            raise StateError("The benchmark's publisher went silent.", "Nothing came for 10 s.", "Try again.")
        due, last = unpack(payload)
        if last:
            break
        length = now - max(due, previous)
        if length > stall:
            stalls += 1
            stalled += length
            # As long again for what had piled up.
            stall_end = now + length
        record(now - due)
        if due >= stall_end:
            calm(now - due)
        previous = now
    wall_ns = (ticks() - began) * plan.ns_per_tick
    counts = subscription.counts()
    return {
        "index": plan.index, "cpu_ns": time.thread_time_ns() - cpu_ns, "wall_ns": wall_ns, "idle_ratio": idle_ratio,
        "service_ns": service_ns, "delivered": counts["delivered"] - 1, "dropped": counts["dropped"],
        "stalls": stalls, "stalled_ns": stalled * plan.ns_per_tick, "one_way": _samples("operation", name),
        "calm": _samples("operation", calm_name), "transfer": _samples("bus_subscriber", plan.topic),
    }  # fmt: skip


def _received_payload(plan: Plan, subscription: Subscription) -> Callable[[float], bytes | None]:
    if not plan.scheduled:
        return subscription.recv

    def receive(timeout_s: float) -> bytes | None:
        message = subscription.recv_message(timeout_s)
        return None if message is None else message.payload

    return receive


def _service_ns(plan: Plan, bus: Bus) -> float:
    """Return the CPU time in which this process takes a message that is there already."""
    topic = f"{plan.topic} own {plan.index}"
    own, publisher = bus.subscribe(topic), bus.publisher(topic)
    publisher.publish_many([HEAD.pack(_native.ticks(), 0) + bytes(plan.size - HEAD.size)] * _OWN_MESSAGES)
    unused = _native.Operation(f"service {plan.index}").record_ticks
    before = time.thread_time_ns()
    for _ in range(_OWN_MESSAGES):
        payload = own.recv(1.0)
        now = _native.ticks()
        assert payload is not None
        due, _last = HEAD.unpack_from(payload)
        unused(now - due)
        unused(now - due)
    taken_ns = time.thread_time_ns() - before
    own.unsubscribe()
    return taken_ns / _OWN_MESSAGES


def _idle_ratio(subscription: Subscription) -> float:
    """Return the share of a CPU that waiting takes while nothing comes."""
    began, cpu_ns = time.monotonic_ns(), time.thread_time_ns()
    subscription.recv(IDLE_S)
    return (time.thread_time_ns() - cpu_ns) / max(1, time.monotonic_ns() - began)


def send_flood(plan: Plan, bus: Bus) -> dict[str, Any]:
    """Publish as fast as the receivers take it, by call or in batches."""
    publisher = _joined(plan, bus)
    data = HEAD.pack(0, 0) + bytes(plan.size - HEAD.size)
    end, sent = _native.ticks() + plan.duration_ticks, 0
    batch = [data] * max(256, plan.batch)
    publish, publish_many = publisher.publish, publisher.publish_many
    while _native.ticks() < end:
        if plan.batch:
            sent += publish_many(batch)
        else:
            for each in batch:
                publish(each)
            sent += len(batch)
    publisher.publish(b"", _SILENCE_S)
    return {"sent": sent}


def receive_flood(plan: Plan, bus: Bus) -> dict[str, Any]:
    """Receive as fast as it comes, by call or in batches; the rate between the first and the last."""
    subscription = bus.subscribe(plan.topic)
    receive, receive_many = subscription.recv, subscription.recv_many
    more = bool(receive(_SILENCE_S))
    began, received = _native.ticks(), 0
    # An empty payload is the last one; looking into each would cost more than receiving it.
    if plan.batch:
        while more:
            payloads = receive_many(plan.batch)
            more = not payloads or bool(payloads[-1])
            received += len(payloads)
    else:
        while more and receive(_SILENCE_S):
            received += 1
    elapsed_ns = (_native.ticks() - began) * plan.ns_per_tick
    return {"index": plan.index, "received": received, "elapsed_ns": elapsed_ns}


def ping(plan: Plan, bus: Bus) -> dict[str, Any]:
    """Send a message and wait for its echo, again and again."""
    back = bus.subscribe(plan.topic + " back")
    publisher = _joined(plan, bus)
    record = _native.Operation("round trip").record_ticks
    data, ticks = bytes(plan.size), _native.ticks
    time.sleep(0.1)
    end = ticks() + plan.duration_ticks
    publish, receive = publisher.try_publish, back.recv
    sent = 0
    # The first ones find cold caches and rings that were just joined.
    while (start := ticks()) < end:
        publish(data)
        if receive(_SILENCE_S) is None:
            break
        sent += 1
        if sent > 100:
            record(ticks() - start)
    publisher.publish(HEAD.pack(0, _LAST) + bytes(plan.size - HEAD.size), _SILENCE_S)
    return {"round_trip": _samples("operation", "round trip")}


def pong(plan: Plan, bus: Bus) -> dict[str, Any]:
    """Send each message back."""
    publisher = bus.publisher(plan.topic + " back")
    subscription = bus.subscribe(plan.topic)
    receive, publish = subscription.recv, publisher.try_publish
    while (payload := receive(_SILENCE_S)) is not None and HEAD.unpack_from(payload)[1] != _LAST:
        publish(payload)
    return {}


ROLES: Final[dict[str, Callable[[Plan, Bus], dict[str, Any]]]] = {
    role.__name__: role for role in (send_paced, receive_paced, send_flood, receive_flood, ping, pong)
}


def _joined(plan: Plan, bus: Bus) -> Publisher:
    """Return the publisher of the plan's topic once all subscribers are there."""
    publisher = bus.publisher(plan.topic)
    try:
        publisher.wait_for_subscribers(plan.subscribers, _JOIN_S)
    except BusTimeout as error:
        raise StateError("The benchmark's subscribers did not come.", error.why, "Try again.") from error
    return publisher


def _samples(kind: str, name: str) -> dict[str, Any]:
    """Return what this process's segment holds of an instrument, as probe.distribution takes it."""
    segment = parse_segment(_native.segment_bytes())
    for entry in segment.entries:
        if entry.kind == kind and entry.name == name:
            values = entry.values
            count = values.get("count", values.get("delivered"))
            histogram = values["histogram"]
            assert isinstance(histogram, bytes)
            return {
                "count": count, "sum": values.get("sum") or 0, "min": values.get("min") or 0,
                "max": values.get("max") or 0, "out_of_range": values.get("out_of_range") or 0,
                "histogram": _native.histogram_sparse(histogram),
            }  # fmt: skip
    return {"count": 0, "sum": 0, "min": 0, "max": 0, "out_of_range": 0, "histogram": ()}


def run(plan: Plan) -> dict[str, Any]:
    """Return what a plan measured, in the calling thread, pinned to the plan's CPU."""
    if plan.cpu is not None:
        os.sched_setaffinity(0, {plan.cpu})
    with Bus(plan.config, own=True) as bus:
        return ROLES[plan.role](plan, bus)


def _run_all(plans: list[Plan]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [{} for _ in plans]
    errors: list[BaseException] = []

    def work(index: int) -> None:
        try:
            found[index] = run(plans[index])
        except BaseException as error:  # noqa: BLE001 - raised by the main thread
            errors.append(error)

    # Receivers first: plans are in that order.
    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(plans))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return found


def main(text: str) -> None:
    """Run the plans in a JSON text and print what they found."""
    plans = [Plan(**plan) for plan in json.loads(text)]
    gc.disable()
    found = [run(plans[0])] if len(plans) == 1 else _run_all(plans)
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1])
