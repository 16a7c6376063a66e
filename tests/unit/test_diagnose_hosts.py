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
        "budget",
    ]  # fmt: skip
    assert list(document["checks"][0]) == [
        "id", "area", "title", "status", "severity", "actor", "description", "why", "solution", "warning",
        "commands", "evidence", "threshold", "privilege", "reason", "impact_ns_per_s",
        "impact", "verify",
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
