"""What a quick diagnosis says of a missed target: the gravest issue that can be its cause."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from cfctl.diagnose.record import Actor, Status
from cfctl.diagnose.run import Request, diagnose
from cfctl.errors import CfctlError
from cfctl.monitor.alerts import Cause
from cfctl.records import Verdict

if TYPE_CHECKING:
    from cfctl.diagnose.diagnosis import Diagnosis
    from cfctl.diagnose.record import CheckResult
    from cfctl.monitor.check import CheckDocument, TargetResult
    from cfctl.monitor.snapshot import Series
    from cfctl.monitor.targets import Target

Diagnose = Callable[[Request], "Diagnosis"]
# Counters have to move to show anything; longer would delay the next snapshot.
INTERVAL_NS: Final = 200_000_000
_TAKEN_AWAY: Final = (
    "CGROUP_CPU_THROTTLED", "CPU_STEAL", "HYPERVISOR_NOISE", "RUN_DELAY", "RUN_QUEUE_SATURATED", "SOFTIRQ_LOAD",
    "IRQ_RATE", "IPI_STORM", "CPU_THERMAL_THROTTLE",
)  # fmt: skip
_STALLED: Final = (
    "MAJOR_FAULTS", "SWAP_ACTIVITY", "DIRECT_RECLAIM", "MEMORY_PRESSURE", "CGROUP_MEMORY_HIGH", "CGROUP_PRESSURE",
)  # fmt: skip
_SLOWED: Final = (*_TAKEN_AWAY, *_STALLED, "CLOCKSOURCE_SLOW", "PTRACED", "TRACING_ACTIVE", "THP_DEFRAG")
# Which checks can be the cause of a miss, by the beginning of the metric's name. An issue that has no
# way to cause it is no explanation, however grave it is.
EXPLAINING: Final[dict[str, tuple[str, ...]]] = {
    "cpu_": (*_TAKEN_AWAY, "CPU_TOO_FEW"),
    "context_switches": ("RUN_QUEUE_SATURATED", "IRQ_RATE", "SOFTIRQ_LOAD", "IPI_STORM"),
    "memory_": ("RSS_TARGET", "MEMORY_LOW", "CGROUP_MEMORY_HIGH", "MEMORY_PRESSURE", "SWAP_ACTIVITY", "OOM_KILLS"),
    "pressure": (*_TAKEN_AWAY, *_STALLED, "IO_PRESSURE"),
    "temporal_accuracy": (
        "TSC_NOT_INVARIANT", "TSC_UNSTABLE", "TSC_CALIBRATION", "TSC_CPU_SKEW", "CLOCKSOURCE_SLOW", "CLOCK_FREQ_CORRECTION",
    ),
    "calibration_age": ("TSC_CALIBRATION",),
    "network_": ("NET_SOFTNET_DROP", "NET_TIME_SQUEEZE", "NET_UDP_DROPS", "NET_TCP_RETRANS", "NET_LINK_ERRORS"),
    "disk_": ("IO_PRESSURE", "DISK_ROTATIONAL", "FSYNC_COST"),
    "operation_": _SLOWED,
    "process_cpu": _TAKEN_AWAY,
    "message_": (*_SLOWED, "CPU_TOO_FEW", "MESSAGE_LATENCY", "BUFFER_OVERFLOW", "THROUGHPUT_LOW"),
    "publish_rate": _SLOWED,
    "packet_loss": (*_SLOWED, "MESSAGE_LOSS", "BUFFER_OVERFLOW", "SUBSCRIPTION_LEAK"),
    "pending_messages": (*_SLOWED, "BUFFER_OVERFLOW", "SUBSCRIPTION_LEAK"),
    "active_subscriptions": ("OOM_KILLS", "SUBSCRIPTION_LEAK"),
    "phase_coherence": (*_SLOWED, "TIMER_SLACK", "CPU_CSTATE_DEEP", "QUANTUM_COHERENCE", "SCHEDULE_OVERLOAD"),
    "schedul": (*_SLOWED, "SCHEDULE_OVERLOAD"),
    "deadline_misses": (*_SLOWED, "DEADLINE_MISSES", "SCHEDULE_OVERLOAD"),
    "hlc_drift": ("CLOCK_FREQ_CORRECTION", "TSC_CALIBRATION", "HLC_DRIFT"),
    "pool_": ("MEMORY_PRESSURE", "MAJOR_FAULTS"),
    "allocation_": ("MEMORY_LOW", "CGROUP_MEMORY_HIGH", "MEMORY_PRESSURE", "OOM_KILLS", "THP_DEFRAG"),
}  # fmt: skip


def explaining(metric: str) -> tuple[str, ...]:
    """Return the ids of the checks that can explain a miss of a metric; () for one nobody thought of."""
    return next((checks for start, checks in EXPLAINING.items() if metric.startswith(start)), ())


def explain(target: Target, series: Series, diagnosis: Diagnose = diagnose) -> Cause | None:
    """Return the gravest issue that can be the cause, None when a quick diagnosis finds none.

    Takes INTERVAL_NS and some tenths of a second of CPU time; measures nothing.
    """
    pid = dict(series.labels).get("pid", "")
    issues = _issues(explaining(target.metric), int(pid) if pid.isdecimal() else None, diagnosis)
    return _cause(issues[0]) if issues else None


def explained(
    document: CheckDocument, pid: int | None = None, diagnosis: Diagnose = diagnose
) -> CheckDocument:
    """Return a check with the cause of each miss, by one quick diagnosis for all of them; costs as `explain`.

    Also of a miss that is inconclusive because the machine was busy: what keeps it busy is to be known.
    `pid` is the process that was checked; None looks at the machine alone.
    """
    missed = [result for result in document.results if _is_miss(result)]
    wanted = dict.fromkeys(check for result in missed for check in explaining(result.target.metric))
    issues = _issues(tuple(wanted), pid, diagnosis)

    def with_cause(result: TargetResult) -> TargetResult:
        if not _is_miss(result):
            return result
        fitting = set(explaining(result.target.metric))
        found = next((issue for issue in issues if issue.id in fitting), None)
        return replace(result, cause=None if found is None else _cause(found))

    return replace(document, results=tuple(map(with_cause, document.results)))


def _is_miss(result: TargetResult) -> bool:
    return result.verdict is Verdict.FAIL or result.doubt is not None


def _issues(wanted: tuple[str, ...], pid: int | None, diagnosis: Diagnose) -> list[CheckResult]:
    """Return the issues among some checks, the gravest first."""
    if not wanted:
        return []
    request = Request(measure=False, interval_ns=INTERVAL_NS, only=wanted, pid=pid)
    try:
        found = diagnosis(request)
    except CfctlError:
        # The process ended in between: a miss without a cause is still a miss.
        return []
    return [result for result in found.checks if result.status is Status.ISSUE]


def _cause(issue: CheckResult) -> Cause:
    whose = "" if issue.actor is Actor.YOU else f" ({issue.actor})"
    return Cause(issue.id, issue.description or issue.title, f"{issue.solution or ''}{whose}")
