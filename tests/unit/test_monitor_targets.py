"""Targets, their three verdicts, and the verdict over all."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfctl.errors import ConfigError, InputError
from cfctl.monitor.check import Doubts, InconclusivePolicy, asked, run_check, sentence
from cfctl.monitor.metric import gauges
from cfctl.monitor.snapshot import Series, Snapshot
from cfctl.monitor.target_file import EXAMPLES, read_targets
from cfctl.monitor.targets import (
    BUILT_IN_TARGETS,
    NoData,
    Operator,
    Target,
    TargetSeverity,
    select,
    without_load,
)
from cfctl.records import Measurement, Verdict

finite = st.floats(min_value=-1e9, max_value=1e9)
spread = st.floats(min_value=0, max_value=1e9)


def target(operator: str, threshold: float, severity: str = "critical", name: str = "t") -> Target:
    return Target(name, "m", Operator(operator), threshold, "ns", TargetSeverity(severity))


@pytest.mark.parametrize(
    ("operator", "value", "uncertainty", "expected"),
    [
        ("<", 8, 1, "pass"),
        ("<", 9, 1, "inconclusive"),
        ("<", 11, 1, "fail"),
        ("<=", 9, 1, "pass"),
        ("<=", 10, 1, "inconclusive"),
        ("<=", 12, 1, "fail"),
        (">", 12, 1, "pass"),
        (">", 11, 1, "inconclusive"),
        (">", 9, 1, "fail"),
        (">=", 11, 1, "pass"),
        (">=", 10, 1, "inconclusive"),
        (">=", 8, 1, "fail"),
        ("within", -9, 1, "pass"),
        ("within", 0, 9, "pass"),
        ("within", -9.5, 1, "inconclusive"),
        ("within", 0, 11, "inconclusive"),
        ("within", -12, 1, "fail"),
        ("within", 12, 1, "fail"),
    ],
)
def test_a_verdict_needs_the_whole_interval_on_one_side_of_the_threshold(
    operator: str, value: float, uncertainty: float, expected: str
) -> None:
    assert target(operator, 10).judge(Measurement(value, "ns", uncertainty)) == expected


def test_without_a_value_or_without_an_uncertainty_there_is_no_verdict() -> None:
    assert target("<", 10).judge(Measurement.missing("ns", "why")) is Verdict.INCONCLUSIVE
    assert target("<", 10).judge(Measurement(1.0, "ns")) is Verdict.INCONCLUSIVE


@given(st.sampled_from(list(Operator)), finite, spread, st.floats(min_value=0, max_value=1e9))
def test_a_smaller_uncertainty_never_turns_a_verdict_around(
    operator: Operator, value: float, uncertainty: float, threshold: float
) -> None:
    judged = target(operator, threshold)
    wide = judged.judge(Measurement(value, "ns", uncertainty))
    narrow = judged.judge(Measurement(value, "ns", uncertainty / 2))
    assert wide is Verdict.INCONCLUSIVE or wide is narrow
    assert judged.judge(Measurement(value, "ns", 0.0)) is not Verdict.INCONCLUSIVE


def snapshot(**values: Measurement) -> Snapshot:
    return Snapshot(0, 10**9, tuple(Series(name, value, (), "a test") for name, value in values.items()))


@pytest.mark.parametrize(
    ("value", "severity", "policy", "expected"),
    [
        (5.0, "critical", "report", "pass"),
        (15.0, "critical", "report", "fail"),
        (15.0, "warning", "report", "fail"),
        (15.0, "info", "report", "pass"),
        (None, "warning", "report", "inconclusive"),
        (None, "warning", "pass", "pass"),
        (None, "warning", "fail", "fail"),
        (None, "info", "fail", "pass"),
    ],
)
def test_the_verdict_over_all_follows_severity_and_policy(
    value: float | None, severity: str, policy: str, expected: str
) -> None:
    measured = Measurement.missing("ns", "why") if value is None else Measurement(value, "ns", 1.0)
    document = run_check([target("<", 10, severity)], snapshot(m=measured), InconclusivePolicy(policy))
    assert document.verdict == expected
    assert document.results[0].verdict == (
        "inconclusive" if value is None else "fail" if value > 10 else "pass"
    )


def test_a_missed_target_outweighs_an_inconclusive_one() -> None:
    found = snapshot(m=Measurement(15.0, "ns", 1.0), n=Measurement.missing("ns", "why"))
    other = Target("n", "n", Operator.BELOW, 1.0, "ns", TargetSeverity.CRITICAL)
    assert run_check([other, target("<", 10)], found).verdict is Verdict.FAIL


def test_a_target_judges_each_series_that_its_patterns_match() -> None:
    labels = ((("operation", "parse"),), (("operation", "load"),), (("operation", "lock"),))
    found = Snapshot(
        0,
        1,
        tuple(Series("m", Measurement(5.0 + 10 * n, "ns", 0.1), label) for n, label in enumerate(labels)),
    )
    asked = replace(target("<", 10), where=(("operation", "[pl]o*"),))
    assert [r.labels for r in run_check([asked], found).results] == [labels[1], labels[2]]
    assert [r.verdict for r in run_check([target("<", 10)], found).results] == ["pass", "fail", "fail"]


def test_a_target_that_nothing_matches_is_inconclusive_and_says_what_is_missing() -> None:
    asked = replace(target("<", 10), where=(("operation", "nobody"),))
    found = Snapshot(0, 1, (Series("m", Measurement(5.0, "ns", 0.1), (("operation", "parse"),)),))
    result = run_check([asked], found).results[0]
    assert result.verdict is Verdict.INCONCLUSIVE
    assert result.measurement.reason == "Nothing that has m matches operation nobody."
    assert "has n." in str(run_check([replace(asked, metric="n")], found).results[0].measurement.reason)


@pytest.mark.parametrize(
    ("operator", "value", "expected"), [("<", 7, 3), ("<", 12, -2), (">", 12, 2), ("within", -12, -2)]
)
def test_the_margin_is_what_is_left_to_the_threshold(operator: str, value: float, expected: float) -> None:
    assert target(operator, 10).margin(Measurement(value, "ns", 0.1)) == expected


def test_the_sentence_of_a_result_names_value_error_unit_and_what_was_wanted() -> None:
    document = run_check([target("within", 10)], snapshot(m=Measurement(3.14, "ns", 0.5)))
    assert sentence(document.results[0]) == "m of a test: 3.1 ns ± 0.50 ns, wanted within 10 ns."


def toml(text: str) -> Any:
    return tomllib.loads(text)


def test_a_file_adds_replaces_and_takes_away_targets_by_name() -> None:
    table = toml(
        "cpu-utilization = false\n"
        '[memory]\nmetric = "memory_rss"\noperator = "<"\nthreshold = "2 GiB"\nseverity = "critical"\n'
        '[mine]\nmetric = "cpu_utilization"\noperator = "<="\nthreshold = 0.5\n'
    )
    targets = {t.name: t for t in read_targets([("cfctl.toml", table)])}
    built_in = {target.name for target in BUILT_IN_TARGETS}
    assert set(targets) == built_in - {"cpu-utilization"} | {"mine"}
    assert targets["memory"].threshold == 2 * 2**30
    assert targets["memory"].source == "cfctl.toml"
    assert targets["mine"] == Target(
        "mine", "cpu_utilization", Operator.AT_MOST, 0.5, "ratio", TargetSeverity.WARNING, "cfctl.toml"
    )


def test_a_later_table_goes_before_an_earlier_one() -> None:
    entry = '[memory]\nmetric = "memory_rss"\noperator = "<"\nthreshold = '
    tables = [("user", toml(entry + '"1 GB"')), ("project", toml(entry + '"2 GB"'))]
    assert {t.name: t.threshold for t in read_targets(tables)}["memory"] == 2e9


WHOLE = {"metric": "memory_rss", "operator": "<", "threshold": "1 GB"}


@pytest.mark.parametrize(
    ("entry", "in_message"),
    [
        (5, "no table"),
        (True, "no table"),
        ({}, "no 'metric'"),
        (WHOLE | {"metric": "mood"}, "metric 'mood', which is not known"),
        (WHOLE | {"metric": ["memory_rss"]}, "is not known"),
        (WHOLE | {"operator": "~"}, "operator '~', which is not known"),
        (WHOLE | {"threshold": "1 parsec"}, "can not have threshold '1 parsec'"),
        (WHOLE | {"threshold": "1 ns"}, "can not have threshold '1 ns'"),
        (WHOLE | {"threshold": 5}, "can not have threshold 5"),
        (WHOLE | {"threshold": True}, "can not have threshold True"),
        (WHOLE | {"threshold": "-1 GB"}, "zero or more"),
        (WHOLE | {"severity": "grave"}, "severity 'grave', which is not known"),
        (WHOLE | {"treshold": 1}, "unknown key 'treshold'. Is 'threshold' meant?"),
        (WHOLE | {"metric": "memory_rs"}, "Is 'memory_rss' meant?"),
        (WHOLE | {"for": 5}, "a time with its unit"),
        (WHOLE | {"for": "5 parsec"}, "'5 parsec'"),
        (WHOLE | {"where": {"pid": 5}}, 'label = "pattern"'),
        (WHOLE | {"metric": "memory_used", "where": {"pid": "5"}}, "memory_used has none"),
        (WHOLE | {"recovery": "2 GB"}, "wrong side"),
        (WHOLE | {"operator": ">", "recovery": "0.5 GB"}, "wrong side"),
        (WHOLE | {"no-data": "panic"}, "There are: keep, ok, alert."),
    ],
)
def test_a_target_that_can_not_be_read_names_its_file_and_itself(entry: Any, in_message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_targets([("some.toml", {"mine": entry})])
    assert caught.value.what.startswith("some.toml: target 'mine'")
    assert in_message in str(caught.value)


def test_targets_that_are_no_table_name_their_file() -> None:
    with pytest.raises(ConfigError, match=r"some\.toml"):
        read_targets([("some.toml", [1, 2])])


def test_targets_are_chosen_by_name_and_an_unknown_name_is_refused() -> None:
    assert [t.name for t in select(BUILT_IN_TARGETS, ["memory", "memory"])] == ["memory"]
    assert select(BUILT_IN_TARGETS, []) == BUILT_IN_TARGETS
    with pytest.raises(InputError, match="Targets: temporal-accuracy"):
        select(BUILT_IN_TARGETS, ["nothing"])


def test_each_built_in_target_has_a_metric_of_its_unit_and_can_fail_and_pass() -> None:
    for built_in in BUILT_IN_TARGETS:
        assert gauges()[built_in.metric].unit == built_in.unit
        upward = built_in.operator in {Operator.ABOVE, Operator.AT_LEAST}
        good, bad = (2.0, 0.5) if upward else (0.5, 2.0)
        assert built_in.judge(Measurement(built_in.threshold * good, built_in.unit, 0.0)) is Verdict.PASS
        assert built_in.judge(Measurement(built_in.threshold * bad, built_in.unit, 0.0)) is Verdict.FAIL


def test_the_built_in_targets_are_the_guides_table() -> None:
    wanted = {(t.metric, str(t.operator), t.threshold, t.unit, str(t.severity)) for t in BUILT_IN_TARGETS}
    assert wanted == {
        ("message_latency_p99", "<", 1000.0, "ns", "warning"),
        ("message_latency_mean", "<", 1000.0, "ns", "info"),
        ("message_rate", ">", 1e6, "1/s", "warning"),
        ("memory_rss", "<", 100e6, "B", "warning"),
        ("cpu_utilization", "<", 0.8, "ratio", "warning"),
        ("temporal_accuracy", "within", 10.0, "ns", "warning"),
        ("packet_loss", "<", 1e-4, "ratio", "critical"),
        ("phase_coherence", ">=", 0.7, "ratio", "warning"),
    }


@pytest.mark.parametrize(
    ("policy", "verdict", "apart"), [("keep", "inconclusive", 0), ("ok", "pass", 1), ("alert", "fail", 0)]
)
def test_what_has_no_value_follows_the_no_data_policy(policy: str, verdict: str, apart: int) -> None:
    found = snapshot(m=Measurement.missing("ns", "idle"), n=Measurement(1.0, "ns", 0.0))
    other = replace(target("<", 10, name="other"), metric="n")
    document = run_check([replace(target("<", 10), no_data=NoData(policy)), other], found)
    assert document.verdict == verdict
    assert [each.reason for each in document.not_applicable] == ["idle"] * apart


def test_a_check_in_which_nothing_was_judged_is_no_pass() -> None:
    only = replace(target("<", 10), no_data=NoData.OK)
    assert run_check([only], snapshot()).verdict is Verdict.INCONCLUSIVE
    assert run_check([only], snapshot(), InconclusivePolicy.PASS).verdict is Verdict.PASS


def test_a_target_of_a_load_is_judged_only_where_somebody_asks_for_it() -> None:
    loaded = replace(target(">", 10), under_load=True, no_data=NoData.OK)
    idle = snapshot(m=Measurement(1.0, "ns", 0.0))
    assert "under load" in run_check([loaded], idle).not_applicable[0].reason
    assert run_check(asked((loaded,)), idle).verdict is Verdict.FAIL
    assert run_check(asked((loaded,)), snapshot()).verdict is Verdict.INCONCLUSIVE
    assert without_load((loaded, target("<", 1)), []) == (target("<", 1),)
    assert without_load((loaded,), ["t"]) == (loaded,)


def test_a_doubt_makes_a_miss_inconclusive_and_leaves_a_pass_alone() -> None:
    doubts: Doubts = {("m", ()): "Others ran."}
    missed = run_check([target("<", 10)], snapshot(m=Measurement(15.0, "ns", 1.0)), doubts=doubts)
    assert (missed.verdict, missed.results[0].doubt) == ("inconclusive", "Others ran.")
    assert "Others ran." in sentence(missed.results[0])
    met = run_check([target("<", 10)], snapshot(m=Measurement(5.0, "ns", 1.0)), doubts=doubts)
    assert (met.verdict, met.results[0].doubt) == ("pass", None)


def test_a_target_says_when_its_miss_becomes_an_alert() -> None:
    entry = WHOLE | {"for": "30 s", "keep-firing-for": "1min", "recovery": "0.9 GB", "no-data": "alert"}
    found = {t.name: t for t in read_targets([("f", {"mine": entry | {"where": {"pid": "1*"}}})])}["mine"]
    assert (found.for_ns, found.keep_firing_for_ns, found.recovery) == (30 * 10**9, 60 * 10**9, 0.9e9)
    assert (found.no_data, found.where) == ("alert", (("pid", "1*"),))


def test_an_error_names_the_line_of_the_key(tmp_path: Path) -> None:
    file = tmp_path / "cfctl.toml"
    file.write_text(
        'unit = "us"\n\n[targets.mine]\nmetric = "memory_rss"\noperator = "<"\nthreshold = "1 parsec"\n'
    )
    with pytest.raises(ConfigError) as caught:
        read_targets([(str(file), toml(file.read_text())["targets"])])
    assert caught.value.what.startswith(f"{file}:6: target 'mine'")


def test_an_unknown_target_can_not_be_taken_away() -> None:
    with pytest.raises(ConfigError, match="Is 'memory' meant"):
        read_targets([("f", {"memry": False})])


def test_there_is_an_example_of_a_threshold_in_each_unit() -> None:
    assert {metric.unit for metric in gauges().values()} <= EXAMPLES.keys()
