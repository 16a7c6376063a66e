"""Checks of the message bus as it is seen from outside: rings, subscriptions, latency, loss, health."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final, TypeVar

from cfctl.bus.report import GRAIN
from cfctl.diagnose.advice import Fix
from cfctl.diagnose.bus import channel_size, quantile_interval, waiting_messages
from cfctl.diagnose.engine import Issue, NotApplicable, Outcome, Pass, check
from cfctl.diagnose.impact import SEEN_BY_CHECK, Impact, not_measurable
from cfctl.diagnose.order_statistics import count_bounds
from cfctl.diagnose.record import Area, Scope, Subject
from cfctl.errors import UnobservableError
from cfctl.records import Measurement, Severity
from cfctl.text import safe_text
from cfctl.units import format_quantity

if TYPE_CHECKING:
    from cfctl.bus.statistics import (
        BusReport,
        DispatcherStatistics,
        PublisherStatistics,
        SubscriptionStatistics,
    )
    from cfctl.diagnose.subject import Host

End = TypeVar("End", "PublisherStatistics", "SubscriptionStatistics", "DispatcherStatistics")
PENDING: Final = 1000
LOSS: Final = 1e-4
LATENCY_NS: Final = 1000.0
THROUGHPUT: Final = 1e6
# Slower than its publisher by more than the readings can be off.
_KEEPS_UP: Final = 0.95
_SLEEPS_NS: Final = 5000.0
# With fewer messages a second a longer spin than this would burn the CPU for nothing.
_MAX_SPIN_US: Final = 1000.0
LOSES: Final = not_measurable("it costs messages, not time")
GUIDE: Final = "the performance guide, Message Bus"


def current(found: Sequence[End]) -> list[End]:
    """Return those that live, where none does those that remain."""
    return [each for each in found if each.state == "live"] or list(found)


def named(each: PublisherStatistics | SubscriptionStatistics) -> str:
    """Return an endpoint as "'prices' of process 4711"."""
    return f"'{safe_text(each.topic, 60)}' of process {each.pid}"


def times(value_ns: float | None) -> str:
    """Return a time as text."""
    return format_quantity(value_ns, "ns")


def _rate(value: float) -> str:
    return format_quantity(value, "1/s")


@check(
    "BUS_NOT_RUNNING",
    "No message bus runs",
    Severity.LOW,
    Area.BUS,
    rule="no publisher and no subscription lives",
    source=GUIDE,
    solution="Start the program that publishes or subscribes; cfctl bus stats shows what is there.",
    impact=not_measurable("nothing runs"),
    scope=Scope.PROCESS,
    needs=("bus",),
    also=(Subject.LATENCY,),
)
def bus_not_running(host: Host) -> Outcome:
    """Without a bus nothing can be said about it: that is no pass."""
    report = host.bus()
    publishers = sum(each.is_live for each in report.publishers)
    subscriptions = sum(each.active for each in report.subscriptions)
    if not report.live:
        raise UnobservableError("the programs of the bus have ended; what they left is judged")
    return Pass(f"{publishers} publishers and {subscriptions} subscriptions on {len(report.topics)} topics")


@check(
    "ROUTER_UNHEALTHY",
    "The bus is not healthy",
    Severity.HIGH,
    Area.BUS,
    rule="the clock's rate is not known, a ring is not joined, a reader is dead, or a message was rejected or dropped in the interval",
    source="the performance guide, hardware router health; cfctl.bus.Bus.health",
    solution="Act on each condition that does not hold.",
    impact=LOSES,
    scope=Scope.PROCESS,
    needs=("bus",),
    also=(Subject.LATENCY,),
)
def router_unhealthy(host: Host) -> Outcome:
    """Each of the four conditions is what messages need to arrive: a clock, a joined ring, a live reader, room."""
    report = host.bus()
    if report.healthy is None:
        raise UnobservableError("nothing of the bus lives")
    for condition in report.conditions:
        host.saw(f"bus, {condition.name}", condition.holds, condition.why)
    wrong = [condition for condition in report.conditions if not condition.holds]
    if not wrong:
        return Pass("; ".join(condition.why for condition in report.conditions))
    remedies = " ".join(_REMEDIES[condition.name] for condition in wrong)
    text = "; ".join(f"not {condition.name}: {condition.why}" for condition in wrong)
    return Issue(f"{text[:1].upper()}{text[1:]}.", Fix(privilege=None, solution=remedies))


_REMEDIES: Final = {
    "clock known": "Call cfctl.clock.calibrate() when the program starts.",
    "rings joined": "Receive in a loop of its own (for payload in subscription): a subscription joins when it is asked.",
    "consumers alive": "Start the subscriber again; the publisher drops a dead one when its ring is full.",
    "no overrun": "See BUFFER_OVERFLOW and MESSAGE_LOSS.",
}


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
    report = host.bus()
    found, remedies = [], []
    for ring in current(report.publishers):
        rejected = ring.rejected if ring.rejected_now is None else ring.rejected_now
        host.saw(f"ring {named(ring)}", f"{ring.pending} pending, {rejected} rejected")
        if ring.pending <= PENDING and not rejected:
            continue
        age = "" if ring.oldest_age_ns is None else f", the oldest for {times(ring.oldest_age_ns)}"
        found.append(f"{named(ring)}: {ring.pending} of {ring.capacity} pending{age}, {rejected} rejected")
        remedies.append(_room_for(ring, report, rejected))
    for bus in current(report.dispatchers):
        waiting = bus.queued + bus.held
        if host.saw(f"queues of bus {bus.bus}", waiting) > PENDING:
            found.append(f"the dispatcher of process {bus.pid}: {bus.queued} queued, {bus.held} held")
            remedies.append(
                "Publish without deadline, dependency or offset what needs none: it skips the queue."
            )
    if not found:
        return Pass(f"{len(report.publishers)} rings, at most {PENDING} pending in each, none rejected")
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


def _slowest(topic: str, report: BusReport) -> SubscriptionStatistics | None:
    readers = [each for each in report.subscriptions if each.topic == topic and each.active]
    return min(readers, key=lambda each: each.rate.value or 0.0, default=None)


def _room_for(ring: PublisherStatistics, report: BusReport, rejected: int) -> str:
    """Return the code that gives a burst room, or says that no room is enough."""
    reader = _slowest(ring.topic, report)
    taken = reader.rate.value if reader is not None and reader.window_latency is not None else None
    offered = ring.rate.value
    full = ring.capacity is not None and ring.pending >= 0.9 * ring.capacity
    if ring.published_now is not None and reader is not None and not reader.delivered_now and ring.pending:
        return f"Make process {reader.pid} receive, or unsubscribe: it took nothing in the interval."
    if full and offered is not None and taken is not None:
        return (
            f"No size helps: {_rate(taken)} are taken and the ring is full. Take batches "
            f"(subscription.recv_many(256)) in process {reader.pid if reader else 0}, or publish less."
        )
    high = max(ring.high_water or 0, ring.pending)
    size = channel_size(high + rejected)
    wait_ns = None if reader is None else reader.latency.max.value
    by_law = ""
    if offered is not None and wait_ns is not None:
        waiting = waiting_messages(offered, wait_ns)
        size = max(size, channel_size(waiting))
        by_law = f"; by Little's law {_rate(offered)} x {times(wait_ns)} = {waiting:.0f}"
    return (
        f"In process {ring.pid}: Bus(BusConfig(channel_buffer_size={size})); the burst left {high} waiting and "
        f"{rejected} rejected{by_law}."
    )


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
    """A dropped message was accepted and overwritten before its subscriber took it: nobody is told."""
    report = host.bus()
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
        return Pass(f"{sum(each.copies for each in report.subscriptions)} copies, fewer than {LOSS:.2%} lost")
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
    rings = [ring for ring in report.publishers if ring.topic == each.topic and ring.overwrite]
    capacity = max((ring.capacity or 0 for ring in rings), default=0)
    if lost > (1 - _KEEPS_UP) * copies:
        return (
            f"Bus(BusConfig(overwrite=False)) in the publisher of '{safe_text(each.topic, 60)}' makes it wait: "
            f"the subscriber takes {1 - lost / copies:.0%} of what comes, which no size makes good."
        )
    size = channel_size(capacity + lost)
    return (
        f"In the publisher of '{safe_text(each.topic, 60)}': Bus(BusConfig(overwrite=True, "
        f"channel_buffer_size={size})); {capacity} slots were {lost} too few."
    )


@check(
    "MESSAGE_LATENCY",
    "Messages take long",
    Severity.MEDIUM,
    Area.BUS,
    rule="the median from publishing to receiving > 1 us, with its whole 95 % interval",
    source=f"{GUIDE} (there of the mean, which single stalls rule)",
    solution="Wait by spinning on a CPU of its own.",
    impact=SEEN_BY_CHECK,
    scope=Scope.PROCESS,
    needs=("bus",),
    also=(Subject.LATENCY,),
)
def message_latency(host: Host) -> Outcome:
    """What a ring takes is a cache line's transfer; the rest is waking up, or waiting behind other messages."""
    report = host.bus()
    slow, judged, unsure = [], 0, []
    for each in current(report.subscriptions):
        latency = (
            each.latency
            if each.window_latency is None or each.window_latency.count < 20
            else each.window_latency
        )
        interval = quantile_interval(latency, 0.5)
        if latency.p50.value is None or interval is None:
            unsure.append(f"{named(each)}: {latency.p50.reason}")
            continue
        low, high = interval
        figures = f"p50 {times(latency.p50.value)} (95 % {times(low)} to {times(high)}, n {latency.count})"
        figures += f", p99 {times(latency.p99.value)}" if latency.p99.value is not None else ""
        host.saw(f"latency of {named(each)}", latency.p50.value, figures)
        text = f"{named(each)}: {figures}"
        if low > LATENCY_NS:
            slow.append((each, latency.p50, text))
        elif high > LATENCY_NS:
            unsure.append(f"{text} lies on both sides of 1 us")
        else:
            judged += 1
    if slow:
        worst = max(slow, key=lambda found: found[1].value or 0.0)
        cost = Measurement(
            worst[1].value, "ns/message", worst[1].uncertainty, worst[1].sample_count, "median of the worst"
        )
        return Issue(
            f"{'; '.join(text for _, _, text in slow[:3])}.",
            Fix(privilege=None, solution=_faster(worst[0])),
            observed=Impact(cost),
        )
    if not judged:
        raise UnobservableError("; ".join(unsure[:3]) or "nothing subscribes")
    return Pass(f"{judged} subscriptions with a median of at most 1 us")


