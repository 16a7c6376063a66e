"""The record of a diagnosis: what all checks found, and the judgement over the target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final

from cfctl.diagnose.record import Actor, CheckResult, Status, Subject
from cfctl.records import Document, Judgement, JudgementLevel, Severity, Verdict

if TYPE_CHECKING:
    from cfctl.diagnose.budget import Budget
    from cfctl.diagnose.measurements import Measurements
    from cfctl.host.fingerprint import Fingerprint

_LEVELS: Final = {
    Severity.LOW: JudgementLevel.NOTICE,
    Severity.MEDIUM: JudgementLevel.WARNING,
    Severity.HIGH: JudgementLevel.ERROR,
    Severity.CRITICAL: JudgementLevel.ERROR,
}


@dataclass(frozen=True, slots=True)
class Diagnosis(Document):
    """The results of all checks on one host, worst issue first.

    `verdict` is fail for an issue at or above `fail_on` whose actor is you or a missed target, else
    inconclusive when the target could not be judged or a check named in `required` could not observe
    its subject, else pass. `budget` is the judgement over the target, None without one. `subject`
    says which checks ran; `segments` are the files of the programs that were looked into.
    """

    SCHEMA: ClassVar[str] = "cfctl.diagnosis"
    VERSION: ClassVar[int] = 1
    ROWS: ClassVar[str | None] = "checks"
    verdict: Verdict
    verdict_reason: str
    profile: str
    fail_on: Severity
    required: tuple[str, ...]
    sysroot: str
    pid: int | None
    interval_s: float | None
    host: Fingerprint
    measurements: Measurements | None
    measurements_reason: str | None
    counts: dict[str, int]
    checks: tuple[CheckResult, ...]
    budget: Budget | None = None
    subject: Subject = Subject.LATENCY
    segments: tuple[str, ...] = ()

    def judgements(self) -> tuple[Judgement, ...]:
        """Return the target and each check that applies.

        An issue that is not yours to fix, or below `fail_on`, counts as a pass.
        """
        checks = tuple(
            self._judgement(result) for result in self.checks if result.status is not Status.NOT_APPLICABLE
        )
        return checks if self.budget is None else (self._target_judgement(self.budget), *checks)

    @staticmethod
    def _target_judgement(budget: Budget) -> Judgement:
        level = JudgementLevel.ERROR if budget.verdict is Verdict.FAIL else JudgementLevel.WARNING
        return Judgement("TARGET", "target", budget.verdict, budget.verdict, level, budget.describe())

    def _judgement(self, result: CheckResult) -> Judgement:
        if result.status is Status.ISSUE:
            counts_as = Verdict.FAIL if result.fails(self.fail_on) else Verdict.PASS
            text = f"{result.description} For {result.actor}: {result.solution}"
            level = _LEVELS[result.severity] if result.actor is Actor.YOU else JudgementLevel.NOTICE
            return Judgement(result.id, result.area, Verdict.FAIL, counts_as, level, text)
        if result.is_unseen:
            counts_as = Verdict.INCONCLUSIVE if result.id in self.required else Verdict.PASS
            text = result.reason or ""
            return Judgement(
                result.id, result.area, Verdict.INCONCLUSIVE, counts_as, JudgementLevel.NOTICE, text
            )
        text = result.description or ""
        return Judgement(result.id, result.area, Verdict.PASS, Verdict.PASS, JudgementLevel.NOTICE, text)
