"""The report of allocations: totals, live bytes over time, growth, threads and size classes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from rich.text import Text

from cfctl.alloc.report import SITES_HINT
from cfctl.records import Verdict
from cfctl.render.bars import step_chart
from cfctl.render.histogram import bar
from cfctl.render.table import ascii_only, cell, column_table, fact_table
from cfctl.text import safe_text
from cfctl.units import format_quantity

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from cfctl.alloc.counts import Counts, SizeClass
    from cfctl.alloc.growth import Growth
    from cfctl.alloc.report import AllocReport, ProcessAllocations
    from cfctl.records import Measurement

_PROCESSES_SHOWN: Final = 4
_THREADS_SHOWN: Final = 8
_SIZES_SHOWN: Final = 8
_PROBLEMS_SHOWN: Final = 10
# The library reads a clock that costs nothing and steps by this at most (250 Hz kernels: 4 ms).
_CLOCK_STEP_NS: Final = 10_000_000
_CHART_HEIGHT: Final = 5
# Sizes are exact below, and then have the digits that tell one class from the next.
_ROUNDED_FROM_BYTES: Final = 10_000
_BAR_WIDTH: Final = 24
_GROWTH_STYLE: Final = {"steady": "green", "growing": "bold red", "inconclusive": "yellow"}
_LIMIT_STYLE: Final = {Verdict.PASS: "green", Verdict.FAIL: "bold red", Verdict.INCONCLUSIVE: "yellow"}


def render(report: AllocReport, console: Console, shown_unit: str | None) -> None:
    """Print the report. Text from programs is shown, never interpreted."""
    for number, process in enumerate(report.processes[:_PROCESSES_SHOWN]):
        if number:
            console.print()
        _process(process, console, shown_unit)
    hidden = len(report.processes) - _PROCESSES_SHOWN
    if hidden > 0:
        console.print(cell(f"and {hidden} more; see --json", "dim"))
    if len(report.processes) > 1:
        console.print()
        console.print(_totals(report.total, None, None, f"All {len(report.processes)} processes"))
    for outcome in report.limits:
        judgement = outcome.judgement
        console.print(cell(f"{judgement.verdict}: {judgement.text}", _LIMIT_STYLE[judgement.verdict]))
    for line in report.cycles.lines() if report.cycles is not None else ():
        console.print(cell(line), soft_wrap=True)
    for line in report.sites:
        console.print(Text(safe_text(line, 400)), soft_wrap=True)
    for problem in report.problems[:_PROBLEMS_SHOWN]:
        console.print(Text(safe_text(f"problem: {problem}", 600), style="yellow"), soft_wrap=True)
    if not report.sites and any(_is_python(process) for process in report.processes):
        console.print(cell(SITES_HINT, "dim"), soft_wrap=True)


def summary_line(report: AllocReport) -> str:
    """Return the state of a recording in a line."""
    if not report.processes:
        return "no allocations"
    process = report.processes[0]
    return (
        f"allocations {process.total.allocations}  rate {_rate(process.allocation_rate)}  "
        f"live {_bytes(process.live_bytes)} in {process.live_blocks} blocks  "
        f"peak {_bytes(process.peak.value)}  {process.growth.verdict}"
    )


def _is_python(process: ProcessAllocations) -> bool:
    return bool(process.command_line) and "python" in process.command_line[0].rpartition("/")[2]


def _process(process: ProcessAllocations, console: Console, shown_unit: str | None) -> None:
    command = safe_text(" ".join(process.command_line), 120)
    ran = (
        f", {format_quantity(process.elapsed_ns, 'ns', shown_unit=shown_unit)}" if process.elapsed_ns else ""
    )
    console.print(cell(f"Process {process.pid}, {process.state}{ran}: {command}", "bold"), soft_wrap=True)
    console.print(_totals(process.total, process.allocation_rate, process.byte_rate))
    console.print(fact_table(_facts(process, shown_unit)))
    _chart(process, console, shown_unit)
    if len(process.threads) > 1 or process.shared.allocations:
        console.print()
        console.print(_threads(process))
    if process.sizes:
        console.print()
        console.print(_sizes(process.sizes, console))
    for line in _remarks(process):
        console.print(cell(line, "yellow"), soft_wrap=True)


def _totals(
    counts: Counts, rate: Measurement | None, byte_rate: Measurement | None, title: str | None = None
) -> Table:
    table = column_table(
        [("", "left"), ("calls", "right"), ("bytes", "right"), ("per second", "right")], title
    )
    per_second = ""
    if rate is not None and byte_rate is not None:
        per_second = "not known" if rate.value is None else f"{_rate(rate)}, {_rate(byte_rate)}"
    table.add_row(
        cell("allocated"), cell(counts.allocations), cell(_bytes(counts.bytes_allocated)), cell(per_second)
    )
    table.add_row(cell("freed"), cell(counts.deallocations), cell(_bytes(counts.bytes_freed)), cell(""))
    table.add_row(cell("reallocated"), cell(counts.reallocations), cell("(in both)"), cell(""))
    if counts.failures:
        table.add_row(cell("failed", "bold red"), cell(counts.failures), cell(""), cell(""))
    return table


def _facts(process: ProcessAllocations, shown_unit: str | None) -> Iterator[tuple[str, str | Text, str]]:
    inherited = (
        f"{_bytes(process.inherited_bytes)} of it from before the fork" if process.inherited_bytes else ""
    )
    yield "live", f"{_bytes(process.live_bytes)} in {process.live_blocks} blocks", inherited
    # Its clock may be a step ahead of the end.
    peak_at_ns = min(process.peak_at_ns, process.elapsed_ns or process.peak_at_ns)
    at = format_quantity(max(peak_at_ns, _CLOCK_STEP_NS), "ns", shown_unit=shown_unit)
    when = f"after {at}" if process.peak_at_ns > _CLOCK_STEP_NS else f"within {at}"
    error = _bytes(process.peak.uncertainty)
    yield "peak", f"{_bytes(process.peak.value)}, known to {error}", when
    verdict = process.growth.verdict
    yield "growth", Text(verdict, style=_GROWTH_STYLE[verdict]), _slope(process.growth)


def _slope(growth: Growth) -> str:
    if growth.slope is None or growth.interval is None:
        return growth.reason
    low, high = growth.interval
    return (
        f"{_bytes(growth.slope)}/s, 95 % from {_bytes(low)}/s to {_bytes(high)}/s; {growth.reason} "
        "(Theil-Sen of troughs, first quarter left out)"
    )


def _chart(process: ProcessAllocations, console: Console, shown_unit: str | None) -> None:
    """Print the live bytes over time, when there is a course to show."""
    if len(process.timeline) < 3 or not process.elapsed_ns:
        return
    plain = ascii_only(console)
    label = _bytes(max(point.live_bytes for point in process.timeline))
    width = max(20, console.width - len(label) - 3)
    points = [(float(point.time_ns), float(point.live_bytes)) for point in process.timeline]
    side = "|" if plain else "│"
    lines = step_chart(points, float(process.elapsed_ns), width, _CHART_HEIGHT, plain)
    console.print()
    console.print(cell("live bytes over time", "bold"))
    for number, line in enumerate(lines):
        name = label if number == 0 else "0 B" if number == len(lines) - 1 else ""
        console.print(Text(f"{name:>{len(label)}} {side}{line}"), no_wrap=True, overflow="crop")
    end = format_quantity(process.elapsed_ns, "ns", shown_unit=shown_unit)
    console.print(Text(f"{'':>{len(label)}}  0{end:>{width - 1}}"), no_wrap=True, overflow="crop")


def _threads(process: ProcessAllocations) -> Table:
    table = column_table(
        [("thread", "left"), ("allocated", "right"), ("freed", "right"), ("bytes allocated", "right"),
         ("bytes freed", "right")],
    )  # fmt: skip
    for thread in process.threads[:_THREADS_SHOWN]:
        ended = f"ended ({thread.threads} in turn)" if thread.threads > 1 else "ended"
        _thread_row(table, str(thread.thread) if thread.thread else ended, thread.counts)
    hidden = process.threads[_THREADS_SHOWN:]
    if hidden:
        table.add_row(cell(f"and {len(hidden)} more", "dim"))
    if process.shared.allocations or process.shared.deallocations:
        _thread_row(table, "without a shard", process.shared)
    return table


def _thread_row(table: Table, name: str, counts: Counts) -> None:
    table.add_row(
        cell(name), cell(counts.allocations), cell(counts.deallocations), cell(_bytes(counts.bytes_allocated)),
        cell(_bytes(counts.bytes_freed)),
    )  # fmt: skip


def _sizes(sizes: Sequence[SizeClass], console: Console) -> Table:
    """Return the size classes with the most requests, in the order of sizes."""
    whole = sum(size.requests for size in sizes)
    top = sorted(sizes, key=lambda size: -size.requests)[:_SIZES_SHOWN]
    table = column_table(
        [("size asked for", "right"), ("requests", "right"), ("share", "right"), ("", "left")]
    )
    plain = ascii_only(console)
    most = max(size.requests for size in top)
    for size in sorted(top, key=lambda size: size.from_bytes):
        table.add_row(
            cell(_range(size)), cell(size.requests), cell(format_quantity(size.requests / whole, "ratio", digits=2)),
            Text(bar(size.requests / most, _BAR_WIDTH, plain)),
        )  # fmt: skip
    if len(sizes) > len(top):
        table.add_row(cell(f"and {len(sizes) - len(top)} more", "dim"))
    return table


def _range(size: SizeClass) -> str:
    if size.from_bytes >= _ROUNDED_FROM_BYTES:
        return f"{_bytes(size.from_bytes)} to {_bytes(size.below_bytes)}"
    last = size.below_bytes - 1
    return f"{size.from_bytes} B" if last == size.from_bytes else f"{size.from_bytes}..{last} B"


def _remarks(process: ProcessAllocations) -> Iterator[str]:
    yield from process.bypass
    if process.shards_refused:
        threads = "thread" if process.shards_refused == 1 else "threads"
        yield (
            f"{process.shards_refused} {threads} found no room in the segment and counted together, nothing is lost; "
            "raise CFCTL_SEGMENT_LIMIT or free space"
        )
    if process.children.allocations:
        yield (
            f"Forked children, each too short for a report of its own: {process.children.allocations} "
            f"allocations of {_bytes(process.children.bytes_allocated)}"
        )


def _bytes(value: float | None) -> str:
    return format_quantity(None if value is None else float(value), "B")


def _rate(rate: Measurement) -> str:
    if rate.unit == "B/s" and rate.value is not None:
        return f"{_bytes(rate.value)}/s"
    return format_quantity(rate.value, rate.unit)
