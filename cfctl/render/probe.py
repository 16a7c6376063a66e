"""Probes as tables: first the figures, then what they are worth."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, TypeAlias

from cfctl.probe.distribution import QUANTILES
from cfctl.render.calibration import measured, remark
from cfctl.render.histogram import heat_map, histogram_table
from cfctl.render.table import cell, column_table, fact_table
from cfctl.units import format_quantity

if TYPE_CHECKING:
    from rich.console import Console, JustifyMethod
    from rich.text import Text

    from cfctl.probe.clock import ClockCosts
    from cfctl.probe.conversion import Conversion
    from cfctl.probe.core_to_core import CoreToCore
    from cfctl.probe.cost import Costs
    from cfctl.probe.distribution import Distribution
    from cfctl.probe.gap_causes import Attribution
    from cfctl.probe.jitter import CpuJitter, Jitter
    from cfctl.probe.load import ThreadLoad
    from cfctl.probe.scheduling import PmQos, Scheduling
    from cfctl.probe.wakeup import Wakeup

_MOST_QUANTILES: Final = 5
_SHOWN_GAPS: Final = 5
_SHOWN_SPOILT: Final = 2
_SHOWN_INTERRUPTS: Final = 6
Row: TypeAlias = "tuple[str, str, str]"
Column: TypeAlias = "tuple[str, JustifyMethod]"


def render_jitter(document: Jitter, console: Console, shown_unit: str | None) -> None:
    """Print lost time, rate and percentiles by CPU, then histogram, causes and largest gaps of each."""
    _head(console, f"Gaps of {format_quantity(document.threshold_ns, 'ns', digits=3)} and more", document)
    shown = _shown_quantiles((cpu.gaps for cpu in document.cpus), _MOST_QUANTILES - 1)
    table = column_table(
        [_right("CPU"), _right("lost"), _right("lost/s"), _right("gaps"), *_quantile_columns(shown)]
    )
    for cpu in document.cpus:
        table.add_row(
            cell(cpu.cpu),
            cell(format_quantity(cpu.lost.value, "ratio")),
            cell(_time(cpu.lost_ns_per_s.value, shown_unit)),
            cell(cpu.gaps.sample_count),
            *_percentile_cells(cpu.gaps, shown_unit, shown),
        )
    console.print(table)
    for cpu in document.cpus:
        _print_cpu_gaps(cpu, console, shown_unit)
    _print_methods(document, console)
    turns = ", ".join(f"CPU {cpu.cpu} {_time(cpu.turn.value, shown_unit)}" for cpu in document.cpus)
    rows: list[Row] = [("turn of the loop", turns, "a gap is known to one turn")]
    rows += _mode_rows(document.scheduling, document.pm_qos)
    rows += _clock_rows(document.clock, shown_unit)
    loads = [(f"CPU {cpu.cpu}", cpu.load) for cpu in document.cpus]
    _print_worth(console, rows, loads, document.interrupted)


def _print_cpu_gaps(cpu: CpuJitter, console: Console, shown_unit: str | None) -> None:
    if not cpu.gaps.sample_count:
        _title(console, f"CPU {cpu.cpu}: no gap")
        return
    rate = format_quantity(cpu.gap_rate.value, "1/s")
    _title(console, f"CPU {cpu.cpu}: length of the gaps, {rate}")
    console.print(histogram_table(cpu.gaps.histogram, console, shown_unit))
    if cpu.attribution is not None:
        _title(console, f"CPU {cpu.cpu}: what the time was lost to")
        _print_attribution(cpu.attribution, console, shown_unit)
    _title(console, f"CPU {cpu.cpu}: largest gaps")
    largest = column_table(
        [_right("after"), _right("length"), _right("switches"), _right("faults"), ("cause", "left")]
    )
    for gap in cpu.largest[:_SHOWN_GAPS]:
        largest.add_row(
            cell(format_quantity(gap.start_ns, "ns", digits=4)),
            cell(_time(gap.duration_ns, shown_unit)),
            cell(gap.involuntary_switches),
            cell(gap.minor_faults),
            cell(gap.cause or "-"),
        )
    console.print(largest)


def _print_methods(document: Jitter, console: Console) -> None:
    """Print once how each cause is known."""
    methods = {
        share.cause.value: share.method
        for cpu in document.cpus
        if cpu.attribution is not None
        for share in cpu.attribution.shares
    }
    if methods:
        _title(console, "How the causes are known")
        console.print(fact_table((cause, method, "") for cause, method in methods.items()))


def _print_attribution(attribution: Attribution, console: Console, shown_unit: str | None) -> None:
    traced = any(share.before_handler_ns is not None for share in attribution.shares)
    columns: list[Column] = [("cause", "left"), *map(_right, ("share", "lost", "gaps", "p50", "longest"))]
    table = column_table([*columns, _right("before handler")] if traced else columns)
    for share in attribution.shares:
        times = [share.lost_ns, share.median_ns, share.longest_ns, share.before_handler_ns]
        lost, half, longest, before = (_time(ns, shown_unit) if share.gap_count else "-" for ns in times)
        row = [share.cause.value, f"{share.share_ratio:.1%}", lost, str(share.gap_count), half, longest]
        table.add_row(*(cell(text) for text in [*row, *([before] if traced else [])]))
    console.print(table)
    rows: list[Row] = [("method", attribution.method, "")]
    if attribution.tracepoints != "used":
        rows.append(("kernel tracepoints", "-", attribution.tracepoints))
    rows.append(_tick_row(attribution))
    rows.append(("steal", measured(attribution.steal, shown_unit), remark(attribution.steal)))
    if attribution.interrupts:
        most = sorted(attribution.interrupts.items(), key=lambda row: -row[1])[:_SHOWN_INTERRUPTS]
        rows.append(("interrupts", "", ", ".join(f"{name} {count}" for name, count in most)))
    if attribution.recorded_switches_reason:
        rows.append(("switch records", "-", attribution.recorded_switches_reason))
    if attribution.analysed_gaps < attribution.total_gaps:
        rows.append(
            ("analysed", str(attribution.analysed_gaps), f"the longest of {attribution.total_gaps} gaps")
        )
    if attribution.agreement is not None and attribution.agreement.agreement is not None:
        equal = attribution.agreement
        of = f"of {equal.gap_count} gaps over {_time(equal.least_ns, None)}: tick, switch, fault or none"
        rows.append(("alike without root", f"{equal.agreement:.1%}", of))
    console.print(fact_table(rows))


def _tick_row(attribution: Attribution) -> Row:
    tick = attribution.tick
    if tick is None:
        return "tick phase", "-", attribution.tick_reason
    return (
        "tick phase",
        f"{tick.hz} Hz",
        f"held in {tick.coverage:.1%} of {tick.periods} periods not learnt from, elsewhere {tick.chance:.1%}",
    )


def render_wakeup(document: Wakeup, console: Console, shown_unit: str | None) -> None:
    """Print the percentiles of each CPU's wake-up latency, its histogram and the modes."""
    _head(console, f"Wake-up latency, every {format_quantity(document.interval_ns, 'ns')}", document)
    shown = _shown_quantiles(cpu.distribution for cpu in document.cpus)
    table = column_table([_right("CPU"), _right("n"), *_quantile_columns(shown), _right("overruns")])
    for cpu in document.cpus:
        table.add_row(
            cell(cpu.cpu),
            cell(cpu.distribution.sample_count),
            *_percentile_cells(cpu.distribution, shown_unit, shown),
            cell(cpu.overruns),
        )
    console.print(table)
    for cpu in document.cpus:
        if cpu.distribution.sample_count:
            _title(console, f"CPU {cpu.cpu}: latency")
            console.print(histogram_table(cpu.distribution.histogram, console, shown_unit))
    slacks = ", ".join(_time(ns, shown_unit) for ns in sorted({cpu.slack_ns for cpu in document.cpus}))
    rows: list[Row] = [
        ("timer slack", slacks, "none is taken for fifo" if document.scheduling.policy == "fifo" else "")
    ]
    rows += _mode_rows(document.scheduling, document.pm_qos)
    _print_worth(console, rows, [(f"CPU {cpu.cpu}", cpu.load) for cpu in document.cpus], document.interrupted)


