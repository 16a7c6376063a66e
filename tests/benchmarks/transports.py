"""Ways to get bytes from one Python process to another: this project's bus, and its peers.

A transport opens on either side, after the fork, and gives what sends and what receives a payload.
Nothing is lost on the way: what is full makes its sender wait.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.util
import multiprocessing
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PAYLOAD_BYTES = 32
DEPTH = 4096
TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True)
class Side:
    """One end: to send and to receive a payload, and many at once where there is a call for it."""

    send: Callable[[bytes], Any]
    receive: Callable[[], Any]
    send_many: Callable[[list[bytes]], int] | None = None
    receive_many: Callable[[int], list[bytes]] | None = None


Opened = contextlib.AbstractContextManager[Side]


@dataclass(frozen=True, slots=True)
class Transport:
    """`open(0)` and `open(1)` are the two ends; `flood` messages take it some tenths of a second."""

    name: str
    open: Callable[[int], Opened]
    flood: int
    spins: bool


def bus(wait: str) -> Transport:
    """Return this project's bus."""
    ready = os.pipe(), os.pipe()

    @contextlib.contextmanager
    def opened(side: int) -> Iterator[Side]:
        from cfctl.bus import Bus, BusConfig, Wait

        config = BusConfig(DEPTH, payload_bytes=PAYLOAD_BYTES, wait=Wait(wait))
        with Bus(config) as endpoint:
            topics = [f"benchmark {os.getppid()} {each}" for each in (side, 1 - side)]
            outbox = endpoint.publisher(topics[0])
            # Both rings are there before anyone subscribes: each subscription joins at once.
            os.write(ready[1 - side][1], b"x")
            os.read(ready[side][0], 1)
            inbox = endpoint.subscribe(topics[1])
            while outbox.counts()["readers"] < 1:
                time.sleep(0.001)
            yield Side(outbox.publish, inbox.recv, outbox.publish_many, inbox.recv_many)
            time.sleep(0.05)

    return Transport(f"cfctl, {wait}", opened, 1_000_000 if wait == "spin" else 200_000, wait != "park")


def pipe(*, spins: bool) -> Transport:
    """Return os.pipe, read by blocking or by asking again and again."""
    ends = os.pipe(), os.pipe()

    @contextlib.contextmanager
    def opened(side: int) -> Iterator[Side]:
        source, sink = ends[side][0], ends[1 - side][1]
        os.set_blocking(source, not spins)
        os.set_blocking(sink, not spins)

        def receive_spinning() -> bytes:
            while True:
                try:
                    return os.read(source, PAYLOAD_BYTES)
                except BlockingIOError:
                    pass

        def send_spinning(data: bytes) -> None:
            while True:
                try:
                    os.write(sink, data)
                except BlockingIOError:
                    continue
                return

        if spins:
            yield Side(send_spinning, receive_spinning)
        else:
            yield Side(lambda data: os.write(sink, data), lambda: os.read(source, PAYLOAD_BYTES))

    return Transport(f"os.pipe, {'spinning' if spins else 'blocking'}", opened, 100_000, spins)


def multiprocessing_queue() -> Transport:
    """Return multiprocessing.Queue, which pickles and has a thread of its own on the sending side."""
    queues: list[Any] = [multiprocessing.Queue(DEPTH) for _ in range(2)]

    @contextlib.contextmanager
    def opened(side: int) -> Iterator[Side]:
        yield Side(queues[1 - side].put, queues[side].get)
        queues[1 - side].close()
        queues[1 - side].join_thread()

    return Transport("multiprocessing.Queue", opened, 20_000, False)


def faster_fifo() -> Transport:
    """Return faster-fifo's queue without its pickling."""
    module = importlib.import_module("faster_fifo")
    queues = [module.Queue(DEPTH * 2 * PAYLOAD_BYTES, loads=bytes, dumps=bytes) for _ in range(2)]

    @contextlib.contextmanager
    def opened(side: int) -> Iterator[Side]:
        source, sink = queues[side], queues[1 - side]

        def send_many(payloads: list[bytes]) -> int:
            sink.put_many(payloads, timeout=TIMEOUT_S)
            return len(payloads)

        def receive_many(most: int) -> list[bytes]:
            found: list[bytes] = source.get_many(max_messages_to_get=most, timeout=TIMEOUT_S)
            return found

        yield Side(lambda data: sink.put(data, timeout=TIMEOUT_S), lambda: source.get(timeout=TIMEOUT_S),
                   send_many, receive_many)  # fmt: skip

    return Transport("faster-fifo", opened, 30_000, False)


