"""A diagnosis: the two views of a host, its measurements, all checks, their order and the verdict."""

from __future__ import annotations

import difflib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cfctl.diagnose.engine import Check, catalogue, run_check
from cfctl.diagnose.measure import measure_host
from cfctl.diagnose.offline import Captured, open_captured
from cfctl.diagnose.profiles import PROFILES
from cfctl.diagnose.record import Actor, Catalogue, CheckResult, Diagnosis, Status
from cfctl.diagnose.subject import Facts, sampled
from cfctl.errors import InputError
from cfctl.host.fingerprint import fingerprint
from cfctl.host.view import HostView
from cfctl.records import Severity, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cfctl.diagnose.measurements import Measurements

NOT_WANTED: Final = "not asked for (--no-measure)"
NOT_NEEDED: Final = "no selected check needs a measurement"

_STATUS_ORDER: Final = (Status.ISSUE, Status.ERROR, Status.UNOBSERVABLE, Status.NOT_APPLICABLE, Status.PASS)
_ACTOR_ORDER: Final = (Actor.YOU, Actor.HOST_OPERATOR, Actor.INFORMATIONAL, None)


@dataclass(frozen=True, slots=True)
class Request:
    """What to diagnose and how to judge it; `only` empty means every check, `interval_ns` 0 one view."""

    sysroot: str = "/"
    pid: int | None = None
    profile: str = "timer"
    fail_on: Severity = Severity.HIGH
    interval_ns: int = 2_000_000_000
    measure: bool = True
    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    required: tuple[str, ...] = ()


def diagnose(
    request: Request,
    *,
    open_view: Callable[[str], HostView] = HostView,
    measure: Callable[[], Measurements] = measure_host,
    sleep: Callable[[float], None] = time.sleep,
    progress: Callable[[str], None] = lambda _: None,
) -> Diagnosis:
    """Return the diagnosis a request asks for.

    Takes the interval and about half a second of measurements on a live host, milliseconds on a
    captured one. Raises InputError for an unknown check, profile, sysroot or process.
    """
    checks = selected(request)
    captured = None if request.sysroot == "/" else open_captured(request.sysroot, open_view)
    measurements, reason = None, None
    if captured is not None and captured.measurements is None:
        reason = captured.reason
    elif not request.measure:
        reason = NOT_WANTED
    elif not any("measurements" in check.needs for check in checks):
        reason = NOT_NEEDED
    elif captured is not None:
        measurements = captured.measurements
    else:
        progress("measuring the clock")
        measurements = measure()
    facts = _observed(request, checks, measurements, captured, open_view, sleep, progress)
    results = []
    for check in checks:
        progress(f"checking {check.id}")
        results.append(run_check(check, facts))
    verdict, verdict_reason = judged(results, request.fail_on, request.required)
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
        {status.value: sum(result.status is status for result in results) for status in Status},
        ranked(results),
    )


def selected(request: Request) -> tuple[Check, ...]:
    """Return the checks a request names; raises InputError for names that do not exist."""
    if request.profile not in PROFILES:
        raise InputError(f"There is no profile '{request.profile}'.", f"Profiles: {', '.join(PROFILES)}.")
    known = [check.id for check in catalogue()]
    for name in (*request.only, *request.skip, *request.required):
        if name not in known:
            raise unknown_check(name, known)
    return tuple(
        check
        for check in catalogue()
        if (not request.only or check.id in request.only) and check.id not in request.skip
    )


def described(names: tuple[str, ...]) -> Catalogue:
    """Return the catalogue, or the named checks of it; raises InputError for one that does not exist."""
    known = {check.id: check for check in catalogue()}
    for name in names:
        if name not in known:
            raise unknown_check(name, known)
    return Catalogue(tuple(known[name].described() for name in names or known))


def unknown_check(name: str, known: Iterable[str]) -> InputError:
    """Return the error for a check that does not exist, with the nearest that does."""
    near = difflib.get_close_matches(name.upper(), known, n=1, cutoff=0.5)
    hint = f"Did you mean {near[0]}?" if near else "See: cfctl diagnose latency --list"
    return InputError(f"There is no check '{name}'.", hint)


def _observed(
    request: Request,
    checks: tuple[Check, ...],
    measurements: Measurements | None,
    captured: Captured | None,
    open_view: Callable[[str], HostView],
    sleep: Callable[[float], None],
    progress: Callable[[str], None],
) -> Facts:
    samples = {check.sample for check in checks if check.sample is not None}
    pid = request.pid
    if captured is not None:
        before = captured.before
    else:
        before = open_view(request.sysroot) if samples and request.interval_ns > 0 else None
    _check_target(before or (captured.now if captured else open_view(request.sysroot)), pid)
    values = {} if before is None else {sample: sampled(sample, before, pid) for sample in samples}
    if before is not None and captured is None:
        progress(f"watching counters for {request.interval_ns / 1e9:g} s")
        sleep(request.interval_ns / 1e9)
    now = captured.now if captured else open_view(request.sysroot)
    return Facts(now, pid, request.profile, measurements, before, values)


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
    results: Iterable[CheckResult], fail_on: Severity, required: tuple[str, ...] = ()
) -> tuple[Verdict, str]:
    """Return the verdict over results and the sentence that explains it."""
    by_id = {result.id: result for result in results}
    failing = [result.id for result in by_id.values() if result.fails(fail_on)]
    if failing:
        return Verdict.FAIL, f"you can fix {', '.join(failing)} (at or above {fail_on})"
    unseen = [name for name in required if name not in by_id or by_id[name].is_unseen]
    if unseen:
        return Verdict.INCONCLUSIVE, f"required and not observed: {', '.join(unseen)}"
    return Verdict.PASS, f"no issue at or above {fail_on} that you can fix"
