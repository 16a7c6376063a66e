"""What a trace of the bus says of order and causality, as text for people."""

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
    "duplicate": "in the trace twice, by id",
    "receipt": "received before they were published, by the tick counter",
    "effect_first": "published before a message they depend on",
    "self": "depend on themselves",
    "circular": "in a circle of dependencies",
    "hlc_order": "stamped at or before a message that came first",
    "contradiction": "values of the trace that exclude each other",
}


def render(document: TraceReport, console: Console, shown_unit: str | None) -> None:  # noqa: ARG001
    """Print the verdict, what was looked at, and each kind of violation with the first of them."""
    style = STATUS_STYLE[document.verdict]
    heading = f"Causality of {safe_text(document.trace, 200)}: {document.verdict}, {document.verdict_reason}"
    console.print(cell(heading, style), soft_wrap=True)
    console.print(fact_table(_facts(document)))
    violations = document.violations[:_SHOWN]
    if not violations:
        return
    table = column_table([("line", "right"), ("ring", "right"), ("violation", "left")])
    for each in violations:
        table.add_row(
            cell(each.line), cell(safe_text(each.ring, 16)), cell(f"{each.kind}: {safe_text(each.text, 200)}")
        )
    console.print()
    console.print(table)
    hidden = sum(document.counts.values()) - len(violations)
    if hidden > 0:
        console.print(cell(f"and {hidden} more; --json names the first 100 of each kind", "dim"))


def _facts(document: TraceReport) -> Iterator[tuple[str, str, str]]:
    topics = safe_text(", ".join(document.topics), 200)
    rings = f"{document.rings} ring{'' if document.rings == 1 else 's'}"
    yield "messages", str(document.messages), f"from {rings} on {topics or 'no topic'}"
    if document.dropped:
        yield "dropped", str(document.dropped), "overwritten or unreadable before they were recorded"
    if document.missing:
        yield "missing", str(document.missing), "gaps in the sequences of the rings"
    if document.rejected:
        yield "rejected", str(document.rejected), "by full rings while it was recorded"
    yield "dependencies", str(document.dependencies), f"{document.outside} on messages outside the trace"
    for kind, count in document.counts.items():
        yield kind.replace("_", " "), str(count), _KINDS[kind]
    pairs = document.messages * (document.messages - 1) // 2
    yield "concurrent", str(document.concurrent_pairs), f"of {pairs} pairs of messages, by vector clocks"
