"""Comparisons: the rule of noise and threshold, each kind, and what is refused."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfctl.compare.comparison import (
    Change,
    Direction,
    Figure,
    Good,
    Threshold,
    comparison,
    judged,
)
from cfctl.compare.files import compare_files, kinds, load_document
from cfctl.compare.probe import compare as compare_probes
from cfctl.diagnose.run import Request, diagnose
from cfctl.errors import InputError, UnobservableError
from cfctl.records import Verdict, to_json, to_plain
from tests.hosts.fake_host import FakeHost

if TYPE_CHECKING:
    from pathlib import Path

NS = st.floats(0, 1e12)
ERROR = st.floats(0, 1e9)
HOST = {"cpu_brand": "A", "machine": "x86_64", "kernel": "6.1", "virtualisation": "none", "container": "none"}


def change(base: Figure, new: Figure, *thresholds: str, good: Good = Good.LOWER) -> Change:
    return judged("loop", "p99", "ns", base, new, [Threshold.parse(text) for text in thresholds], good)


@pytest.mark.parametrize(
    ("base", "new", "direction", "verdict"),
    [
        (100, 100, Direction.SAME, Verdict.PASS),
        (100, 103, Direction.WORSE, Verdict.PASS),
        (100, 105.5, Direction.WORSE, Verdict.INCONCLUSIVE),
        (100, 120, Direction.WORSE, Verdict.FAIL),
        (100, 80, Direction.BETTER, Verdict.PASS),
    ],
)
def test_the_whole_interval_decides_over_the_limit_of_5_percent(
    base: float, new: float, direction: Direction, verdict: Verdict
) -> None:
    found = change(Figure.within(base, 1), Figure.within(new, 1))
    assert (found.direction, found.verdict) == (direction, verdict)
    assert found.difference == new - base


def test_errors_of_both_sides_add_in_quadrature() -> None:
    found = change(Figure.within(100, 3), Figure.within(200, 4))
    assert found.interval == (95, 105)


def test_both_parts_of_a_threshold_have_to_be_exceeded() -> None:
    base, new = Figure.within(100, 1), Figure.within(150, 1)
    assert change(base, new, "p99:10%").verdict is Verdict.FAIL
    assert change(base, new, "p99:10%:200ns").verdict is Verdict.PASS
    assert change(base, new, "p99:80%:20ns").verdict is Verdict.PASS
    assert change(base, new, "p50:80%").verdict is Verdict.FAIL
    assert change(base, new, "loop *:80%").verdict is Verdict.PASS


def test_more_is_better_for_a_throughput_and_any_move_is_worse_for_a_rate() -> None:
    base, more = Figure.within(100, 1), Figure.within(150, 1)
    assert change(base, more, good=Good.HIGHER).direction is Direction.BETTER
    assert change(more, base, good=Good.HIGHER).verdict is Verdict.FAIL
    assert change(base, more, good=Good.STEADY).verdict is Verdict.FAIL
    assert change(more, base, good=Good.STEADY).verdict is Verdict.FAIL
    assert change(base, base, good=Good.STEADY).verdict is Verdict.PASS


def test_what_was_not_measured_or_has_no_noise_is_inconclusive_with_the_reason() -> None:
    figure = Figure.within(100, 1)
    missing = change(figure, Figure.missing("low n"))
    assert (missing.verdict, missing.new, missing.difference) == (Verdict.INCONCLUSIVE, None, None)
    assert missing.reason == "not in the new result: low n"
    unknown = change(figure, Figure.within(200, None))
    assert (unknown.verdict, unknown.difference, unknown.interval) == (Verdict.INCONCLUSIVE, 100, None)
    assert "its error is not known" in unknown.reason


def test_several_runs_give_their_median_and_cover_all_their_intervals() -> None:
    runs = [Figure.within(10, 1), Figure.within(14, 1), Figure.within(11, None)]
    assert Figure.pooled(runs) == Figure(11, (9, 15))
    assert Figure.pooled([*runs, Figure.missing("low n")]).value is None


@given(NS, ERROR, NS, ERROR)
def test_swapping_the_sides_swaps_better_and_worse(base: float, low: float, new: float, high: float) -> None:
    one, other = Figure.within(base, low), Figure.within(new, high)
    there, back = change(one, other), change(other, one)
    swapped = {Direction.WORSE: Direction.BETTER, Direction.BETTER: Direction.WORSE}
    assert back.direction is swapped.get(there.direction, Direction.SAME)
    assert not (there.verdict is Verdict.FAIL and back.verdict is Verdict.FAIL)


@given(NS, ERROR)
def test_an_unchanged_figure_never_fails(value: float, error: float) -> None:
    found = change(Figure.within(value, error), Figure.within(value, error))
    assert found.direction is Direction.SAME
    assert found.verdict is not Verdict.FAIL


@given(st.text(max_size=20))
def test_a_threshold_is_parsed_or_refused_with_a_message(text: str) -> None:
    try:
        found = Threshold.parse(text)
    except InputError:
        return
    assert found.ratio >= 0
    assert found.absolute >= 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("p99:10%:200ns", Threshold("p99", 0.1, 200, "ns")),
        ("p99 : 0.1 : 2us", Threshold("p99", 0.1, 2000, "ns")),
        ("gap_rate:5%:3", Threshold("gap_rate", 0.05, 3, "")),
        ("CPU 0 *:1%:2Hz", Threshold("CPU 0 *", 0.01, 2, "Hz")),
        ("rss:10%:1MiB", Threshold("rss", 0.1, 1 << 20, "B")),
    ],
)
def test_thresholds_are_written_as_metric_ratio_difference(text: str, expected: Threshold) -> None:
    assert Threshold.parse(text) == expected


@pytest.mark.parametrize(
    "text", ["", "p99", ":10%", "p99:ten", "p99:10%:5:5", "p99:-1%", "p99:1%:-5ns", "p:1%:5xy"]
)
def test_a_bad_threshold_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        Threshold.parse(text)


def test_a_threshold_in_another_unit_is_refused() -> None:
    with pytest.raises(InputError, match="is in B"):
        change(Figure.within(1, 1), Figure.within(1, 1), "p99:1%:5kB")


def test_regressions_come_first_and_decide_the_verdict() -> None:
    good, worse = Figure.within(100, 1), Figure.within(200, 1)
    changes = [change(good, good), change(good, Figure.missing("gone")), change(good, worse)]
    found = comparison("test", changes)
    assert [c.verdict for c in found.changes] == [Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.PASS]
    assert (found.verdict, found.reason) == (Verdict.FAIL, "1 of 3 figures are worse beyond their limit")
    assert comparison("test", changes[:2]).verdict is Verdict.INCONCLUSIVE
    assert comparison("test", changes[:1]).verdict is Verdict.PASS
    assert comparison("test", []).verdict is Verdict.INCONCLUSIVE


# Files and kinds.


def saved(path: Path, document: dict[str, Any]) -> Path:
    path.write_text(json.dumps(document))
    return path


def wakeup(p50: int = 50_000, count: int = 10_000, **more: Any) -> dict[str, Any]:
    """Return a wake-up result whose samples all lie in the bucket of `p50`."""
    bucket = 128 + ((p50.bit_length() - 8) << 7) + (p50 >> (p50.bit_length() - 8)) - 128
    percentiles: list[dict[str, Any]] = [
        {"quantile": q, "value_ns": float(p50), "uncertainty_ns": 1.0, "reason": None} for q in (0.5, 0.99)
    ]
    percentiles.append({"quantile": 0.9999999, "value_ns": None, "uncertainty_ns": None, "reason": "low n"})
    histogram = {
        "raw_unit": "ns", "ns_per_raw": 1.0, "sub_bits": 7, "out_of_range": 0, "buckets": [[bucket, count]],
    }  # fmt: skip
    distribution = {"sample_count": count, "percentiles": percentiles, "histogram": histogram}
    document = {
        "schema": "cfctl.probe.wakeup", "version": 1, "cpus": [{"cpu": 0, "distribution": distribution}],
        "interval_ns": 200_000, "contaminated": False, "host": HOST,
    }  # fmt: skip
    return {**document, **more}


def by_metric(document: Any) -> dict[str, Change]:
    return {f"{c.name} {c.metric}": c for c in document.changes}


def test_a_slower_wakeup_fails_and_a_percentile_neither_measured_is_left_out() -> None:
    found = compare_probes([wakeup()], [wakeup(60_000)], [])
    assert found.verdict is Verdict.FAIL
    assert set(by_metric(found)) == {"CPU 0 p50", "CPU 0 p99"}
    half = by_metric(found)["CPU 0 p50"]
    assert (half.base, half.new, half.difference) == (50_000, 60_000, 10_000)
    assert half.interval is not None
    assert half.interval[0] > 9_000


def test_a_single_disturbed_run_can_not_fail_but_several_can() -> None:
    spoilt = wakeup(60_000, contaminated=True)
    found = compare_probes([wakeup()], [spoilt], [])
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "disturbed by other programs" in found.reason
    assert compare_probes([wakeup(), wakeup()], [spoilt, spoilt], []).verdict is Verdict.FAIL


def test_few_samples_give_a_wide_interval() -> None:
    def spread(count: int) -> float:
        document = wakeup(count=count)
        histogram = document["cpus"][0]["distribution"]["histogram"]
        bucket = histogram["buckets"][0][0]
        # The same samples spread evenly over 64 buckets, the stated percentile in their middle.
        histogram["buckets"] = [[bucket - 32 + i, count // 64] for i in range(64)]
        change = by_metric(compare_probes([document], [document], []))["CPU 0 p50"]
        assert change.interval is not None
        return change.interval[1] - change.interval[0]

    assert spread(640) > 3 * spread(64_000)


def test_probes_of_other_conditions_are_not_compared() -> None:
    with pytest.raises(UnobservableError, match="interval_ns"):
        compare_probes([wakeup()], [wakeup(interval_ns=1_000_000)], [])


@pytest.mark.parametrize(
    "damage",
    [
        lambda d: d.update(cpus=3),
        lambda d: d.update(cpus=[3]),
        lambda d: d["cpus"][0].update(cpu="x"),
        lambda d: d["cpus"][0].update(distribution=None),
        lambda d: d["cpus"][0]["distribution"]["histogram"].update(buckets=[[10**9, 1]]),
        lambda d: d["cpus"][0]["distribution"]["histogram"].update(buckets=[[1]]),
        lambda d: d["cpus"][0]["distribution"]["percentiles"][0].update(value_ns=1e300),
        lambda d: d.pop("interval_ns"),
    ],
)
def test_a_damaged_result_is_refused_with_the_place(damage: Any) -> None:
    document = copy.deepcopy(wakeup())
    damage(document)
    with pytest.raises(InputError, match="can not be compared"):
        compare_probes([document], [wakeup()], [])


def calibration(rate_hz: float = 2.5e9, residual_ns: float = 0.5, **more: Any) -> dict[str, Any]:
    return {
        "schema": "cfctl.calibration", "version": 1, "source": "tsc", "reference": "raw", "verdict": "valid",
        "estimate_hz": rate_hz, "frequency_uncertainty_ppb": 1.0, "residual_ns": residual_ns, "clusters_used": 8,
        "host": HOST, **more,
    }  # fmt: skip


def test_calibrations_within_their_uncertainties_are_the_same(tmp_path: Path) -> None:
    base = saved(tmp_path / "a", calibration())
    same = compare_files([base], [saved(tmp_path / "b", calibration(2.5e9 * (1 + 2e-9)))])
    assert same.verdict is Verdict.PASS
    rate = by_metric(same)["clock estimate_hz"]
    assert rate.direction is Direction.SAME
    assert rate.difference == pytest.approx(5.0, rel=1e-3)
    other = compare_files([base], [saved(tmp_path / "c", calibration(2.5e9 * (1 + 5e-6)))])
    assert by_metric(other)["clock estimate_hz"].verdict is Verdict.FAIL
    worse = compare_files([base], [saved(tmp_path / "d", calibration(residual_ns=20.0))])
    assert by_metric(worse)["clock residual_ns"].verdict is Verdict.FAIL


def test_a_report_of_calibrate_is_a_calibration_in_an_envelope(tmp_path: Path) -> None:
    report = {"schema": "cfctl.calibrate", "version": 1, "calibration": calibration()}
    found = compare_files([saved(tmp_path / "a", report)], [saved(tmp_path / "b", report)])
    assert (found.kind, found.verdict) == ("calibration", Verdict.PASS)
    assert found.hosts is not None
    assert found.hosts.base == HOST


def test_calibrations_of_two_clocks_are_not_compared(tmp_path: Path) -> None:
    other = saved(tmp_path / "b", calibration(reference="realtime"))
    with pytest.raises(UnobservableError, match="reference is raw and realtime"):
        compare_files([saved(tmp_path / "a", calibration())], [other])


def diagnosed(tmp_path: Path, name: str, host: FakeHost) -> Path:
    root = host.build(tmp_path / name)
    path = tmp_path / f"{name}.json"
    path.write_text(to_json(diagnose(Request(sysroot=str(root)))))
    return path


def test_a_fixed_issue_is_better_and_a_new_one_a_regression(tmp_path: Path) -> None:
    tuned = FakeHost.load("bare_tuned")
    before = diagnosed(tmp_path, "before", tuned.with_syscalls({"timer_slack_ns": 50_000}))
    after = diagnosed(tmp_path, "after", tuned)
    found = compare_files([before], [after])
    assert found.verdict is Verdict.PASS
    slack = by_metric(found)["TIMER_SLACK status"]
    assert (slack.direction, slack.base, slack.new, slack.reason) == (
        Direction.BETTER,
        3,
        0,
        "issue (high) -> pass",
    )
    back = compare_files([after], [before])
    assert [c.name for c in back.changes if c.verdict is Verdict.FAIL] == ["TIMER_SLACK"]


def test_diagnoses_of_two_profiles_are_not_compared(tmp_path: Path) -> None:
    base = diagnosed(tmp_path, "base", FakeHost.load("bare_default"))
    document = json.loads(base.read_text())
    other = tmp_path / "other.json"
    other.write_text(json.dumps(document | {"profile": "busy-poll"}))
    with pytest.raises(UnobservableError, match="busy-poll and timer"):
        compare_files([base], [other])


def test_what_is_lost_in_a_second_is_no_time_of_an_event(tmp_path: Path) -> None:
    document = json.loads(diagnosed(tmp_path, "base", FakeHost.load("bare_default")).read_text())
    paths = []
    for name, ns_per_s in (("old", 2e8), ("new", 4e8)):
        costs = {
            "sibling": {"value": ns_per_s, "unit": "ns/s", "uncertainty": 1e6},
            "syscall": {"value": 165.0, "unit": "ns", "uncertainty": 1.0},
        }
        paths.append(tmp_path / f"{name}.json")
        paths[-1].write_text(json.dumps(document | {"measurements": {"costs": costs}}))
    found = {(c.name, c.metric): c for c in compare_files([paths[0]], [paths[1]]).changes}
    lost = found["sibling", "lost"]
    assert (lost.unit, lost.verdict) == ("ratio", Verdict.FAIL)
    assert lost.base == pytest.approx(0.2)
    assert lost.new == pytest.approx(0.4)
    assert found["syscall", "cost"].unit == "ns"


def test_the_latency_of_a_target_is_compared_by_percentile(tmp_path: Path) -> None:
    document = json.loads(diagnosed(tmp_path, "base", FakeHost.load("bare_default")).read_text())

    def with_latency(name: str, p50: int, contaminated: bool = False) -> Path:
        cpu = wakeup(p50)["cpus"][0]
        lane = {"cpu": 0, "distribution": cpu["distribution"], "contaminated": contaminated}
        latency = {"use": "timer", "cpus": [lane]}
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(document | {"measurements": {"costs": {}, "latency": latency}}))
        return path

    slow, fast = with_latency("slow", 60_000), with_latency("fast", 50_000)
    assert by_metric(compare_files([slow], [fast]))["timer CPU 0 p50"].direction is Direction.BETTER
    assert by_metric(compare_files([fast], [slow]))["timer CPU 0 p50"].verdict is Verdict.FAIL
    disturbed = with_latency("disturbed", 60_000, contaminated=True)
    assert by_metric(compare_files([fast], [disturbed]))["timer CPU 0 p50"].verdict is Verdict.INCONCLUSIVE


def test_a_check_that_can_no_longer_observe_is_inconclusive(tmp_path: Path) -> None:
    tuned = FakeHost.load("bare_tuned")
    blind = tuned.without("sys/kernel/mm/transparent_hugepage/enabled")
    found = compare_files([diagnosed(tmp_path, "a", tuned)], [diagnosed(tmp_path, "b", blind)])
    assert by_metric(found)["THP_ALWAYS status"].verdict is Verdict.INCONCLUSIVE
    assert by_metric(found)["THP_ALWAYS status"].new is None


def test_results_of_other_hosts_are_refused_unless_allowed(tmp_path: Path) -> None:
    base = saved(tmp_path / "a", wakeup())
    other = saved(tmp_path / "b", wakeup(host={**HOST, "cpu_brand": "B"}))
    with pytest.raises(UnobservableError, match="cpu_brand differ"):
        compare_files([base], [other])
    found = compare_files([base], [other], allow_different_hosts=True)
    assert found.hosts is not None
    assert found.hosts.different == ("cpu_brand",)
    assert "the hosts differ in cpu_brand" in found.reason
    newer = saved(tmp_path / "c", wakeup(host={**HOST, "kernel": "6.2"}))
    assert "the hosts differ in kernel" in compare_files([base], [newer]).reason
    unknown = saved(tmp_path / "d", wakeup(host=None))
    assert compare_files([base], [unknown]).verdict is Verdict.PASS


def test_a_threshold_that_no_figure_has_is_refused(tmp_path: Path) -> None:
    base = saved(tmp_path / "a", wakeup())
    with pytest.raises(InputError, match=r"'p999'.*p50, p99"):
        compare_files([base], [base], [Threshold.parse("p999:5%")])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "is no JSON"),
        ("[]", "no schema of cfctl"),
        ('{"schema": "other"}', "no schema of cfctl"),
        ('{"schema": "cfctl.probe.wakeup", "x": NaN}', "NaN"),
        ("[" * 100_000, "nested too deeply"),
        ('{"schema": "cfctl.checks", "version": 1}', "It holds a cfctl.checks"),
        ('{"schema": "cfctl.probe.wakeup", "version": 2}', "another version"),
        ('{"schema": "cfctl.probe.wakeup"}', "another version"),
    ],
)
def test_what_is_no_result_is_refused_with_the_reason(tmp_path: Path, content: str, words: str) -> None:
    file = tmp_path / "file"
    file.write_text(content)
    with pytest.raises(InputError) as caught:
        compare_files([file], [file])
    assert words in str(caught.value)


def test_mixed_kinds_are_refused(tmp_path: Path) -> None:
    files = saved(tmp_path / "a", wakeup()), saved(tmp_path / "b", calibration())
    with pytest.raises(InputError, match="two kinds"):
        compare_files(files[:1], files[1:])


def test_missing_huge_and_odd_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        load_document(tmp_path / "none")
    with pytest.raises(InputError, match="can not be read"):
        load_document(tmp_path)
    huge = tmp_path / "huge"
    with huge.open("wb") as file:
        file.truncate((64 << 20) + 1)
    with pytest.raises(InputError, match="more than"):
        load_document(huge)


def test_every_kind_names_schemas_and_says_what_it_does() -> None:
    for schema, kind in kinds().items():
        assert schema.startswith("cfctl.")
        assert kind.compare.__doc__


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6), st.sampled_from(sorted(wakeup())))  # fmt: skip
def test_garbage_in_a_result_is_a_message_or_a_comparison(value: Any, key: str) -> None:
    document = {**wakeup(), key: value, "schema": "cfctl.probe.wakeup"}
    try:
        found = compare_probes([wakeup()], [document], [])
    except (InputError, UnobservableError):
        return
    assert to_plain(found)["schema"] == "cfctl.comparison"
