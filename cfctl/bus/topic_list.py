"""The topics of a directory as a list: who is there and what waits, without their endpoints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from cfctl.records import Document, Measurement

if TYPE_CHECKING:
    from cfctl.bus.statistics import BusReport


@dataclass(frozen=True, slots=True)
class ListedTopic:
    """A topic: how many publishers, subscriptions and groups live; `rate` of publishing in the window.

    `pending`: what the slowest subscription or group has yet to take. `published`: in all, by rings that are there.
    """

    topic: str
    publishers: int
    subscriptions: int
    groups: int
    published: int
    pending: int
    rate: Measurement


@dataclass(frozen=True, slots=True)
class TopicList(Document):
    """The topics of a directory by name. `window_ns` is the time rates are over, None without one."""

    SCHEMA: ClassVar[str] = "cfctl.bus.topics"
    VERSION: ClassVar[int] = 1
    ROWS: ClassVar[str | None] = "topics"
    directory: str
    which: str | None
    window_ns: int | None
    topics: tuple[ListedTopic, ...]
    problems: tuple[str, ...]


def topic_list(report: BusReport) -> TopicList:
    """Return the topics of a report that somebody publishes or listens to; what has ended is in its statistics."""
    rows = [
        ListedTopic(
            topic=each.topic, publishers=each.publishers, subscriptions=each.subscriptions, groups=each.groups,
            published=each.published, pending=each.pending,
            rate=each.publish_rate if report.window_ns is not None
            else Measurement.missing("1/s", "needs a window: --window"),
        )
        for each in report.topics
        if each.publishers or each.subscriptions
    ]  # fmt: skip
    return TopicList(report.directory, report.which, report.window_ns, tuple(rows), report.problems)
