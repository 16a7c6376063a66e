"""The topics of the bus as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cfctl.render.table import cell, column_table
from cfctl.text import safe_text
from cfctl.units import format_quantity

if TYPE_CHECKING:
    from rich.console import Console

    from cfctl.bus.topic_list import TopicList

_NAME: Final = 40
_PROBLEMS: Final = 10


def render(document: TopicList, console: Console, shown_unit: str | None) -> None:  # noqa: ARG001
    """Print one row a topic, and what could not be read. Names are shown, never interpreted."""
    with_rate = document.window_ns is not None
    columns = ["publishers", "subscribers", "groups", "pending", *(["rate"] if with_rate else [])]
    table = column_table([("topic", "left"), *((name, "right") for name in columns)])
    for each in document.topics:
        row = [safe_text(each.topic, _NAME), each.publishers, each.subscriptions, each.groups, each.pending]
        if with_rate:
            row.append("-" if each.rate.value is None else format_quantity(each.rate.value, "1/s"))
        table.add_row(*(cell(value) for value in row))
    if document.topics:
        console.print(table)
    for problem in document.problems[:_PROBLEMS]:
        console.print(cell(safe_text(f"problem: {problem}", 600), "yellow"), soft_wrap=True)
