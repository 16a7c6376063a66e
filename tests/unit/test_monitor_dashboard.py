"""The dashboard at two widths, drawn from a fixed history; `python -m tests.unit.test_monitor_dashboard` writes it anew."""

from __future__ import annotations

import io
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cfctl.cli.output import make_console
from cfctl.diagnose.engine import catalogue
from cfctl.diagnose.record import Actor, CheckResult, Status
from cfctl.errors import InputError
from cfctl.monitor.alerts import AlertBook, Cause
from cfctl.monitor.explain import EXPLAINING, explain, explaining
from cfctl.monitor.metric import gauges
from cfctl.monitor.snapshot import History, Series, Snapshot
from cfctl.monitor.targets import BUILT_IN_TARGETS, NoData, Operator, Target, TargetSeverity
from cfctl.monitor.watch import Observation
from cfctl.records import Measurement
from cfctl.render.bars import trend
from cfctl.render.monitor import SECTIONS, Dashboard, summary_line

if TYPE_CHECKING:
    from cfctl.diagnose.run import Request

GOLDEN = Path(__file__).parent.parent / "golden" / "monitor"
WIDTHS = (80, 120)
PROCESS = (("pid", "4242"), ("process", "app"))


def series(second: int) -> tuple[Series, ...]:
    busy = 0.35 + 0.05 * second
    operation = (*PROCESS, ("operation", "parse"))
    labelled = (*PROCESS, ("operation", "load\x1b[31m"), ("queue", "a"))
    return (
        Series("cpu_utilization", Measurement(busy, "ratio", 0.01)),
        Series("cpu_steal", Measurement(0.02, "ratio", 0.01)),
        Series("cpu_throttled", Measurement.missing("ratio", "no governing group counts it")),
        Series("context_switches", Measurement(1234.0 + second, "1/s", 1.0)),
        Series("memory_used", Measurement(1.4e9 + 1e7 * second, "B", 1e6)),
        Series("memory_available", Measurement(2.0e10, "B", 1e6)),
        Series("pressure", Measurement(0.124, "ratio", 0.001), (("resource", "cpu"),)),
        Series("pressure", Measurement(0.0, "ratio", 0.001), (("resource", "io"),)),
        Series("network_received", Measurement(1.2e6, "B/s", 10.0), (("interface", "eth0"),)),
        Series("temporal_accuracy", Measurement(-0.013, "ns", 0.003)),
        Series("calibration_age", Measurement(2e11, "ns", 1e6)),
        Series("memory_rss", Measurement(3.6e7, "B", 8e5), (("pid", "4242"),)),
        Series("process_cpu", Measurement(0.5, "ratio", 0.02), (("pid", "4242"),)),
        Series("operation_rate", Measurement(1510.0, "1/s", 1.0), operation),
        Series("operation_errors", Measurement(0.0123, "ratio", 0.001), operation),
        Series("operation_p50", Measurement(191.0, "ns", 1.0), operation),
        Series("operation_p99", Measurement(5510.0, "ns", 20.0), operation),
        Series("operation_rate", Measurement(12.0, "1/s", 1.0), labelled),
        Series("operation_p99", Measurement.missing("ns", "low n"), labelled),
    )  # fmt: skip


def told(target: Target, found: Series) -> Cause:
    return Cause(
        "CPU_STEAL", "The hypervisor took 9 % of the time.", "Ask the host's operator for whole cores."
    )


def drawn(width: int) -> str:
    targets = tuple(replace(target, for_ns=2 * 10**9) for target in BUILT_IN_TARGETS[:3])
    book, history = AlertBook(targets, told), History()
    observation = None
    for second in range(12):
        snapshot = Snapshot(
            1_800_000_000 * 10**9 + second * 10**9, 10**9, series(second), problems=("x.seg: torn",)
        )
        transitions = book.update(snapshot)
        history.add(snapshot)
        observation = Observation(snapshot, book.alerts(), transitions, targets_current=False)
    assert observation is not None
    stream = io.StringIO()
    console = make_console(None, "never", into=stream)
    console.width = width
    Dashboard(book, history).render(observation, console, None)
    return stream.getvalue()


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    __import__("time").tzset()


def test_many_alerts_of_one_cause_leave_room_and_a_target_about_nothing_is_shown() -> None:
    slow = Target("slow", "operation_p50", Operator.BELOW, 1.0, "ns", TargetSeverity.CRITICAL, for_ns=0)
    gone = replace(slow, name="gone", metric="pool_idle", unit="1")
    book, found = AlertBook((slow, gone, replace(gone, name="idle", no_data=NoData.OK)), told), []
    for number in range(9):
        labels = (*PROCESS, ("operation", f"op{number}"))
        found.append(Series("operation_p50", Measurement(9.0, "ns", 1.0), labels, f"op{number}"))
    snapshot = Snapshot(10**9, 10**9, tuple(found))
    stream = io.StringIO()
    console = make_console(None, "never", into=stream)
    changes = book.update(snapshot)
    Dashboard(book, History()).render(Observation(snapshot, book.alerts(), changes), console, None)
    lines = stream.getvalue().splitlines()
    assert sum("CRITICAL slow" in line for line in lines) == 4
    assert sum(line.startswith("  cause") for line in lines) == 1
    assert "and 5 more alerts" in lines
    assert [line.split()[-2:] for line in lines if line.startswith("gone")] == [["no", "value"]]
    assert not any(line.startswith("idle") for line in lines)


