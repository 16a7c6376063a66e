"""The check of how long messages of the bus take, and what its figures are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cfctl.bus.health import counted
from cfctl.diagnose.advice import Fix
from cfctl.diagnose.bus import channel_size, quantile_interval, waiting_messages
from cfctl.diagnose.checks.bus import GUIDE, judged, named, per_second, times
from cfctl.diagnose.engine import Issue, Outcome, Pass, check
from cfctl.diagnose.impact import SEEN_BY_CHECK, Impact
from cfctl.diagnose.record import Area, Scope, Subject
from cfctl.errors import UnobservableError
from cfctl.records import Measurement, Severity

if TYPE_CHECKING:
    from cfctl.bus.latency import Latency
    from cfctl.bus.statistics import BusReport, SubscriptionStatistics
    from cfctl.diagnose.subject import Host

LATENCY_NS: Final = 1000.0
_SLEEPS_NS: Final = 5000.0
# With fewer messages a second a longer spin than this would burn the CPU for nothing.
_MAX_SPIN_US: Final = 1000.0
# Woken for fewer of its messages than this it was awake, or does not wait in recv(), when they came.
_WOKEN: Final = 0.1
_MEDIAN_SAMPLES: Final = 20


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
    report = judged(host)
    slow, fast, unsure = [], 0, []
    for each in report.subscriptions:
        latency = _looked_at(each)
        interval = quantile_interval(latency, 0.5)
        if latency.p50.value is None or interval is None:
            unsure.append(f"{named(each)}: {latency.p50.reason or 'nothing was received'}")
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
            fast += 1
    if slow:
        worst = max(slow, key=lambda found: found[1].value or 0.0)
        cost = Measurement(
            worst[1].value, "ns/message", worst[1].uncertainty, worst[1].sample_count, "median of the worst"
        )
        return Issue(
            f"{'; '.join(text for _, _, text in slow[:3])}.",
            Fix(privilege=None, solution=_faster(worst[0], worst[1].value or 0.0, report)),
            observed=Impact(cost),
        )
    if not fast:
        raise UnobservableError("; ".join(unsure[:3]) or "nothing subscribes")
    return Pass(f"{counted(fast, 'subscription')} with a median of at most 1 us")


def _looked_at(each: SubscriptionStatistics) -> Latency:
    if each.window_latency is None or each.window_latency.count < _MEDIAN_SAMPLES:
        return each.latency
    return each.window_latency


def _faster(each: SubscriptionStatistics, median: float, report: BusReport) -> str:
    """Return the code for what the latency is made of: waiting behind others, sleeping, looking late, or distance."""
    if each.state != "live":
        return f"Process {each.pid} has ended: look at it while it runs, cfctl diagnose temporal --only MESSAGE_LATENCY."
    rate = each.rate.value or 0.0
    waiting = waiting_messages(rate, median)
    if waiting > 2:
        return (
            f"Take batches in process {each.pid}: subscription.recv_many({channel_size(waiting)}); by Little's law "
            f"{per_second(rate)} x {times(median)} = {waiting:.0f} messages wait."
        )
    if median <= _SLEEPS_NS:
        pin = f"taskset -cp CPU {each.pid}; cfctl probe core-to-core"
        return f"Pin publisher and process {each.pid} to two near CPUs ({pin})."
    return _sooner(each, median, rate, report)


def _sooner(each: SubscriptionStatistics, median: float, rate: float, report: BusReport) -> str:
    if each.waits == "spins":
        return (
            f'Process {each.pid} does not sleep (wait="spin"), and takes a message {times(median)} after it came: it does '
            "something else meanwhile. Receive in a thread of its own: for payload in subscription."
        )
    topic = next((found for found in report.topics if found.topic == each.topic), None)
    wakeups = None if topic is None else topic.wakeups_now
    if each.waits is None or wakeups is None or not each.delivered_now:
        return (
            f"Look how process {each.pid} waits: run with --duration while messages come. What sleeps is woken by the kernel, "
            'which Bus(BusConfig(wait="spin")) saves for the price of a CPU.'
        )
    taken = counted(each.delivered_now, "message")
    if wakeups < _WOKEN * each.delivered_now:
        return (
            f"Process {each.pid} was woken {counted(wakeups, 'time')} for {taken}: it does not wait for them. Call recv(), which "
            "waits, instead of try_recv() now and then, or do less between two calls."
        )
    gap_us = 2e6 / rate if rate else _MAX_SPIN_US
    spin = f', or Bus(BusConfig(wait="adaptive", spin_us={gap_us:.0f}))' if gap_us < _MAX_SPIN_US else ""
    return (
        f'In process {each.pid}: Bus(BusConfig(wait="spin")){spin}, which keeps a CPU busy: it sleeps between messages, and was '
        f"woken by the kernel {counted(wakeups, 'time')} for {taken}."
    )
