"""Pools, and the verdict of a bench, as text for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfctl.render.table import STATUS_STYLE, cell, column_table, fact_table
from cfctl.text import safe_text
from cfctl.units import format_quantity

if TYPE_CHECKING:
    from rich.console import Console

    from cfctl.pool.bench import PoolBench
    from cfctl.pool.statistics import PoolReport, PoolStatistics
    from cfctl.records import Measurement


def render(document: PoolReport, console: Console, shown_unit: str | None) -> None:  # noqa: ARG001
    """Print one row per pool, the busiest first, and below it what is wrong with any."""
    heading = f"Pools of process {document.pid} ({document.state}): "
    command = safe_text(" ".join(document.command_line), max(20, console.width - len(heading))) or "?"
    console.print(cell(heading + command), soft_wrap=True)
    if not document.pools:
        console.print(cell("It has no pool."))
    else:
        console.print(_table(document))
    for pool in document.pools:
        for remark in _remarks(pool):
            console.print(cell(f"{safe_text(pool.name, 60)}: {remark}", "yellow"), soft_wrap=True)
    if document.shards_refused:
        console.print(
            cell(f"{document.shards_refused} instruments found no room in the segment.", "yellow"),
            soft_wrap=True,
        )
    for problem in document.problems:
        console.print(cell(problem, "yellow"), soft_wrap=True)


def _table(document: PoolReport) -> object:
    table = column_table(
        [("pool", "left"), ("created", "right"), ("hits", "right"), ("misses", "right"),
         ("hit ratio", "right"), ("in use", "right"), ("high", "right"), ("idle", "right")]
    )  # fmt: skip
    for pool in document.pools:
        ratio = "-" if pool.hit_ratio is None else _percent(pool.hit_ratio)
        table.add_row(
            cell(safe_text(pool.name, 40)), cell(pool.created), cell(pool.hits), cell(pool.misses), cell(ratio),
            cell(pool.in_use), cell(pool.high_water), cell(pool.idle),
        )  # fmt: skip
    return table


def _percent(ratio: float) -> str:
    """Return a ratio in percent; 100 % only when nothing missed."""
    return "100 %" if ratio == 1 else f"{min(ratio, 0.99999) * 100:.3f}".rstrip("0").rstrip(".")[:6] + " %"


def _remarks(pool: PoolStatistics) -> list[str]:
    found = []
    if pool.misuses:
        found.append(f"{pool.misuses} releases were refused (double, foreign, or still viewed)")
    if pool.factory_errors or pool.reset_errors:
        found.append(f"{pool.factory_errors} exceptions in the factory, {pool.reset_errors} in the reset")
    if pool.lost:
        found.append(f"{pool.lost} items were dropped without a release")
    if pool.abandoned:
        found.append(f"{pool.abandoned} items were in use when their pool went")
    return found


def summary_line(document: PoolReport) -> str:
    """Return a reading as one line: pid, state, and of each pool its hits, misses and items in use."""
    pools = ", ".join(
        f"{safe_text(pool.name, 40)} {pool.hits} hits {pool.misses} misses {pool.in_use} in use"
        for pool in document.pools
    )
    return f"{document.pid} {document.state}: {pools or 'no pool'}"


def render_bench(document: PoolBench, console: Console, shown_unit: str | None) -> None:
    """Print the verdict, then what was measured."""
    console.print(
        cell(f"{safe_text(document.factory)}: {document.advice}", STATUS_STYLE[document.verdict]),
        soft_wrap=True,
    )
    reset = "no reset" if document.reset is None else f"with reset {safe_text(document.reset)}"
    rows = [
        ("fresh", _quantity(document.fresh, shown_unit), "made and destroyed"),
        ("pooled", _quantity(document.pooled, shown_unit), f"acquired and released, {reset}"),
        ("saving", _quantity(document.saving, shown_unit), "per object"),
        ("ratio", _quantity(document.ratio, shown_unit), "fresh : pooled"),
    ]
    console.print(fact_table(rows))
    console.print(
        cell(f"{document.rounds} rounds of {document.objects_per_round} objects; {document.reason}.", "dim")
    )


def _quantity(measured: Measurement, shown_unit: str | None) -> str:
    value, error = measured.value or 0.0, measured.uncertainty or 0.0
    sign = "-" if value < 0 else ""
    unit = "" if measured.unit == "x" else measured.unit
    shown = format_quantity(abs(value), unit, uncertainty=error, shown_unit=shown_unit)
    return f"{sign}{shown}{'x' if measured.unit == 'x' else ''} +- {format_quantity(error, unit, digits=2)}"
