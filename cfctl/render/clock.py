"""The clock of this machine: its calibration at hand, the history, its health."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cfctl.clock.calibration import REFERENCE_NAMES
from cfctl.render.calibration import Row, calibration_rows, frequency, measured, ppb, print_facts, remark
from cfctl.render.table import cell, column_table, status_cell
from cfctl.units import format_quantity

if TYPE_CHECKING:
    from rich.console import Console

    from cfctl.clock.calibration import Calibration
    from cfctl.clock.condition import ClockHealth
    from cfctl.clock.report import CalibrationHistory


def render_calibration(calibration: Calibration, console: Console, shown_unit: str | None) -> None:
    """Print the facts of one calibration."""
    rows = calibration_rows(calibration, shown_unit)
    rows.append(("made", _when(calibration.created_realtime_ns), ""))
    print_facts(rows, console)


def render_history(document: CalibrationHistory, console: Console, shown_unit: str | None) -> None:  # noqa: ARG001
    """Print the saved calibrations, the newest first."""
    table = column_table(
        [("made", "left"), ("frequency, Hz", "right"), ("±", "right"), ("method", "left"), ("verdict", "left"),
         ("holds", "left")],
    )  # fmt: skip
    for each in reversed(document.calibrations):
        usable = (
            document.usable is not None and each.created_realtime_ns == document.usable.created_realtime_ns
        )
        table.add_row(
            cell(_when(each.created_realtime_ns)[5:16]),
            cell(frequency(each.frequency_hz, each.frequency_uncertainty_ppb).removesuffix(" Hz")),
            cell(ppb(each.frequency_uncertainty_ppb)),
            cell(f"{each.method}/{each.reference}"),
            status_cell(each.verdict),
            cell("yes" if usable else ""),
        )
    console.print(table)


def render_health(health: ClockHealth, console: Console, shown_unit: str | None) -> None:
    """Print the verdict over the clock and the facts it rests on."""
    age = format_quantity(health.age_ns, "ns", shown_unit=shown_unit)
    reference = REFERENCE_NAMES.get(health.reference or "", "-")
    max_error = format_quantity(health.max_error_ns, "ns", shown_unit=shown_unit)
    correction = (
        "-" if health.frequency_correction_ppm is None else f"{health.frequency_correction_ppm:+.3f} ppm"
    )
    rows: list[Row] = [
        ("verdict", status_cell(health.verdict), "; ".join(health.reasons)),
        ("counter", health.source, health.source_reason),
        ("clocksource", health.clocksource or "-", "available: " + (" ".join(health.clocksources_available) or "-")),
        ("calibration", health.calibration_verdict or "-", f"of this {health.calibration_from}, {age} old" if health.calibration_from else ""),
        ("error", measured(health.error_ns, shown_unit), f"against {reference}" if health.reference else remark(health.error_ns)),
        ("drift", ppb(health.drift_ppb.value, health.drift_ppb.uncertainty, signed=True), health.drift_ppb.reason or ""),
        ("wall clock", {True: "synchronized", False: "not synchronized", None: "-"}[health.synchronized], health.synchronized_reason),
        ("wall clock error", max_error, "the kernel's own bound"),
        ("frequency correction", correction, "by NTP or PTP"),
        ("suspended so far", format_quantity(health.suspended_ns, "ns", shown_unit=shown_unit), ""),
        ("migrations so far", "-" if health.disruption_marker is None else str(health.disruption_marker), "" if health.disruption_marker is not None else "no VMClock device"),
    ]  # fmt: skip
    if health.time_namespace_offset_ns:
        shown = format_quantity(health.time_namespace_offset_ns, "ns", shown_unit=shown_unit)
        rows.append(("time namespace", shown, "added to CLOCK_MONOTONIC here"))
    if health.kernel_log_reason:
        rows.append(("kernel log", "-", health.kernel_log_reason))
    rows.extend(("kernel log", "", line) for line in health.kernel_log)
    print_facts(rows, console)


def _when(realtime_ns: int) -> str:
    try:
        return datetime.fromtimestamp(realtime_ns // 1_000_000_000, UTC).astimezone().isoformat(" ")
    except (ValueError, OverflowError, OSError):
        return "-"
