"""Time among messages: hybrid logical clock, deadlines, phase coherence, causality. Standard library only."""

from __future__ import annotations

from cfctl.temporal.causality import CausalityMonitor, TraceEvent, verify
from cfctl.temporal.coherence import Coherence, DispatcherTime, PhaseSum, coherence, planned_utilization
from cfctl.temporal.deadlines import Dispatch, Message, TemporalQueue
from cfctl.temporal.durations import Durations
from cfctl.temporal.hlc import Hlc, global_hlc, initialize_global_hlc
from cfctl.temporal.stagger import QuantumOffset, next_slot_ns

__all__ = [
    "CausalityMonitor",
    "Coherence",
    "Dispatch",
    "DispatcherTime",
    "Durations",
    "Hlc",
    "Message",
    "PhaseSum",
    "QuantumOffset",
    "TemporalQueue",
    "TraceEvent",
    "coherence",
    "global_hlc",
    "initialize_global_hlc",
    "next_slot_ns",
    "planned_utilization",
    "verify",
]