def render_core_to_core(document: CoreToCore, console: Console, shown_unit: str | None) -> None:
    """Print a heat map for each variant, a summary by topology, and the worth of the figures."""
    _head(
        console, f"Cache lines between CPUs, samples of {document.round_trips_a_sample} round trips", document
    )
    for variant in dict.fromkeys(pair.variant for pair in document.pairs):
        pairs = [pair for pair in document.pairs if pair.variant == variant]
        values = {(p.cpu_a, p.cpu_b): p.one_way.value for p in pairs if p.one_way.value is not None}
        _title(console, f"One-way latency by {variant}, p50 in ns")
        for part in heat_map(document.cpus, values, console):
            console.print(part)
    columns: list[Column] = [
        ("variant", "left"),
        ("relation", "left"),
        *map(_right, ("pairs", "least", "median", "most")),
    ]
    table = column_table(columns)
    for variant, relation in dict.fromkeys((pair.variant, pair.relation) for pair in document.pairs):
        found = [
            pair.one_way.value
            for pair in document.pairs
            if (pair.variant, pair.relation) == (variant, relation) and pair.one_way.value is not None
        ]
        if found:
            shown = [_time(ns, shown_unit) for ns in (min(found), statistics.median(found), max(found))]
            table.add_row(cell(variant), cell(relation), cell(len(found)), *map(cell, shown))
    console.print()
    console.print(table)
    loads = [(f"{pair.cpu_a}-{pair.cpu_b} {pair.variant}", pair.load) for pair in document.pairs]
    rows = [_policy_row(document.scheduling), *_clock_rows(document.clock, shown_unit)]
    _print_worth(console, rows, loads, document.interrupted)


