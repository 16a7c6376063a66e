"""A diagnosis, and the catalogue of checks, as text for people."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Final

from rich.text import Text

from cfctl.diagnose.impact import PER_SECOND
from cfctl.diagnose.record import Actor, Status, Subject
from cfctl.diagnose.subject import NOT_MEASURED
from cfctl.records import Severity, Verdict
from cfctl.render.table import STATUS_STYLE, cell, column_table, command_cell, status_cell
from cfctl.text import safe_text
from cfctl.units import format_quantity

if TYPE_CHECKING:
    from rich.console import Console

    from cfctl.diagnose.budget import Budget
    from cfctl.diagnose.diagnosis import Diagnosis
    from cfctl.diagnose.record import Catalogue, CheckResult

_LABEL_WIDTH: Final = 10
_WHOSE: Final = {
    Actor.YOU: "for you",
    Actor.HOST_OPERATOR: "for the host operator",
    Actor.INFORMATIONAL: "to know",
}
_SHORT: Final = {Actor.YOU: "you", Actor.HOST_OPERATOR: "host operator", Actor.INFORMATIONAL: "-"}
_SCREEN_LINES: Final = 24
_MAX_EVIDENCE: Final = 6
# A text from the domain is at most a few hundred characters; safe_text cuts what is not.
_MAX_TEXT: Final = 1000


def render(document: Diagnosis, console: Console, shown_unit: str | None) -> None:  # noqa: ARG001
    """Print the answer on one screen, then each issue with what to do; low ones as a line, no passes."""
    _render(document, console, show_all=False)


def render_all(document: Diagnosis, console: Console, shown_unit: str | None) -> None:  # noqa: ARG001
    """Print the same with every issue in full and the checks that passed or do not apply."""
    _render(document, console, show_all=True)


def _render(document: Diagnosis, console: Console, *, show_all: bool) -> None:
    used = _budget(document.budget, console) if document.budget is not None else 0
    used += _summary(document, console)
    issues = [result for result in document.checks if result.status is Status.ISSUE]
    full = [result for result in issues if show_all or result.severity is not Severity.LOW]
    low = [result for result in issues if result not in full]
    if len(issues) > 1:
        _overview(full or issues, console, _SCREEN_LINES - used)
    for result in full:
        _issue(result, console)
    if low:
        console.print(Text(f"\nLow ({len(low)}; in full: --all, one: --only ID)", style="bold"))
    for result in low:
        text = f"{result.id}  {_WHOSE[result.actor] if result.actor else ''}: {safe_text(result.description, _MAX_TEXT)}"
        if cost := _cost(result):
            text += f" Cost: {cost}."
        _lines(console, text, first="  ", rest="    ")
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


def _budget(budget: Budget, console: Console) -> int:
    """Print whether the target is met, by what measurement, and what of the excess can be fixed; return the lines."""
    head = f"Target {budget.target} for {budget.use}: {budget.verdict}, {budget.measured()}."
    used = _verdict_line(head, budget.verdict, console)
    used += _lines(console, f"Because {safe_text(budget.reason, _MAX_TEXT)}.")
    if budget.what is not None and budget.estimate is not None:
        used += _lines(console, f"Measured: {safe_text(budget.what, _MAX_TEXT)}; {budget.estimate.method}.")
    if (remedy := budget.remedy) is not None:
        saving = _amount(remedy.saving_ns, remedy.unit)
        whole = "the time lost" if remedy.unit == PER_SECOND else "the excess"
        used += _lines(
            console,
            f"Largest part you can fix: {remedy.check_id}, {saving}, {_share(remedy.share_ratio)} of {whole}. "
            f"{safe_text(remedy.solution, _MAX_TEXT)}",
        )
    elif budget.verdict is not Verdict.PASS:
        used += _lines(console, f"What can be fixed: {budget.remedy_reason}.")
    return used


def _share(ratio: float) -> str:
    return "less than 1%" if 0 < ratio < 0.01 else f"{ratio:.0%}"


def _verdict_line(line: str, verdict: Verdict, console: Console) -> int:
    wrapped = textwrap.wrap(line, max(20, console.width), subsequent_indent="  ")
    for text_line in wrapped:
        text = Text(text_line, style="bold")
        text.highlight_words([f" {verdict},"], STATUS_STYLE[verdict])
        console.print(text)
    return len(wrapped)


def _overview(issues: list[CheckResult], console: Console, room: int) -> None:
    """Print the issues as one line each, as many as the screen has room for."""
    shown = issues[: max(3, room - 3)]
    console.print(Text("\nIssues, worst first", style="bold"))
    width = max(len(result.id) for result in shown)
    for result in shown:
        cost = _cost(result)
        line = Text.assemble(
            "  ", (f"{result.severity:<8} ", STATUS_STYLE[result.severity]), f"{result.id:<{width}}  "
        )
        line.append(f"{_SHORT[result.actor] if result.actor else '':<13}  {cost}")
        line.truncate(max(20, console.width))
        line.rstrip()
        console.print(line)
    if len(issues) > len(shown):
        _lines(console, f"and {len(issues) - len(shown)} more below", first="  ")


def _cost(result: CheckResult) -> str:
    """Return a measured cost as words, "" without one; what others may be part of is "up to" it."""
    impact = result.impact
    if impact is None or impact.value is None:
        return ""
    if impact.value == 0:
        return "none seen"
    if impact.uncertainty is not None and impact.uncertainty >= abs(impact.value):
        return "within noise"
    return f"{'up to ' if result.impact_is_bound else ''}{_amount(impact.value, impact.unit, impact.uncertainty)}"


def _amount(value: float, unit: str, uncertainty: float | None = None) -> str:
    """Return "53.1 us per wake-up" for a value in "ns/wake-up"."""
    per = unit.removeprefix("ns/")
    sign = "-" if value < 0 else ""
    error = None if uncertainty is None or uncertainty >= abs(value) else uncertainty
    return (
        f"{sign}{format_quantity(abs(value), 'ns', uncertainty=error)} per {'second' if per == 's' else per}"
    )


def _summary(document: Diagnosis, console: Console) -> int:
    issues = [
        f"{sum(counts.values())} {whose} ({', '.join(f'{n} {severity}' for severity, n in counts.items())})"
        for actor, whose in _WHOSE.items()
        if (counts := _counts(document.checks, actor))
    ]
    found = f"issues: {', '.join(issues)}" if issues else "no issues"
    used = _verdict_line(
        f"{document.subject.capitalize()}: {document.verdict}, {found}.", document.verdict, console
    )
    used += _lines(console, f"Verdict: {document.verdict_reason}.")
    host = document.host
    facts = [
        host.cpu_brand, host.topology, f"Linux {host.kernel}" if host.kernel else None,
        _named(host.virtualisation, "no hypervisor"), _named(host.container, "no container"),
        f"clocksource {host.clocksource}" if host.clocksource else None,
    ]  # fmt: skip
    used += _lines(console, f"Host: {', '.join(fact for fact in facts if fact) or 'nothing could be read'}")
    seen = "one view only" if document.interval_s is None else f"counters over {document.interval_s:.1f} s"
    target = f", target process {document.pid}" if document.pid is not None else ""
    if document.subject is Subject.TEMPORAL:
        return used + _lines(console, f"Run: {seen}{target}")
    if document.subject is Subject.MEMORY:
        segments = f", segments: {len(document.segments)}"
        return used + _lines(console, f"Run: {seen}{target}{segments}")
    measured = f", {document.measurements_reason}" if document.measurements_reason else ""
    return used + _lines(console, f"Run: profile {document.profile}, {seen}{target}{measured}")


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
    _labelled(console, "costs", _cost_with_method(result))
    _labelled(console, "why", result.why)
    _labelled(console, "do", result.solution)
    for label, commands in (("now", result.commands.now), ("persist", result.commands.persist)):
        for command in commands:
            # Never folded: a command is there to be copied.
            console.print(_label(label) + command_cell(command, "bold"), soft_wrap=True)
            label = ""  # noqa: PLW2901
    if result.verify:
        console.print(_label("verify") + command_cell(result.verify), soft_wrap=True)
    _labelled(console, "warning", result.warning, "yellow")
    for index, evidence in enumerate(result.evidence[:_MAX_EVIDENCE]):
        text = f"{evidence.source}: {evidence.raw}"
        _labelled(console, "evidence" if index == 0 else "", text, "dim")
    if len(result.evidence) > _MAX_EVIDENCE:
        _labelled(console, "", f"and {len(result.evidence) - _MAX_EVIDENCE} more (--json)", "dim")
    _labelled(console, "rule", f"{result.threshold.rule} ({result.threshold.source})", "dim")


def _cost_with_method(result: CheckResult) -> str | None:
    impact = result.impact
    if impact is None:
        return None
    if impact.value is None:
        return "not measured" if impact.reason == NOT_MEASURED else f"not measured: {impact.reason}"
    words = _cost(result)
    if words == "within noise":
        words = f"{words}: {_amount(impact.value, impact.unit)}"
    error = f" +- {format_quantity(impact.uncertainty, 'ns')}" if impact.uncertainty else ""
    second = ""
    if result.impact_ns_per_s and impact.unit != PER_SECOND:
        second = f", {_amount(result.impact_ns_per_s, PER_SECOND)}"
    return f"{words}{error}{second}; {impact.method}"


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
    if not document.counts["pass"]:
        return
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


def _lines(console: Console, text: str, first: str = "", rest: str = "  ") -> int:
    """Print a text in lines of the console's width and return how many."""
    if text.startswith("\n"):
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
    return len(wrapped)


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
