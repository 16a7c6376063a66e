"""A diagnosis: the two views of a host, its measurements, all checks, their order and the verdict."""

from __future__ import annotations

import difflib
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from cfctl.diagnose.budget import Budget, Target, judge_budget
from cfctl.diagnose.diagnosis import Diagnosis
from cfctl.diagnose.engine import Check, catalogue, every_check, run_check
from cfctl.diagnose.impact import JITTER, THROTTLED
from cfctl.diagnose.measure import measure_host
from cfctl.diagnose.measurements import Measurements
from cfctl.diagnose.offline import Captured, open_captured
from cfctl.diagnose.probing import DEFAULT_DURATION_NS, LATENCY, ProbePlan, probe_host
from cfctl.diagnose.profiles import PROFILES, use_of
from cfctl.diagnose.record import Actor, Area, Catalogue, CheckResult, Status, Subject
from cfctl.diagnose.subject import NOT_MEASURED, Facts, sampled
from cfctl.errors import InputError
from cfctl.host.fingerprint import fingerprint
from cfctl.host.view import HostView
from cfctl.records import Severity, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cfctl.diagnose.live import Watch

NOT_WANTED: Final = "not asked for (--quick, --no-measure)"
NOT_NEEDED: Final = "no check found anything to measure"

_STATUS_ORDER: Final = (Status.ISSUE, Status.ERROR, Status.UNOBSERVABLE, Status.NOT_APPLICABLE, Status.PASS)
_SEEN: Final = (Status.ISSUE, Status.PASS)
_ACTOR_ORDER: Final = (Actor.YOU, Actor.HOST_OPERATOR, Actor.INFORMATIONAL, None)


@dataclass(frozen=True, slots=True)
class Request:
    """What to diagnose and how to judge it; `only` empty means every check, `interval_ns` 0 one view.

    `profile` names the use whose latency is probed for `duration_ns` on `cpus` (None: all usable);
    `target` is the budget to judge it against. `pm_qos_us` is held in the runs that show its effect,
    `storage` is the directory in which fsync is measured.
    """

    sysroot: str = "/"
    pid: int | None = None
    profile: str = "timer"
    fail_on: Severity = Severity.HIGH
    interval_ns: int = 2_000_000_000
    measure: bool = True
    target: Target | None = None
    duration_ns: int = DEFAULT_DURATION_NS
    cpus: tuple[int, ...] | None = None
    pm_qos_us: int | None = None
    storage: str | None = None
    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    subject: Subject = Subject.LATENCY


def diagnose(
    request: Request,
    *,
    open_view: Callable[[str], HostView] = HostView,
    measure: Callable[[], Measurements] = measure_host,
    probe: Callable[[ProbePlan, Measurements, Callable[[str], None]], Measurements] = probe_host,
    sleep: Callable[[float], None] = time.sleep,
    progress: Callable[[str], None] = lambda _: None,
    live: Watch | None = None,
) -> Diagnosis:
    """Return the diagnosis a request asks for; `live` watches programs meanwhile.

    Takes the interval, the probes' duration and some seconds on a live host, milliseconds on a captured
    one. Raises InputError for an unknown check, profile, sysroot, CPU or process.
    """
    checks = selected(request)
    captured = None if request.sysroot == "/" else open_captured(request.sysroot, open_view)
    facts = _observed(request, checks, captured, open_view, live.watch if live else sleep, progress)
    # After the interval: what the probes do must not show in the counters.
    facts = replace(facts, live=None if live is None else live.seen())
    results = {}
    for check in checks:
        progress(f"checking {check.id}")
        results[check.id] = run_check(check, facts)
    if captured is None:
        open_ones = [check for check in checks if waits_for_probes(results[check.id])]
        measurements, reason = _measured(request, open_ones, measure, probe, progress)
    else:
        measurements, reason = _measured_before(captured, request, checks)
    if measurements is not None:
        facts = replace(facts, measurements=measurements)
        results |= {check.id: run_check(check, facts) for check in checks if check.probes}
    budget = None
    if request.target is not None:
        use = use_of(request.profile)
        budget = judge_budget(request.target, use, measurements, reason or NOT_NEEDED, results.values())
    about = Area.BUS if request.subject is Subject.TEMPORAL else None
    verdict, verdict_reason = judged(results.values(), request.fail_on, request.required, budget, about)
    before = facts.before
    return Diagnosis(
        verdict,
        verdict_reason,
        request.profile,
        request.fail_on,
        request.required,
        request.sysroot,
        request.pid,
        None if before is None else (facts.view.monotonic_ns - before.monotonic_ns) / 1e9,
        fingerprint(facts.view),
        measurements,
        reason,
        {status.value: sum(result.status is status for result in results.values()) for status in Status},
        ranked(results.values()),
        budget,
        request.subject,
        () if facts.live is None else facts.live.paths,
    )


