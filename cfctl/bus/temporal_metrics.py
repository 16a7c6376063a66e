"""What a bus's dispatcher tells of itself within its program."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cfctl.temporal.causality import CausalityCounts
    from cfctl.temporal.coherence import Coherence
    from cfctl.temporal.deadlines import QueueCounts


class DispatcherThread(enum.StrEnum):
    """The state of a dispatcher's thread, which starts with the first message that needs it."""

    NOT_STARTED = "not started"
    RUNNING = "running"
    CLOSED = "closed"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class TemporalMetrics:
    """What the dispatcher did in the `window_ns` since the bus was made.

    `coherence`: of the dispatches, by phase in the quantum (exported as quantum_coherence_score).
    `schedule_utilization`: busy / window; `scheduling_efficiency`: busy / (busy + overhead + idle with work
    due); None without work. `outgoing` and `incoming` count the two queues since the start.
    `hlc_drift_ns`: how far the hybrid logical clock is ahead of the wall clock now.
    `unknown_dependencies`: on messages of publishers that this bus does not read; they are not waited for and
    are no violation. `not_held`: messages delivered without their dependencies because 65536 were held
    already, or the thread had ended. `damaged`: received messages that could not be decoded, and were not
    delivered. `last_error`: of a message that was counted as failed. `thread_error`: why the thread failed.
    """

    window_ns: int
    coherence: Coherence
    schedule_utilization: float | None
    scheduling_efficiency: float | None
    outgoing: QueueCounts
    incoming: QueueCounts
    pending_messages: int
    oldest_age_ns: int | None
    deadline_violations: int
    lateness_p50_ns: float | None
    lateness_p99_ns: float | None
    lateness_max_ns: int | None
    causality: CausalityCounts
    hlc_drift_ns: int
    unknown_dependencies: int
    not_held: int
    damaged: int
    last_error: str | None
    thread: DispatcherThread
    thread_error: str | None
