"""What a trace of the bus says of causality, as text for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from cfctl.render.table import STATUS_STYLE, cell, column_table, fact_table
from cfctl.text import safe_text

if TYPE_CHECKING:
    from rich.console import Console

    from cfctl.bus.verification import TraceReport

_SHOWN: Final = 20
_KINDS: Final = {
    "fifo": "out of their ring's order, or twice",
    "causal_order": "received after what they caused",
    "dependency": "received before a message they depend on",
    "hlc_order": "stamped not after an event before them",
    "unsent": "in a circle of causes",
    "resent": "twice in the trace",
}


def render(document: TraceReport, console: Console, shown_unit: str | None) -> None:  # noqa: ARG001
    """Print the verdict, what was looked at, and each kind of violation with the first of them."""
    style = STATUS_STYLE[document.verdict]
    heading = f"Causality of {safe_text(document.trace, 200)}: {document.verdict}, {document.verdict_reason}"
    console.print(cell(heading, style), soft_wrap=True)
    console.print(fact_table(_facts(document)))
    violations = document.causality.violations[:_SHOWN]
    if not violations:
        return
    table = column_table([("event", "right"), ("ring", "right"), ("message", "right"), ("violation", "left")])
    for each in violations:
        who = "recorder" if each.process == 0 else str(each.process)
        table.add_row(
            cell(each.event),
            cell(who),
            cell(each.message[1]),
            cell(f"{each.kind}: {safe_text(each.text, 200)}"),
        )
    console.print()
    console.print(table)
    hidden = sum(document.causality.counts.values()) - len(violations)
    if hidden > 0:
        console.print(cell(f"and {hidden} more; see --json", "dim"))


def _facts(document: TraceReport) -> Iterator[tuple[str, str, str]]:
    topics = safe_text(", ".join(document.topics), 200)
    yield "messages", str(document.messages), f"of {document.rings} rings on {topics or 'no topic'}"
    if document.dropped:
        yield "dropped", str(document.dropped), "overwritten before they were recorded"
    yield "dependencies", str(document.dependencies), f"{document.outside} on messages outside of the trace"
    yield "effects first", str(document.effects_first), "published before a cause, by the tick counter"
    for kind, count in document.causality.counts.items():
        yield kind.replace("_", " "), str(count), _KINDS[kind]
    pairs = document.causality.events * (document.causality.events - 1) // 2
    yield (
        "concurrent",
        str(document.causality.concurrent_pairs),
        f"of {pairs} pairs of events, by vector clocks",
    )
