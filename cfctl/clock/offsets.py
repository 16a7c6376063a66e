"""Offsets between the counters of CPUs, measured by ping-pong."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar, Final

from cfctl import _native
from cfctl.clock.procedure import process_ns_per_tick
from cfctl.errors import InputError
from cfctl.records import Document

# All pairs together take about this long; a pair gets between the two numbers of exchanges.
_BUDGET_EXCHANGES: Final = 4_000_000
_MIN_EXCHANGES: Final = 500
_MAX_EXCHANGES: Final = 100_000
_PAIR_TIMEOUT_NS: Final = 500_000_000
_MAX_CPUS: Final = 128

Progress = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class CpuOffsets(Document):
    """The offset of every CPU's counter against every other's, with the bound of what can be known.

    `offset_ns[i][j]`: how far the counter of cpus[j] is ahead of that of cpus[i]; it can not be told
    from an asymmetric way between them closer than `bound_ns[i][j]`, so an offset inside its bound
    is consistent with 0. None where a pair could not be measured, and `reason` says why.
    `warps`: messages that arrived before they were sent, over all pairs.
    """

    SCHEMA: ClassVar[str] = "cfctl.clock.offsets"
    VERSION: ClassVar[int] = 1

    cpus: tuple[int, ...]
    offset_ns: tuple[tuple[float | None, ...], ...]
    bound_ns: tuple[tuple[float | None, ...], ...]
    warps: int
    exchanges: int
    reason: str | None

    @property
    def max_offset_ns(self) -> float | None:
        """Return the largest offset of any pair without its sign, None when none was measured."""
        return max((abs(v) for row in self.offset_ns for v in row if v is not None), default=None)

    @property
    def max_bound_ns(self) -> float | None:
        """Return the largest bound of any pair, None when none was measured."""
        return max((v for row in self.bound_ns for v in row if v is not None), default=None)


def cpu_offsets(
    cpus: Iterable[int] | None = None,
    *,
    ns_per_tick: float | None = None,
    on_progress: Progress | None = None,
) -> CpuOffsets:
    """Return the offsets between the counters of `cpus`, of this process's CPUs without it.

    Both CPUs of a pair are kept busy while it is measured; all pairs take about a second. Beyond
    128 CPUs only the first 128 are taken, and `reason` says so. Raises InputError for a CPU that
    does not exist in this process's affinity.
    """
    allowed = os.sched_getaffinity(0)
    chosen = sorted(set(allowed if cpus is None else cpus))
    if not set(chosen) <= allowed:
        raise InputError(
            f"CPU {min(set(chosen) - allowed)} can not be used.", f"CPUs of this process: {sorted(allowed)}."
        )
    reasons = []
    if len(chosen) > _MAX_CPUS:
        reasons.append(f"only the first {_MAX_CPUS} of {len(chosen)} CPUs were measured")
        chosen = chosen[:_MAX_CPUS]
    if len(chosen) < 2:
        return _without_pairs(chosen, "an offset takes two CPUs, and this process may use one")
    if _native.tick_source()[0] == "os":
        return _without_pairs(chosen, "the ticks are the OS clock's: the kernel keeps them alike on all CPUs")
    slope = ns_per_tick or process_ns_per_tick()
    pairs = [(i, j) for i in range(len(chosen)) for j in range(i + 1, len(chosen))]
    exchanges = max(_MIN_EXCHANGES, min(_MAX_EXCHANGES, _BUDGET_EXCHANGES // len(pairs)))
    offset: list[list[float | None]] = [[0.0 if i == j else None for j in chosen] for i in chosen]
    bound: list[list[float | None]] = [[0.0 if i == j else None for j in chosen] for i in chosen]
    warps = done = 0
    for number, (i, j) in enumerate(pairs, start=1):
        try:
            ahead, behind, pair_warps, pair_exchanges = _native.cpu_offset(
                chosen[i], chosen[j], exchanges, _PAIR_TIMEOUT_NS
            )
        except OSError as error:
            reasons.append(f"CPUs {chosen[i]} and {chosen[j]}: {_why(error)}")
            continue
        offset[i][j], offset[j][i] = (ahead - behind) / 2 * slope, (behind - ahead) / 2 * slope
        bound[i][j] = bound[j][i] = abs(ahead + behind) / 2 * slope
        warps += pair_warps
        done += pair_exchanges
        if on_progress:
            on_progress(number / len(pairs))
    return CpuOffsets(
        tuple(chosen),
        tuple(map(tuple, offset)),
        tuple(map(tuple, bound)),
        warps,
        done,
        "; ".join(reasons) or None,
    )


def _without_pairs(cpus: list[int], reason: str) -> CpuOffsets:
    alone = tuple(tuple(0.0 if i == j else None for j in cpus) for i in cpus)
    return CpuOffsets(tuple(cpus), alone, alone, 0, 0, reason)


def _why(error: OSError) -> str:
    if error.errno == errno.ETIMEDOUT:
        return "no exchange in 0.5 s: something else holds one of them"
    return f"{error.strerror}"
