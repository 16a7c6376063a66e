"""The check: every metric measured once, every target judged, one verdict over all."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from cfctl.monitor.metric import Metric, Reading, Subject, all_metrics
from cfctl.monitor.targets import Target, TargetSeverity
from cfctl.records import Document, Judgement, JudgementLevel, Measurement, Verdict
from cfctl.units import format_quantity

if TYPE_CHECKING:
    from cfctl.host.fingerprint import Fingerprint


class InconclusivePolicy(enum.StrEnum):
    """How an inconclusive target counts in the verdict of the whole check."""

    REPORT = "report"
    PASS = "pass"  # noqa: S105
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class TargetResult:
    """A target, what was measured for it, its verdict, and as what that counts in the whole check."""

    target: Target
    measurement: Measurement
    subject: str
    resolution: Measurement | None
    verdict: Verdict
    counts_as: Verdict


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
    subject: Subject,
    policy: InconclusivePolicy = InconclusivePolicy.REPORT,
    metrics: Mapping[str, Metric] | None = None,
    host: Fingerprint | None = None,
) -> CheckDocument:
    """Return every target's result; each metric is measured once, however many targets name it."""
    metrics = all_metrics() if metrics is None else metrics
    readings: dict[str, Reading] = {}
    results = []
    for target in targets:
        if target.metric not in readings:
            readings[target.metric] = metrics[target.metric].measure(subject)
        reading = readings[target.metric]
        verdict = target.judge(reading.measurement)
        results.append(
            TargetResult(
                target,
                reading.measurement,
                reading.subject,
                reading.resolution,
                verdict,
                _counts_as(verdict, target.severity, policy),
            )
        )
    counted = {result.counts_as for result in results}
    overall = next((v for v in (Verdict.FAIL, Verdict.INCONCLUSIVE) if v in counted), Verdict.PASS)
    return CheckDocument(overall, policy, tuple(results), host)


def _counts_as(verdict: Verdict, severity: TargetSeverity, policy: InconclusivePolicy) -> Verdict:
    if severity is TargetSeverity.INFO:
        return Verdict.PASS
    if verdict is Verdict.INCONCLUSIVE and policy is not InconclusivePolicy.REPORT:
        return Verdict(policy.value)
    return verdict
