"""Checks of what flows over the bus's rings: what piles up, what is lost, how much gets through."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from cfctl.bus.health import counted
from cfctl.bus.seen_ends import GRAIN
from cfctl.diagnose.advice import Fix
from cfctl.diagnose.bus import channel_size
from cfctl.diagnose.checks.bus import GUIDE, LOSES, in_group, judged, named, per_second, times
from cfctl.diagnose.engine import Issue, Outcome, Pass, check
from cfctl.diagnose.impact import SEEN_BY_CHECK, Impact
from cfctl.diagnose.order_statistics import count_bounds
from cfctl.diagnose.record import Area, Scope, Subject
from cfctl.errors import UnobservableError
from cfctl.records import Measurement, Severity
from cfctl.text import safe_text

if TYPE_CHECKING:
    from cfctl.bus.statistics import BusReport, PublisherStatistics, SubscriptionStatistics
    from cfctl.diagnose.subject import Host

PENDING: Final = 1000
LOSS: Final = 1e-4
THROUGHPUT: Final = 1e6
# Slower than its publisher by more than the readings can be off.
_KEEPS_UP: Final = 0.95
_FULL: Final = 0.9


@check(
    "BUFFER_OVERFLOW",
    "Messages pile up before a subscriber",
    Severity.HIGH,
    Area.BUS,
    rule=f"more than {PENDING} messages pending in a ring or queue, or a full ring rejected some in the interval",
    source=GUIDE,
    solution="Enlarge BusConfig.channel_buffer_size for bursts, else make the subscriber faster.",
    impact=SEEN_BY_CHECK,
    scope=Scope.PROCESS,
    needs=("bus",),
    also=(Subject.LATENCY,),
)
def buffer_overflow(host: Host) -> Outcome:
    """Each waiting message adds its predecessors' service time to its own latency; a full ring accepts none."""
    report = judged(host)
    found, remedies = [], []
    for ring in report.publishers:
        rejected = ring.rejected if ring.rejected_now is None else ring.rejected_now
        host.saw(f"ring {named(ring)}", f"{ring.pending} pending, {rejected} rejected")
        if ring.pending <= PENDING and not rejected:
            continue
        room = "" if ring.capacity is None else f" of {ring.capacity}"
        age = "" if ring.oldest_age_ns is None else f", the oldest for {times(ring.oldest_age_ns)}"
        found.append(f"{named(ring)}: {ring.pending}{room} pending{age}, {rejected} rejected")
        remedies.append(_room_for(ring, report, rejected))
    for bus in report.dispatchers:
        waiting = bus.queued + bus.held
        if host.saw(f"queues of bus {bus.bus}", waiting) > PENDING:
            found.append(f"the dispatcher of process {bus.pid}: {bus.queued} queued, {bus.held} held")
            remedies.append(
                "Publish plainly what needs no deadline, dependency or offset: it skips the queue."
            )
    if not found:
        return Pass(
            f"{counted(len(report.publishers), 'ring')}, at most {PENDING} pending in each, none rejected"
        )
    return Issue(
        f"{'; '.join(found)}.",
        Fix(privilege=None, solution=" ".join(dict.fromkeys(remedies))),
        observed=_oldest(report),
    )


def _oldest(report: BusReport) -> Impact | None:
    ages = [each.oldest_age_ns for each in report.publishers if each.oldest_age_ns is not None]
    if not ages:
        return None
    cost = Measurement(max(ages), "ns/message", None, 1, "age of the oldest message that waits")
    return Impact(cost)


def _stalled_on(topic: str, report: BusReport) -> str | None:
    """Return who takes nothing of a topic's messages."""
    for each in report.subscriptions:
        if each.topic == topic and each.stalled:
            return f"process {each.pid}"
    for group in report.groups:
        if group.topic == topic and group.pending and group.delivered_now == 0 and not group.unfinished:
            return in_group(group)
    return None


def _room_for(ring: PublisherStatistics, report: BusReport, rejected: int) -> str:
    """Return the code that gives a burst room, or says that no room is enough."""
    stalled = _stalled_on(ring.topic, report)
    if stalled is not None and ring.pending:
        return f"Make {stalled} receive, or unsubscribe: it took nothing in the interval."
    capacity = ring.capacity or 0
    if capacity and min(ring.pending, ring.pending_before or 0) >= _FULL * capacity:
        return (
            f"No size helps: the ring of process {ring.pid} is full all the time. Take batches "
            f"(subscription.recv_many(256)) in {_slowest(ring.topic, report)}, or publish less."
        )
    run = rejected if ring.rejected_run is None else ring.rejected_run
    # What the publisher saw waiting is of its whole run; a ring that rejected was full, or its arena was.
    most = max(ring.high_water or 0, ring.pending)
    if rejected and capacity and ring.high_water is not None and most < _FULL * capacity:
        return _arena_for(ring, most, run)
    high = max(most, capacity if rejected else 0)
    return (
        f"In process {ring.pid}: Bus(BusConfig(channel_buffer_size={channel_size(high + run)})), which holds the largest "
        f"burst: {high} waited and {run} more were rejected before any was taken."
    )


def _arena_for(ring: PublisherStatistics, most: int, run: int) -> str:
    needed = (ring.arena_bytes or 0) * math.ceil((most + run) / max(1, most))
    return (
        f"In process {ring.pid}: Bus(BusConfig(arena_bytes={min(needed, 1 << 30)})); at most {most} of {ring.capacity} "
        f"messages waited when {run} were rejected: the payloads' arena was full, not the ring."
    )


