"""What a bus benchmark measured, as text for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cfctl.render.table import cell, column_table, fact_table
from cfctl.units import format_quantity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from cfctl.bench.bus import BusBench, EndpointCpu
    from cfctl.probe.distribution import Distribution
    from cfctl.records import Measurement

_QUANTILES: Final = (0.5, 0.9, 0.99, 0.999)
Row = tuple[str, str, str]


def render_bench(document: BusBench, console: Console, shown_unit: str | None) -> None:
    """Print the latencies, then throughput and loss, then what the figures stand on."""
    heading = (
        f"Bus between {document.mode}, {document.subscribers} subscribers, {document.size_bytes} B, "
        f"{format_quantity(document.rate_hz, '')} msg/s, wait {document.wait}"
        f"{', scheduled' if document.scheduled else ''}"
    )
    console.print(cell(heading, "bold"), soft_wrap=True)
    table = column_table(
        [("latency", "left"), *((name, "right") for name in ("p50", "p90", "p99", "p99.9", "max", "n"))]
    )
    for name, each in (
        ("due to received", document.one_way), (_calm_name(document), document.calm),
        ("ring to ring", document.transfer), ("round trip", document.round_trip),
    ):  # fmt: skip
        if each is not None:
            table.add_row(cell(name), *(cell(text) for text in _latencies(each, shown_unit)))
    console.print(table)
    console.print(fact_table(_flow_rows(document)))
    console.print(fact_table(_ground_rows(document, shown_unit)))


def _calm_name(document: BusBench) -> str:
    # A wake-up takes longer than what counts as a stall: what is left are messages that found it awake.
    return "not woken for" if document.wait == "park" else "the same, calm"


def _latencies(each: Distribution, shown_unit: str | None) -> Iterator[str]:
    for quantile in _QUANTILES:
        yield _time(each.at(quantile).value_ns, shown_unit)
    yield _time(each.max_ns, shown_unit)
    yield str(each.sample_count)


def _time(value_ns: float | None, shown_unit: str | None) -> str:
    return "-" if value_ns is None else format_quantity(value_ns, "ns", digits=3, shown_unit=shown_unit)


def _shown(measured: Measurement, unit: str = "") -> str:
    if measured.value is None:
        return "-"
    return format_quantity(measured.value, unit, digits=3)


def _flow_rows(document: BusBench) -> Iterator[Row]:
    loss = document.loss
    lost = f"{document.never_accepted} never accepted, {document.dropped} dropped"
    yield "loss", "-" if loss.value is None else f"{loss.value:.3%}", f"of {document.offered} offered; {lost}"
    if document.refused:
        yield "refused at first", str(document.refused), "the ring was full; tried again"
    yield "rate", f"{_shown(document.achieved_rate)} msg/s", "offered"
    for name, measured, what in (
        ("by call", document.per_call, "as fast as it goes"),
        ("in batches", document.batched, "of 256"),
    ):
        if measured.value is not None:
            yield name, f"{_shown(measured)} msg/s", what
    if document.temporal is not None:
        coherence = document.temporal["coherence"]
        score, reason = coherence["score"], coherence["reason"]
        yield "phase coherence", "-" if score is None else f"{score:.3f}", reason or "1: always in its slot"
        yield "deadlines missed", str(document.temporal["deadline_violations"]), "late or expired"


def _ground_rows(document: BusBench, shown_unit: str | None) -> Iterator[Row]:
    floor = document.floor
    if floor.value is None:
        yield "cache-line floor", "-", floor.reason or ""
    else:
        error = _time(floor.uncertainty, shown_unit)
        ratio = document.one_way_per_floor.value
        beside = "" if ratio is None else f"; median is {ratio:.3g}x"
        yield "cache-line floor", _time(floor.value, shown_unit), f"+- {error}, {document.pair} CPUs{beside}"
    for (cpu, before), (_, after) in zip(document.before.lost, document.after.lost, strict=True):
        yield (
            f"CPU {cpu} lost",
            f"{before.value or 0:.1%}",
            f"of its time before the run, {after.value or 0:.1%} after",
        )
    stalled = document.stalled.value or 0.0
    yield "stalls", str(document.stalls), f"over 5 us without a receipt, {stalled:.1%} of the run"
    for each in document.cpu:
        yield each.role, f"{each.used:.1%}", f"of a CPU{_spinning(each)}"


def _spinning(each: EndpointCpu) -> str:
    if each.spinning is None or each.idle is None:
        return ", spinning for the clock"
    return f", {each.spinning:.1%} of it spinning; {each.idle:.1%} when idle"
