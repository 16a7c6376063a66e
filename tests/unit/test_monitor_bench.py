"""The bench: what is kept of a section, what disturbed it, several runs as one, and what its target misses mean."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfctl.bench.disturbance import DISTURBED, lost_share, waited_ns
from cfctl.bench.workers import Worker, require_alive, workers
from cfctl.bench.workload import ROLES, WAITING
from cfctl.diagnose.record import Actor, Status
from cfctl.errors import InputError, StateError
from cfctl.host.view import HostView
from cfctl.monitor.bench import (
    PLANS,
    Bench,
    BenchDocument,
    Plan,
    Section,
    chosen,
    failed,
    judged,
    merged,
    plans_for,
    section_of,
)
from cfctl.monitor.check import InconclusivePolicy, run_check
from cfctl.monitor.explain import explained
from cfctl.monitor.measuring import of_its_life
from cfctl.monitor.metric import gauges
from cfctl.monitor.repeats import combined, median_of
from cfctl.monitor.snapshot import Collector, Distribution, Series, Snapshot
from cfctl.monitor.targets import BUILT_IN_TARGETS, Operator, Target, TargetSeverity
from cfctl.records import Measurement, Verdict

SECOND_NS = 10**9
BY_NAME = {target.name: target for target in BUILT_IN_TARGETS}


def measured(value: float, unit: str = "ns", uncertainty: float | None = 0.0) -> Measurement:
    return Measurement(value, unit, uncertainty, 2, "planted")


def ratio(value: float) -> Measurement:
    return measured(value, "ratio")


@pytest.mark.parametrize(
    ("waited", "busy", "own", "steal", "expected"),
    [
        (0, 2.0, 2.0, 0.0, 0.0),  # alone
        (0.5, 2.0, 1.5, 0.0, 0.5),  # others had what was waited for
        (0.5, 2.0, 1.9, 0.0, 0.1),  # it waited for itself, but for what others had
        (0.5, 1.0, 1.0, 0.0, 0.0),  # two of its own on one CPU
        (0, 2.0, 1.7, 0.3, 0.3),  # the hypervisor
        (0.1, 3.0, 1.0, 0.2, 0.3),  # more CPUs than it needs
    ],
)
def test_what_is_lost_is_what_was_stolen_and_what_was_waited_for_while_others_ran(
    waited: float, busy: float, own: float, steal: float, expected: float
) -> None:
    found = lost_share(
        waited_ns=round(waited * SECOND_NS), window_ns=SECOND_NS, busy_cpus=busy, own_cpus=own, steal_cpus=steal
    )  # fmt: skip
    assert found.value == pytest.approx(expected)


def test_what_the_kernel_does_not_tell_is_no_loss_of_zero() -> None:
    assert lost_share(waited_ns=None, window_ns=1, busy_cpus=1, own_cpus=1, steal_cpus=0).reason
    assert lost_share(waited_ns=1, window_ns=1, busy_cpus=None, own_cpus=1, steal_cpus=0).reason


def test_the_wait_is_of_all_threads_of_all_processes(tmp_path: Path) -> None:
    for pid, thread, wait in ((1, 1, 5), (1, 7, 20), (2, 2, 300)):
        directory = tmp_path / f"proc/{pid}/task/{thread}"
        directory.mkdir(parents=True)
        (directory / "schedstat").write_text(f"1000 {wait} 3\n")
    assert waited_ns([1, 2], HostView(tmp_path)) == 325
    assert waited_ns([1, 3], HostView(tmp_path)) is None


@given(st.lists(st.floats(min_value=1, max_value=1e6), min_size=1, max_size=30))
def test_the_median_of_runs_lies_within_them_and_its_error_reaches_no_farther_than_they_do(
    values: list[float],
) -> None:
    found = median_of([measured(value) for value in values])
    assert found.value is not None
    assert found.uncertainty is not None
    assert min(values) <= found.value <= max(values)
    assert found.uncertainty <= max(values) - min(values)
    if len(values) < 6:
        assert found.uncertainty == pytest.approx(max(max(values) - found.value, found.value - min(values)))


def test_one_disturbed_run_of_ten_does_not_move_the_verdict_but_one_of_two_makes_it_inconclusive() -> None:
    target = Target("t", "m", Operator.BELOW, 10.0, "ns", TargetSeverity.CRITICAL)
    calm, stalled = measured(5.0, uncertainty=0.1), measured(5000.0, uncertainty=10.0)
    assert target.judge(median_of([*[calm] * 9, stalled])) is Verdict.PASS
    assert target.judge(median_of([calm, stalled])) is Verdict.INCONCLUSIVE


def test_a_median_is_missing_when_half_of_the_runs_have_none_and_unsure_when_none_knows_its_error() -> None:
    none = Measurement.missing("ns", "low n")
    assert median_of([measured(1.0), none]).reason == "low n"
    assert median_of([measured(1.0), measured(3.0), none]).value == 2.0
    assert median_of([measured(1.0, uncertainty=None)] * 2).uncertainty is None


def test_runs_are_joined_by_metric_and_labels_whatever_the_pid() -> None:
    runs = [
        Snapshot(0, SECOND_NS, (Series("m", measured(value), (("pid", str(pid)), ("topic", "a"))),))
        for pid, value in enumerate((1.0, 3.0, 2.0))
    ]
    found = combined(runs)
    assert [series.measurement.value for series in found.series] == [2.0]
    assert found.window_ns == 3 * SECOND_NS
    assert combined(runs[:1]) is runs[0]


PLAN = Plan("throughput", "What.", ("receive", "publish"), 2.0, ("message_rate", "memory_rss", "cpu_utilization"), "publish")  # fmt: skip
PIDS = {"receive": 10, "publish": 11}


def snapshot(window_s: float = 2.0, busy: float = 0.5, own: float = 0.5, spun_ns: float = 0.0) -> Snapshot:
    """Return a snapshot of a machine with 4 CPUs; `own` of one is what each of two processes takes."""
    series = [Series("cpu_core_utilization", ratio(busy), (("cpu", str(cpu)),)) for cpu in range(4)]
    series += [Series("cpu_utilization", ratio(busy)), Series("cpu_steal", ratio(0.0))]
    series += [Series("process_cpu", ratio(own), (("pid", str(pid)),)) for pid in PIDS.values()]
    series += [Series("memory_rss", measured(pid * 1e6, "B"), (("pid", str(pid)),)) for pid in PIDS.values()]
    labels = (("pid", "10"), ("process", "p"), ("topic", "bench 1 throughput"))
    series.append(Series("message_rate", measured(2e6, "1/s"), labels, "subscriptions"))
    waiting = Distribution("operation_duration", (), 1, spun_ns, (("pid", "10"), ("operation", WAITING)))
    return Snapshot(0, round(window_s * SECOND_NS), tuple(series), (), (waiting,))


def section(last: Snapshot, waited: int | None = 0, usable: int = 4) -> Section:
    return section_of(PLAN, snapshot(spun_ns=1e9), last, PIDS, waited, usable)


def value(found: Section, metric: str) -> float | None:
    (series,) = (s for s in found.series if s.metric == metric)
    return series.measurement.value


def test_a_section_keeps_its_metrics_and_the_publishers_memory_under_a_name_that_no_run_changes() -> None:
    found = section(snapshot())
    assert {series.metric for series in found.series} == {"message_rate", "memory_rss", "cpu_utilization"}
    assert value(found, "memory_rss") == 11e6
    assert {s.labels for s in found.series if s.metric != "cpu_utilization"} == {(("section", "throughput"),)}


def test_time_that_was_spun_on_purpose_is_shown_apart_and_not_judged() -> None:
    found = section(snapshot(busy=0.85, own=1.0, spun_ns=2.6e9))
    assert found.spun.value == pytest.approx(0.8)
    assert value(found, "cpu_utilization") == pytest.approx(0.65)
    document = BenchDocument((found,))
    assert "spin-waiting" in document.notes()[0]
    verdicts = judged([BY_NAME["cpu-utilization"]], document, InconclusivePolicy.REPORT)
    assert verdicts.verdict is Verdict.PASS
    assert verdicts.notes == document.notes()


def test_where_the_bench_occupies_all_cpus_their_utilization_is_inconclusive_with_the_reason() -> None:
    found = section(snapshot(busy=0.99, own=0.95), usable=2)
    result = judged([BY_NAME["cpu-utilization"]], BenchDocument((found,)), InconclusivePolicy.REPORT)
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "itself occupies all 2 CPUs" in str(result.results[0].measurement.reason)


def test_a_miss_while_others_took_the_cpu_is_inconclusive_and_a_pass_stays_one() -> None:
    slow = replace(snapshot(busy=1.0, own=0.5), series=(
        *(s for s in snapshot(busy=1.0, own=0.5).series if s.metric != "message_rate"),
        Series("message_rate", measured(5e5, "1/s"), (("pid", "10"),)),
    ))  # fmt: skip
    calm, disturbed = section(slow, waited=0), section(slow, waited=SECOND_NS)
    assert (calm.disturbed, disturbed.disturbed) == (False, True)
    targets = [BY_NAME["throughput"], BY_NAME["memory"]]

    def verdicts(found: Section) -> list[str]:
        results = judged(targets, BenchDocument((found,)), InconclusivePolicy.REPORT).results
        return [str(result.verdict) for result in results]

    assert verdicts(calm) == ["fail", "pass"]
    assert verdicts(disturbed) == ["inconclusive", "pass"]
    fast = section(snapshot(busy=1.0, own=0.5), waited=SECOND_NS)
    assert verdicts(fast) == ["pass", "pass"]
    assert any("took 0.50 CPUs" in note for note in BenchDocument((fast,)).notes())


def test_memory_that_is_too_large_is_a_miss_however_busy_the_machine_is() -> None:
    target = replace(BY_NAME["memory"], threshold=1e6)
    found = section(snapshot(busy=1.0, own=0.5), waited=SECOND_NS)
    assert judged([target], BenchDocument((found,)), InconclusivePolicy.REPORT).verdict is Verdict.FAIL


def run_with(rate: float, lost: float, problem: str | None = None) -> BenchDocument:
    if problem:
        return BenchDocument((failed(PLAN, problem),))
    series = Series("message_rate", measured(rate, "1/s"), (("section", "throughput"),))
    return BenchDocument((Section("throughput", "", SECOND_NS, (series,), ratio(lost), ratio(0.0)),))


def test_of_several_runs_those_that_nothing_disturbed_are_taken_where_there_are_any() -> None:
    runs = [run_with(1.0, 0.5), run_with(7.0, DISTURBED / 2), run_with(2.0, 0.4), run_with(9.0, 0.0)]
    found = merged(runs)
    assert found.sections[0].series[0].measurement.value == 8.0
    assert (found.sections[0].disturbed, found.runs) == (False, 4)
    busy = merged([runs[0], runs[2]])
    assert busy.sections[0].series[0].measurement.value == 1.5
    assert busy.sections[0].disturbed


def test_a_run_that_failed_is_left_out_and_all_of_them_failing_is_a_problem() -> None:
    found = merged([run_with(0, 0, "killed"), run_with(5.0, 0.0)])
    assert (found.sections[0].problem, found.sections[0].series[0].measurement.value) == (None, 5.0)
    assert merged([run_with(0, 0, "killed")] * 2).sections[0].problem == "killed"


def test_what_a_failed_section_is_for_is_inconclusive_with_its_reason_also_for_a_users_threshold() -> None:
    own = replace(BY_NAME["throughput"], source="cfctl.toml:1")
    for target in (BY_NAME["throughput"], own):
        found = judged([target], run_with(0, 0, "It was killed."), InconclusivePolicy.REPORT)
        assert found.verdict is Verdict.INCONCLUSIVE
        assert found.results[0].measurement.reason == "It was killed."


def test_a_target_of_a_users_own_program_is_not_applicable_to_the_bench_unless_it_is_named() -> None:
    own = Target("mine", "operation_p99", Operator.BELOW, 5.0, "ns", TargetSeverity.CRITICAL, "cfctl.toml:1", (("operation", "parse"),))  # fmt: skip
    met = run_with(5e6, 0.0)
    both = judged([own, BY_NAME["throughput"]], met, InconclusivePolicy.REPORT)
    assert (both.verdict, [each.target.name for each in both.not_applicable]) == ("pass", ["mine"])
    assert judged([own], met, InconclusivePolicy.REPORT, named=True).verdict is Verdict.INCONCLUSIVE


def test_every_built_in_target_has_a_section_that_measures_it() -> None:
    for target in BUILT_IN_TARGETS:
        assert len(plans_for([target.metric])) == 1
    assert plans_for(target.metric for target in BUILT_IN_TARGETS)[0] is PLANS[0]
    assert all(role in ROLES for plan in PLANS for role in plan.roles)
    for plan in PLANS:
        assert any(plan.concerns(metric) for metric in gauges())


def test_sections_are_chosen_by_name_and_an_unknown_one_is_refused() -> None:
    assert [plan.name for plan in chosen(["pool", "latency"])] == ["latency", "pool"]
    assert chosen([]) == PLANS
    with pytest.raises(InputError, match="There are: throughput, latency"):
        chosen(["bus"])


def test_a_section_whose_processes_fail_does_not_keep_the_others_from_being_measured() -> None:
    @contextlib.contextmanager
    def start(roles: Sequence[str], topic: str) -> Iterator[dict[str, Worker]]:
        if roles:
            raise StateError("No space left.")
        yield {}

    began: list[str] = []
    plans = chosen(["pool", "clock"])
    found = Bench(plans, began=lambda plan: began.append(plan.name), sleep=lambda _: None, start=start).run()
    assert began == ["pool", "clock"]
    assert [each.problem for each in found.sections] == ["No space left.", None]
    assert found.snapshot().problems == ("pool: No space left.",)


def test_no_process_of_the_bench_runs_while_the_clock_settles(monkeypatch: pytest.MonkeyPatch) -> None:
    settling: list[tuple[tuple[int, ...] | None, bool]] = []

    class Asked(Collector):
        def __post_init__(self) -> None:
            settling.append((self.subject.pids, self.subject.settle))
            self.subject = replace(self.subject, settle=False)
            super().__post_init__()

    monkeypatch.setattr("cfctl.monitor.bench.Collector", Asked)
    monkeypatch.setattr("cfctl.monitor.bench._calibrated", lambda: None)

    @contextlib.contextmanager
    def start(roles: Sequence[str], topic: str) -> Iterator[dict[str, Worker]]:
        with workers(roles and ("operate",), topic) as started:
            yield started

    Bench(chosen(["pool", "clock"]), settle=True, sleep=lambda _: None, start=start).run()
    assert [(bool(pids), settle) for pids, settle in settling] == [(True, False), (False, True)]


@dataclass(frozen=True)
class Issue:
    """What a diagnosis says, as far as a cause takes it."""

    id: str
    status: Status = Status.ISSUE
    actor: Actor = Actor.YOU
    title: str = "A title"
    description: str = "It was seen."
    solution: str = "Mend it."


def test_each_miss_gets_the_gravest_issue_that_can_be_its_cause_by_one_diagnosis() -> None:
    asked: list[Any] = []

    def diagnosis(request: Any) -> Any:
        asked.append(request)
        return SimpleNamespace(checks=[Issue("RSS_TARGET"), Issue("RUN_DELAY"), Issue("CPU_STEAL")])

    found = Snapshot(0, 1, (
        Series("memory_rss", measured(1e9, "B"), (("pid", "1"),)), Series("cpu_utilization", ratio(0.99)),
        Series("temporal_accuracy", measured(0.1)), Series("phase_coherence", ratio(0.1)),
    ))  # fmt: skip
    document = explained(run_check(BUILT_IN_TARGETS, found), 1, diagnosis)
    causes = {r.target.name: r.cause.check if r.cause else None for r in document.results}
    assert causes == {
        "memory": "RSS_TARGET", "cpu-utilization": "RUN_DELAY", "temporal-accuracy": None, "phase-coherence": "RUN_DELAY",
    }  # fmt: skip
    assert (len(asked), asked[0].pid, asked[0].measure) == (1, 1, False)
    texts = {judgement.name: judgement.text for judgement in document.judgements()}
    assert texts["memory"].endswith("Cause: RSS_TARGET: It was seen. Mend it.")


def test_what_kept_the_machine_busy_is_told_with_a_miss_that_is_inconclusive_for_it() -> None:
    found = Snapshot(0, 1, (Series("cpu_utilization", ratio(0.99)),))
    doubted = run_check([BY_NAME["cpu-utilization"]], found, doubts={("cpu_utilization", ()): "Busy."})

    def diagnosis(_request: Any) -> Any:
        return SimpleNamespace(checks=[Issue("RUN_QUEUE_SATURATED")])

    (result,) = explained(doubted, None, diagnosis).results
    assert result.verdict is Verdict.INCONCLUSIVE
    assert result.cause is not None


def test_without_a_miss_nothing_is_diagnosed() -> None:
    def diagnosis(_request: Any) -> Any:
        raise AssertionError("nothing to explain")

    met = run_check([BY_NAME["memory"]], Snapshot(0, 1, (Series("memory_rss", measured(1e6, "B")),)))
    assert explained(met, None, diagnosis) == met


def test_of_an_ended_process_what_its_segment_holds_is_judged_and_nothing_of_the_machine() -> None:
    labels = (("pid", "1"), ("process", "p"), ("topic", "t"))
    life = of_its_life(Snapshot(0, 0, (
        Series("message_latency_p99", measured(500.0), labels), Series("cpu_utilization", ratio(0.1)),
        Series("memory_rss", measured(1.0, "B"), (("pid", "1"),)),
    )))  # fmt: skip
    found = run_check([BY_NAME["latency-p99"], BY_NAME["memory"]], life)
    assert [(r.verdict, r.measurement.reason) for r in found.results] == [
        ("pass", None), ("inconclusive", "The process of the segment has ended."),
    ]  # fmt: skip


@pytest.mark.host
def test_a_process_of_the_bench_that_is_killed_is_named_with_its_signal_and_none_outlives_the_block(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CFCTL_SEGMENT_DIR", str(tmp_path / "segments"))
    with workers(("operate", "take_and_return"), "a test") as started:
        require_alive(started)
        started["operate"].kill()
        started["operate"].wait(60)
        with pytest.raises(StateError, match=r"'operate' did not work\. It ended with signal 9"):
            require_alive(started)
    assert all(worker.poll() is not None for worker in started.values())
    # What was killed could not remove its segment.
    left = {path.name.partition("-")[0] for path in (tmp_path / "segments").glob("*.seg")}
    assert left == {str(started["operate"].pid)}


@pytest.mark.host
def test_a_process_of_the_bench_that_can_not_start_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CFCTL_SEGMENT_DIR", "/proc/no/such/directory")
    with (
        pytest.raises(StateError, match="no segment can be made in /proc/no"),
        workers(("operate",), "a test"),
    ):
        pass