def _slowest(topic: str, report: BusReport) -> str:
    readers = [each for each in report.subscriptions if each.topic == topic and each.active]
    slowest = max(readers, key=lambda each: each.pending, default=None)
    if slowest is not None and slowest.pending:
        return f"process {slowest.pid}, which takes {per_second(slowest.rate.value or 0.0)}"
    return next((in_group(group) for group in report.groups if group.topic == topic), "its subscriber")


@check(
    "MESSAGE_LOSS",
    "Messages are lost",
    Severity.CRITICAL,
    Area.BUS,
    rule=f"dropped / copies > {LOSS:.2%} in the interval (earlier in the run: medium)",
    source=GUIDE,
    solution="Enlarge BusConfig.channel_buffer_size, or let publishers wait (overwrite=False).",
    impact=LOSES,
    scope=Scope.PROCESS,
    needs=("bus",),
    also=(Subject.LATENCY,),
)
def message_loss(host: Host) -> Outcome:
    """A dropped message was accepted and overwritten before its subscriber took it; only its count remains."""
    report = judged(host)
    losing, earlier = [], []
    for each in report.subscriptions:
        lost = each.dropped if each.dropped_now is None else each.dropped_now
        taken = each.delivered if each.delivered_now is None else each.delivered_now
        copies = lost + taken + (each.pending if each.dropped_now is None else 0)
        host.saw(f"subscription {named(each)}", f"{lost} of {copies} dropped, {each.dropped} since the start")
        if lost > LOSS * copies:
            losing.append((each, lost, copies))
        elif each.dropped > LOSS * each.copies:
            earlier.append((each, each.dropped, each.copies))
    if not losing and not earlier:
        copies = sum(each.copies for each in report.subscriptions)
        return Pass(f"{copies} copies for subscriptions, fewer than {LOSS:.2%} lost")
    texts = [_loss(*each) for each in losing or earlier]
    solution = " ".join(dict.fromkeys(_against_loss(*each, report) for each in losing or earlier))
    when = "" if losing else " None of it in the interval."
    return Issue(
        f"{'; '.join(texts)}.{when}",
        Fix(privilege=None, solution=solution),
        severity=None if losing else Severity.MEDIUM,
    )


def _loss(each: SubscriptionStatistics, lost: int, copies: int) -> str:
    low, high = count_bounds(lost)
    return (
        f"{named(each)} lost {lost} of {copies} messages, {lost / copies:.2%} "
        f"(95 % {low / copies:.2%} to {min(1.0, high / copies):.2%})"
    )


def _against_loss(each: SubscriptionStatistics, lost: int, copies: int, report: BusReport) -> str:
    topic = safe_text(each.topic, 60)
    if each.stalled:
        return f"Make process {each.pid} receive, or unsubscribe: it took nothing in the interval."
    if each.lossy:
        return (
            f"In process {each.pid}: subscribe(..., lossy=False) makes publishers wait for it; while its ring is full, "
            "publish() then waits and try_publish() is refused."
        )
    if lost > (1 - _KEEPS_UP) * copies:
        return (
            f"Bus(BusConfig(overwrite=False)) in the publisher of '{topic}' makes it wait: the subscriber takes "
            f"{1 - lost / copies:.0%} of what comes, for which no size makes up."
        )
    rings = [ring for ring in report.publishers if ring.topic == each.topic and ring.overwrite]
    capacity = max((ring.capacity or 0 for ring in rings), default=0)
    run = lost if each.dropped_run is None or lost != each.dropped_now else each.dropped_run
    # Who was overtaken goes on half a ring behind: the other half was there to be read.
    size = channel_size(capacity + run)
    return (
        f"In the publisher of '{topic}': Bus(BusConfig(overwrite=True, channel_buffer_size={size})); {capacity} slots "
        f"were {run} too few for the largest burst."
    )


@check(
    "THROUGHPUT_LOW",
    "The bus moves few messages although more wait",
    Severity.MEDIUM,
    Area.BUS,
    rule="fewer than 1 M/s delivered of a topic in the interval while messages were rejected or kept waiting",
    source=f"{GUIDE}; an idle bus is no fault",
    solution="Publish and take batches (publish_many, recv_many).",
    impact=LOSES,
    scope=Scope.PROCESS,
    needs=("bus",),
    also=(Subject.LATENCY,),
)
def throughput_low(host: Host) -> Outcome:
    """Under load the slower end sets the rate; without load the rate says nothing."""
    report = judged(host)
    if report.window_ns is None:
        raise UnobservableError("needs an interval: run with --duration")
    loaded, slow = 0, []
    for topic in report.topics:
        rings = [each for each in report.publishers if each.topic == topic.topic]
        rejected = sum(each.rejected_now or 0 for each in rings)
        # A reader that keeps up has some messages of its last grain to store.
        if not rejected and topic.pending <= 2 * GRAIN:
            continue
        loaded += 1
        readers = [each for each in report.subscriptions if each.topic == topic.topic and each.active]
        rate = min((each.rate.value or 0.0 for each in readers), default=0.0)
        name = safe_text(topic.topic, 60)
        text = f"'{name}' {per_second(rate)} with {topic.pending} pending, {rejected} rejected"
        host.saw(f"topic '{name}' under load", rate, text)
        if rate < THROUGHPUT:
            slow.append(text)
    if not loaded:
        raise UnobservableError("no load: all that was published was taken")
    if not slow:
        return Pass(f"{counted(loaded, 'topic')} under load, each at 1 M/s or more")
    return Issue(f"{'; '.join(slow)}.", Fix(privilege=None))
