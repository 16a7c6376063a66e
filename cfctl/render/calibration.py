"""A calibration, a comparison of methods and rechecks as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from cfctl.clock.calibration import REFERENCE_NAMES
from cfctl.render.table import cell, column_table, fact_table, status_cell
from cfctl.units import decimals_for, format_quantity

if TYPE_CHECKING:
    from rich.console import Console

    from cfctl.clock.calibration import Calibration
    from cfctl.clock.epoch import Recheck
    from cfctl.clock.offsets import CpuOffsets
    from cfctl.clock.report import CalibrationReport
    from cfctl.records import Measurement

Row = tuple[str, str | Text, str]
_COST_NAMES = {
    "tick": ("read tick", "may be reordered with its neighbours"),
    "tick_ordered": ("read tick, ordered", "waits for what stands before it"),
    "raw": ("read MONOTONIC_RAW", ""),
    "monotonic": ("read MONOTONIC", ""),
    "realtime": ("read REALTIME", ""),
    "boottime": ("read BOOTTIME", ""),
    "monotonic_coarse": ("read MONOTONIC_COARSE", "resolution of a timer tick"),
    "syscall": ("a syscall", "getppid"),
}
_MATRIX_CPUS = 8


def render(report: CalibrationReport, console: Console, shown_unit: str | None) -> None:
    """Print the calibration's facts, what the clocks cost and how far the CPUs' counters lie apart."""
    rows = [*calibration_rows(report.calibration, shown_unit)]
    after = f"mean of {report.residual_ns.sample_count} clusters taken after it"
    rows.insert(3, ("residual", measured(report.residual_ns, shown_unit), report.residual_ns.reason or after))
    rows += [
        ("", "", ""),
        *(
            (_COST_NAMES[name][0], measured(cost, shown_unit), cost.reason or _COST_NAMES[name][1])
            for name, cost in report.read_costs_ns.items()
        ),
        ("", "", ""),
        *offset_rows(report.offsets, shown_unit),
        ("saved", "yes" if report.saved_to else "no", report.saved_to or report.saved_reason or ""),
    ]
    print_facts(rows, console)
    if 2 < len(report.offsets.cpus) <= _MATRIX_CPUS:
        render_offsets(report.offsets, console, shown_unit)
    if report.compared:
        render_comparison(report, console, shown_unit)


def print_facts(rows: list[Row], console: Console) -> None:
    """Print facts so that only the remarks wrap: labels and values are short."""
    table = fact_table(rows)
    table.columns[0].no_wrap = table.columns[1].no_wrap = True
    console.print(table)


def calibration_rows(calibration: Calibration, shown_unit: str | None) -> list[Row]:
    """Return the facts of a calibration as (what, value, remark)."""
    against = f"against {REFERENCE_NAMES[calibration.reference]}"
    bound = format_quantity(calibration.offset_bound_ns, "ns", shown_unit=shown_unit, digits=2)
    rows: list[Row] = [
        ("frequency", frequency(calibration.frequency_hz, calibration.frequency_uncertainty_ppb), against),
        ("uncertainty", ppb(calibration.frequency_uncertainty_ppb), _uncertainty_remark(calibration)),
        ("fit residual", format_quantity(calibration.residual_ns, "ns", shown_unit=shown_unit, digits=2), "root mean square"),
        ("offset bound", f"±{bound}", "half the narrowest bracket and one step"),
        ("counter step", format_quantity(calibration.tick_step_ns, "ns", shown_unit=shown_unit), "resolution of a single stamp"),
        ("snap", "yes" if calibration.snapped else "no", calibration.snap_reason),
        ("stated rate", *_stated(calibration)),
        ("reference", REFERENCE_NAMES[calibration.reference], ""),
        ("independence", calibration.independence, calibration.independence_reason),
        ("counter", calibration.source, calibration.source_reason),
        ("method", calibration.method, _effort(calibration, shown_unit)),
        ("verdict", status_cell(calibration.verdict), calibration.verdict_reason),
    ]  # fmt: skip
    return rows


def _uncertainty_remark(calibration: Calibration) -> str:
    if calibration.source == "os":
        return "by definition" if calibration.reference == "raw" else "standard error"
    if calibration.method == "median":
        return "spread of the samples; their common bias is not in it"
    kind = "standard error" if calibration.verdict == "valid" else "bound from the brackets"
    return f"{kind}; hard bound {ppb(calibration.frequency_bound_ppb)}"


def _stated(calibration: Calibration) -> tuple[str, str]:
    if calibration.stated_hz is None or calibration.stated_ppb is None:
        return "-", calibration.stated_reason
    off = ppb(calibration.stated_ppb, calibration.frequency_uncertainty_ppb, signed=True)
    remark = f"{calibration.stated_reason}; measured {off} from it, its rounding apart"
    return f"{calibration.stated_hz / 1e6:.3f} MHz", remark


def _effort(calibration: Calibration, shown_unit: str | None) -> str:
    duration = format_quantity(calibration.duration_ns, "ns", shown_unit=shown_unit)
    cpu_time = format_quantity(calibration.cpu_time_ns, "ns", shown_unit=shown_unit, digits=2)
    attempts = f", attempt {calibration.attempts}" if calibration.attempts > 1 else ""
    return f"{duration}, {cpu_time} of CPU time{attempts}"


def offset_rows(offsets: CpuOffsets, shown_unit: str | None) -> list[Row]:
    """Return the offsets between CPUs as rows: the pair itself, or the worst of many."""
    if offsets.max_offset_ns is None:
        return [("CPU offset", "-", offsets.reason or "")]
    shown = format_quantity(
        offsets.max_offset_ns, "ns", uncertainty=offsets.max_bound_ns, shown_unit=shown_unit
    )
    bound = format_quantity(offsets.max_bound_ns, "ns", shown_unit=shown_unit, digits=2)
    which = (
        f"CPU {offsets.cpus[1]} against CPU {offsets.cpus[0]}"
        if len(offsets.cpus) == 2
        else f"largest of {len(offsets.cpus)} CPUs"
    )
    text = f"{which}; {offsets.warps} warps in {offsets.exchanges} exchanges"
    return [
        (
            "CPU offset",
            f"{shown}, bound ±{bound}",
            text if offsets.reason is None else f"{text}; {offsets.reason}",
        )
    ]


def render_offsets(offsets: CpuOffsets, console: Console, shown_unit: str | None) -> None:
    """Print the offset of every CPU's counter against every other's, each with its bound."""
    unit = shown_unit or "ns"
    names = [("CPU", "right"), *((str(cpu), "right") for cpu in offsets.cpus)]
    table = column_table(names, title=f"Offset ± bound of a column's counter against a row's, {unit}")  # type: ignore[arg-type]
    factor = {"ns": 1.0, "us": 1e3, "ms": 1e6, "s": 1e9}[unit]
    for cpu, row, bounds in zip(offsets.cpus, offsets.offset_ns, offsets.bound_ns, strict=True):
        cells = [
            "-" if value is None or bound is None else f"{value / factor:.0f} ± {bound / factor:.0f}"
            for value, bound in zip(row, bounds, strict=True)
        ]
        table.add_row(cell(cpu), *(cell(text) for text in cells))
    console.print(table)


def render_comparison(report: CalibrationReport, console: Console, shown_unit: str | None) -> None:
    """Print both methods side by side, with the deviation from the kernel's exact rate when it is known."""
    table = column_table(
        [("method", "left"), ("estimate, Hz", "right"), ("uncertainty", "right"), ("off", "right"),
         ("residual", "right"), ("takes", "right")],
        title=f"Against {REFERENCE_NAMES[report.calibration.reference]}; off: from the kernel's exact rate",
    )  # fmt: skip
    for result in report.compared:
        each = result.calibration
        off = result.deviation_ppb
        table.add_row(
            cell(each.method),
            cell(frequency(each.estimate_hz, each.frequency_uncertainty_ppb).removesuffix(" Hz")),
            cell(ppb(each.frequency_uncertainty_ppb)),
            cell(ppb(off.value, off.uncertainty, signed=True) if off.value is not None else "-"),
            cell(format_quantity(each.residual_ns, "ns", shown_unit=shown_unit, digits=2)),
            cell(format_quantity(each.duration_ns, "ns", shown_unit=shown_unit)),
        )
    console.print(table)
    reasons = {result.deviation_ppb.reason for result in report.compared} - {None}
    for reason in sorted(str(reason) for reason in reasons):
        console.print(cell(reason))


