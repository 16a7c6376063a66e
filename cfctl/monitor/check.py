"""The check: every target judged on one snapshot, one verdict over all."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from cfctl.monitor.snapshot import Series, Snapshot
from cfctl.monitor.targets import Target, TargetSeverity
from cfctl.records import Document, Judgement, JudgementLevel, Measurement, Verdict
from cfctl.units import format_quantity

if TYPE_CHECKING:
    from cfctl.host.fingerprint import Fingerprint
    from cfctl.monitor.metric import Labels


class InconclusivePolicy(enum.StrEnum):
    """How an inconclusive target counts in the verdict of the whole check."""

    REPORT = "report"
    PASS = "pass"  # noqa: S105
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class TargetResult:
    """A target, what was measured for it, its verdict, and as what that counts in the whole check.

    `margin` is how far the value is on the good side of the threshold, in its unit; negative on the
    bad side, None without a value.
    """

    target: Target
    measurement: Measurement
    subject: str
    labels: Labels
    resolution: Measurement | None
    verdict: Verdict
    counts_as: Verdict
    margin: float | None


@dataclass(frozen=True, slots=True)
class CheckDocument(Document):
    """The results of all targets and the verdict over them."""

    SCHEMA: ClassVar[str] = "cfctl.check"
    VERSION: ClassVar[int] = 1
    ROWS: ClassVar[str | None] = "results"
    verdict: Verdict
    inconclusive: InconclusivePolicy
    results: tuple[TargetResult, ...]
    host: Fingerprint | None = None
    problems: tuple[str, ...] = ()

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
    """Return what was found and what was wanted, as one sentence."""
    target, measured = result.target, result.measurement
    wanted = f"wanted {target.operator} {format_quantity(target.threshold, target.unit)}"
    if measured.value is None:
        return f"{target.metric} of {result.subject}: not measured, {wanted}. {measured.reason}"
    found = format_quantity(measured.value, target.unit, uncertainty=measured.uncertainty)
    error = (
        ""
        if measured.uncertainty is None
        else f" ± {format_quantity(measured.uncertainty, target.unit, digits=2)}"
    )
    return f"{target.metric} of {result.subject}: {found}{error}, {wanted}."


def run_check(
    targets: Iterable[Target],
    snapshot: Snapshot,
    policy: InconclusivePolicy = InconclusivePolicy.REPORT,
    host: Fingerprint | None = None,
) -> CheckDocument:
    """Return the verdict on every series that a target is about, and over all of them."""
    results = tuple(
        TargetResult(
            target,
            series.measurement,
            series.subject,
            series.labels,
            series.resolution,
            (verdict := target.judge(series.measurement)),
            _counts_as(verdict, target.severity, policy),
            target.margin(series.measurement),
        )
        for target in targets
        for series in target.matching(snapshot) or (_nothing_found(target, snapshot),)
    )
    counted = {result.counts_as for result in results}
    overall = next((v for v in (Verdict.FAIL, Verdict.INCONCLUSIVE) if v in counted), Verdict.PASS)
    return CheckDocument(overall, policy, results, host, snapshot.problems)


def _nothing_found(target: Target, snapshot: Snapshot) -> Series:
    """Return the measurement that a target does not have, and why."""
    if snapshot.of(target.metric):
        patterns = ", ".join(f"{name} {pattern}" for name, pattern in target.where)
        reason = f"Nothing that has {target.metric} matches {patterns}."
    else:
        reason = f"Nothing that was looked at has {target.metric}."
    return Series(target.metric, Measurement.missing(target.unit, reason), subject="nothing")


def _counts_as(verdict: Verdict, severity: TargetSeverity, policy: InconclusivePolicy) -> Verdict:
    if severity is TargetSeverity.INFO:
        return Verdict.PASS
    if verdict is Verdict.INCONCLUSIVE and policy is not InconclusivePolicy.REPORT:
        return Verdict(policy.value)
    return verdict
