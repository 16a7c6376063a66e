"""What a check is, and what it found."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from cfctl.records import Document, Measurement, Severity


class Status(enum.StrEnum):
    """What a check found; `unobservable` is never a pass."""

    PASS = "pass"  # noqa: S105
    ISSUE = "issue"
    UNOBSERVABLE = "unobservable"
    NOT_APPLICABLE = "not_applicable"
    ERROR = "error"


class Actor(enum.StrEnum):
    """Who can act on an issue."""

    YOU = "you"
    HOST_OPERATOR = "host operator"
    INFORMATIONAL = "informational"


class Subject(enum.StrEnum):
    """What is diagnosed: a command of `cfctl diagnose` each, with checks of its own."""

    LATENCY = "latency"
    MEMORY = "memory"
    TEMPORAL = "temporal"


class Area(enum.StrEnum):
    """The areas of the catalogue, in its order."""

    CLOCK = "clock"
    CPU = "cpu"
    SCHEDULER = "scheduler"
    INTERRUPTS = "interrupts"
    MEMORY = "memory"
    VIRTUALISATION = "virtualisation"
    PROCESS = "process"
    NETWORK = "network"
    STORAGE = "storage"
    PROCESS_MEMORY = "process memory"
    BUS = "bus"

    @property
    def subject(self) -> Subject:
        """Return what the checks of this area diagnose first of all."""
        return _SUBJECTS.get(self, Subject.LATENCY)


_SUBJECTS: Final = {Area.PROCESS_MEMORY: Subject.MEMORY, Area.BUS: Subject.TEMPORAL}


class Scope(enum.StrEnum):
    """Where the remedy of a check lies, which decides who can apply it.

    A process's own settings are always yours; the kernel's are the host operator's in a container
    that sees them read-only; the machine's are the host operator's in a guest too.
    """

    PROCESS = "process"
    KERNEL = "kernel"
    MACHINE = "machine"


@dataclass(frozen=True, slots=True)
class Evidence:
    """One thing that was read: where, what stood there (shortened), and what it means."""

    source: str
    raw: str
    parsed: Any


@dataclass(frozen=True, slots=True)
class Commands:
    """Commands that change the running system, and those that survive a reboot."""

    now: tuple[str, ...] = ()
    persist: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Threshold:
    """When a check finds an issue, and where that rule comes from."""

    rule: str
    source: str


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What one check found on one host.

    `severity` is that of the issue, or the one an issue would have. `description` says what was
    found, `why` what it costs. `actor`, `solution`, `warning` and `privilege` (what the commands
    need) belong to an issue, `reason` to everything that is neither issue nor pass. `impact` is what an
    issue costs here with its method, missing with a reason when it was not measured; `impact_ns_per_s`
    is the measured time lost in each second (of the probe's run for a cost per event), by which issues
    of one severity are ranked; `impact_is_bound` says that other issues may be part of it, so that this
    one costs that at most. `verify` is the command that shows whether the fix worked.
    """

    id: str
    area: Area
    title: str
    status: Status
    severity: Severity
    actor: Actor | None
    description: str | None
    why: str
    solution: str | None
    warning: str | None
    commands: Commands
    evidence: tuple[Evidence, ...]
    threshold: Threshold
    privilege: str | None
    reason: str | None
    impact_ns_per_s: float | None
    impact: Measurement | None = None
    verify: str | None = None
    impact_is_bound: bool = False

    def fails(self, fail_on: Severity) -> bool:
        """Return whether this is an issue that the reader can fix, at or above a severity."""
        return self.status is Status.ISSUE and self.actor is Actor.YOU and self.severity.rank >= fail_on.rank

    @property
    def is_unseen(self) -> bool:
        """Return whether nothing is known about the subject."""
        return self.status in {Status.UNOBSERVABLE, Status.ERROR}


@dataclass(frozen=True, slots=True)
class CheckDescription:
    """A check without a host: what it looks for and why."""

    id: str
    area: Area
    title: str
    severity: Severity
    why: str
    threshold: Threshold
    needs: tuple[str, ...]
    solution: str
    cost: str


@dataclass(frozen=True, slots=True)
class Catalogue(Document):
    """Every check there is, in the order of the areas."""

    SCHEMA: ClassVar[str] = "cfctl.checks"
    VERSION: ClassVar[int] = 1
    ROWS: ClassVar[str | None] = "checks"
    checks: tuple[CheckDescription, ...]