def render_costs(document: Costs, console: Console, shown_unit: str | None) -> None:
    """Print what each operation costs, and how it was measured."""
    across = f" and across to CPU {document.other_cpu}" if document.other_cpu is not None else ""
    _head(console, f"Costs on CPU {document.cpu}{across}", document)
    table = column_table([("operation", "left"), *map(_right, ("p50", "p99", "n")), ("method", "left")])
    for cost in document.costs:
        high = cost.distribution.at(0.99) if cost.distribution is not None else None
        table.add_row(
            cell(cost.name),
            cell(measured(cost.cost, shown_unit)),
            cell("-" if high is None else _percentile(high.value_ns, high.reason, shown_unit)),
            cell("-" if cost.cost.sample_count is None else cost.cost.sample_count),
            cell(
                remark(cost.cost).partition(";")[0] if cost.distribution is None else remark(cost.cost), "dim"
            ),
        )
    console.print(table)
    loads = [(cost.name, cost.load) for cost in document.costs if cost.load is not None]
    rows = [*_mode_rows(document.scheduling, document.pm_qos), *_clock_rows(document.clock, shown_unit)]
    _print_worth(console, rows, loads, document.interrupted)


def render_clock(document: ClockCosts, console: Console, shown_unit: str | None) -> None:
    """Print what a read of each clock costs and how finely the counter steps."""
    rows: list[Row] = [
        ("counter", document.tick_source, document.tick_source_reason),
        ("step", measured(document.tick_step, shown_unit), remark(document.tick_step)),
    ]
    rows += [
        (f"read {name}", measured(cost, shown_unit), remark(cost))
        for name, cost in document.read_costs.items()
    ]
    console.print(fact_table(rows))


def _print_worth(
    console: Console, rows: list[Row], loads: Iterable[tuple[str, ThreadLoad]], interrupted: bool
) -> None:
    """Print the modes of a run and what disturbed its threads."""
    console.print()
    named = list(loads)
    switches = sum(load.involuntary_switches for _, load in named)
    delays = [load.run_delay_ns for _, load in named]
    waited = "-" if None in delays else format_quantity(sum(ns for ns in delays if ns is not None), "ns")
    rows.append(
        ("involuntary switches", str(switches), f"of the measuring threads; waited for the CPU: {waited}")
    )
    spoilt = [(name, load) for name, load in named if load.contaminated]
    if len(spoilt) <= _SHOWN_SPOILT:
        rows += [
            ("CONTAMINATED", name, f"other work took the CPU: {load.contamination}") for name, load in spoilt
        ]
    else:
        rows.append(("CONTAMINATED", f"{len(spoilt)} of {len(named)}", ", ".join(name for name, _ in spoilt)))
    if interrupted:
        rows.append(("interrupted", "yes", "the figures are those of the time until then"))
    console.print(fact_table(rows))


def _mode_rows(scheduling: Scheduling, held: PmQos) -> list[Row]:
    return [_policy_row(scheduling), ("PM QoS", held.describe(), "")]


def _policy_row(scheduling: Scheduling) -> Row:
    priority = f", priority {scheduling.priority}" if scheduling.priority else ""
    return "policy", f"{scheduling.policy}{priority}", ""


def _clock_rows(clock: Conversion, shown_unit: str | None) -> list[Row]:
    step = format_quantity(clock.tick_step_ns, "ns", shown_unit=shown_unit)
    return [("clock", f"{clock.tick_source}, step {step}", f"calibration {clock.calibration}")]


def _shown_quantiles(distributions: Iterable[Distribution], most: int = _MOST_QUANTILES) -> list[int]:
    """Return which of QUANTILES to show: those with a value and one that says why not; few enough, p90 goes first."""
    supported = [sum(p.value_ns is not None for p in each.percentiles) for each in distributions]
    shown = list(range(min(max(supported, default=0) + 1, _MOST_QUANTILES)))
    return shown if len(shown) <= most else [shown[0], *shown[2:]]


def _quantile_columns(shown: list[int]) -> list[Column]:
    return [*(_right(f"p{100 * QUANTILES[index]:.10g}") for index in shown), _right("max")]


def _percentile_cells(distribution: Distribution, shown_unit: str | None, shown: list[int]) -> list[Text]:
    percentiles = [distribution.percentiles[index] for index in shown]
    found = [cell(_percentile(p.value_ns, p.reason, shown_unit)) for p in percentiles]
    return [*found, cell(_time(distribution.max_ns, shown_unit))]


def _right(name: str) -> Column:
    return name, "right"


def _head(console: Console, text: str, document: Jitter | Wakeup | CoreToCore | Costs) -> None:
    """Print what follows, and before any figure that it is not only this machine's doing."""
    console.print(cell(text, "bold"))
    if document.contaminated:
        console.print(cell("Other programs disturbed the run: see CONTAMINATED at the end.", "yellow"))


def _title(console: Console, text: str) -> None:
    console.print()
    console.print(cell(text, "bold"))


def _percentile(value_ns: float | None, reason: str | None, shown_unit: str | None) -> str:
    return reason or "-" if value_ns is None else _time(value_ns, shown_unit)


def _time(ns: float | None, shown_unit: str | None) -> str:
    return format_quantity(ns, "ns", shown_unit=shown_unit)