def zmq_ipc() -> Transport:
    """Return a ZeroMQ pair over a socket of the file system."""
    zmq = importlib.import_module("zmq")
    address = f"ipc:///tmp/cfctl-benchmark-{os.getpid()}"

    @contextlib.contextmanager
    def opened(side: int) -> Iterator[Side]:
        with zmq.Context() as context, context.socket(zmq.PAIR) as socket:
            (socket.connect if side else socket.bind)(address)
            yield Side(socket.send, socket.recv)
        if side == 0:
            Path(address.removeprefix("ipc://")).unlink(missing_ok=True)

    return Transport("pyzmq, ipc", opened, 100_000, False)


def zenoh() -> Transport:
    """Return Zenoh between two peers over TCP on loopback; its publishers wait and batch nothing."""
    module = importlib.import_module("zenoh")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        endpoint = f'["tcp/127.0.0.1:{probe.getsockname()[1]}"]'
    ready = os.pipe(), os.pipe()

    @contextlib.contextmanager
    def opened(side: int) -> Iterator[Side]:
        config = module.Config()
        config.insert_json5("mode", '"peer"')
        config.insert_json5("scouting/multicast/enabled", "false")
        config.insert_json5("listen/endpoints", "[]" if side else endpoint)
        if side:
            os.read(ready[1][0], 1)
            config.insert_json5("connect/endpoints", endpoint)
        with module.open(config) as session:
            os.write(ready[1 - side][1], b"x")
            inbox = session.declare_subscriber(f"benchmark/{side}", module.handlers.FifoChannel(DEPTH))
            outbox = session.declare_publisher(
                f"benchmark/{1 - side}", congestion_control=module.CongestionControl.BLOCK, express=True
            )
            while not outbox.matching_status.matching:
                time.sleep(0.001)
            receive = inbox.recv
            yield Side(outbox.put, lambda: bytes(receive().payload))
            time.sleep(0.05)

    return Transport("Zenoh, tcp", opened, 30_000, False)


class _Payload(ctypes.Structure):
    _fields_ = (("data", ctypes.c_char * PAYLOAD_BYTES),)


def iceoryx2() -> Transport:
    """Return iceoryx2's publish and subscribe, received by asking again and again."""
    iox = importlib.import_module("iceoryx2")
    parent = os.getpid()

    @contextlib.contextmanager
    def opened(side: int) -> Iterator[Side]:
        iox.set_log_level(iox.LogLevel.Error)
        node = iox.NodeBuilder.new().create(iox.ServiceType.Ipc)

        def service(number: int) -> Any:
            name = iox.ServiceName.new(f"cfctl benchmark {parent} {number}")
            builder = node.service_builder(name).publish_subscribe(_Payload)
            # A full buffer makes the sender wait.
            return (
                builder.enable_safe_overflow(False).subscriber_max_buffer_size(DEPTH)
                .subscriber_max_borrowed_samples(2).open_or_create()
            )  # fmt: skip

        subscriber = service(side).subscriber_builder().buffer_size(DEPTH).create()
        outgoing = service(1 - side)
        publisher = outgoing.publisher_builder().create()
        while outgoing.dynamic_config.number_of_subscribers < 1:
            time.sleep(0.001)
        send_copy, try_receive, make = publisher.send_copy, subscriber.receive, _Payload.from_buffer_copy

        def receive() -> bytes:
            while (sample := try_receive()) is None:
                pass
            data = bytes(sample.payload().contents)
            sample.delete()
            return data

        yield Side(lambda data: send_copy(make(data)), receive)
        time.sleep(0.05)

    return Transport("iceoryx2", opened, 50_000, True)


def peers() -> dict[str, Callable[[], Transport]]:
    """Return what makes each peer that is installed, by name; says on stderr which are not."""
    makers: dict[str, tuple[str | None, Callable[[], Transport]]] = {
        "iceoryx2": ("iceoryx2", iceoryx2),
        "os.pipe, spinning": (None, lambda: pipe(spins=True)),
        "os.pipe, blocking": (None, lambda: pipe(spins=False)),
        "faster-fifo": ("faster_fifo", faster_fifo),
        "pyzmq, ipc": ("zmq", zmq_ipc),
        "Zenoh, tcp": ("zenoh", zenoh),
        "multiprocessing.Queue": (None, multiprocessing_queue),
    }
    found = {}
    for name, (module, maker) in makers.items():
        if module is not None and importlib.util.find_spec(module) is None:
            print(f"{name} is not installed: not compared.", file=sys.stderr)
        else:
            found[name] = maker
    return found
