"""A profile report: total samples, the two tables of operations, and what is missing or damaged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from cfctl.profile.statistics import FLOOR_MULTIPLE
from cfctl.render.table import cell, column_table
from cfctl.text import safe_text
from cfctl.units import format_quantity

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from cfctl.profile.report import ProfileReport, RecordedProcess
    from cfctl.profile.statistics import OperationStatistics
    from cfctl.records import Measurement

# One table needs this width; below it times stand in a second one.
_WIDE_COLUMNS: Final = 150
_NAME_COLUMNS: Final = 16
_PROCESSES_SHOWN: Final = 5
_PROBLEMS_SHOWN: Final = 10
_FLOOR_MARK: Final = "*"

_Column = tuple[str, "Callable[[OperationStatistics], str]"]


def render(report: ProfileReport, console: Console, shown_unit: str | None) -> None:
    """Print the report; text from programs is shown, never interpreted."""
    console.print(f"Total samples: {report.total_samples}", style="bold")
    for line in _losses(report):
        console.print(cell(line, "yellow"), soft_wrap=True)
    for process in _process_lines(report.processes):
        console.print(process, soft_wrap=True)
    if report.operations:
        _print_tables(report, console, shown_unit)
    for line in _footnotes(report):
        console.print(cell(line, "dim"), soft_wrap=True)
    for problem in report.problems[:_PROBLEMS_SHOWN]:
        console.print(_long_cell(f"problem: {problem}", "yellow"), soft_wrap=True)
    if len(report.problems) > _PROBLEMS_SHOWN:
        console.print(
            cell(f"and {len(report.problems) - _PROBLEMS_SHOWN} more problems; see --json", "yellow")
        )


def _print_tables(report: ProfileReport, console: Console, shown_unit: str | None) -> None:
    def time(of: Callable[[OperationStatistics], Measurement]) -> Callable[[OperationStatistics], str]:
        return lambda operation: _quantity(of(operation), shown_unit)

    tallies: list[_Column] = [
        ("count", lambda o: str(o.count)),
        ("rate", lambda o: _quantity(o.rate, None)),
        ("errors", _errors),
        ("total", time(lambda o: o.total)),
    ]
    spread: list[_Column] = [("mean", time(lambda o: o.mean)), ("stddev", time(lambda o: o.stddev))]
    percentiles: list[_Column] = [
        ("min", time(lambda o: o.min)),
        ("p50", time(lambda o: o.p50)),
        ("p90", time(lambda o: o.p90)),
        ("p99", time(lambda o: o.p99)),
        ("p99.9", time(lambda o: o.p99_9)),
        ("max", time(lambda o: o.max)),
    ]
    if console.width >= _WIDE_COLUMNS:
        _print_table(report.operations, [*tallies, *spread, *percentiles], console)
    else:
        _print_table(report.operations, [*tallies, *spread], console)
        _print_table(report.operations, percentiles, console)


def _print_table(
    operations: Sequence[OperationStatistics], columns: Sequence[_Column], console: Console
) -> None:
    table = column_table([("operation", "left"), *((name, "right") for name, _ in columns)])
    for column in table.columns[1:]:
        column.no_wrap = True
    for operation in operations:
        table.add_row(_name_cell(operation), *(cell(show(operation)) for _, show in columns))
    console.print(table)


def _name_cell(operation: OperationStatistics) -> Text:
    labels = ", ".join(f"{key}={value}" for key, value in operation.labels)
    mark = f" {_FLOOR_MARK}" if operation.near_timer_floor else ""
    text = cell(f"{operation.name}{f' {{{labels}}}' if labels else ''}{mark}")
    module, colon, _ = text.plain.partition(":")
    if len(text.plain) > _NAME_COLUMNS and colon:
        # Where a long function name may be broken without tearing a word.
        return text[: len(module) + 1].append("\n").append(text[len(module) + 1 :])
    return text


def _quantity(measured: Measurement, shown_unit: str | None) -> str:
    if measured.value is None:
        return "low n" if measured.reason == "low n" else "-"
    if measured.unit == "1/s":
        return format_quantity(measured.value, measured.unit)
    # Four digits are what the histogram's 0.4 % allows, and in a table as many as anybody reads.
    error = max(measured.uncertainty or 0.0, abs(measured.value) * 2e-3)
    return format_quantity(measured.value, measured.unit, uncertainty=error, shown_unit=shown_unit)


def _errors(operation: OperationStatistics) -> str:
    if not operation.errors or operation.error_ratio is None:
        return str(operation.errors)
    return f"{operation.errors} ({format_quantity(operation.error_ratio, 'ratio', digits=2)})"


def _losses(report: ProfileReport) -> Iterator[str]:
    if report.samples_lost:
        yield f"Samples lost: {report.samples_lost} (no shard, or more than 256 nested blocks)"
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


def _footnotes(report: ProfileReport) -> Iterator[str]:
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
    if any(operation.near_timer_floor for operation in report.operations):
        yield (
            f"{_FLOOR_MARK} shorter than {FLOOR_MULTIPLE} timer floors: "
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
