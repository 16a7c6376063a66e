"""A profile report: total samples, the two tables of operations, and what is missing or damaged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from cfctl.profile.statistics import FLOOR_MULTIPLE
from cfctl.profile.tree import chosen_rows, tree_rows
from cfctl.render.operations import FLOOR_MARK, name_cell, operation_table, quantity
from cfctl.render.stacks import render_stacks
from cfctl.render.table import ascii_only, cell
from cfctl.render.tree import tree_footnotes, tree_table
from cfctl.text import safe_text
from cfctl.units import format_quantity

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from cfctl.profile.report import ProfileReport, RecordedProcess

_PROCESSES_SHOWN: Final = 5
_PROBLEMS_SHOWN: Final = 10
_WIDEST: Final = 1000
_TREE_TOP: Final = 50


def render(
    report: ProfileReport, console: Console, shown_unit: str | None, columns: Sequence[str] = ()
) -> None:
    """Print the report; without `columns` as many as fit. Text from programs is shown, never interpreted."""
    _print_head(report, console)
    if report.operations:
        # Columns that were asked for are shown whole, in lines that may be longer than the window.
        table = operation_table(report.operations, console, shown_unit, columns)
        if columns:
            whole = console.options.update(max_width=_WIDEST)
            console.width = max(console.width, console.measure(table, options=whole).maximum)
        console.print(table)
    _print_foot(report, console)


def render_tree(
    report: ProfileReport,
    console: Console,
    shown_unit: str | None,
    patterns: Sequence[str] = (),
    top: int | None = None,
) -> None:
    """Print the operations as a tree: the branches that match the patterns, and their longest lines."""
    _print_head(report, console)
    rows = tree_rows(report)
    shown = chosen_rows(rows, patterns, top or _TREE_TOP)
    if shown:
        console.print(tree_table(shown, console, shown_unit))
    if len(shown) < len(rows):
        console.print(cell(f"{len(shown)} of {len(rows)} lines; more with --top N", "dim"))
    for line in tree_footnotes(shown, ascii_only(console)):
        console.print(cell(line, "dim"), soft_wrap=True)
    _print_foot(report, console, tree=True)


def _print_head(report: ProfileReport, console: Console) -> None:
    # What was only sampled from outside recorded nothing to count.
    if report.total_samples or report.stacks is None:
        console.print(f"Total samples: {report.total_samples}", style="bold")
    for line in _losses(report):
        console.print(cell(line, "yellow"), soft_wrap=True)
    for process in _process_lines(report.processes):
        console.print(process, soft_wrap=True)


def _print_foot(report: ProfileReport, console: Console, tree: bool = False) -> None:
    for line in _footnotes(report, tree):
        console.print(cell(line, "dim"), soft_wrap=True)
    if report.stacks is not None:
        console.print()
        render_stacks(report.stacks, console)
    for problem in report.problems[:_PROBLEMS_SHOWN]:
        console.print(_long_cell(f"problem: {problem}", "yellow"), soft_wrap=True)
    if len(report.problems) > _PROBLEMS_SHOWN:
        console.print(
            cell(f"and {len(report.problems) - _PROBLEMS_SHOWN} more problems; see --json", "yellow")
        )


def summary_line(report: ProfileReport) -> str:
    """Return the state of a recording in a line: samples, errors, and the operation shown first."""
    failed = sum(operation.errors or 0 for operation in report.operations)
    line = f"samples {report.total_samples}  errors {failed}"
    if not report.operations:
        return line
    first = report.operations[0]
    times = "  ".join(
        f"{name} {quantity(measured, None)}"
        for name, measured in (
            ("mean", first.mean),
            ("p50", first.p50),
            ("p99", first.p99),
            ("max", first.max),
        )
    )
    return f"{line}  {name_cell(first).plain.replace(chr(10), '')}  {times}"


def _losses(report: ProfileReport) -> Iterator[str]:
    if report.samples_lost:
        yield f"Samples lost: {report.samples_lost} (no shard, or more than 1024 nested blocks)"
    if report.shards_refused:
        yield (
            f"Shards refused: {report.shards_refused} "
            "(the segment was full; raise CFCTL_SEGMENT_LIMIT or free space)"
        )


def _process_lines(processes: Sequence[RecordedProcess]) -> Iterator[Text]:
    for process in processes[:_PROCESSES_SHOWN]:
        command = " ".join(process.command_line)
        yield cell(f"Process {process.pid}, {process.state}: {safe_text(command, 120)}")
    if len(processes) > _PROCESSES_SHOWN:
        yield cell(f"and {len(processes) - _PROCESSES_SHOWN} more processes")


def _footnotes(report: ProfileReport, tree: bool) -> Iterator[str]:
    if report.recorded_operations and not report.operations:
        yield f"No operation matches; there are {report.recorded_operations}, which --filter leaves out"
    elif len(report.operations) < report.recorded_operations:
        yield (
            f"{len(report.operations)} of {report.recorded_operations} operations; "
            "more with --top N, others with --sort and --filter"
        )
    for clock in report.clocks:
        rate = clock.rate
        if rate.ns_per_tick is None:
            yield f"Times are in ticks: {rate.reason}"
        else:
            floor = ""
            if clock.floor_ns is not None:
                floor = f"; timer floor {format_quantity(clock.floor_ns, 'ns', digits=2)}"
            error = _relative_error(rate.uncertainty_ppb or 0.0)
            yield f"Clock: {clock.tick_source}; rate from {rate.method}{error}{floor}"
    if not tree and any(operation.near_timer_floor for operation in report.operations):
        yield (
            f"{FLOOR_MARK} shorter than {FLOOR_MULTIPLE} timer floors: "
            "a good part of these times is the reading of the timer"
        )
    if any(operation.out_of_range for operation in report.operations):
        beyond = sum(operation.out_of_range for operation in report.operations)
        yield f"{beyond} samples of 2^40 ticks and more are in count, total and max, not in percentiles"
    for kind, entries in report.other_kinds.items():
        yield f"Not shown: {entries} of kind '{kind}'"


def _relative_error(ppb: float) -> str:
    if not ppb:
        return ""
    unit, value = ("ppm", ppb * 1e-3) if ppb >= 1000 else ("ppb", ppb)
    return f", uncertainty {format_quantity(value, unit, digits=2)}"


def _long_cell(text: str, style: str) -> Text:
    from rich.text import Text

    return Text(safe_text(text, 600), style=style)