def test_on_a_narrow_terminal_names_give_way_and_no_number_does() -> None:
    target = Target(
        "a-target-of-a-long-name", "operation_p50", Operator.BELOW, 1e6, "ns", TargetSeverity.INFO
    )
    labels = (*PROCESS, ("operation", "a long operation's name"))
    snapshot = Snapshot(10**9, 10**9, (Series("operation_p50", Measurement(2.003e6, "ns", 9.0), labels),))
    book, history = AlertBook((target,)), History()
    book.update(snapshot)
    for _ in range(9):
        history.add(snapshot)
    stream = io.StringIO()
    console = make_console(None, "never", into=stream)
    console.width = 64
    Dashboard(book, history).render(Observation(snapshot, book.alerts(), ()), console, None)
    (row,) = [line for line in stream.getvalue().splitlines() if line.startswith("a-t")]
    assert "2.00 ms" in row
    assert "< 1.00 ms" in row
    assert "pending 0 s" in row
    assert len(row) <= 64


@pytest.mark.parametrize("width", WIDTHS)
def test_the_dashboard_is_as_it_was(width: int) -> None:
    text = drawn(width)
    assert text == (GOLDEN / f"dashboard-{width}.txt").read_text()
    assert max(map(len, text.splitlines())) <= width
    assert "\x1b" not in text


def test_every_section_shows_metrics_that_exist_with_the_label_they_have() -> None:
    for section in SECTIONS:
        for _, metric in section.columns:
            assert section.label in gauges()[metric].labels
        assert section.order in {metric for _, metric in section.columns}


def test_a_trend_is_between_its_least_and_largest_value_and_gaps_are_gaps() -> None:
    assert trend([1.0, 2.0, None, 3.0], 10, plain=False) == "▁▅ █"
    assert trend([5.0, 5.0], 10, plain=True) == "__"
    assert trend(list(range(100)), 4, plain=True) == "_:+#"
    assert trend([None, None], 4, plain=True) == ""


def test_the_line_names_the_alerts_that_fire() -> None:
    snapshot = Snapshot(0, 10**9, (Series("cpu_utilization", Measurement(0.9, "ratio", 0.01)),))
    book = AlertBook((replace(BUILT_IN_TARGETS[1], for_ns=0),))
    book.update(snapshot)
    assert summary_line(Observation(snapshot, book.alerts(), ())).endswith("alerts 1 (cpu-utilization)")


def test_every_check_that_may_explain_a_miss_exists_and_every_metric_was_thought_of() -> None:
    known = {check.id for check in catalogue()}
    assert {name for names in EXPLAINING.values() for name in names} <= known
    assert [name for name in gauges() if not explaining(name)] == []


SERIES = Series("cpu_utilization", Measurement(0.9, "ratio", 0.01), PROCESS)


def test_the_cause_is_the_gravest_issue_of_those_that_can_be_it(kvm_issue: CheckResult) -> None:
    asked: list[Request] = []

    class Found:
        checks = (kvm_issue, replace(kvm_issue, id="LATER"))

    def diagnosis(request: Request) -> object:
        asked.append(request)
        return Found()

    cause = explain(BUILT_IN_TARGETS[1], SERIES, diagnosis)  # type: ignore[arg-type]
    assert cause == Cause(kvm_issue.id, "found", "do (host operator)")
    assert (asked[0].pid, asked[0].measure) == (4242, False)
    assert "CPU_STEAL" in asked[0].only


@pytest.fixture
def kvm_issue() -> CheckResult:
    check = next(check for check in catalogue() if check.id == "CPU_STEAL")
    return CheckResult(
        check.id, check.area, check.title, Status.ISSUE, check.severity, Actor.HOST_OPERATOR, "found", "why", "do",
        None, None, (), check.threshold, None, None, None,  # type: ignore[arg-type]
    )  # fmt: skip


def test_without_a_finding_or_without_the_process_there_is_no_cause() -> None:
    class Nothing:
        checks = ()

    def gone(request: Request) -> object:
        raise InputError("There is no process 4242.")

    assert explain(BUILT_IN_TARGETS[1], SERIES, lambda _: Nothing()) is None  # type: ignore[arg-type,return-value]
    assert explain(BUILT_IN_TARGETS[1], SERIES, gone) is None  # type: ignore[arg-type]


if __name__ == "__main__":
    os.environ["TZ"] = "UTC"
    GOLDEN.mkdir(parents=True, exist_ok=True)
    for wide in WIDTHS:
        (GOLDEN / f"dashboard-{wide}.txt").write_text(drawn(wide))
