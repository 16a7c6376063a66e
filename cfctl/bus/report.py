"""From readings of the bus's files to its report: endpoints, topics, and whether it is healthy."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from cfctl.bus.conditions import health_of
from cfctl.bus.reading import CLOCK, DISPATCHER, BusReading
from cfctl.bus.runs import NO_RUNS, Runs
from cfctl.bus.seen_ends import groups_of, publishers_of, subscriptions_of
from cfctl.bus.statistics import (
    BusReport,
    PublisherStatistics,
    SubscriptionStatistics,
    TopicStatistics,
)
from cfctl.bus.topic_pages import SeatFlag
from cfctl.bus.window import Window, share_of
from cfctl.records import Measurement

if TYPE_CHECKING:
    from cfctl.bus.topic_pages import TopicPage

_End = PublisherStatistics | SubscriptionStatistics
# Below this two names are no misspelling of each other: difflib's own default.
_ALIKE: Final = 0.6


def report_of(
    now: BusReading,
    before: BusReading | None = None,
    which: str | None = None,
    runs: Runs = NO_RUNS,
) -> BusReport:
    """Return the report of a reading, or of the window between two; all, or what concerns a pid or a topic.

    `runs`: what somebody found who looked between the two.
    """
    window = Window(now, before)
    dispatchers = tuple(each.dispatcher(e) for each in window.processes for e in each.of(DISPATCHER))
    # Where there is no bus, a clock is another instrument's.
    clocks = tuple(each.clock(e) for each in window.processes for e in each.of(CLOCK))
    whole = BusReport(
        directory=str(now.directory), which=which, window_ns=window.ns, unix_ns=now.unix_ns, healthy=None,
        conditions=(), topics=(), publishers=tuple(sorted(publishers_of(window, runs), key=_order)),
        subscriptions=tuple(sorted(subscriptions_of(window, runs), key=_order)), groups=tuple(groups_of(window)),
        dispatchers=dispatchers, clocks=clocks, problems=now.problems + window.problems,
    )  # fmt: skip
    found = _without_own_ended(whole, window) if which is None else _concerned(whole, which)
    health = health_of(found, now)
    return dataclasses.replace(
        found, topics=tuple(_topics(found, window)), conditions=health.conditions, healthy=health.healthy
    )


def _order(each: _End) -> tuple[bool, str]:
    return each.state != "live", each.topic


def _without_own_ended(whole: BusReport, window: Window) -> BusReport:
    """Return the report without what cfctl's own commands left: nobody asks for it."""
    own = {each.pid for each in window.processes if each.own}
    return dataclasses.replace(
        whole,
        publishers=tuple(each for each in whole.publishers if each.is_live or not each.own),
        subscriptions=tuple(each for each in whole.subscriptions if each.state == "live" or not each.own),
        dispatchers=tuple(each for each in whole.dispatchers if each.state == "live" or not each.own),
        clocks=tuple(each for each in whole.clocks if each.state == "live" or each.pid not in own),
    )


def _concerned(whole: BusReport, which: str) -> BusReport:
    """Return what belongs to a process and the other ends of its topics, or to a topic of that name."""
    ends: tuple[_End, ...] = (*whole.publishers, *whole.subscriptions)
    pids = {each.pid for each in ends} | {each.pid for each in whole.dispatchers}
    pids = {pid for pid in pids if str(pid) == which}
    topics = {each.topic for each in ends if each.pid in pids} if pids else {which}
    if not pids:
        pids = {each.pid for each in ends if each.topic == which}
    return dataclasses.replace(
        whole,
        publishers=tuple(each for each in whole.publishers if each.topic in topics),
        subscriptions=tuple(each for each in whole.subscriptions if each.topic in topics),
        groups=tuple(each for each in whole.groups if each.topic in topics),
        dispatchers=tuple(each for each in whole.dispatchers if each.pid in pids),
        clocks=tuple(each for each in whole.clocks if each.pid in pids),
    )


def _topics(report: BusReport, window: Window) -> Iterator[TopicStatistics]:
    pages = {page.topic: page for page in window.now.topics}
    ends: tuple[_End, ...] = (*report.publishers, *report.subscriptions)
    for topic in sorted({each.topic for each in ends}):
        yield _topic(topic, report, window, pages.get(topic))


def _topic(topic: str, report: BusReport, window: Window, page: TopicPage | None) -> TopicStatistics:
    publishers = [each for each in report.publishers if each.topic == topic and not each.own]
    subscriptions = [each for each in report.subscriptions if each.topic == topic and not each.own]
    groups = [each for each in report.groups if each.topic == topic and not each.own]
    # What a member lost is its group's loss.
    alone = [each for each in subscriptions if each.group is None]
    dropped = sum(each.dropped for each in alone) + sum(each.dropped for each in groups)
    copies = sum(each.copies for each in alone) + sum(each.copies for each in groups)
    live = [each for each in publishers if each.is_live]
    waiting = [each.pending for each in subscriptions if each.active] + [each.pending for each in groups]
    has_readers = any(each.active for each in subscriptions)
    return TopicStatistics(
        topic=topic, publishers=len(live), subscriptions=sum(each.active for each in subscriptions),
        groups=sum(each.members > 0 for each in groups), published=sum(each.published for each in publishers),
        rejected=sum(each.rejected for each in publishers),
        delivered=sum(each.delivered for each in subscriptions), dropped=dropped, pending=max(waiting, default=0),
        loss=share_of(dropped, copies, "copies"), publish_rate=_sum([each.rate for each in live]),
        delivery_rate=_sum([each.rate for each in subscriptions if each.state == "live"]),
        published_now=None if window.ns is None else sum(each.published_now or 0 for each in publishers),
        wakeups_now=_wakeups(window, page), nearest=None if has_readers else _nearest(topic, window),
    )  # fmt: skip


def _nearest(topic: str, window: Window) -> str | None:
    """Return the topic with a living subscriber whose name is most like another's; None when none is like it."""
    heard = [
        page.topic
        for page in window.now.topics
        if page.topic != topic and any(seat.alive and not seat.flags & SeatFlag.OWN for seat in page.seats)
    ]
    return next(iter(difflib.get_close_matches(topic, heard, 1, _ALIKE)), None)


def _wakeups(window: Window, page: TopicPage | None) -> int | None:
    """Return how often sleepers were woken: each time adds two to the word they sleep on, which is of 32 bits."""
    before = None if page is None else window.wake_words_before.get(page.hash)
    if page is None or before is None:
        return None
    return ((page.wake_word >> 1) - (before >> 1)) % (1 << 31)


def _sum(rates: list[Measurement]) -> Measurement:
    known = [rate for rate in rates if rate.value is not None]
    if not known:
        return Measurement.missing("1/s", rates[0].reason or "not known" if rates else "nothing of it lives")
    return Measurement(
        sum(rate.value or 0.0 for rate in known), "1/s", sum(rate.uncertainty or 0.0 for rate in known),
        sum(rate.sample_count or 0 for rate in known), known[0].method,
    )  # fmt: skip
