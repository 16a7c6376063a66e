"""The records of a diagnosis."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from cfctl.records import Document, Severity, Verdict

if TYPE_CHECKING:
    from cfctl.diagnose.measurements import Measurements
    from cfctl.host.fingerprint import Fingerprint


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
    need) belong to an issue, `reason` to everything that is neither issue nor pass. `impact_ns_per_s`
    is the measured time lost in each second, None when it is not measured.
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


@dataclass(frozen=True, slots=True)
class Diagnosis(Document):
    """The results of all checks on one host, worst issue first.

    `verdict` is fail for an issue at or above `fail_on` whose actor is you, else inconclusive when
    a check named in `required` could not observe its subject, else pass.
    """

    SCHEMA: ClassVar[str] = "cfctl.diagnosis"
    VERSION: ClassVar[int] = 1
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


@dataclass(frozen=True, slots=True)
class Catalogue(Document):
    """Every check there is, in the order of the areas."""

    SCHEMA: ClassVar[str] = "cfctl.checks"
    VERSION: ClassVar[int] = 1
    checks: tuple[CheckDescription, ...]
