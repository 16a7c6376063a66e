"""How a bus is set up."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cfctl import paths
from cfctl.errors import InputError
from cfctl.temporal.deadlines import DependencyTimeout, Expiry

MAX_CAPACITY: Final = 1 << 20
MAX_ARENA_BYTES: Final = 1 << 30
# 32 of a slot's bytes are its header.
_SLOT_BYTES: Final = (64, 128)
_SLOT_HEADER_BYTES: Final = 32
_PAGE_BYTES: Final = 4096


class Wait(enum.StrEnum):
    """How a subscription waits for its next message; the order is enum cf_wait.

    A spinning subscription burns a CPU and is woken in the time of a cache-line transfer; a sleeping one
    costs nothing and is woken by the kernel, which takes tens of microseconds.
    """

    SPIN = "spin"
    ADAPTIVE = "adaptive"
    PARK = "park"

    @property
    def number(self) -> int:
        """Return the C core's number for it."""
        return list(Wait).index(self)


@dataclass(frozen=True, slots=True)
class BusConfig:
    """The settings of a bus.

    `channel_buffer_size`: messages a ring holds, rounded up to a power of two; each takes a slot of
    64 or 128 B of shared memory. `payload_bytes`: payloads up to this stay in their
    slot, at most 96; 32 or less makes slots of one cache line, which are a quarter faster. Larger payloads go
    through an arena of `arena_bytes` per ring, of which one may take half. `overwrite`: a full ring
    overwrites its oldest messages, and slow subscribers count what they lost, instead of refusing new
    ones. `spin_us`: how long an adaptive subscription spins before it sleeps; at least twice the wake-up
    of this machine (`cfctl probe wakeup`), or it sleeps each time. `quantum_us`: the period of the
    dispatcher, which publishes what has a deadline, dependencies or a slot; `expiry`, `dependency_timeout`
    and `dependency_timeout_ms` are its policies. `ordered`: messages of several publishers are taken by
    their hybrid logical clock and not in turns. `directory`: where the rings are; the segments' directory.
    """

    channel_buffer_size: int = 1024
    quantum_us: float = 1000.0
    payload_bytes: int = 96
    arena_bytes: int = 1 << 20
    overwrite: bool = False
    wait: Wait = Wait.ADAPTIVE
    spin_us: float = 50.0
    ordered: bool = False
    expiry: Expiry = Expiry.DROP
    dependency_timeout: DependencyTimeout = DependencyTimeout.DELIVER
    dependency_timeout_ms: float | None = 100.0
    directory: Path = field(default_factory=paths.segment_directory)

    def __post_init__(self) -> None:
        """Raise InputError for a setting out of its range."""
        _require(1 < self.channel_buffer_size <= MAX_CAPACITY, "channel_buffer_size", "2 to 1048576 messages")
        _require(1 <= self.payload_bytes <= _SLOT_BYTES[1] - _SLOT_HEADER_BYTES, "payload_bytes", "1 to 96")
        _require(0 <= self.arena_bytes <= MAX_ARENA_BYTES, "arena_bytes", "0 to 1 GiB")
        _require(10.0 <= self.quantum_us <= 1e6, "quantum_us", "10 us to 1 s")
        _require(0.0 <= self.spin_us <= 1e6, "spin_us", "0 to 1 s")
        timeout_ms = self.dependency_timeout_ms
        _require(
            timeout_ms is None or 0.0 <= timeout_ms <= 1e7, "dependency_timeout_ms", "None or 0 to 10000 s"
        )
        object.__setattr__(self, "wait", _member(Wait, "wait", self.wait))
        object.__setattr__(self, "expiry", _member(Expiry, "expiry", self.expiry))
        object.__setattr__(
            self,
            "dependency_timeout",
            _member(DependencyTimeout, "dependency_timeout", self.dependency_timeout),
        )

    @property
    def capacity(self) -> int:
        """Return the messages a ring holds: a power of two."""
        return 1 << (self.channel_buffer_size - 1).bit_length()

    @property
    def slot_bytes(self) -> int:
        """Return the bytes of a slot: 64 or 128."""
        return next(size for size in _SLOT_BYTES if self.payload_bytes + _SLOT_HEADER_BYTES <= size)

    @property
    def arena_pages_bytes(self) -> int:
        """Return `arena_bytes` rounded up to whole pages."""
        return -(-self.arena_bytes // _PAGE_BYTES) * _PAGE_BYTES

    @property
    def quantum_ns(self) -> int:
        """Return the dispatcher's period."""
        return round(self.quantum_us * 1000)

    @property
    def spin_ns(self) -> int:
        """Return how long a subscription spins before it sleeps, and a publisher before it pauses."""
        return round(self.spin_us * 1000)


def checked_config(config: object) -> BusConfig:
    """Return the config of a bus, the default for None; raises InputError for what is no BusConfig."""
    if config is None:
        return BusConfig()
    if not isinstance(config, BusConfig):
        raise InputError(
            "No bus can be made.",
            f"The config is of type {type(config).__name__}.",
            "Pass a BusConfig, or nothing.",
        )
    return config


def _require(holds: bool, name: str, allowed: str) -> None:
    if not holds:
        raise InputError(f"BusConfig.{name} cannot be used.", f"It is out of its range: {allowed}.")


def _member(of: type[enum.StrEnum], name: str, value: str) -> enum.StrEnum:
    allowed = ", ".join(repr(str(each)) for each in of)
    _require(value in list(of), name, f"one of {allowed}")
    return of(value)
