"""pyperf's view of the system, and cfctl's beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfctl.render.table import cell, column_table, status_cell

if TYPE_CHECKING:
    from rich.console import Console

    from cfctl.diagnose.pyperf_state import SystemState


def render(document: SystemState, console: Console, shown_unit: str | None) -> None:  # noqa: ARG001
    """Print what applies to this host, what pyperf says that does not, and cfctl's own issues."""
    table = column_table([("pyperf", "left"), ("", "left")])
    for line in document.lines:
        if line.reason is None:
            table.add_row(cell(line.section, "yellow" if line.section == "warnings" else ""), cell(line.text))
    console.print(table)
    left_out = [line for line in document.lines if line.reason is not None]
    for reason in dict.fromkeys(line.reason for line in left_out):
        count = sum(line.reason == reason for line in left_out)
        console.print(cell(f"Left out, {reason}: {count} lines (--json has them)", "dim"), soft_wrap=True)
    console.print()
    issues = column_table([("cfctl", "left"), ("severity", "left"), ("actor", "left"), ("evidence", "left")])
    for check, severity, actor, evidence in document.issues:
        issues.add_row(cell(check), status_cell(severity), cell(actor), cell(evidence))
    if document.issues:
        console.print(issues)
    console.print(cell("Solutions: cfctl diagnose latency", "dim"))
