"""Hardware requirements as a table: the minimum, then the optimum."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.text import Text

from cfctl.diagnose.requirements import Level, Standing
from cfctl.render.table import STATUS_STYLE, cell, column_table

if TYPE_CHECKING:
    from rich.console import Console

    from cfctl.diagnose.requirements import HardwareReport

_STYLE: Final = {Standing.MET: "green", Standing.NOT_MET: "bold red", Standing.UNOBSERVABLE: "yellow"}


def render(document: HardwareReport, console: Console, shown_unit: str | None) -> None:  # noqa: ARG001
    """Print the verdict about the minimum and each requirement with what was found."""
    title = Text(f"Hardware: {document.verdict}", style="bold")
    title.highlight_words([str(document.verdict)], STATUS_STYLE[document.verdict])
    console.print(title)
    console.print(cell(f"{document.verdict_reason}."))
    facts = (document.host.cpu_brand, document.host.topology, document.host.virtualisation)
    console.print(cell(f"Host: {', '.join(fact for fact in facts if fact) or 'nothing could be read'}"))
    for level in Level:
        console.print()
        table = column_table(
            [(str(level), "left"), ("required", "left"), ("standing", "left"), ("found", "left")]
        )
        for each in document.requirements:
            if each.level is level:
                standing = cell(each.standing, _STYLE[each.standing])
                table.add_row(cell(each.subject), cell(each.rule), standing, cell(each.found or each.reason))
        console.print(table)
