"""A diagnosis, and the catalogue of checks, as text for people."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Final

from rich.text import Text

from cfctl.diagnose.record import Actor, Status
from cfctl.records import Severity
from cfctl.render.table import STATUS_STYLE, cell, column_table, status_cell
from cfctl.text import safe_text

if TYPE_CHECKING:
    from rich.console import Console

    from cfctl.diagnose.record import Catalogue, CheckResult, Diagnosis

_LABEL_WIDTH: Final = 10
_WHOSE: Final = {
    Actor.YOU: "for you",
    Actor.HOST_OPERATOR: "for the host operator",
    Actor.INFORMATIONAL: "to know",
}
_MAX_EVIDENCE: Final = 6
# A text from the domain is at most a few hundred characters; safe_text cuts what is not.
_MAX_TEXT: Final = 1000


def render(document: Diagnosis, console: Console, shown_unit: str | None) -> None:  # noqa: ARG001
    """Print a summary, each issue with what to do, and what could not be seen; no passes."""
    _render(document, console, show_all=False)


def render_all(document: Diagnosis, console: Console, shown_unit: str | None) -> None:  # noqa: ARG001
    """Print the same with the checks that passed or do not apply."""
    _render(document, console, show_all=True)


def _render(document: Diagnosis, console: Console, *, show_all: bool) -> None:
    _summary(document, console)
    issues = [result for result in document.checks if result.status is Status.ISSUE]
    for result in issues:
        _issue(result, console)
    for status, heading in (
        (Status.ERROR, "Checks that failed themselves"),
        (Status.UNOBSERVABLE, "Unobservable"),
    ):
        _grouped(document, console, status, heading)
    if show_all:
        _grouped(document, console, Status.NOT_APPLICABLE, "Not applicable")
        _passes(document, console)
    elif passes := document.counts["pass"]:
        others = document.counts["not_applicable"]
        _lines(console, f"\n{passes} checks passed, {others} do not apply (--all shows them).")


def _summary(document: Diagnosis, console: Console) -> None:
    issues = [
        f"{sum(counts.values())} {whose} ({', '.join(f'{n} {severity}' for severity, n in counts.items())})"
        for actor, whose in _WHOSE.items()
        if (counts := _counts(document.checks, actor))
    ]
    found = f"issues: {', '.join(issues)}" if issues else "no issues"
    width = max(20, console.width)
    for line in textwrap.wrap(f"Latency: {document.verdict}, {found}.", width, subsequent_indent="  "):
        text = Text(line, style="bold")
        text.highlight_words([str(document.verdict)], STATUS_STYLE[document.verdict])
        console.print(text)
    _lines(console, f"Verdict: {document.verdict_reason}.")
    host = document.host
    facts = [
        host.cpu_brand, host.topology, f"Linux {host.kernel}" if host.kernel else None,
        _named(host.virtualisation, "no hypervisor"), _named(host.container, "no container"),
        f"clocksource {host.clocksource}" if host.clocksource else None,
    ]  # fmt: skip
    _lines(console, f"Host: {', '.join(fact for fact in facts if fact) or 'nothing could be read'}")
    seen = "one view only" if document.interval_s is None else f"counters over {document.interval_s:.1f} s"
    target = f", target process {document.pid}" if document.pid is not None else ""
    measured = f", {document.measurements_reason}" if document.measurements_reason else ""
    _lines(console, f"Run: profile {document.profile}, {seen}{target}{measured}")


def _named(name: str | None, absent: str) -> str | None:
    return absent if name == "none" else name


def _counts(results: tuple[CheckResult, ...], actor: Actor) -> dict[Severity, int]:
    """Return how many issues an actor has by severity, the worst first, without zeros."""
    mine = [r.severity for r in results if r.status is Status.ISSUE and r.actor is actor]
    return {severity: mine.count(severity) for severity in reversed(Severity) if severity in mine}


def _issue(result: CheckResult, console: Console) -> None:
    console.print(
        Text.assemble(
            "\n",
            (result.severity.upper(), STATUS_STYLE[result.severity]),
            ("  " + result.id, "bold"),
            f"  {_WHOSE[result.actor] if result.actor else ''}",
        )
    )
    _lines(console, safe_text(result.title), first="  ")
    _labelled(console, "found", result.description)
    _labelled(console, "why", result.why)
    _labelled(console, "do", result.solution)
    for label, commands in (("now", result.commands.now), ("persist", result.commands.persist)):
        for command in commands:
            # Never folded: a command is there to be copied.
            console.print(_label(label) + cell(command, "bold"), soft_wrap=True)
            label = ""  # noqa: PLW2901
    _labelled(console, "warning", result.warning, "yellow")
    for index, evidence in enumerate(result.evidence[:_MAX_EVIDENCE]):
        text = f"{evidence.source}: {evidence.raw}"
        _labelled(console, "evidence" if index == 0 else "", text, "dim")
    if len(result.evidence) > _MAX_EVIDENCE:
        _labelled(console, "", f"and {len(result.evidence) - _MAX_EVIDENCE} more (--json)", "dim")
    _labelled(console, "rule", f"{result.threshold.rule} ({result.threshold.source})", "dim")


def _grouped(document: Diagnosis, console: Console, status: Status, heading: str) -> None:
    groups: dict[str, list[str]] = {}
    for result in document.checks:
        if result.status is status:
            groups.setdefault(result.reason or "", []).append(result.id)
    if not groups:
        return
    console.print(Text(f"\n{heading} ({sum(map(len, groups.values()))})", style="bold"))
    for reason, names in sorted(groups.items(), key=lambda group: -len(group[1])):
        _lines(console, f"{', '.join(names)}: {safe_text(reason, _MAX_TEXT)}", first="  ", rest="    ")


def _passes(document: Diagnosis, console: Console) -> None:
    console.print(Text(f"\nPassed ({document.counts['pass']})", style="bold"))
    for result in document.checks:
        if result.status is Status.PASS:
            _lines(
                console, f"{result.id}: {safe_text(result.description, _MAX_TEXT)}", first="  ", rest="    "
            )


def _label(label: str) -> Text:
    return Text(f"  {label:<{_LABEL_WIDTH}}", style="dim")


def _labelled(console: Console, label: str, text: str | None, style: str = "") -> None:
    if not text:
        return
    indent = " " * (_LABEL_WIDTH + 2)
    width = max(20, console.width - len(indent))
    lines = textwrap.wrap(safe_text(text, _MAX_TEXT), width, break_on_hyphens=False) or [""]
    console.print(_label(label) + Text(lines[0], style=style))
    for line in lines[1:]:
        console.print(Text(indent + line, style=style))


def _lines(console: Console, text: str, first: str = "", rest: str = "  ") -> None:
    blank = text.startswith("\n")
    if blank:
        console.print()
    wrapped = textwrap.wrap(
        text.strip(),
        max(20, console.width),
        initial_indent=first,
        subsequent_indent=rest,
        break_on_hyphens=False,
    )
    for line in wrapped:
        console.print(Text(line))


def render_catalogue(document: Catalogue, console: Console, shown_unit: str | None) -> None:  # noqa: ARG001
    """Print the checks as a table: id, area, severity, where the threshold comes from."""
    table = column_table(
        [("check", "left"), ("area", "left"), ("severity", "left"), ("source of the rule", "left")]
    )
    for check in document.checks:
        table.add_row(
            cell(check.id), cell(check.area), status_cell(check.severity), cell(check.threshold.source)
        )
    console.print(table)
    _lines(console, f"{len(document.checks)} checks; explain one: cfctl diagnose explain ID")
