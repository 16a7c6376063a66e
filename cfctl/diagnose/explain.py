"""A check's page: what it looks for in general, and what it reads and finds on this host."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from cfctl.diagnose.advice import kernel_is_writable
from cfctl.diagnose.engine import Check, every_check, run_check, verify_command
from cfctl.diagnose.profiles import PROFILES
from cfctl.diagnose.run import unknown_check
from cfctl.diagnose.subject import Facts, Host
from cfctl.host.capture import RecordingView
from cfctl.host.view import HostView, shown
from cfctl.records import Document, Severity

if TYPE_CHECKING:
    from cfctl.diagnose.record import CheckDescription, CheckResult, Scope


@dataclass(frozen=True, slots=True)
class CheckPage:
    """Everything about one check.

    `overrides` maps a profile to the severity it gives the check, None when it leaves it out. `reads` are
    what it read on this host; `here` is what it found, without an interval or measurements. `verify` is the command that shows whether a remedy worked.
    """

    check: CheckDescription
    scope: Scope
    overrides: dict[str, Severity | None]
    reads: tuple[str, ...]
    here: CheckResult
    verify: str


@dataclass(frozen=True, slots=True)
class CheckPages(Document):
    """The pages of the checks that were named."""

    SCHEMA: ClassVar[str] = "cfctl.check-pages"
    VERSION: ClassVar[int] = 1
    ROWS: ClassVar[str | None] = "pages"
    pages: tuple[CheckPage, ...]


def explained(names: Sequence[str], open_view: Callable[[], HostView] = HostView) -> CheckPages:
    """Return the pages of checks; raises InputError for one that does not exist."""
    known = {check.id: check for check in every_check()}
    for name in names:
        if name not in known:
            raise unknown_check(name, known)
    return CheckPages(tuple(_page(known[name], open_view()) for name in names))


def _page(check: Check, asked: HostView) -> CheckPage:
    view = RecordingView(asked)
    facts = Facts(view, None, "timer", None)
    # Every check may look at its surroundings: what they were told by is no reading of this one.
    surroundings = (facts.environment, facts.topology, kernel_is_writable(view))
    common = _read_by(view) if surroundings else set()
    here = run_check(check, facts)
    reads = {evidence.source for evidence in here.evidence} | (_read_by(view) - common)
    overrides = {
        name: severities[check.id] for name, severities in PROFILES.items() if check.id in severities
    }
    return CheckPage(
        check.described(), check.scope, overrides, tuple(sorted(reads)), here,
        verify_command(check, Host(facts)),
    )  # fmt: skip


def _read_by(view: RecordingView) -> set[str]:
    asked = {*view.files, *view.reads.refused, *view.reads.names, *view.reads.matching}
    return set(map(shown, asked))
