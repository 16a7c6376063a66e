"""Checks of what the bus's dispatchers and clocks do: regularity, deadlines, order of causes, drift."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from cfctl.bus.health import counted
from cfctl.bus.statistics import missed_of
from cfctl.diagnose.advice import Fix
from cfctl.diagnose.checks.bus import GUIDE, LOSES, judged, times
from cfctl.diagnose.engine import Issue, NotApplicable, Outcome, Pass, check
from cfctl.diagnose.impact import SEEN_BY_CHECK, Impact, not_measurable
from cfctl.diagnose.order_statistics import count_bounds
from cfctl.diagnose.record import Area, Scope, Subject
from cfctl.errors import UnobservableError
from cfctl.records import Measurement, Severity

if TYPE_CHECKING:
    from cfctl.bus.statistics import BusReport, DispatcherStatistics
    from cfctl.diagnose.subject import Host
    from cfctl.temporal.coherence import Coherence

COHERENCE: Final = 0.5
# R of 0.7, the guide's alert limit, is a jitter of 13.4 % of the quantum (reference: Mardia and Jupp).
_JITTER_RATIO: Final = 0.134
# Below so many times the bias floor R says that the phases are random, and no jitter follows from it.
_ABOVE_NOISE: Final = 3.0
# BusConfig takes no longer one.
_MAX_QUANTUM_US: Final = 1_000_000
OVERLOAD: Final = 0.8
_HIGH_MISS: Final = 0.01
# Within one host clocks are one: a stamp this far ahead came from another clock.
DRIFT_NS: Final = 1_000_000
_NO_DISPATCH: Final = NotApplicable("nothing went through a dispatcher: no deadline, dependency or offset")


def _dispatching(report: BusReport) -> list[DispatcherStatistics]:
    return [each for each in report.dispatchers if each.counts["dispatches"]]


def _who(each: DispatcherStatistics) -> str:
    return f"bus {each.bus} of process {each.pid}"


@check(
    "QUANTUM_COHERENCE",
    "Dispatch is irregular",
    Severity.MEDIUM,
    Area.BUS,
    rule=f"phase coherence R < {COHERENCE} with its whole 95 % interval, of 30 dispatches or more",
    source=f"{GUIDE}; R and its error: Mardia and Jupp, Directional Statistics, 2000",
    solution="Give the dispatcher a CPU of its own, or a longer quantum.",
    impact=SEEN_BY_CHECK,
    scope=Scope.PROCESS,
    needs=("bus",),
    also=(Subject.LATENCY,),
)
def quantum_coherence(host: Host) -> Outcome:
    """Messages leave at any phase of their quantum: the dispatcher is late or preempted, and slots mean nothing."""
    dispatchers = _dispatching(judged(host))
    if not dispatchers:
        return _NO_DISPATCH
    poor, good, unsure = [], [], []
    for each in dispatchers:
        found = each.coherence
        if found is None or found.score is None:
            unsure.append("nothing dispatched" if found is None else found.reason or "")
            continue
        error = max(2 * (1 - found.score**2) / math.sqrt(2 * found.samples), 1 / found.samples)
        figures = (
            f"R {found.score:.3f} +- {error:.2g} (n {found.samples}, p {found.p_value or 0:.2g}, "
            f"noise floor {found.bias_floor or 0:.2g})"
        )
        host.saw(f"phase coherence of {_who(each)}", round(found.score, 4), figures)
        text = f"{_who(each)}: {figures}"
        if found.score + error < COHERENCE:
            poor.append((each, found, text))
        elif found.score - error < COHERENCE:
            unsure.append(f"{text} is inconclusive: watch longer with --duration")
        else:
            good.append(text)
    if poor:
        worst, coherence, _ = min(poor, key=lambda found: found[1].score or 0.0)
        return Issue(
            f"{'; '.join(text for _, _, text in poor[:3])}.",
            Fix(privilege=None, solution=_steadier(worst, coherence)),
            observed=_jitter(coherence),
        )
    if not good:
        raise UnobservableError("; ".join(unsure[:3]))
    return Pass("; ".join(good[:3]))


def _is_noise(found: Coherence) -> bool:
    return (found.score or 0.0) < _ABOVE_NOISE * (found.bias_floor or 0.0)


def _steadier(each: DispatcherStatistics, found: Coherence) -> str:
    """Return what makes the dispatcher regular without a cost, then what does it by a longer wait for messages."""
    pin = f"Pin the dispatcher's own thread to a CPU that nothing else uses: {_pinning(each)}."
    if found.jitter_ns is None or _is_noise(found):
        late_ns = _wakeup_ns(each)
        longer_us = math.ceil(max(10 * each.quantum_ns, late_ns / _JITTER_RATIO) / 1000)
        return (
            f"{pin} The phases are as good as random: a wake-up comes {times(late_ns)} late on average, and the quantum is "
            f"{times(each.quantum_ns)}. {_longer(each, min(_MAX_QUANTUM_US, longer_us))}"
        )
    longer_us = min(_MAX_QUANTUM_US, math.ceil(found.jitter_ns / _JITTER_RATIO / 1000))
    return f"{pin} Or: {_longer(each, longer_us)} The jitter of {times(found.jitter_ns)} is then 13 % of the quantum, and R 0.7."


def _wakeup_ns(each: DispatcherStatistics) -> float:
    """Return how late the dispatcher comes to a message on average."""
    counts = each.counts_now if each.counts_now and each.counts_now["dispatches"] else each.counts
    return counts["idle_pending"] / max(1, counts["dispatches"])


def _pinning(each: DispatcherStatistics) -> str:
    if each.thread_id is not None:
        return f"taskset -cp CPU {each.thread_id}"
    thread = "t.native_id for t in threading.enumerate() if t.name == 'cfctl bus dispatcher'"
    return f"taskset -cp CPU TID, in process {each.pid} TID is {thread}"


def _longer(each: DispatcherStatistics, longer_us: int) -> str:
    return (
        f"In process {each.pid}: Bus(BusConfig(quantum_us={longer_us})). It costs latency: a message waits up to "
        f"{times(1000 * longer_us)} for its slot, now up to {times(each.quantum_ns)}."
    )


def _jitter(found: Coherence) -> Impact | None:
    if found.jitter_ns is None or _is_noise(found):
        return None
    method = "jitter of a normal distribution with this R"
    return Impact(Measurement(found.jitter_ns, "ns/dispatch", None, found.samples, method))


@check(
    "SCHEDULE_OVERLOAD",
    "A dispatcher has hardly any time left",
    Severity.MEDIUM,
    Area.BUS,
    rule=f"schedule utilization > {OVERLOAD}",
    source="Liu and Layland 1973: earliest deadline first meets all deadlines up to 1",
    solution="Publish without deadline, dependency or offset what needs none, or make a second Bus for a part of the topics.",
    impact=not_measurable("what waits longer is in the lateness: DEADLINE_MISSES"),
    scope=Scope.PROCESS,
    needs=("bus",),
    also=(Subject.LATENCY,),
)
def schedule_overload(host: Host) -> Outcome:
    """From a utilization of 1 on the queue grows without end, whatever its order."""
    dispatchers = _dispatching(judged(host))
    if not dispatchers:
        return _NO_DISPATCH
    found = []
    for each in dispatchers:
        share = each.utilization.value
        if share is not None:
            host.saw(
                f"utilization of {_who(each)}", round(share, 4), f"{share:.1%} {each.utilization.method}"
            )
            found.append((share, each))
    if not found:
        raise UnobservableError("the clock's rate is not known")
    over = [f"{_who(each)} is busy {share:.0%} of the time" for share, each in found if share > OVERLOAD]
    if not over:
        return Pass(f"{len(found)} dispatchers, busy {max(share for share, _ in found):.1%} at most")
    return Issue(f"{'; '.join(over)}.", Fix(privilege=None))


@check(
    "DEADLINE_MISSES",
    "Messages miss their deadline",
    Severity.MEDIUM,
    Area.BUS,
    rule=f"late + expired + refused > 0 in the interval; high above {_HIGH_MISS:.0%} of those with a deadline",
    source=GUIDE,
    solution="Publish earlier, or give deadlines that the measured lateness leaves room for.",
    impact=SEEN_BY_CHECK,
    scope=Scope.PROCESS,
    needs=("bus",),
    also=(Subject.LATENCY,),
)
def deadline_misses(host: Host) -> Outcome:
    """A late message was worth less than an early one, or nothing; an expired or refused one was work for nobody."""
    report = judged(host)
    whole = [each for each in report.dispatchers if missed_of(each.counts)[1]]
    if not whole:
        return NotApplicable("no message has a deadline")
    bad, due_now = [], 0
    when = "" if report.window_ns is None else " in the interval"
    for each in whole:
        missed, due = missed_of(each.counts_now or each.counts)
        due_now += due
        host.saw(f"deadlines of {_who(each)}", missed, f"{missed} of {due} missed")
        if missed:
            bad.append((missed / due, missed, due, each))
    if not bad:
        return Pass(f"{due_now} messages with a deadline{when}, none missed")
    worst = max(bad, key=lambda found: found[0])
    text = "; ".join(_missed(*found) for found in bad[:3])
    return Issue(
        f"{text}.",
        Fix(privilege=None, solution=_in_time(worst[3], report)),
        severity=Severity.HIGH if worst[0] > _HIGH_MISS else None,
        observed=_lateness(worst[3]),
    )


def _missed(ratio: float, missed: int, due: int, each: DispatcherStatistics) -> str:
    low, high = count_bounds(missed)
    late = each.lateness
    by = (
        f"; late by p50 {times(late.p50.value)}, max {times(late.max.value)} (n {late.count})"
        if late.count
        else ""
    )
    interval = f"95 % {low / due:.2%} to {min(1.0, high / due):.2%}"
    counts = each.counts_now or each.counts
    kinds = ", ".join(f"{counts[kind]} {kind}" for kind in ("refused", "expired", "late") if counts[kind])
    return f"{_who(each)}: {missed} of {due} missed, {ratio:.2%} ({interval}): {kinds}{by}"


def _in_time(each: DispatcherStatistics, report: BusReport) -> str:
    share = max((other.utilization.value or 0.0 for other in report.dispatchers), default=0.0)
    if share > OVERLOAD:
        return "Shed load: a dispatcher is busy more than 80 % of the time (SCHEDULE_OVERLOAD)."
    counts = each.counts_now or each.counts
    room_ns = 2 * each.quantum_ns
    enough = f"publish_with_deadline(packet, time.time_ns() + {room_ns})"
    if counts["refused"] >= counts["expired"] + counts["late"]:
        return (
            f"In process {each.pid} the deadline of {counted(counts['refused'], 'message')} had passed when it was published. Take "
            f"the time just before, and give at least two quanta: {enough}."
        )
    needed = each.lateness.p99.value or each.lateness.max.value
    if needed is not None and counts["expired"] == 0:
        return (
            f"Give {times(needed)} more (the lateness that 99 % stay below, or the largest): publish_with_deadline(packet, "
            f"time.time_ns() + {math.ceil(needed)} + ...), or receive more often in process {each.pid}."
        )
    shorter_us = max(10, each.quantum_ns // 4000)
    shorter = f"; or a shorter quantum, whose wake-ups cost CPU time: Bus(BusConfig(quantum_us={shorter_us}))"
    return (
        f"In process {each.pid}, give at least two quanta, {times(room_ns)}: {enough}"
        f"{shorter if shorter_us < each.quantum_ns / 1000 else ''}."
    )


def _lateness(each: DispatcherStatistics) -> Impact | None:
    late = each.lateness
    if late.mean.value is None:
        return None
    return Impact(
        Measurement(late.mean.value, "ns/late message", late.mean.uncertainty, late.count, "mean lateness")
    )


@check(
    "CAUSALITY_VIOLATIONS",
    "Messages arrive against the order of their causes",
    Severity.HIGH,
    Area.BUS,
    rule="a violation in the interval (earlier in the run: medium)",
    source=GUIDE,
    solution="Act on the kind of violation.",
    impact=LOSES,
    scope=Scope.PROCESS,
    needs=("bus",),
    also=(Subject.LATENCY,),
)
def causality_violations(host: Host) -> Outcome:
    """Who sees the effect before its cause decides on what is not there yet."""
    report = judged(host)
    if not report.dispatchers:
        return NotApplicable("no bus counts them")
    kinds = ("fifo", "dependency", "hlc_order")
    now, whole = dict.fromkeys(kinds, 0), dict.fromkeys(kinds, 0)
    for each in report.dispatchers:
        for kind in kinds:
            whole[kind] += each.counts[f"{kind}_violations"]
            now[kind] += (each.counts_now or each.counts)[f"{kind}_violations"]
    for kind in kinds:
        host.saw(
            f"violations, {kind}", now[kind], f"{now[kind]} in the interval, {whole[kind]} since the start"
        )
    counted = now if any(now.values()) else whole
    wrong = [kind for kind in kinds if counted[kind]]
    if not wrong:
        held = sum(each.counts["held_by_deps"] for each in report.dispatchers)
        return Pass(f"none; {held} messages were held until their dependencies had come")
    text = ", ".join(f"{counted[kind]} {_KINDS[kind]}" for kind in wrong)
    when = "in the interval" if counted is now and report.window_ns else "since the start"
    return Issue(
        f"{text} {when}.",
        Fix(privilege=None, solution=" ".join(_ORDER_REMEDIES[kind] for kind in wrong)),
        severity=None if counted is now else Severity.MEDIUM,
    )


_KINDS: Final = {
    "fifo": "received twice or out of their publisher's order",
    "dependency": "delivered before a message they depend on",
    "hlc_order": "stamped before a message they depend on",
}
_ORDER_REMEDIES: Final = {
    "fifo": "Look for a publisher that was started again under the same number: cfctl bus record, then cfctl bus verify.",
    "dependency": "Wait longer for dependencies, Bus(BusConfig(dependency_timeout_ms=1000)), and subscribe to their topics too.",
    "hlc_order": "Give each process its own clock, cfctl.temporal.initialize_global_hlc(node_id=N) with N unique, and receive "
    "the cause before publishing the effect.",
}


@check(
    "HLC_DRIFT",
    "A hybrid logical clock runs ahead of the wall clock",
    Severity.MEDIUM,
    Area.BUS,
    rule=f"a stamp > {DRIFT_NS // 1_000_000} ms ahead of this host's clock; high when stamps were refused",
    source="Kulkarni and others, Logical Physical Clocks, 2014; the limit within one host: judgement",
    solution="Synchronise the clock of the node that is ahead (chronyc tracking).",
    impact=not_measurable("it spoils the order of stamps, not time"),
    scope=Scope.KERNEL,
    needs=("bus",),
    also=(Subject.LATENCY,),
)
def hlc_drift(host: Host) -> Outcome:
    """A clock that is driven ahead by another's stamps tells a time that has not come; far ahead it is refused."""
    clocks = judged(host).clocks
    if not clocks:
        return NotApplicable("no process stamps messages")
    ahead, refused = [], []
    for each in clocks:
        who = f"node {each.node} of process {each.pid}"
        text = f"{times(each.drift_max_ns)} ahead at most, {each.refused} of {each.received + each.refused} refused"
        host.saw(f"clock {who}", each.drift_max_ns, f"{text}, {each.steps_back} steps back")
        if each.refused:
            refused.append(f"{who} refused {each.refused} messages of node or publisher {each.refused_node}")
        elif each.drift_max_ns > DRIFT_NS:
            by = f", driven by node or publisher {each.ahead_node}" if each.ahead_node else ""
            steps = f", after {each.steps_back} steps back of the wall clock" if each.steps_back else ""
            ahead.append(f"{who} ran {times(each.drift_max_ns)} ahead{by}{steps}")
    if not ahead and not refused:
        return Pass(f"{len(clocks)} clocks, {times(max(each.drift_max_ns for each in clocks))} ahead at most")
    return Issue(
        f"{'; '.join([*refused, *ahead][:3])}.",
        Fix(privilege=None),
        severity=Severity.HIGH if refused else None,
    )
