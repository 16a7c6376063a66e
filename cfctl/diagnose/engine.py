"""The check engine: registration, the two views, and one result for each check whatever happens."""

from __future__ import annotations

import inspect
import pkgutil
import shlex
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

from cfctl.diagnose import checks as check_modules
from cfctl.diagnose.advice import Fix, actor_for, addressed, kernel_is_writable
from cfctl.diagnose.profiles import severity_in
from cfctl.diagnose.record import (
    Actor,
    Area,
    CheckDescription,
    CheckResult,
    Commands,
    Scope,
    Status,
    Subject,
    Threshold,
)
from cfctl.diagnose.subject import Facts, Host, Sample
from cfctl.errors import UnobservableError
from cfctl.text import safe_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from cfctl.diagnose.impact import Impact, ImpactSource
    from cfctl.records import Severity


@dataclass(frozen=True, slots=True)
class Pass:
    """A check's outcome: its subject is as it should be; `note` says what was found."""

    note: str


@dataclass(frozen=True, slots=True)
class NotApplicable:
    """A check's outcome: its subject provably does not exist on this host."""

    reason: str


@dataclass(frozen=True, slots=True)
class Issue:
    """A check's outcome: its subject costs latency. `severity` and `actor` escalate or override.

    `observed` is a loss the check itself saw; it comes before what its impact source finds.
    `events_per_s` is how often what costs happened, which makes a cost per event one per second.
    """

    description: str
    fix: Fix
    severity: Severity | None = None
    actor: Actor | None = None
    scope: Scope | None = None
    observed: Impact | None = None
    events_per_s: float | None = None


Outcome = Pass | NotApplicable | Issue


@dataclass(frozen=True, slots=True)
class Check:
    """A registered check."""

    id: str
    title: str
    severity: Severity
    area: Area
    threshold: Threshold
    solution: str
    scope: Scope
    sample: Sample | None
    needs: tuple[str, ...]
    impact: ImpactSource
    verify: str | None
    judge: Callable[[Host], Outcome]
    subjects: frozenset[Subject]

    @property
    def why(self) -> str:
        """Return why the subject costs latency: the docstring of the check's function."""
        return " ".join((inspect.getdoc(self.judge) or "").split())

    @property
    def probes(self) -> frozenset[str]:
        """Return the measurements it needs to judge, and to put a number on an issue."""
        own = set() if self.impact.probe is None else {self.impact.probe}
        return frozenset(own | set(self.needs) - {"interval", "pid", "segments", "bus"})

    @property
    def samples(self) -> tuple[Sample, ...]:
        """Return what it compares at the two ends of the interval, to judge and to put a number on an issue."""
        return tuple(each for each in (self.sample, self.impact.sample) if each is not None)

    def described(self) -> CheckDescription:
        """Return the check as it stands in the catalogue."""
        return CheckDescription(
            self.id,
            self.area,
            self.title,
            self.severity,
            self.why,
            self.threshold,
            self.needs,
            self.solution,
            self.impact.what,
        )


_registered: dict[str, Check] = {}


def check(
    id: str,
    title: str,
    severity: Severity,
    area: Area,
    *,
    rule: str,
    source: str,
    solution: str,
    impact: ImpactSource,
    scope: Scope = Scope.KERNEL,
    sample: Sample | None = None,
    needs: tuple[str, ...] = (),
    verify: str | None = None,
    also: tuple[Subject, ...] = (),
) -> Callable[[Callable[[Host], Outcome]], Callable[[Host], Outcome]]:
    """Return a decorator that registers a check; the docstring of the function says why it matters.

    `rule` and `source` state the threshold and its origin, `solution` what to do about an issue in general. `sample` is what the check compares at
    the two ends of the interval. `needs` names what a run must provide: "interval" (set with
    `sample`), "measurements", "pid", "segments", "bus", or a probe by its name in `cfctl.diagnose.impact`. `impact`
    says which measurement puts a number on an issue, or why none can. `verify` is the command that shows whether the fix
    worked, where that is not this check again. `also` names subjects beside the area's own. A check reads through its Host, raises UnobservableError when
    a thing can not be seen, and returns Pass, NotApplicable or Issue.
    """
    needed = (*needs, "interval") if sample is not None else needs

    def register(judge: Callable[[Host], Outcome]) -> Callable[[Host], Outcome]:
        if id in _registered and _registered[id].judge.__module__ != judge.__module__:
            raise ValueError(f"two checks are called {id}")
        _registered[id] = Check(
            id,
            title,
            severity,
            area,
            Threshold(rule, source),
            solution,
            scope,
            sample,
            needed,
            impact,
            verify,
            judge,
            frozenset({area.subject, *also}),
        )
        return judge

    return register


