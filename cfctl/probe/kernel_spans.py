"""Stretches of time a CPU spent in its kernel or on another task, from tracepoint events."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cfctl.probe.attribution import Cause

if TYPE_CHECKING:
    from cfctl.probe.tracing import Event


@dataclass(frozen=True, slots=True)
class Span:
    """From `start_ns` to `end_ns` the CPU did this; `detail` names the irq, the vector or the task.

    Where an event marks only a begin (a fault, an NMI, a switch to another task), both are equal.
    """

    start_ns: int
    end_ns: int
    cause: Cause
    detail: str


_SOFTIRQS: Final = (
    "HI", "TIMER", "NET_TX", "NET_RX", "BLOCK", "IRQ_POLL", "TASKLET", "SCHED", "HRTIMER", "RCU",
)  # fmt: skip


def spans_of(events: Iterable[Event], tid: int) -> list[Span]:
    """Return the spans in one CPU's events (sorted), as thread `tid` on it would be interrupted by them.

    Interrupts nest, so that an exit belongs to the youngest entry of its kind.
    """
    found: list[Span] = []
    entered: list[Event] = []
    for event in events:
        name = event.tracepoint.name
        if name.endswith("_entry"):
            entered.append(event)
        elif name.endswith("_exit"):
            entry = _pop_entry(entered, name.removesuffix("_exit"))
            if entry is not None:
                found.append(Span(entry.ns, event.ns, *_interrupt(entry)))
        elif name == "sched/sched_switch":
            if _integer(event, "prev_pid") == tid:
                thief = event.tracepoint.text(event.raw, "next_comm")
                found.append(Span(event.ns, event.ns, Cause.SCHEDULED_OUT, thief))
        elif event.tid == tid and name.startswith("exceptions/page_fault"):
            found.append(Span(event.ns, event.ns, Cause.PAGE_FAULT, name.rpartition("/")[2]))
        elif name == "nmi/nmi_handler":
            found.append(Span(event.ns, event.ns, Cause.DEVICE_IRQ, "NMI"))
    found.sort(key=lambda span: span.start_ns)
    return found


def _pop_entry(entered: list[Event], stem: str) -> Event | None:
    for index in range(len(entered) - 1, -1, -1):
        if entered[index].tracepoint.name == f"{stem}_entry":
            entry = entered[index]
            # Whatever began later has lost its exit: the trace began or ended in between.
            del entered[index:]
            return entry
    return None


def _interrupt(entry: Event) -> tuple[Cause, str]:
    name = entry.tracepoint.name.removesuffix("_entry")
    if name == "irq_vectors/local_timer":
        return Cause.TIMER_TICK, "local timer"
    if name == "irq/irq_handler":
        handler = entry.tracepoint.text(entry.raw, "name")
        # Where the timer is no vector of its own (aarch64), it is an interrupt by this name.
        cause = Cause.TIMER_TICK if "arch_timer" in handler else Cause.DEVICE_IRQ
        return cause, f"irq {_integer(entry, 'irq')} {handler}".strip()
    if name == "irq/softirq":
        vector = _integer(entry, "vec")
        known = vector is not None and 0 <= vector < len(_SOFTIRQS)
        return Cause.SOFTIRQ, _SOFTIRQS[vector] if known and vector is not None else f"softirq {vector}"
    return Cause.IPI, name.rpartition("/")[2]


def _integer(event: Event, field: str) -> int | None:
    try:
        return event.tracepoint.integer(event.raw, field)
    except ValueError:
        return None
