"""The rates of topics as text for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfctl.bus.latency import LOW_N
from cfctl.render.table import cell, column_table
from cfctl.text import safe_text
from cfctl.units import format_quantity

if TYPE_CHECKING:
    from rich.console import Console

    from cfctl.bus.rates import RateReport, TopicRate
    from cfctl.records import Measurement

_TOPIC_WIDTH = 24
# From this many columns on all figures are shown.
_WIDE = 100


def render(report: RateReport, console: Console, shown_unit: str | None) -> None:
    """Print a row for each topic: rate with its interval, gaps, delays, window, lost; a narrow console gets fewer."""
    wide = console.width >= _WIDE
    heads = [
        "topic",
        "rate",
        *(["gap min"] if wide else []),
        "gap max",
        *(["std"] if wide else []),
        "delay p50",
        "p99",
    ]
    heads += [*(["window"] if wide else []), "lost"]
    table = column_table([(head, "right" if head != "topic" else "left") for head in heads])
    for each in report.topics:
        cells = {
            "topic": safe_text(each.topic, _TOPIC_WIDTH), "rate": _rate(each),
            "gap min": _time(each.gap_min, shown_unit), "gap max": _time(each.gap_max, shown_unit),
            "std": _time(each.gap_std, shown_unit), "delay p50": _time(each.delay_p50, shown_unit),
            "p99": _time(each.delay_p99, shown_unit), "window": each.window,
            "lost": "-" if each.lost is None else each.lost,
        }  # fmt: skip
        table.add_row(*(cell(cells[head]) for head in heads))
    for column in table.columns:
        column.no_wrap = True
    console.print(table)
    if report.lost:
        console.print(
            cell(f"{report.lost} of all messages came too fast for this command and were lost here.")
        )


def lines(report: RateReport) -> str:
    """Return a line for each topic, one that says so when there is none."""
    return "\n".join(_line(each) for each in report.topics) or "no message yet"


def _line(rate: TopicRate) -> str:
    times = {
        "gap min": rate.gap_min, "max": rate.gap_max, "std": rate.gap_std,
        "delay p50": rate.delay_p50, "p99": rate.delay_p99,
    }  # fmt: skip
    lost = "not known" if rate.lost is None else rate.lost
    figures = " ".join(f"{name} {_time(time, None)}" for name, time in times.items())
    return f"{safe_text(rate.topic, 40)}: {_rate(rate)}  {figures}  window {rate.window}  lost {lost}"


def _rate(rate: TopicRate) -> str:
    measured = rate.rate
    if measured.value is None:
        if measured.reason == LOW_N:
            return LOW_N
        return f"silent {format_quantity(rate.silent_ns, 'ns', digits=2)}"
    if measured.uncertainty is None:
        # Of a few messages: no interval, so no third digit.
        return f"about {format_quantity(measured.value, 'Hz', digits=2)}"
    shown = format_quantity(measured.value, "Hz", uncertainty=measured.uncertainty)
    name = shown.rpartition(" ")[2]
    error = format_quantity(measured.uncertainty, "Hz", uncertainty=measured.uncertainty, shown_unit=name)
    return f"{shown.rpartition(' ')[0]} ± {error}"


def _time(measured: Measurement, shown_unit: str | None) -> str:
    if measured.value is None:
        return LOW_N if measured.reason == LOW_N else "-"
    return format_quantity(measured.value, "ns", shown_unit=shown_unit)
