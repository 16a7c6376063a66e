"""The message bus: topics between the processes of this host, below a microsecond. Standard library only.

In one program:

    from cfctl.bus import Bus

    with Bus() as bus:
        publish = bus.publisher("prices").publish
        publish(b"EURUSD 1.0843")

and in another:

    with Bus() as bus:
        for payload in bus.subscribe("prices"):
            ...

A spinning or adaptive subscription burns a CPU while it waits; `BusConfig(wait="park")` sleeps instead, and
is then no faster than a pipe.
"""

from __future__ import annotations

from cfctl.bus.bus import Bus, Publisher
from cfctl.bus.config import BusConfig, Wait
from cfctl.bus.dispatcher import TemporalMetrics
from cfctl.bus.endpoints import BusStats, PublisherStats, SubscriptionStats
from cfctl.bus.health import Health
from cfctl.bus.packet import Packet
from cfctl.bus.presence import Arrival, Departure, Peer, Presence, Role
from cfctl.bus.requests import Request, Requester, Server
from cfctl.bus.subscription import Message, Subscription
from cfctl.errors import BusTimeout, LimitError, ResourceExhausted, SubscriptionNotFound, TemporalViolation
from cfctl.temporal.deadlines import DependencyTimeout, Expiry
from cfctl.temporal.stagger import QuantumOffset

__all__ = [
    "Arrival",
    "Bus",
    "BusConfig",
    "BusStats",
    "BusTimeout",
    "Departure",
    "DependencyTimeout",
    "Expiry",
    "Health",
    "LimitError",
    "Message",
    "Packet",
    "Peer",
    "Presence",
    "Publisher",
    "PublisherStats",
    "QuantumOffset",
    "Request",
    "Requester",
    "ResourceExhausted",
    "Role",
    "Server",
    "Subscription",
    "SubscriptionNotFound",
    "SubscriptionStats",
    "TemporalMetrics",
    "TemporalViolation",
    "Wait",
]
