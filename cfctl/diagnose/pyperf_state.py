"""What pyperf says of the system, without the advice that is meant for another one."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

from cfctl.diagnose.record import Status
from cfctl.errors import UnobservableError
from cfctl.records import Document, to_plain

if TYPE_CHECKING:
    from cfctl.diagnose.diagnosis import Diagnosis
    from cfctl.host.fingerprint import Fingerprint

_TIMEOUT_S: Final = 60
_SECTIONS: Final = {
    "System state": "state",
    "Advices": "advice",
    "Warnings": "warnings",
    "Errors": "warnings",
}
# Words of a line that is meant for Intel's CPUs only: model specific registers and their driver.
_INTEL: Final = re.compile(r"\bMSR\b|/dev/cpu/\d+/msr|intel[_ ]pstate|turbo[_ ]boost", re.IGNORECASE)
# What the hypervisor, not the guest, decides.
_HOST_POWER: Final = re.compile(r"cpufreq|frequency|turbo|scaling|power supply|\bMSR\b", re.IGNORECASE)
_IN_CONTAINER: Final = re.compile(r"systemctl|irqbalance service", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class StateLine:
    """A line of pyperf; `reason` says why it is not meant for this host, None when it is."""

    section: str
    text: str
    reason: str | None


@dataclass(frozen=True, slots=True)
class SystemState(Document):
    """pyperf's lines of state, advice and warnings, beside the issues of `cfctl diagnose latency`.

    `issues` are (check, severity, actor, evidence).
    """

    SCHEMA: ClassVar[str] = "cfctl.profile.system"
    VERSION: ClassVar[int] = 1
    ROWS: ClassVar[str | None] = "lines"
    lines: tuple[StateLine, ...]
    issues: tuple[tuple[str, str, str, str], ...]
    host: dict[str, Any]


def pyperf_lines() -> str:
    """Return what `pyperf system show` prints, about a second; raises UnobservableError."""
    try:
        # Its exit status is 1 when it would tune something.
        ended = subprocess.run(
            [sys.executable, "-m", "pyperf", "system", "show"], capture_output=True, text=True, errors="replace",
            timeout=_TIMEOUT_S, stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnobservableError("pyperf could not be run.", f"{error}.", "pip install pyperf") from error
    if "System state" not in ended.stdout:
        last = (ended.stderr.strip().splitlines() or ["it printed nothing"])[-1]
        raise UnobservableError("pyperf did not show the system's state.", f"{last}.")
    return ended.stdout


def system_state(text: str, diagnosis: Diagnosis) -> SystemState:
    """Return pyperf's output beside the issues of a diagnosis of the same host."""
    issues = tuple(
        (check.id, check.severity.value, str(check.actor), check.description or "")
        for check in diagnosis.checks
        if check.status is Status.ISSUE
    )
    return SystemState(state_lines(text, diagnosis.host), issues, dict(to_plain(diagnosis.host)))


def state_lines(text: str, host: Fingerprint) -> tuple[StateLine, ...]:
    """Return the lines of pyperf's output with the reason why one is not meant for this host."""
    return tuple(StateLine(section, line, _misplaced(line, host)) for section, line in _sections(text))


def _sections(text: str) -> Iterable[tuple[str, str]]:
    section: str | None = None
    for line in map(str.strip, text.splitlines()):
        if line in _SECTIONS:
            section = _SECTIONS[line]
        elif section and line and set(line) != {"="} and not line.startswith("Run "):
            yield section, line


def _misplaced(line: str, host: Fingerprint) -> str | None:
    brand = (host.cpu_brand or "").lower()
    if _INTEL.search(line) and brand and "intel" not in brand:
        return f"meant for Intel's CPUs, this is {host.cpu_brand}"
    if _HOST_POWER.search(line) and host.virtualisation not in {None, "none"}:
        return f"the host operator's to decide: this is a {host.virtualisation} guest"
    if _IN_CONTAINER.search(line) and host.container not in {None, "none"}:
        return f"the host's to decide: this is a {host.container} container"
    return None
