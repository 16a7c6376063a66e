"""The bus from outside, as text for people: topics, publishers, subscriptions, dispatchers, clocks, health."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from cfctl.bus.statistics import missed_of
from cfctl.render.operations import quantity
from cfctl.render.table import cell, column_table, fact_table
from cfctl.text import safe_text
from cfctl.units import format_quantity

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from cfctl.bus.statistics import (
        BusReport,
        ClockStatistics,
        DispatcherStatistics,
        GroupStatistics,
        PublisherStatistics,
        SubscriptionStatistics,
        TopicStatistics,
    )
    from cfctl.records import Measurement

_ROWS: Final = 12
_TOPIC_WIDTH: Final = 24
_PROBLEMS: Final = 10
_EXACT: Final = 10_000_000
Row = tuple[str, str, str]


def render(report: BusReport, console: Console, shown_unit: str | None) -> None:
    """Print the health, then each kind of endpoint as a table. Text from programs is shown, never interpreted."""
    _heading(report, console)
    _table(console, _topics(report.topics[:_ROWS]), report.topics)
    _table(console, _publishers(report.publishers[:_ROWS], shown_unit), report.publishers)
    _table(console, _subscriptions(report.subscriptions[:_ROWS], shown_unit), report.subscriptions)
    _table(console, _groups(report.groups[:_ROWS]), report.groups)
    for dispatcher in report.dispatchers[:_ROWS]:
        _dispatcher(dispatcher, console, shown_unit)
    _table(console, _clocks(report.clocks[:_ROWS], shown_unit), report.clocks)
    for problem in report.problems[:_PROBLEMS]:
        console.print(cell(safe_text(f"problem: {problem}", 600), "yellow"), soft_wrap=True)


def render_topics(report: BusReport, console: Console) -> None:
    """Print the health and the topics alone."""
    console.print()
    _heading(report, console)
    _table(console, _topics(report.topics[:_ROWS]), report.topics)


def summary_line(report: BusReport) -> str:
    """Return a reading as one line: health, and of each topic its rates, losses and what waits."""
    topics = "; ".join(
        f"{safe_text(each.topic, 40)} published {_rate(each.publish_rate)} delivered {_rate(each.delivery_rate)} "
        f"lost {_ratio(each.loss)} pending {each.pending}"
        for each in report.topics
    )
    return f"{_health_word(report)}: {topics or 'no topic'}"


def _health_word(report: BusReport) -> str:
    if report.healthy is None:
        return "health not known" if report.live else "not live"
    return "healthy" if report.healthy else "unhealthy"


def _heading(report: BusReport, console: Console) -> None:
    over = "" if report.window_ns is None else f", over {format_quantity(report.window_ns, 'ns')}"
    style = {None: "bold", True: "bold green", False: "bold red"}[report.healthy]
    console.print(
        cell(f"Bus in {safe_text(report.directory, 200)}{over}: {_health_word(report)}", style),
        soft_wrap=True,
    )
    for condition in report.conditions:
        if condition.holds is False or (condition.holds is None and report.live):
            console.print(cell(safe_text(condition.why, 400), "yellow"))


def _table(console: Console, table: Table, rows: Sequence[object]) -> None:
    if not rows:
        return
    for column in table.columns[1:]:
        column.no_wrap = True
    console.print()
    console.print(table)
    if len(rows) > _ROWS:
        console.print(cell(f"and {len(rows) - _ROWS} more; see --json", "dim"))


def _state(state: str) -> str:
    return "" if state == "live" else f" ({state})"


def _topic(topic: str, state: str = "live", *, own: bool = False) -> str:
    return safe_text(topic, _TOPIC_WIDTH) + _state(state) + (" (cfctl's own)" if own else "")


def _count(count: int | None) -> str:
    if count is None:
        return "-"
    return str(count) if count < _EXACT else f"{format_quantity(count / 1e6, '')} M"


def _ns(value_ns: float | None, shown_unit: str | None) -> str:
    return "-" if value_ns is None else format_quantity(value_ns, "ns", digits=3, shown_unit=shown_unit)


def _rate(measured: Measurement) -> str:
    return "-" if measured.value is None else format_quantity(measured.value, "1/s")


def _ratio(measured: Measurement) -> str:
    if measured.value is None:
        return "-"
    return "0 %" if measured.value == 0 else format_quantity(measured.value, "ratio", digits=2)


def _topics(topics: Iterable[TopicStatistics]) -> Table:
    table = column_table(
        [("topic", "left"), ("publishers", "right"), ("subscribers", "right"), ("published", "right"),
         ("delivered", "right"), ("lost", "right"), ("pending", "right")]
    )  # fmt: skip
    for each in topics:
        table.add_row(
            cell(_topic(each.topic)), cell(each.publishers), cell(each.subscriptions), cell(_rate(each.publish_rate)),
            cell(_rate(each.delivery_rate)), cell(_ratio(each.loss)), cell(each.pending),
        )  # fmt: skip
    return table


def _publishers(publishers: Iterable[PublisherStatistics], shown_unit: str | None) -> Table:
    table = column_table(
        [("ring", "left"), ("pid", "right"), ("published", "right"), ("rejected", "right"),
         ("pending", "right"), ("high", "right"), ("of", "right"), ("oldest", "right")]
    )  # fmt: skip
    for each in publishers:
        name = _topic(each.topic, each.state, own=each.own) + (" scheduled" if each.scheduled else "")
        name += f" priority {each.priority}" if each.priority else ""
        table.add_row(
            cell(name, "" if each.is_live else "dim"), cell(_pid(each.pid)), cell(_count(each.published)),
            cell(_count(each.rejected)), cell(each.pending), cell(_count(each.high_water)),
            cell(_count(each.capacity)), cell(_ns(each.oldest_age_ns, shown_unit)),
        )  # fmt: skip
    return table


def _subscriptions(subscriptions: Iterable[SubscriptionStatistics], shown_unit: str | None) -> Table:
    table = column_table(
        [("reader", "left"), ("pid", "right"), ("delivered", "right"), ("dropped", "right"),
         ("p50", "right"), ("p99", "right"), ("p99.9", "right"), ("max", "right")]
    )  # fmt: skip
    for each in subscriptions:
        latency = each.latency
        style = "" if each.active else "dim"
        name = _topic(each.topic, each.state, own=each.own)
        name += "" if each.group is None else f" in {safe_text(each.group, _TOPIC_WIDTH)}"
        table.add_row(
            cell(name, style), cell(_pid(each.pid)), cell(_count(each.delivered)),
            cell(_count(each.dropped)), cell(quantity(latency.p50, shown_unit)), cell(quantity(latency.p99, shown_unit)),
            cell(quantity(latency.p99_9, shown_unit)), cell(quantity(latency.max, shown_unit)),
        )  # fmt: skip
    return table


def _pid(pid: int) -> str:
    # Of a reader that has ended only its place in the ring may be left.
    return str(pid) if pid else "-"


def _groups(groups: Iterable[GroupStatistics]) -> Table:
    table = column_table(
        [("group", "left"), ("members", "right"), ("taken", "right"), ("pending", "right"),
         ("unfinished", "right"), ("abandoned", "right"), ("redelivered", "right")]
    )  # fmt: skip
    for each in groups:
        redelivered = _count(each.redelivered) if each.redeliver else "off"
        name = f"{safe_text(each.group, _TOPIC_WIDTH)} on {safe_text(each.topic, _TOPIC_WIDTH)}"
        table.add_row(
            cell(name, "" if each.members else "dim"), cell(each.members), cell(_count(each.delivered)),
            cell(_count(each.pending)), cell(_count(each.unfinished)), cell(_count(each.abandoned)),
            cell(redelivered),
        )  # fmt: skip
    return table


def _dispatcher(found: DispatcherStatistics, console: Console, shown_unit: str | None) -> None:
    counts = found.counts
    title = f"Bus {found.bus} of process {found.pid}{_state(found.state)}"
    title += " (cfctl's own)" if found.own else ""
    subscriptions = f"{found.open_subscriptions} open, {counts['subscribed']} made"
    console.print()
    if found.failed:
        console.print(
            cell(f"{title}: its dispatcher's thread has ended; nothing leaves its queues", "bold red")
        )
    if not any(counts[name] for name in ("accepted", "refused", "held_by_deps", "received_due")):
        console.print(cell(f"{title}: subscriptions {subscriptions}", "bold"))
        return
    console.print(cell(f"{title}, quantum {_ns(found.quantum_ns, shown_unit)}", "bold"))
    console.print(fact_table([("subscriptions", subscriptions, ""), *_queues(found, shown_unit)]))


def _queues(found: DispatcherStatistics, shown_unit: str | None) -> Iterator[Row]:
    counts = found.counts
    age = "" if found.oldest_age_ns is None else f", oldest {_ns(found.oldest_age_ns, shown_unit)}"
    yield "queues", f"{found.queued} queued, {found.held} held", f"{found.high_water} at most{age}"
    if counts["accepted"]:
        left = f"{counts['delivered']} dispatched"
        yield "messages", f"{counts['accepted']} accepted", left
    lost = [
        f"{counts[name]} {name}" for name in ("failed", "damaged", "unsent", "undelivered") if counts[name]
    ]
    if lost:
        yield "never arrived", ", ".join(lost), ""
    yield "deadlines missed", *_deadlines(found, shown_unit)
    orders = [counts[f"{name}_violations"] for name in ("fifo", "dependency", "hlc_order")]
    split = f"fifo {orders[0]}, dependency {orders[1]}, stamps {orders[2]}; {counts['held_by_deps']} held"
    yield "order violations", str(sum(orders)), split
    if not counts["dispatches"]:
        return
    yield "phase coherence", *_coherence(found, shown_unit)
    whose = found.utilization.method or found.utilization.reason or ""
    yield "utilization", _ratio(found.utilization), whose
    yield "efficiency", _ratio(found.efficiency), "busy of its time with work due"


def _deadlines(found: DispatcherStatistics, shown_unit: str | None) -> tuple[str, str]:
    late, counts = found.lateness, found.counts
    missed, due = missed_of(counts)
    by = (
        f", by p50 {quantity(late.p50, shown_unit)}, max {quantity(late.max, shown_unit)}"
        if late.count
        else ""
    )
    kinds = f"{counts['refused']} refused, {counts['expired']} expired, {counts['late']} late{by}"
    return f"{missed} of {due} ({_ratio(found.miss_ratio)})", kinds


def _coherence(found: DispatcherStatistics, shown_unit: str | None) -> tuple[str, str]:
    coherence = found.coherence
    if coherence is None or coherence.score is None:
        return "-", "nothing was dispatched" if coherence is None else coherence.reason or ""
    p_value = coherence.p_value or 0.0
    chance = "p < 1e-9" if p_value < 1e-9 else f"p {p_value:.2g}"
    return f"{coherence.score:.3f}", (
        f"n {coherence.samples}, {chance}, noise {coherence.bias_floor:.2g}; "
        f"lag {_signed(coherence.mean_phase_ns or 0.0, shown_unit)}, jitter {_ns(coherence.jitter_ns, shown_unit)}"
    )


def _signed(value_ns: float, shown_unit: str | None) -> str:
    return f"{'-' if value_ns < 0 else ''}{_ns(abs(value_ns), shown_unit)}"


def _clocks(clocks: Iterable[ClockStatistics], shown_unit: str | None) -> Table:
    table = column_table(
        [("clock", "left"), ("pid", "right"), ("stamps", "right"), ("refused", "right"),
         ("steps back", "right"), ("drift p99", "right"), ("max", "right"), ("ahead", "left")]
    )  # fmt: skip
    for each in clocks:
        ahead = f"node {each.ahead_node}" if each.ahead_node else "-"
        table.add_row(
            cell(f"node {each.node}{_state(each.state)}"), cell(each.pid), cell(_count(each.stamps)),
            cell(each.refused), cell(each.steps_back), cell(quantity(each.drift.p99, shown_unit)),
            cell(_ns(each.drift_max_ns, shown_unit)), cell(ahead),
        )  # fmt: skip
    return table