def _faster(each: SubscriptionStatistics) -> str:
    """Return the code for what the latency is made of: waiting behind others, sleeping, or distance."""
    median, rate = each.latency.p50.value or 0.0, each.rate.value or 0.0
    waiting = waiting_messages(rate, median)
    if waiting > 2:
        return (
            f"Take batches in process {each.pid}: subscription.recv_many({channel_size(waiting)}); by Little's law "
            f"{_rate(rate)} x {times(median)} = {waiting:.0f} messages wait."
        )
    if median > _SLEEPS_NS:
        gap_us = 2e6 / rate if rate else _MAX_SPIN_US
        spin = f', or Bus(BusConfig(wait="adaptive", spin_us={gap_us:.0f}))' if gap_us < _MAX_SPIN_US else ""
        return f'In process {each.pid}: Bus(BusConfig(wait="spin")){spin}: it sleeps between messages, and is woken by the kernel.'
    return f"Pin publisher and process {each.pid} to two near CPUs (taskset -cp CPU {each.pid}; cfctl probe core-to-core)."


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
    report = host.bus()
    if report.window_ns is None:
        raise UnobservableError("needs an interval: run with --duration")
    loaded, slow = 0, []
    for topic in report.topics:
        rings = [each for each in report.publishers if each.topic == topic.topic]
        rejected = sum(each.rejected_now or 0 for each in rings)
        # A reader that keeps up has some messages of its last grain to tell.
        if not rejected and topic.pending <= 2 * GRAIN:
            continue
        loaded += 1
        readers = [each for each in report.subscriptions if each.topic == topic.topic and each.active]
        rate = min((each.rate.value or 0.0 for each in readers), default=0.0)
        text = (
            f"'{safe_text(topic.topic, 60)}' {_rate(rate)} with {topic.pending} pending, {rejected} rejected"
        )
        host.saw(f"topic '{safe_text(topic.topic, 60)}' under load", rate, text)
        if rate < THROUGHPUT:
            slow.append(text)
    if not loaded:
        raise UnobservableError("no load: all that was published was taken")
    if not slow:
        return Pass(f"{loaded} topics under load, each at 1 M/s or more")
    return Issue(f"{'; '.join(slow)}.", Fix(privilege=None))


