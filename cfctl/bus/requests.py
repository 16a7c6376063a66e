"""Requests and their replies, over two kinds of private topics.

Requests on a topic go to "rpc:TOPIC", which all servers read as one group, so that each request comes to
one of them. Replies go to "rpc:TOPIC@ID", which only their requester reads. Both begin with a head: the
request's number, and the length of the inbox's name, which follows it in a request.
"""

from __future__ import annotations

import struct
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Final, Protocol, Self

from cfctl.bus import names
from cfctl.errors import BusTimeout, InputError, ResourceExhausted, SubscriptionNotFound

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from cfctl import _native
    from cfctl.bus.subscription import Subscription

SERVERS: Final = "servers"
# An inbox's name is longer by the bus's and the requester's numbers.
TOPIC_BYTES: Final = 960
_HEAD: Final = struct.Struct("<QH")
# A server keeps the way back to so many requesters open.
_KEPT_INBOXES: Final = 64


class Endpoints(Protocol):
    """The bus, as far as it opens endpoints of private topics."""

    def private_publisher(self, topic: str) -> _native.Publisher:
        """Return the publisher of a private topic."""

    def private_subscription(self, topic: str, group: str | None, *, redeliver: bool = False) -> Subscription:
        """Return a subscription to a private topic."""


def private_topic(topic: object) -> str:
    """Return the topic that requests on a topic go to."""
    return names.PRIVATE + names.checked(topic, "topic", TOPIC_BYTES)


class Requester:
    """Asks the servers of a topic; one request at a time. `stale`: replies that came after their time-out."""

    def __init__(self, bus: Endpoints, topic: str, number: int) -> None:
        self.topic = topic
        self.stale = 0
        self._publisher = bus.private_publisher(private_topic(topic))
        self._inbox = f"{private_topic(topic)}@{number:016x}"
        self._replies = bus.private_subscription(self._inbox, None)
        self._number = 0
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        """Return the requester."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it."""
        self.close()

    def request(self, data: Buffer, timeout_s: float | None = 1.0) -> bytes:
        """Return the reply to a request.

        Raises BusTimeout when nobody serves the topic, or no reply came in time: the request may have been
        served all the same. InputError for a payload that is none or too large.
        """
        body = _bytes(data)
        end_s = None if timeout_s is None else time.monotonic() + timeout_s
        with self._lock:
            try:
                self._publisher.wait_for_subscribers(1, _left(end_s))
            except BusTimeout as error:
                raise BusTimeout(
                    f"Nobody serves {self.topic[:64]!r}.",
                    "The request was not sent.",
                    "Start servers, bus.serve(topic), and look at the topic's name.",
                ) from error
            self._number += 1
            head = _HEAD.pack(self._number, len(self._inbox.encode()))
            message = b"".join((head, self._inbox.encode(), body))
            try:
                self._publisher.publish(message, _left(end_s))
            except ResourceExhausted as error:
                raise self._no_reply("its servers are too slow: their ring is full") from error
            return self._reply(end_s)

    def close(self) -> None:
        """End it; idempotent."""
        self._replies.unsubscribe()

    def _reply(self, end_s: float | None) -> bytes:
        while (reply := self._replies.recv(_left(end_s))) is not None:
            number, _ = _HEAD.unpack_from(reply)
            if number == self._number:
                return reply[_HEAD.size :]
            self.stale += 1
        raise self._no_reply("its server is slow, died, or does not reply")

    def _no_reply(self, why: str) -> BusTimeout:
        return BusTimeout(
            f"No reply to a request on {self.topic[:64]!r} came in time: {why}.",
            "It may have been served all the same.",
            "Give more time, or start servers: bus.serve(topic).",
        )


@dataclass(frozen=True, slots=True)
class Request:
    """A request to be answered with `reply`. `redelivered`: another server had it and died."""

    data: bytes
    redelivered: bool
    _server: Server
    _inbox: str
    _number: int

    def reply(self, data: Buffer) -> bool:
        """Send the reply; False when the requester has gone or its inbox is full."""
        return self._server._reply(self._inbox, self._number, data)


class Server:
    """The requests on a topic: one after the other, shared with all other servers of it; for one thread at a time.

    `undeliverable`: replies whose requester had gone. `damaged`: messages that were no requests.
    """

    def __init__(self, bus: Endpoints, topic: str, *, redeliver: bool) -> None:
        self.topic = topic
        self.undeliverable = self.damaged = 0
        self._bus = bus
        self._requests: Subscription = bus.private_subscription(
            private_topic(topic), SERVERS, redeliver=redeliver
        )
        self._inboxes: OrderedDict[str, _native.Publisher] = OrderedDict()

    def __enter__(self) -> Self:
        """Return the server."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it."""
        self.close()

    def __iter__(self) -> Iterator[Request]:
        """Yield requests as they come, until the server is closed."""
        while True:
            try:
                request = self.recv()
            except SubscriptionNotFound:
                return
            if request is not None:
                yield request

    def recv(self, timeout_s: float | None = None) -> Request | None:
        """Return the next request, None at the time-out."""
        end_s = None if timeout_s is None else time.monotonic() + timeout_s
        while (message := self._requests.recv_message(_left(end_s))) is not None:
            request = self._parse(message.payload, message.redelivered)
            if request is not None:
                return request
            self.damaged += 1
        return None

    def close(self) -> None:
        """End it; idempotent. A request that was received counts as finished."""
        self._requests.unsubscribe()
        while self._inboxes:
            self._inboxes.popitem()[1].close()

    def _parse(self, payload: bytes, redelivered: bool) -> Request | None:
        if len(payload) < _HEAD.size:
            return None
        number, length = _HEAD.unpack_from(payload)
        end = _HEAD.size + length
        inbox = payload[_HEAD.size : end].decode("utf-8", "replace")
        if end > len(payload) or not inbox.startswith(f"{private_topic(self.topic)}@"):
            return None
        return Request(payload[end:], redelivered, self, inbox, number)

    def _reply(self, inbox: str, number: int, data: Buffer) -> bool:
        publisher = self._way_back(inbox)
        if publisher.readers:
            try:
                publisher.try_publish(_HEAD.pack(number, 0) + _bytes(data))
            except ResourceExhausted:
                self.undeliverable += 1
                return False
            return True
        self.undeliverable += 1
        self._inboxes.pop(inbox).close()
        return False

    def _way_back(self, inbox: str) -> _native.Publisher:
        found = self._inboxes.pop(inbox, None) or self._bus.private_publisher(inbox)
        self._inboxes[inbox] = found
        if len(self._inboxes) > _KEPT_INBOXES:
            self._inboxes.popitem(last=False)[1].close()
        return found


def _left(end_s: float | None) -> float | None:
    return None if end_s is None else max(0.0, end_s - time.monotonic())


def _bytes(data: Buffer) -> bytes:
    try:
        return bytes(memoryview(data))
    except TypeError as error:
        raise InputError(
            "The payload cannot be sent.", f"It is of type {type(data).__name__}.", "Pass bytes."
        ) from error