def frequency(hz: float, uncertainty_ppb: float) -> str:
    """Return a frequency in Hz with the digits its uncertainty allows, in groups of three."""
    decimals = min(decimals_for(hz * uncertainty_ppb * 1e-9), 6) if uncertainty_ppb else 0
    return f"{hz:,.{decimals}f} Hz".replace(",", " ")


def ppb(value: float | None, uncertainty: float | None = None, *, signed: bool = False) -> str:
    """Return a ratio in ppb, or ppm from 1000 ppb on, with the digits its uncertainty allows."""
    if value is None:
        return "-"
    factor, unit = (1000.0, "ppm") if abs(value) >= 999.5 else (1.0, "ppb")
    decimals = decimals_for(uncertainty / factor) if uncertainty else None
    shown = value / factor
    if decimals is None:
        text = format_quantity(abs(shown), "", digits=2)
        return f"{'-' if value < 0 else '+' if signed else ''}{text} {unit}"
    return f"{shown:{'+' if signed else ''}.{min(decimals, 6)}f} {unit}"


def measured(measurement: Measurement, shown_unit: str | None) -> str:
    """Return a measurement as text with the digits its uncertainty allows."""
    return format_quantity(
        measurement.value, measurement.unit, uncertainty=measurement.uncertainty, shown_unit=shown_unit
    )


def remark(measurement: Measurement) -> str:
    """Return a measurement's method, or why there is none."""
    return measurement.reason or measurement.method or ""


def recheck_line(found: Recheck, shown_unit: str | None) -> str:
    """Return one recheck as a line of text."""
    from datetime import datetime

    when = datetime.fromtimestamp(found.realtime_ns // 1_000_000_000).astimezone().isoformat()
    error = (
        "error unknown"
        if found.error_ns is None
        else f"error {format_quantity(found.error_ns, 'ns', uncertainty=found.error_uncertainty_ns, shown_unit=shown_unit)}"
    )
    drift = found.drift_ppb
    shown_drift = (
        f"drift {ppb(drift.value, drift.uncertainty, signed=True)}" if drift.value is not None else "drift -"
    )
    age = format_quantity(found.age_ns, "ns", digits=3)
    cause = f" ({found.cause})" if found.cause else ""
    return (
        f"{when}  epoch {found.epoch}  age {age}  {error} against {REFERENCE_NAMES[found.reference]}  "
        f"{found.action}{cause}: {found.reason}; {shown_drift}"
    )