@cache
def every_check() -> tuple[Check, ...]:
    """Return every check of the modules in `cfctl.diagnose.checks`, in the order of the areas."""
    for module in sorted(module.name for module in pkgutil.iter_modules(check_modules.__path__)):
        import_module(f"{check_modules.__name__}.{module}")
    areas = list(Area)
    return tuple(sorted(_registered.values(), key=lambda c: areas.index(c.area)))


def catalogue(subject: Subject = Subject.LATENCY) -> tuple[Check, ...]:
    """Return the checks of one subject, in the order of the areas."""
    return tuple(check for check in every_check() if subject in check.subjects)


def run_check(checked: Check, facts: Facts) -> CheckResult:
    """Return the result of one check; what it raises becomes its status, and the run goes on."""
    severity = severity_in(facts.profile, checked.id, checked.severity)
    if severity is None:
        return _result(checked, Status.NOT_APPLICABLE, reason=f"the profile {facts.profile} leaves it out")
    host = Host(facts)
    try:
        outcome = checked.judge(host)
        if isinstance(outcome, Issue):
            return _issue(checked, severity, outcome, host)
    except UnobservableError as error:
        reason = safe_text(error, 300) + _host_note(checked, host)
        return _result(checked, Status.UNOBSERVABLE, host, severity, reason=reason)
    except Exception as error:  # noqa: BLE001 - one broken check must not cost the others
        reason = safe_text(f"{type(error).__name__}: {error}", 300)
        return _result(checked, Status.ERROR, host, severity, reason=reason)
    if isinstance(outcome, NotApplicable):
        return _result(checked, Status.NOT_APPLICABLE, host, severity, reason=safe_text(outcome.reason, 300))
    return _result(checked, Status.PASS, host, severity, description=safe_text(outcome.note, 400))


def _host_note(checked: Check, host: Host) -> str:
    """Return the reason behind the reason where a guest can not see what its host decides."""
    hidden = (
        checked.scope is Scope.MACHINE and host.environment.is_guest and not set(checked.needs) - {"interval"}
    )
    return "; in a guest the host decides it" if hidden else ""


def _issue(checked: Check, severity: Severity, issue: Issue, host: Host) -> CheckResult:
    actor = issue.actor or actor_for(
        issue.scope or checked.scope, host.environment, kernel_is_writable(host.view)
    )
    solution, commands = addressed(issue.fix, issue.fix.solution or checked.solution, actor, host.view)
    impact = _impact(checked, issue, host)
    return _result(
        checked,
        Status.ISSUE,
        host,
        # A profile moves the nominal severity; what a check makes of a value has the last word.
        issue.severity or severity,
        description=safe_text(issue.description, 400),
        actor=actor,
        solution=solution,
        warning=issue.fix.warning if commands.now or commands.persist else None,
        commands=commands,
        privilege=issue.fix.privilege if commands.now or commands.persist else None,
        impact=impact,
        verify=verify_command(checked, host),
    )


def _impact(checked: Check, issue: Issue, host: Host) -> Impact:
    found = checked.impact.of(host) if issue.observed is None else issue.observed
    return found.at_rate(issue.events_per_s)


def verify_command(checked: Check, host: Host) -> str:
    """Return the command that shows whether a check's fix worked: its own, or the check alone.

    PID in a check's own command stands for the target.
    """
    if checked.verify is None:
        if checked.area.subject is Subject.LATENCY:
            pid = "" if host.pid is None else f" --pid {host.pid}"
            return f"cfctl diagnose latency --only {checked.id}{pid}"
        named = host.pid if host.facts.live is None or host.pid is not None else host.facts.live.which
        program = "" if named is None else f" {shlex.quote(str(named))}"
        return f"cfctl diagnose {checked.area.subject}{program} --only {checked.id}"
    return checked.verify if host.pid is None else checked.verify.replace("PID", str(host.pid))


def _result(
    checked: Check,
    status: Status,
    host: Host | None = None,
    severity: Severity | None = None,
    *,
    description: str | None = None,
    reason: str | None = None,
    actor: Actor | None = None,
    solution: str | None = None,
    warning: str | None = None,
    commands: Commands | None = None,
    privilege: str | None = None,
    impact: Impact | None = None,
    verify: str | None = None,
) -> CheckResult:
    return CheckResult(
        checked.id, checked.area, checked.title, status, severity or checked.severity, actor, description,
        checked.why, solution, warning, commands or Commands(),
        tuple(host.evidence) if host else (), checked.threshold, privilege, reason,
        impact.ns_per_s if impact else None, impact.cost if impact else None, verify,
        impact is not None and impact.is_bound,
    )  # fmt: skip