def _measured(
    request: Request,
    checks: Iterable[Check],
    measure: Callable[[], Measurements],
    probe: Callable[[ProbePlan, Measurements, Callable[[str], None]], Measurements],
    progress: Callable[[str], None],
) -> tuple[Measurements | None, str | None]:
    """Return what the checks and the target need measured, or None and why nothing is."""
    if not request.measure:
        return None, NOT_WANTED
    plan = probe_plan(request, checks)
    clock_is_needed = any("measurements" in check.probes for check in checks)
    if not clock_is_needed and not plan.wanted:
        return None, NOT_NEEDED
    progress("measuring the clock")
    measurements = measure() if clock_is_needed else Measurements()
    return (probe(plan, measurements, progress) if plan.wanted else measurements), None


def _measured_before(
    captured: Captured, request: Request, checks: tuple[Check, ...]
) -> tuple[Measurements | None, str | None]:
    """Return what was measured on a captured host if it is needed, or None and why there is nothing."""
    if captured.measurements is None or not request.measure:
        return None, captured.reason if captured.measurements is None else NOT_WANTED
    if request.target is None and not any(check.probes for check in checks):
        return None, NOT_NEEDED
    return captured.measurements, None


def waits_for_probes(result: CheckResult) -> bool:
    """Return whether a result without measurements leaves something to measure: a judgement or a cost."""
    return result.status is Status.ISSUE or result.reason == NOT_MEASURED


def probe_plan(request: Request, checks: Iterable[Check]) -> ProbePlan:
    """Return the probes that the selected checks and the target need."""
    wanted = {name for check in checks for name in check.probes} - {"measurements"}
    if request.target is not None:
        wanted.add(LATENCY)
    if THROTTLED in wanted:
        # A quota shows only while somebody works.
        wanted.add(JITTER)
    return ProbePlan(
        use_of(request.profile), frozenset(wanted), request.duration_ns, request.cpus, request.pm_qos_us,
        request.storage,
    )  # fmt: skip


def selected(request: Request) -> tuple[Check, ...]:
    """Return the checks a request names; raises InputError for names that do not exist."""
    if request.profile not in PROFILES:
        raise InputError(f"There is no profile '{request.profile}'.", f"Profiles: {', '.join(PROFILES)}.")
    known = [check.id for check in catalogue(request.subject)]
    for name in (*request.only, *request.skip, *request.required):
        if name not in known:
            raise unknown_check(name, known)
    return tuple(
        check
        for check in catalogue(request.subject)
        if (not request.only or check.id in request.only) and check.id not in request.skip
    )


def described(names: tuple[str, ...], subject: Subject = Subject.LATENCY) -> Catalogue:
    """Return a subject's catalogue, or the named checks of any; raises InputError for one that does not exist."""
    known = {check.id: check for check in (every_check() if names else catalogue(subject))}
    for name in names:
        if name not in known:
            raise unknown_check(name, known)
    return Catalogue(tuple(known[name].described() for name in names or known))


