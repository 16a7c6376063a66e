"""The monitor's dashboard, and its line for where there is no terminal."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cfctl.monitor.alerts import AlertState, absent
from cfctl.monitor.targets import NoData
from cfctl.render.bars import trend
from cfctl.render.grid import grid
from cfctl.render.operations import quantity
from cfctl.render.table import STATUS_STYLE, ascii_only, cell
from cfctl.text import safe_text
from cfctl.units import format_quantity

if TYPE_CHECKING:
    from rich.console import Console, JustifyMethod
    from rich.text import Text

    from cfctl.monitor.alerts import AlertBook, PerformanceAlert
    from cfctl.monitor.metric import Labels
    from cfctl.monitor.snapshot import History, Series, Snapshot
    from cfctl.monitor.watch import Observation
    from cfctl.records import Measurement

_TREND_WIDTH: Final = 12
_SMALL_TREND: Final = 6
_ROWS_PER_SECTION: Final = 8
_ALERTS: Final = 4
_TARGET_COLUMNS: Final[tuple[tuple[str, JustifyMethod], ...]] = (
    ("target", "left"), ("of", "left"), ("value", "right"), ("wanted", "left"), ("state", "left"), ("trend", "left"),
)  # fmt: skip
_NAME_WIDTH: Final = 34
_OF_WIDTH: Final = 16
_FLOWS: Final = (
    ("network_received", "in"), ("network_sent", "out"), ("disk_read", "read"), ("disk_written", "written"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Section:
    """A table of the series of one kind of instrument: a row for each, a column for each metric."""

    title: str
    label: str
    columns: tuple[tuple[str, str], ...]
    order: str


SECTIONS: Final = (
    Section(
        "operations", "operation",
        (("rate", "operation_rate"), ("errors", "operation_errors"), ("mean", "operation_mean"),
         ("p50", "operation_p50"), ("p99", "operation_p99")),
        "operation_rate",
    ),
    Section(
        "messages", "topic",
        (("rate", "message_rate"), ("lost", "packet_loss"), ("mean", "message_latency_mean"),
         ("p50", "message_latency_p50"), ("p99", "message_latency_p99")),
        "message_rate",
    ),
    Section(
        "publishers", "topic", (("rate", "publish_rate"), ("pending", "pending_messages")), "publish_rate"
    ),
    Section(
        "schedules", "bus",
        (("coherence", "phase_coherence"), ("busy", "schedule_utilization"),
         ("useful", "scheduling_efficiency"), ("missed", "deadline_misses")),
        "schedule_utilization",
    ),
    Section(
        "pools", "pool",
        (("acquires", "pool_acquires"), ("hits", "pool_hit_ratio"), ("in use", "pool_in_use"),
         ("idle", "pool_idle")),
        "pool_acquires",
    ),
    Section(
        "allocations", "process",
        (("live", "allocation_live"), ("blocks", "allocation_blocks"), ("rate", "allocation_rate"),
         ("bytes", "allocation_throughput")),
        "allocation_rate",
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Dashboard:
    """Draws an observation with what came before it."""

    book: AlertBook
    history: History

    def render(self, document: Observation, console: Console, shown_unit: str | None) -> None:
        """Print the machine, the targets, the alerts with their causes, and the instruments."""
        snapshot, plain = document.snapshot, ascii_only(console)
        console.print(cell(summary_line(document), "bold"), overflow="ellipsis", no_wrap=True)
        for line in self._machine(snapshot, plain):
            console.print(line, overflow="ellipsis", no_wrap=True)
        console.print()
        console.print(self._target_table(document, shown_unit, console.width, plain))
        firing = [alert for alert in document.alerts if alert.state is AlertState.FIRING]
        for before, alert in zip((None, *firing), firing[:_ALERTS], strict=False):
            console.print(_alert_text(alert, snapshot.unix_ns, before))
        if len(firing) > _ALERTS:
            console.print(cell(f"and {len(firing) - _ALERTS} more alerts", "dim"))
        for section in SECTIONS:
            table = _section_table(section, snapshot, shown_unit, console.width, plain)
            if table is not None:
                console.print(table)
        if not document.targets_current:
            console.print(cell("The configuration can not be read: the one before it is in force.", "yellow"))
        for problem in snapshot.problems[:3]:
            console.print(cell(f"problem: {problem}", "yellow"), soft_wrap=True)

    def _machine(self, snapshot: Snapshot, plain: bool) -> list[Text]:
        def drawn(word: str, metric: str, *others: tuple[str, str]) -> Text:
            bars = trend(self.history.values(metric), _TREND_WIDTH, plain)
            line = cell(f"{word:<9}", "bold").append(f"{value(snapshot, metric):>8}  {bars:<{_TREND_WIDTH}}")
            for name, other in others:
                line.append(f"  {name} ", "dim").append(value(snapshot, other))
            return line

        lines = [
            drawn(
                "cpu", "cpu_utilization", ("steal", "cpu_steal"), ("throttled", "cpu_throttled"),
                ("switches", "context_switches"),
            ),
            drawn("memory", "memory_used", ("available", "memory_available")),
            drawn("clock", "temporal_accuracy", ("calibrated before", "calibration_age")),
        ]  # fmt: skip
        waits = [("", s) for s in snapshot.of("pressure")]
        flows = [
            (f"{word} ", s) for metric, word in _FLOWS for s in snapshot.of(metric) if s.measurement.value
        ]
        for word, found in (("waiting", waits), ("devices", flows)):
            if found:
                line = cell(f"{word:<11}", "bold")
                for how, series in found:
                    line.append(f"{_last_label(series)} {how}", "dim").append(
                        f"{shown(series.measurement)}  "
                    )
                lines.append(line)
        return lines

    def _target_table(self, document: Observation, shown_unit: str | None, width: int, plain: bool) -> Text:
        rows = []
        states = {(alert.target, alert.labels): alert for alert in document.alerts}
        for target in self.book.targets:
            wanted = (
                f"{target.operator} {format_quantity(target.threshold, target.unit, shown_unit=shown_unit)}"
            )
            nothing = () if target.no_data is NoData.OK else (absent(target),)
            for series in target.matching(document.snapshot)[:_ROWS_PER_SECTION] or nothing:
                alert = states.get((target.name, series.labels))
                trend_bars = trend(self.history.values(series.metric, series.labels), _SMALL_TREND, plain)
                rows.append(
                    (cell(target.name), cell(_of(series)), cell(shown(series.measurement, shown_unit)),
                     cell(wanted), _state(alert, series, document.snapshot.unix_ns), cell(trend_bars))
                )  # fmt: skip
        return grid(_TARGET_COLUMNS, rows, width, plain)


def value(snapshot: Snapshot, metric: str) -> str:
    """Return the value of a metric without labels as text, "-" where it has none."""
    return next((shown(series.measurement) for series in snapshot.of(metric)), "-")


def shown(measured: Measurement, shown_unit: str | None = None) -> str:
    """Return a measurement with three digits, or fewer when its error allows no more; 0 without any."""
    if measured.value == 0:
        return format_quantity(0.0, measured.unit)
    return quantity(measured, shown_unit)


def _last_label(series: Series) -> str:
    return safe_text(series.labels[-1][1], 16) if series.labels else ""


def _of(series: Series) -> str:
    """Return whose series it is, as one word: its labels without the process's name; "" for the machine's."""
    own = [f"pid={value}" if name == "pid" else value for name, value in series.labels if name != "process"]
    return safe_text("/".join(own).replace(" ", "_"), _OF_WIDTH)


def _state(alert: PerformanceAlert | None, series: Series, now_unix_ns: int) -> Text:
    if alert is not None:
        style = "bold red" if alert.state is AlertState.FIRING else "yellow"
        return cell(f"{alert.state} {_since(alert, now_unix_ns)}", style)
    if series.measurement.value is None:
        return cell("no value", "dim")
    return cell("ok", "green")


def _since(alert: PerformanceAlert, now_unix_ns: int) -> str:
    seconds = max(0, now_unix_ns - alert.since_unix_ns) // 10**9
    return f"{seconds} s" if seconds < 120 else f"{seconds // 60} min"


def _alert_text(alert: PerformanceAlert, now_unix_ns: int, before: PerformanceAlert | None) -> Text:
    """Return an alert with its cause, which stands once where it is that of the alert before too."""
    text = cell(alert_line(alert), STATUS_STYLE.get(alert.severity, "yellow"))
    text.append(f", for {_since(alert, now_unix_ns)}")
    if alert.cause is not None and (before is None or before.cause != alert.cause):
        text.append("\n  cause  ").append_text(cell(f"{alert.cause.check}: {alert.cause.found}"))
        text.append("\n  do     ").append_text(cell(alert.cause.solution))
    return text


def alert_line(alert: PerformanceAlert) -> str:
    """Return an alert in a line: "WARNING cpu-utilization: ... is 93 %, wanted < 80 %"."""
    return safe_text(f"{alert.severity.upper()} {alert.target}: {alert.description}", 400)


def _section_table(
    section: Section, snapshot: Snapshot, shown_unit: str | None, width: int, plain: bool
) -> Text | None:
    rows: dict[Labels, dict[str, Series]] = {}
    for _, metric in section.columns:
        for series in snapshot.of(metric):
            rows.setdefault(series.labels, {})[metric] = series
    if not rows:
        return None
    ordered = sorted(rows.items(), key=lambda row: -_number(row[1].get(section.order)))
    columns: list[tuple[str, JustifyMethod]] = [(section.title, "left"), ("pid", "right")]
    columns += [(name, "right") for name, _ in section.columns]
    cells = [
        (
            cell(_name(section, labels)), cell(dict(labels).get("pid", "-")),
            *(
                cell(shown(found[metric].measurement, shown_unit)) if metric in found else cell("-")
                for _, metric in section.columns
            ),
        )
        for labels, found in ordered[:_ROWS_PER_SECTION]
    ]  # fmt: skip
    table = grid(columns, cells, width, plain)
    if len(ordered) > _ROWS_PER_SECTION:
        table.append(f"\nand {len(ordered) - _ROWS_PER_SECTION} more", "dim italic")
    return table


def _number(series: Series | None) -> float:
    return (series.measurement.value if series else None) or 0.0


def _name(section: Section, labels: Labels) -> str:
    own = ", ".join(f"{k}={v}" for k, v in labels if k not in {"pid", "process", section.label})
    name = dict(labels).get(section.label, "-")
    return safe_text(f"{name} {{{own}}}" if own else name, _NAME_WIDTH)


def summary_line(document: Observation) -> str:
    """Return an observation in a line: when, what the machine does, the alerts that fire."""
    snapshot = document.snapshot
    clock = time.strftime("%H:%M:%S", time.localtime(snapshot.unix_ns // 10**9))
    processes = {dict(s.labels).get("pid") for s in snapshot.of("process_cpu")}
    parts = [
        clock, f"cpu {value(snapshot, 'cpu_utilization')}", f"memory {value(snapshot, 'memory_used')}",
        f"processes {len(processes)}", *_rates(snapshot),
    ]  # fmt: skip
    firing = [alert for alert in document.alerts if alert.state is AlertState.FIRING]
    names = ", ".join(dict.fromkeys(safe_text(alert.target, 40) for alert in firing))
    parts.append(f"alerts {len(firing)} ({names})" if firing else "alerts 0")
    return "  ".join(parts)


def _rates(snapshot: Snapshot) -> Iterable[str]:
    for word, metric in (("operations", "operation_rate"), ("messages", "message_rate")):
        found = snapshot.of(metric)
        if found:
            yield f"{word} {format_quantity(sum(_number(s) for s in found), '1/s')}"
