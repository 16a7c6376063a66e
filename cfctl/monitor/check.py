"""The check: every target judged on one snapshot, one verdict over all."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, Final

from cfctl.monitor.snapshot import Series, Snapshot
from cfctl.monitor.targets import NoData, Target, TargetSeverity
from cfctl.records import Document, Judgement, JudgementLevel, Measurement, Verdict
from cfctl.units import format_quantity

if TYPE_CHECKING:
    from cfctl.host.fingerprint import Fingerprint
    from cfctl.monitor.alerts import Cause
    from cfctl.monitor.metric import Labels


_UNDER_LOAD: Final = "It is judged under load: with --bench, or where --target names it."


class InconclusivePolicy(enum.StrEnum):
    """How an inconclusive target counts in the verdict of the whole check."""

    REPORT = "report"
    PASS = "pass"  # noqa: S105
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class TargetResult:
    """A target, what was measured for it, its verdict, and as what that counts in the whole check.

    `margin` is how far the value is on the good side of the threshold, in its unit; negative on the
    bad side, None without a value. `doubt`: why a miss is inconclusive all the same. `cause`: what a
    quick diagnosis says of a miss, None when it was not asked or finds nothing.
    """

    target: Target
    measurement: Measurement
    subject: str
    labels: Labels
    resolution: Measurement | None
    verdict: Verdict
    counts_as: Verdict
    margin: float | None
    doubt: str | None = None
    cause: Cause | None = None


@dataclass(frozen=True, slots=True)
class NotApplicable:
    """A target that there is nothing to judge for, and why; it counts for nothing."""

    target: Target
    reason: str


@dataclass(frozen=True, slots=True)
class CheckDocument(Document):
    """The results of all targets and the verdict over them; inconclusive when nothing was judged.

    `notes` say what was measured and is not judged. `runs`: how many measurements the values are medians of.
    """

    SCHEMA: ClassVar[str] = "cfctl.check"
    VERSION: ClassVar[int] = 1
    ROWS: ClassVar[str | None] = "results"
    verdict: Verdict
    inconclusive: InconclusivePolicy
    results: tuple[TargetResult, ...]
    host: Fingerprint | None = None
    problems: tuple[str, ...] = ()
    not_applicable: tuple[NotApplicable, ...] = ()
    notes: tuple[str, ...] = ()
    runs: int = 1

    def judgements(self) -> tuple[Judgement, ...]:
        """Return one judgement per target, for formats that CI systems read."""
        levels = {
            TargetSeverity.INFO: JudgementLevel.NOTICE,
            TargetSeverity.WARNING: JudgementLevel.WARNING,
            TargetSeverity.CRITICAL: JudgementLevel.ERROR,
        }
        return tuple(
            Judgement(
                r.target.name, "cfctl.check", r.verdict, r.counts_as, levels[r.target.severity], sentence(r)
            )
            for r in self.results
        )


def sentence(result: TargetResult) -> str:
    """Return what was found, what was wanted, and what is known of the cause, in a few sentences."""
    target, measured, cause = result.target, result.measurement, result.cause
    wanted = f"wanted {target.operator} {format_quantity(target.threshold, target.unit)}"
    if measured.value is None:
        return f"{target.metric} of {result.subject}: not measured, {wanted}. {measured.reason}"
    found = format_quantity(measured.value, target.unit, uncertainty=measured.uncertainty)
    error = (
        ""
        if measured.uncertainty is None
        else f" ± {format_quantity(measured.uncertainty, target.unit, digits=2)}"
    )
    why = f" {result.doubt}" if result.doubt else ""
    if cause is not None:
        why += f" Cause: {cause.check}: {cause.found} {cause.solution}"
    return f"{target.metric} of {result.subject}: {found}{error}, {wanted}.{why}"


Doubts = Mapping[tuple[str, "Labels"], str]


def run_check(
    targets: Iterable[Target],
    snapshot: Snapshot,
    policy: InconclusivePolicy = InconclusivePolicy.REPORT,
    host: Fingerprint | None = None,
    doubts: Doubts = MappingProxyType({}),
) -> CheckDocument:
    """Return the verdict on every series that a target is about, and over all of them.

    A miss of a series that `doubts` names, by metric and labels, is inconclusive, with its sentence.
    What has no value follows the target's no-data policy.
    """
    results: list[TargetResult] = []
    apart: list[NotApplicable] = []
    for target in targets:
        if target.under_load:
            apart.append(NotApplicable(target, _UNDER_LOAD))
            continue
        for series in target.matching(snapshot) or (_nothing_found(target, snapshot),):
            if series.measurement.value is None and target.no_data is NoData.OK:
                apart.append(NotApplicable(target, series.measurement.reason or ""))
            else:
                results.append(_result(target, series, policy, doubts))
    counted = {result.counts_as for result in results}
    overall = next((v for v in (Verdict.FAIL, Verdict.INCONCLUSIVE) if v in counted), Verdict.PASS)
    if not results:
        overall = _after(Verdict.INCONCLUSIVE, policy)
    return CheckDocument(overall, policy, tuple(results), host, snapshot.problems, tuple(apart))


def _result(target: Target, series: Series, policy: InconclusivePolicy, doubts: Doubts) -> TargetResult:
    verdict, doubt = target.judge(series.measurement), None
    if series.measurement.value is None and target.no_data is NoData.ALERT:
        verdict = Verdict.FAIL
    elif verdict is Verdict.FAIL:
        doubt = doubts.get((series.metric, series.labels))
        verdict = Verdict.FAIL if doubt is None else Verdict.INCONCLUSIVE
    return TargetResult(
        target, series.measurement, series.subject, series.labels, series.resolution, verdict,
        Verdict.PASS if target.severity is TargetSeverity.INFO else _after(verdict, policy),
        target.margin(series.measurement), doubt,
    )  # fmt: skip


def _nothing_found(target: Target, snapshot: Snapshot) -> Series:
    """Return the measurement that a target does not have, and why."""
    if snapshot.of(target.metric):
        patterns = ", ".join(f"{name} {pattern}" for name, pattern in target.where)
        reason = f"Nothing that has {target.metric} matches {patterns}."
    else:
        reason = f"Nothing that was looked at has {target.metric}."
    return Series(target.metric, Measurement.missing(target.unit, reason), subject="nothing")


def _after(verdict: Verdict, policy: InconclusivePolicy) -> Verdict:
    """Return as what a verdict counts."""
    if verdict is Verdict.INCONCLUSIVE and policy is not InconclusivePolicy.REPORT:
        return Verdict(policy.value)
    return verdict


def asked(targets: tuple[Target, ...]) -> tuple[Target, ...]:
    """Return targets that are judged in any case: what can not be measured for them is inconclusive."""
    return tuple(
        replace(t, under_load=False, no_data=NoData.KEEP if t.no_data is NoData.OK else t.no_data)
        for t in targets
    )