@check(
    "SUBSCRIPTION_LEAK",
    "A subscription is kept that nobody reads",
    Severity.MEDIUM,
    Area.BUS,
    rule="in the interval it took nothing of 32 or more messages that wait, or never any, or subscriptions were made and none ended",
    source="the performance guide, Subscription Management; judgement",
    solution="bus.unsubscribe(subscription) when the subscriber goes, or keep no reference to it.",
    impact=LOSES,
    scope=Scope.PROCESS,
    needs=("bus",),
    also=(Subject.LATENCY,),
)
def subscription_leak(host: Host) -> Outcome:
    """A ring waits for each of its subscriptions: one that is not read stops its publishers when the ring is full."""
    report = host.bus()
    if not (report.subscriptions or report.dispatchers):
        return NotApplicable("nothing subscribes")
    if report.window_ns is None:
        raise UnobservableError("needs an interval: run with --duration")
    found = []
    for each in report.subscriptions:
        if not each.active:
            continue
        host.saw(f"subscription {named(each)}", f"{each.delivered_now} taken, {each.pending} wait")
        # Of several rings the last messages may be taken and not yet told.
        unread = each.pending >= GRAIN * each.rings or (each.pending and not each.delivered)
        if unread and not each.delivered_now and not each.dropped_now:
            found.append(f"{named(each)} took none of {each.pending} messages")
    for bus in report.dispatchers:
        made, ended = (
            (bus.counts_now or {}).get("subscribed", 0),
            (bus.counts_now or {}).get("unsubscribed", 0),
        )
        host.saw(f"bus {bus.bus} of process {bus.pid}", f"{made} subscriptions made, {ended} ended")
        if bus.state == "live" and made and not ended:
            found.append(
                f"process {bus.pid} made {made} subscriptions and ended none; {bus.open_subscriptions} are open"
            )
    if not found:
        return Pass(f"{_count(report.subscriptions)} active subscriptions are read")
    return Issue(f"{'; '.join(found[:3])}.", Fix(privilege=None))


def _count(subscriptions: Iterable[SubscriptionStatistics]) -> int:
    return sum(each.active for each in subscriptions)
