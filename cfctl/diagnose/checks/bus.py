"""Checks of the message bus as it is seen from outside: who runs, who listens, and health."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Final

from cfctl.bus import health
from cfctl.bus.health import counted
from cfctl.diagnose.advice import Fix
from cfctl.diagnose.engine import Issue, NotApplicable, Outcome, Pass, check
from cfctl.diagnose.impact import not_measurable
from cfctl.diagnose.record import Area, Scope, Subject
from cfctl.errors import UnobservableError
from cfctl.records import Severity
from cfctl.text import safe_text
from cfctl.units import format_quantity

if TYPE_CHECKING:
    from cfctl.bus.statistics import (
        BusReport,
        DispatcherStatistics,
        GroupStatistics,
        PublisherStatistics,
        SubscriptionStatistics,
        TopicStatistics,
    )
    from cfctl.diagnose.subject import Host

LOSES: Final = not_measurable("it costs messages, not time")
GUIDE: Final = "the performance guide, Message Bus"
_NOTHING_LIVES: Final = "nothing of the bus lives; name a process that has ended to judge what it left"
# Fewer may be a program that starts.
_PILED_UP: Final = 3


def judged(host: Host) -> BusReport:
    """Return of the bus what is judged: what lives, and of a process or topic that was named and has ended, what it left.

    cfctl's own commands are left out unless one is named. Raises UnobservableError when nothing is left.
    """
    report = host.bus()
    ended = report.which is not None and not report.live

    def counts(each: PublisherStatistics | SubscriptionStatistics | DispatcherStatistics) -> bool:
        return (ended or each.state == "live") and (not each.own or str(each.pid) == report.which)

    found = dataclasses.replace(
        report,
        publishers=tuple(each for each in report.publishers if counts(each)),
        subscriptions=tuple(each for each in report.subscriptions if counts(each)),
        groups=tuple(each for each in report.groups if not each.own and (ended or each.members)),
        dispatchers=tuple(each for each in report.dispatchers if counts(each)),
        clocks=tuple(each for each in report.clocks if ended or each.state == "live"),
    )
    if not (found.publishers or found.subscriptions or found.dispatchers):
        raise UnobservableError(_NOTHING_LIVES)
    return found


def named(each: PublisherStatistics | SubscriptionStatistics) -> str:
    """Return an endpoint as "'prices' of process 4711"."""
    return f"'{safe_text(each.topic, 60)}' of process {each.pid}"


def in_group(each: GroupStatistics) -> str:
    """Return a group as "the group 'workers' on 'jobs'"."""
    return f"the group '{safe_text(each.group, 30)}' on '{safe_text(each.topic, 60)}'"


def times(value_ns: float | None) -> str:
    """Return a time as text."""
    return format_quantity(value_ns, "ns")


def per_second(value: float) -> str:
    """Return a rate as text."""
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
    report = judged(host)
    if not report.live:
        raise UnobservableError("the programs of the bus have ended; what they left is judged")
    publishers = counted(sum(each.is_live for each in report.publishers), "publisher")
    subscriptions = counted(sum(each.active for each in report.subscriptions), "subscription")
    return Pass(f"{publishers} and {subscriptions} on {counted(len(report.topics), 'topic')}")


@check(
    "ROUTER_UNHEALTHY",
    "The bus is not healthy",
    Severity.HIGH,
    Area.BUS,
    rule="the rate of the ticks is not known, a subscription is not attached to a ring, a consumer has ended without unsubscribing, a dispatcher's thread has ended, or a message was rejected or dropped in the interval",
    source="the performance guide, hardware router health; cfctl.bus.Bus.health",
    solution="Act on each condition that does not hold.",
    impact=LOSES,
    scope=Scope.PROCESS,
    needs=("bus",),
    also=(Subject.LATENCY,),
)
def router_unhealthy(host: Host) -> Outcome:
    """Each condition is what messages need to arrive: a clock, an attached ring, a live consumer, a dispatcher, room."""
    report = host.bus()
    for condition in report.conditions:
        host.saw(f"bus, {condition.name}", condition.holds, condition.why)
    wrong = [condition for condition in report.conditions if condition.holds is False]
    if wrong:
        remedies = " ".join(_REMEDIES[condition.name] for condition in wrong)
        text = "; ".join(condition.why for condition in wrong)
        return Issue(f"{text[:1].upper()}{text[1:]}.", Fix(privilege=None, solution=remedies))
    if report.healthy is None:
        unknown = {condition.why: None for condition in report.conditions if condition.holds is None}
        raise UnobservableError("; ".join(unknown))
    return Pass("; ".join(condition.why for condition in report.conditions))


_REMEDIES: Final = {
    health.CLOCK: "Call cfctl.clock.calibrate() when the program starts.",
    health.ATTACHED: "Receive in a loop (for payload in subscription): rings that could not be opened are tried again there.",
    health.CONSUMERS: "Start the subscriber again; the publisher drops an ended one when its ring is full.",
    health.DISPATCHERS: "Start the program again: its dispatcher sends nothing any more, and bus.temporal_metrics().thread_error "
    "says why.",
    health.NO_OVERRUN: "See BUFFER_OVERFLOW and MESSAGE_LOSS.",
}


@check(
    "NO_SUBSCRIBER",
    "A topic is published and nobody subscribes to it",
    Severity.MEDIUM,
    Area.BUS,
    rule="messages were published on a topic in the interval, and no living subscription or group is seated at it",
    source="judgement: publishing to nobody costs nothing and is reported to nobody",
    solution="Subscribe to the topic, or look at the names: cfctl bus topics.",
    impact=LOSES,
    scope=Scope.PROCESS,
    needs=("bus",),
    also=(Subject.LATENCY,),
)
def no_subscriber(host: Host) -> Outcome:
    """What is published to nobody is gone: a topic is a name that two programs have to spell alike."""
    report = judged(host)
    names = {each.topic for each in report.publishers}
    published = [topic for topic in report.topics if topic.topic in names]
    if not published:
        return NotApplicable("nothing publishes")
    unheard = []
    for topic in published:
        messages = topic.published if topic.published_now is None else topic.published_now
        host.saw(f"topic '{safe_text(topic.topic, 60)}'", topic.subscriptions, f"{messages} published")
        if messages and not topic.subscriptions:
            unheard.append((messages, topic))
    if not unheard:
        return Pass(f"{counted(len(published), 'topic')} with publishers, none published to nobody")
    texts = [_unheard(messages, topic) for messages, topic in unheard[:3]]
    return Issue(f"{'; '.join(texts)}.", Fix(privilege=None, solution=_spelling(unheard[0][1])))


def _unheard(messages: int, topic: TopicStatistics) -> str:
    text = (
        f"{counted(messages, 'message')} published on '{safe_text(topic.topic, 60)}', and nobody subscribes"
    )
    if topic.nearest is None:
        return text
    return f"{text}; the nearest topic with subscribers is '{safe_text(topic.nearest, 60)}'"


def _spelling(topic: TopicStatistics) -> str:
    name = safe_text(topic.topic, 60)
    if topic.nearest is None:
        return f"Subscribe to '{name}', or wait for a subscriber before publishing: publisher.wait_for_subscribers()."
    return f"Use one name at both ends: '{name}' is published, '{safe_text(topic.nearest, 60)}' is subscribed to."


@check(
    "SUBSCRIPTION_LEAK",
    "A subscription is kept that nobody reads",
    Severity.MEDIUM,
    Area.BUS,
    rule="in the interval it took nothing although messages waited, or 3 or more subscriptions were made and none ended",
    source="the performance guide, Subscription Management; judgement",
    solution="bus.unsubscribe(subscription) when the subscriber goes, or keep no reference to it.",
    impact=LOSES,
    scope=Scope.PROCESS,
    needs=("bus",),
    also=(Subject.LATENCY,),
)
def subscription_leak(host: Host) -> Outcome:
    """A ring waits for each of its subscriptions: one that is not read stops its publishers when the ring is full."""
    report = judged(host)
    if not (report.subscriptions or report.dispatchers):
        return NotApplicable("nothing subscribes")
    if report.window_ns is None:
        raise UnobservableError("needs an interval: run with --duration")
    found = []
    active = [each for each in report.subscriptions if each.active]
    for each in active:
        host.saw(f"subscription {named(each)}", f"{each.delivered_now} taken, {each.pending} waiting")
        if each.stalled:
            lost = f", {each.dropped_now} overwritten" if each.dropped_now else ""
            found.append(f"{named(each)} took no message, {each.pending} waiting{lost}")
    found += [
        f"{in_group(group)} took no message, {group.pending} waiting"
        for group in report.groups
        if group.pending and not group.delivered_now and not group.unfinished
    ]
    for bus in report.dispatchers:
        rises = bus.counts_now or {}
        made, ended = rises.get("subscribed", 0), rises.get("unsubscribed", 0)
        host.saw(f"bus {bus.bus} of process {bus.pid}", f"{made} subscriptions made, {ended} ended")
        if made >= _PILED_UP and not ended:
            found.append(
                f"process {bus.pid} made {made} subscriptions and ended none; {bus.open_subscriptions} are open"
            )
    if not found:
        return Pass(f"{counted(len(active), 'active subscription')}, none left unread")
    return Issue(f"{'; '.join(found[:3])}.", Fix(privilege=None))
