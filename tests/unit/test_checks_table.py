"""Every check on hosts that differ from a tuned one in a single thing (tests/hosts/cases)."""

from __future__ import annotations

import errno
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from cfctl.diagnose.engine import catalogue, run_check
from cfctl.diagnose.profiles import PROFILES
from cfctl.diagnose.record import Actor, Area, CheckResult, Status
from cfctl.diagnose.run import Request, diagnose
from cfctl.diagnose.subject import Facts, sampled
from cfctl.records import Severity
from tests.hosts.cases import (
    GOOD,
    GUEST,
    Case,
    Host,
    clock,
    costs,
    cpu,
    interrupts,
    memory,
    placement,
    probed,
    scheduler,
    surroundings,
)
from tests.hosts.fake_host import FakeHost, MemoryView

if TYPE_CHECKING:
    from pathlib import Path

    from cfctl.diagnose.measurements import Measurements

CASES: dict[str, Case] = {
    **clock.CASES, **cpu.CASES, **scheduler.CASES, **interrupts.CASES, **memory.CASES, **surroundings.CASES,
    **probed.CASES, **placement.CASES,
}  # fmt: skip
TUNED = FakeHost.load("bare_tuned")
# Those of the bus look at no host: tests/system/test_bus_checks.py.
BY_ID = {check.id: check for check in catalogue() if check.area is not Area.BUS}
GARBAGE = ("", "\n", "\0\0\0\0", "abc", "-", "9" * 400, "\x1b[31m[x]", "1 2 3", "some avg10=nan")


def applied(host: Host, base: FakeHost | None = None) -> FakeHost:
    """Return bare_tuned, or another base, with what is different on a host."""
    fake = (base or TUNED).without(*host.absent).with_files(host.files, host.later)
    syscalls = dict(host.syscalls)
    if "limits" in syscalls:
        syscalls["limits"] = {**fake.syscalls["limits"], **syscalls["limits"]}
    return replace(fake.with_syscalls(syscalls), later_syscalls=host.later_syscalls)


def run(
    check_id: str,
    host: Host,
    *,
    base: FakeHost | None = None,
    measured: Measurements | None = None,
    refuse: str | None = None,
    number: int = errno.EPERM,
) -> CheckResult:
    """Return a check's result on a host; measurements are handed in, as on a live machine."""
    check = BY_ID[check_id]
    before, now = (
        MemoryView(files, answers, refuse, number) for files, answers in applied(host, base).moments()
    )
    samples = {sample: sampled(sample, before, host.pid) for sample in check.samples}
    given = measured or replace(GOOD, **host.measured)
    return run_check(check, Facts(now, host.pid, "timer", given, before, samples))


def test_every_check_has_a_triggering_and_a_passing_host() -> None:
    assert set(CASES) == set(BY_ID)
    assert all(case.bad for case in CASES.values())


@pytest.mark.parametrize("check_id", BY_ID)
def test_a_check_says_why_what_when_and_whence(check_id: str) -> None:
    check = BY_ID[check_id]
    assert re.fullmatch(r"[A-Z][A-Z0-9_]+", check.id)
    assert check.title
    assert not check.title.endswith(".")
    assert check.why.endswith(".")
    assert check.solution.endswith(".")
    assert check.threshold.rule
    assert check.threshold.source


def test_profiles_name_checks_that_exist() -> None:
    assert {name for profile in PROFILES.values() for name in profile} <= set(BY_ID)


def bad_cases() -> list[tuple[str, int]]:
    return [(check_id, index) for check_id, case in CASES.items() for index in range(len(case.bad))]


@pytest.mark.parametrize(("check_id", "index"), bad_cases())
def test_a_bad_value_is_an_issue_with_its_severity_and_a_remedy(check_id: str, index: int) -> None:
    severity, host = CASES[check_id].bad[index]
    result = run(check_id, host)
    assert (result.status, result.severity, result.reason) == (Status.ISSUE, severity, None)
    assert result.description
    assert result.description.endswith(".")
    assert result.solution
    assert result.solution.endswith(".")
    assert result.evidence
    if result.actor is Actor.HOST_OPERATOR:
        assert result.solution.startswith("ask the host operator: ")
        assert result.commands.now == result.commands.persist == ()


@pytest.mark.parametrize("check_id", CASES)
def test_a_good_value_passes(check_id: str) -> None:
    result = run(check_id, CASES[check_id].good)
    assert (result.status, result.reason) == (Status.PASS, None)
    assert result.description


