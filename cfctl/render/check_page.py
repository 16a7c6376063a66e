"""A check's page as text for people."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Final

from rich.text import Text

from cfctl.render.table import STATUS_STYLE, cell, command_cell
from cfctl.text import safe_text

if TYPE_CHECKING:
    from rich.console import Console

    from cfctl.diagnose.explain import CheckPage, CheckPages

_LABEL_WIDTH: Final = 10
_MAX_TEXT: Final = 1000
_MAX_READS: Final = 12


def render(document: CheckPages, console: Console, shown_unit: str | None) -> None:  # noqa: ARG001
    """Print each check: in general, on this host, and how to verify a remedy."""
    for index, page in enumerate(document.pages):
        if index:
            console.print()
        _page(page, console)


def _page(page: CheckPage, console: Console) -> None:
    check, here = page.check, page.here
    console.print(Text.assemble((check.id, "bold"), "  ", cell(check.title)))
    _labelled(console, "area", f"{check.area}; its remedy lies in the {page.scope}")
    overrides = [f"{name}: {severity or 'left out'}" for name, severity in page.overrides.items()]
    also = f" ({', '.join(overrides)})" if overrides else ""
    _labelled(console, "severity", f"{check.severity}{also}")
    _labelled(console, "why", check.why)
    _labelled(console, "issue if", check.threshold.rule)
    _labelled(console, "source", check.threshold.source)
    _labelled(console, "solution", check.solution)
    _labelled(console, "costs", check.cost)
    _labelled(console, "needs", ", ".join(check.needs) or "nothing but the files of the host")
    for number, source in enumerate(page.reads[:_MAX_READS]):
        _labelled(console, "" if number else "reads", source)
    if len(page.reads) > _MAX_READS:
        _labelled(console, "", f"and {len(page.reads) - _MAX_READS} more (--json)")
    console.print(_label("here") + cell(here.status, STATUS_STYLE[here.status]))
    _labelled(console, "", here.description or here.reason)
    _labelled(console, "do", None if here.solution == check.solution else here.solution)
    for label, commands in (("now", here.commands.now), ("persist", here.commands.persist)):
        for number, command in enumerate(commands):
            # Never folded: a command is there to be copied.
            console.print(_label("" if number else label) + command_cell(command, "bold"), soft_wrap=True)
    _labelled(console, "warning", here.warning)
    console.print(_label("verify") + command_cell(page.verify, "bold"), soft_wrap=True)


def _label(label: str) -> Text:
    return Text(f"  {label:<{_LABEL_WIDTH}}", style="dim")


def _labelled(console: Console, label: str, text: str | None) -> None:
    if not text:
        return
    indent = " " * (_LABEL_WIDTH + 2)
    width = max(20, console.width - len(indent))
    first, *rest = textwrap.wrap(safe_text(text, _MAX_TEXT), width, break_on_hyphens=False) or [""]
    console.print(_label(label) + Text(first))
    for line in rest:
        console.print(Text(indent + line))