def unknown_check(name: str, known: Iterable[str]) -> InputError:
    """Return the error for a check that does not exist, with the nearest that do."""
    near = difflib.get_close_matches(name.upper(), known, n=3, cutoff=0.6)
    hint = f"Did you mean {', '.join(near)}?" if near else "See: cfctl diagnose latency --list"
    return InputError(f"There is no check '{name}'.", hint)


def _observed(
    request: Request,
    checks: tuple[Check, ...],
    captured: Captured | None,
    open_view: Callable[[str], HostView],
    sleep: Callable[[float], None],
    progress: Callable[[str], None],
) -> Facts:
    samples = {sample for check in checks for sample in check.samples}
    pid = request.pid
    if captured is not None:
        before = captured.before
    else:
        # Programs are watched during the interval whether a counter of the host is compared or not.
        wanted = samples or request.subject is not Subject.LATENCY
        before = open_view(request.sysroot) if wanted and request.interval_ns > 0 else None
    _check_target(before or (captured.now if captured else open_view(request.sysroot)), pid)
    values = {} if before is None else {sample: sampled(sample, before, pid) for sample in samples}
    if before is not None and captured is None:
        progress(f"watching counters for {request.interval_ns / 1e9:g} s")
        sleep(request.interval_ns / 1e9)
    now = captured.now if captured else open_view(request.sysroot)
    # A view reads a file when it is first asked: at the end of the interval, not after the probes.
    later = {sample: sampled(sample, now, pid) for sample in samples}
    return Facts(now, pid, request.profile, None, before, values, samples_now=later)


def _check_target(view: HostView, pid: int | None) -> None:
    if pid is not None and not view.exists(f"proc/{pid}"):
        raise InputError(f"There is no process {pid}.", "It ended, or lives in another PID namespace.")


def ranked(results: Iterable[CheckResult]) -> tuple[CheckResult, ...]:
    """Return results with issues first: by severity, then measured impact, then who can act."""
    return tuple(
        sorted(
            results,
            key=lambda r: (
                _STATUS_ORDER.index(r.status),
                -r.severity.rank if r.status is Status.ISSUE else 0,
                -(r.impact_ns_per_s or 0.0),
                _ACTOR_ORDER.index(r.actor),
            ),
        )
    )


def judged(
    results: Iterable[CheckResult],
    fail_on: Severity,
    required: tuple[str, ...] = (),
    budget: Budget | None = None,
    about: Area | None = None,
) -> tuple[Verdict, str]:
    """Return the verdict over results and the target, and the sentence that explains it.

    `about`: the area of the run's question. A pass needs a check of it that saw something: others say nothing of it.
    """
    by_id = {result.id: result for result in results}
    failing = [result.id for result in by_id.values() if result.fails(fail_on)]
    if budget is not None and budget.verdict is Verdict.FAIL:
        more = f"; you can fix {', '.join(failing)} (at or above {fail_on})" if failing else ""
        return Verdict.FAIL, f"the target is missed{more}"
    if failing:
        return Verdict.FAIL, f"you can fix {', '.join(failing)} (at or above {fail_on})"
    unseen = [name for name in required if name not in by_id or by_id[name].is_unseen]
    if unseen:
        return Verdict.INCONCLUSIVE, f"required and not observed: {', '.join(unseen)}"
    if budget is not None and budget.verdict is Verdict.INCONCLUSIVE:
        return Verdict.INCONCLUSIVE, f"the target can not be judged: {budget.reason}"
    blind = [result for result in by_id.values() if result.is_unseen]
    if blind and not any(result.status in _SEEN for result in by_id.values()):
        return (
            Verdict.INCONCLUSIVE,
            f"nothing was observed: {len(blind)} of {len(by_id)} checks could not see",
        )
    asked = [result for result in by_id.values() if result.area is about]
    if asked and not any(result.status in _SEEN for result in asked):
        return (
            Verdict.INCONCLUSIVE,
            f"nothing of the {about} was observed: {len(asked)} checks could not see; others were made",
        )
    met = "the target is met, " if budget is not None else ""
    return Verdict.PASS, f"{met}no issue at or above {fail_on} that you can fix"