@pytest.mark.parametrize("check_id", CASES)
def test_an_absent_subject_is_unobservable_with_a_reason(check_id: str) -> None:
    case = CASES[check_id]
    kind, _, name = case.subject.partition(" ")
    host, base, measured = case.good, TUNED, None
    if kind == "syscalls":
        host = replace(host, syscalls={k: v for k, v in host.syscalls.items() if k != name})
        base = base.with_syscalls({name: None} if name != "limits" else {"limits": {}})
    elif kind == "measured":
        nothing: dict[str, Any] = {name: {} if name == "costs" else None}
        measured = replace(GOOD, **nothing, reasons={name: "it failed"})
    else:
        base = base.with_files(host.files, host.later)
        host = replace(host, files={}, later={}, absent=(*host.absent, case.subject))
    result = run(check_id, host, base=base, measured=measured)
    assert result.status is Status.UNOBSERVABLE
    assert result.reason


FILE_CASES = {check_id: case for check_id, case in CASES.items() if " " not in case.subject}


@pytest.mark.parametrize("number", [errno.EPERM, errno.EINVAL])
@pytest.mark.parametrize("check_id", FILE_CASES)
def test_a_refused_file_is_unobservable(check_id: str, number: int) -> None:
    case = FILE_CASES[check_id]
    result = run(check_id, case.good, refuse=case.subject, number=number)
    assert result.status is Status.UNOBSERVABLE
    assert result.reason


@pytest.mark.parametrize("check_id", FILE_CASES)
def test_garbage_is_never_a_pass_and_never_an_error(check_id: str) -> None:
    case = FILE_CASES[check_id]
    base = TUNED.without(*case.good.absent).with_files(case.good.files, case.good.later)
    paths = [path for path in base.files if re.fullmatch(case.subject, path)]
    assert paths
    for text in GARBAGE:
        spoiled = base.with_files(dict.fromkeys(paths, text))
        host = replace(case.good, files={}, later={}, absent=())
        result = run(check_id, host, base=spoiled)
        tolerated = {Status.UNOBSERVABLE}
        if case.lenient and text.strip("\n\0"):
            tolerated |= {Status.ISSUE, Status.NOT_APPLICABLE, Status.PASS}
        elif case.cpus and text == "\n":
            # A line without a CPU is what the kernel writes for none.
            tolerated |= {Status.ISSUE, Status.NOT_APPLICABLE, Status.PASS}
        assert result.status in tolerated, (text, result)


def test_captured_measured_checks_are_unobservable_offline(tmp_path: Path) -> None:
    TUNED.build(tmp_path)
    diagnosis = diagnose(Request(sysroot=str(tmp_path)))
    offline = {result.id for result in diagnosis.checks if result.reason == "not measured"}
    assert offline == {
        "CLOCK_READ_COST",
        "TSC_CALIBRATION",
        "TSC_CPU_SKEW",
        "MITIGATIONS_COST",
        "HYPERVISOR_NOISE",
        "GUEST_KICK_COST",
        "FSYNC_COST",
    }
    assert diagnosis.measurements_reason is not None
    assert diagnosis.measurements_reason.startswith("offline")


@pytest.mark.parametrize(
    ("cost_ns", "status"),
    [(100.0, Status.PASS), (150.0, Status.UNOBSERVABLE), (200.0, Status.UNOBSERVABLE), (201.0, Status.ISSUE)],
)
def test_a_clock_read_between_100_and_200_ns_is_not_decided(cost_ns: float, status: Status) -> None:
    assert run("CLOCK_READ_COST", Host(measured=costs(monotonic=cost_ns))).status is status


def test_no_steal_is_said_to_be_below_the_resolution(tmp_path: Path) -> None:
    result = run("CPU_STEAL", Host(GUEST))
    assert "below the resolution of 10 ms" in str(result.description)


def test_severity_of_an_issue_is_that_of_the_profile(tmp_path: Path) -> None:
    TUNED.with_files({"sys/devices/system/cpu/nohz_full": "\n"}).build(tmp_path)
    found = {
        profile: next(
            r
            for r in diagnose(Request(sysroot=str(tmp_path), profile=profile)).checks
            if r.id == "NOHZ_FULL_OFF"
        )
        for profile in ("busy-poll", "network", "ci")
    }
    assert found["busy-poll"].severity is Severity.HIGH
    assert found["network"].severity is Severity.MEDIUM
    assert found["ci"].status is Status.NOT_APPLICABLE


def test_the_hot_threads_are_sent_to_the_fast_cores() -> None:
    _, host = CASES["CPU_HETEROGENEOUS"].bad[0]
    assert run("CPU_HETEROGENEOUS", host).commands.now == ("taskset -acp 4-7 PID",)
