"""cfctl diagnose explain and fix as commands."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from cfctl.cli.app import main
from cfctl.diagnose.engine import catalogue
from cfctl.diagnose.explain import explained
from cfctl.diagnose.record import Area, Status
from tests.hosts.fake_host import FakeHost, MemoryView

if TYPE_CHECKING:
    from pathlib import Path


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main(["diagnose", *arguments])
    out, err = capsys.readouterr()
    assert isinstance(caught.value.code, int)
    return caught.value.code, out, err


def memory_view() -> MemoryView:
    *_, (files, answers) = FakeHost.load("bare_default").moments()
    return MemoryView(files, answers)


def test_every_check_has_a_page_with_what_it_reads() -> None:
    ids = [check.id for check in catalogue()]
    pages = explained(ids, memory_view).pages
    assert [page.check.id for page in pages] == ids
    for page in pages:
        assert page.check.why
        assert page.check.threshold.source
        assert page.verify
        elsewhere = page.here.status is Status.NOT_APPLICABLE or set(page.check.needs) - {"interval"}
        # The bus is what programs write of it: no file of a host.
        assert page.reads or elsewhere or page.check.area is Area.BUS, page.check.id


def test_a_page_says_what_to_do_and_what_it_costs_without_a_host() -> None:
    (page,) = explained(["THP_ALWAYS"], lambda: MemoryView({}, {})).pages
    assert page.here.status is Status.UNOBSERVABLE
    assert page.check.solution == "Use huge pages only where a program asks for them."
    assert page.check.cost == "the cost of huge_fault less page_fault, ns/page fault"
    (refused,) = explained(["FD_LIMIT"], lambda: MemoryView({}, {})).pages
    assert refused.check.cost.startswith("not measured: it does not slow")


def test_a_page_names_files_overrides_and_the_finding_here() -> None:
    (page,) = explained(["THP_ALWAYS"], memory_view).pages
    assert page.reads == ("/sys/kernel/mm/transparent_hugepage/enabled",)
    assert page.here.status == "issue"
    (slack,) = explained(["TIMER_SLACK"], memory_view).pages
    assert slack.overrides.items() >= {"timer": "high", "busy-poll": "low", "ci": "low"}.items()


def test_explain_prints_a_page_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "explain", "timer_slack", "CPU_STEAL")
    assert (code, err) == (0, "")
    assert "The kernel may delay every sleep" in out
    assert "timer: high, busy-poll: low" in out
    assert "verify    cfctl diagnose latency --only TIMER_SLACK" in out
    assert "CPU_STEAL" in out
    assert all(len(line) <= 80 for line in out.splitlines() if not line.startswith("  persist"))
    document = json.loads(run(capsys, "explain", "timer_slack", "--json")[1])
    assert document["schema"] == "cfctl.check-pages"
    assert [page["check"]["id"] for page in document["pages"]] == ["TIMER_SLACK"]


def test_an_unknown_check_offers_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "explain", "THP_DEFRAGG")
    assert (code, out) == (2, "")
    assert "Did you mean THP_DEFRAG?" in err
    assert "--list" in run(capsys, "explain", "XYZZY")[2]
    assert run(capsys, "latency", "--explain", "TIMER_SLACK")[0] == 2


def test_fix_prints_the_script_of_the_chosen_issues(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    root = str(FakeHost.load("bare_default").build(tmp_path / "host"))
    code, out, err = run(capsys, "fix", "--sysroot", root, "--only", "thp_always")
    assert (code, err) == (0, "")
    assert out.startswith("#!/bin/sh\n")
    assert "put madvise /sys/kernel/mm/transparent_hugepage/enabled" in out
    assert out.count("() {\n    case") == 1
    assert run(capsys, "fix", "--sysroot", root, "--skip", "THP_ALWAYS")[1].count("thp_always") == 0
    file = tmp_path / "fix.sh"
    assert run(capsys, "fix", "--sysroot", root, "-o", str(file))[:2] == (0, "")
    assert file.read_text().startswith("#!/bin/sh\n")
    assert run(capsys, "fix", "--only", "NOPE")[0] == 2
