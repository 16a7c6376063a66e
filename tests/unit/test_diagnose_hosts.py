"""Complete hosts: what is said about each, compared with tests/golden/diagnose."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from cfctl.diagnose.run import Request, diagnose
from cfctl.records import to_plain
from tests.hosts.fake_host import FakeHost
from tests.hosts.golden import COMPLETE_HOSTS, GOLDEN, outputs

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.mark.parametrize("name", COMPLETE_HOSTS)
def test_the_diagnosis_of_a_host_is_the_golden_one(name: str, tmp_path: Path) -> None:
    for file, text in outputs(name, tmp_path).items():
        assert text == (GOLDEN / file).read_text(), f"python -m tests.hosts.golden ({file})"


def test_a_tuned_host_has_no_issue_and_passes() -> None:
    document = json.loads((GOLDEN / "bare_tuned.json").read_text())
    assert document["verdict"] == "pass"
    assert document["counts"]["issue"] == document["counts"]["error"] == 0


def test_nothing_of_an_empty_host_passes() -> None:
    document = json.loads((GOLDEN / "empty.json").read_text())
    assert document["counts"]["pass"] == document["counts"]["issue"] == document["counts"]["error"] == 0
    assert document["verdict"] == "inconclusive"


def test_a_sandbox_is_named_and_most_of_it_is_unobservable() -> None:
    document = json.loads((GOLDEN / "gvisor.json").read_text())
    found = {check["id"]: check["status"] for check in document["checks"]}
    assert found["SANDBOX_KERNEL"] == "issue"
    assert found["CPU_STEAL"] == found["TIMER_SLACK"] == "unobservable"
    assert document["counts"]["error"] == 0
    assert document["counts"]["unobservable"] > document["counts"]["pass"]


def test_no_check_of_the_tsc_speaks_about_another_architecture() -> None:
    document = json.loads((GOLDEN / "arm64_server.json").read_text())
    found = {check["id"]: check["status"] for check in document["checks"]}
    assert found["CLOCKSOURCE_SLOW"] == found["CLOCKEVENT_DEVICE"] == found["PMU_MISSING"] == "pass"
    assert found["TSC_NOT_INVARIANT"] == found["SPLIT_LOCK_MITIGATE"] == "not_applicable"
    assert document["counts"]["error"] == 0


@pytest.mark.parametrize("name", COMPLETE_HOSTS)
def test_the_first_screen_ends_with_the_list_of_issues(name: str) -> None:
    first = (GOLDEN / f"{name}.txt").read_text().splitlines()[:24]
    detail = [line for line in first if line.startswith("  found ")]
    listed = any(line.startswith("Issues, worst first") for line in first)
    assert listed or not detail


@pytest.mark.parametrize("name", COMPLETE_HOSTS)
def test_every_issue_says_what_it_costs_or_why_that_is_not_known(name: str) -> None:
    for check in json.loads((GOLDEN / f"{name}.json").read_text())["checks"]:
        if check["status"] == "issue":
            assert (check["impact"]["value"] is None) == (check["impact"]["reason"] is not None)
            assert check["verify"].startswith("cfctl ")
        else:
            assert check["impact"] is check["verify"] is None


@pytest.mark.parametrize("name", COMPLETE_HOSTS)
def test_lines_fit_80_columns_except_commands_to_copy(name: str) -> None:
    for line in (GOLDEN / f"{name}.txt").read_text().splitlines():
        is_command = line.startswith(("  now ", "  persist ", " " * 12))
        assert len(line) <= 80 or is_command
        assert line == line.rstrip()


def test_json_has_every_field_of_the_documents(tmp_path: Path) -> None:
    root = FakeHost.load("kvm_guest").build(tmp_path)
    document = to_plain(diagnose(Request(sysroot=str(root))))
    assert list(document) == [
        "schema", "version", "verdict", "verdict_reason", "profile", "fail_on", "required", "sysroot", "pid",
        "interval_s", "host", "measurements", "measurements_reason", "counts", "checks",
        "budget", "subject", "segments",
    ]  # fmt: skip
    assert list(document["checks"][0]) == [
        "id", "area", "title", "status", "severity", "actor", "description", "why", "solution", "warning",
        "commands", "evidence", "threshold", "privilege", "reason", "impact_ns_per_s",
        "impact", "verify", "impact_is_bound",
    ]  # fmt: skip


def test_a_container_is_not_told_to_change_what_it_sees_read_only() -> None:
    document = json.loads((GOLDEN / "docker_quota.json").read_text())
    kernel_wide = [
        c for c in document["checks"] if c["id"] in {"THP_ALWAYS", "TIMER_MIGRATION", "CGROUP_CPU_QUOTA"}
    ]
    assert len(kernel_wide) == 3
    for check in kernel_wide:
        assert check["actor"] == "host operator"
        assert check["commands"] == {"now": [], "persist": []}


def test_issues_are_ordered_by_severity_and_then_by_measured_loss() -> None:
    document = json.loads((GOLDEN / "docker_quota.json").read_text())
    issues = [c for c in document["checks"] if c["status"] == "issue"]
    ranks = [["low", "medium", "high", "critical"].index(c["severity"]) for c in issues]
    assert ranks == sorted(ranks, reverse=True)
    assert issues[0]["id"] == "CGROUP_CPU_THROTTLED"
    assert issues[0]["impact_ns_per_s"] == 225e6
