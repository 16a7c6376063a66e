"""A comparison as a table: what got worse first, what stayed the same only as a count."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from cfctl.compare.comparison import Direction
from cfctl.records import Verdict
from cfctl.render.table import STATUS_STYLE, cell, column_table, status_cell
from cfctl.units import format_quantity

if TYPE_CHECKING:
    from rich.console import Console

    from cfctl.compare.comparison import Change, Comparison

_FIGURE_WIDTH = 28
_DIRECTION_STYLE = {Direction.WORSE: "yellow", Direction.BETTER: "green", Direction.SAME: "dim"}


def render(document: Comparison, console: Console, shown_unit: str | None) -> None:
    """Print the verdict, and the figures that changed or can not be judged."""
    _render(document, console, shown_unit, show_all=False)


def render_all(document: Comparison, console: Console, shown_unit: str | None) -> None:
    """Print the same with the figures that stayed the same."""
    _render(document, console, shown_unit, show_all=True)


def _render(document: Comparison, console: Console, shown_unit: str | None, *, show_all: bool) -> None:
    title = Text(f"Comparison ({document.kind}): {document.verdict}", style="bold")
    title.highlight_words([str(document.verdict)], STATUS_STYLE[document.verdict])
    console.print(title)
    console.print(cell(document.reason + "."))
    for side, files in (("base", document.base), ("new", document.new)):
        console.print(Text.assemble((f"{side:<5}", "dim"), cell(", ".join(files))))
    shown = [change for change in document.changes if show_all or not _is_quiet(change)]
    if shown:
        console.print()
        _table(shown, console, shown_unit)
    quiet = len(document.changes) - len(shown)
    if quiet:
        console.print(Text(f"\n{quiet} figures stayed the same (--all shows them)."))


def _is_quiet(change: Change) -> bool:
    return change.direction is Direction.SAME and change.verdict is Verdict.PASS


def _table(changes: list[Change], console: Console, shown_unit: str | None) -> None:
    table = column_table([
        ("figure", "left"), ("base", "right"), ("new", "right"), ("change", "right"), ("noise", "right"),
        ("result", "left"),
    ])  # fmt: skip
    above = ""
    for change in changes:
        table.add_row(_figure(change, above), *_values(change, shown_unit), _result(change))
        above = change.name
    console.print(table)
    for verdict in (Verdict.FAIL, Verdict.INCONCLUSIVE):
        reasons: dict[str, list[str]] = {}
        for change in changes:
            if change.verdict is verdict:
                reasons.setdefault(change.reason, []).append(_name_in_list(change))
        for reason, names in reasons.items():
            console.print(Text.assemble("\n", (str(verdict), STATUS_STYLE[verdict]), ": ", cell(reason, "")))
            console.print(cell(f"  {', '.join(names)}"), style="dim")


def _name_in_list(change: Change) -> str:
    needed = f" (about {change.runs_needed} runs a side would tell)" if change.runs_needed else ""
    return f"{change.name} {change.metric}{needed}"


def _figure(change: Change, above: str) -> Text:
    """Return name and metric; a long name has a line of its own, once for the figures below each other."""
    if len(change.name) + len(change.metric) < _FIGURE_WIDTH:
        return cell(f"{change.name} {change.metric}")
    metric = cell(f"  {change.metric}")
    if change.name == above:
        return metric
    module, colon, function = change.name.partition(":")
    name = cell(f"{module}:").append("\n").append(cell(function)) if colon else cell(change.name)
    return name.append("\n").append(metric)


def _result(change: Change) -> Text:
    """Return the verdict, or for a pass the direction."""
    if change.verdict is not Verdict.PASS:
        return status_cell(change.verdict)
    within = ", in limit" if change.direction is Direction.WORSE else ""
    return cell(f"{change.direction}{within}", _DIRECTION_STYLE[change.direction])


def _values(change: Change, shown_unit: str | None) -> tuple[Text, Text, Text, Text]:
    if change.unit == "severity":
        was, _, now = change.reason.partition(" -> ")
        return cell(was), cell(now or was), cell(""), cell("")
    error = None if change.interval is None else (change.interval[1] - change.interval[0]) / 2
    base, new, difference = (
        cell(format_quantity(value, change.unit, uncertainty=error, shown_unit=shown_unit))
        for value in (change.base, change.new, change.difference)
    )
    if change.difference is not None and change.difference > 0:
        difference = Text("+") + difference
    noise = format_quantity(error, change.unit, shown_unit=shown_unit, digits=2)
    return base, new, difference, cell("unknown" if error is None else f"±{noise}")
