"""Targets, their three verdicts, and the verdict over all."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfctl.errors import ConfigError, InputError
from cfctl.monitor.check import InconclusivePolicy, run_check, sentence
from cfctl.monitor.metric import Metric, Reading, Subject, all_metrics
from cfctl.monitor.targets import (
    BUILT_IN_TARGETS,
    Operator,
    Target,
    TargetSeverity,
    read_targets,
    select,
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


def metrics(**values: Measurement) -> dict[str, Metric]:
    def measuring(value: Measurement) -> Callable[[Subject], Reading]:
        return lambda _: Reading(value, "a test")

    return {name: Metric(name, value.unit, measuring(value)) for name, value in values.items()}


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
    document = run_check(
        [target("<", 10, severity)], Subject(), InconclusivePolicy(policy), metrics(m=measured)
    )
    assert document.verdict == expected
    assert document.results[0].verdict == (
        "inconclusive" if value is None else "fail" if value > 10 else "pass"
    )


def test_a_missed_target_outweighs_an_inconclusive_one() -> None:
    found = metrics(m=Measurement(15.0, "ns", 1.0), n=Measurement.missing("ns", "why"))
    other = Target("n", "n", Operator.BELOW, 1.0, "ns", TargetSeverity.CRITICAL)
    assert run_check([other, target("<", 10)], Subject(), metrics=found).verdict is Verdict.FAIL


def test_each_metric_is_measured_once_however_many_targets_name_it() -> None:
    calls = []

    def measure(subject: Subject) -> Reading:
        calls.append(subject)
        return Reading(Measurement(5.0, "ns", 0.1), "a test")

    targets = [target("<", 10, name="a"), target(">", 1, name="b")]
    document = run_check(targets, Subject(pid=7), metrics={"m": Metric("m", "ns", measure)})
    assert [subject.pid for subject in calls] == [7]
    assert len(document.results) == 2


def test_the_sentence_of_a_result_names_value_error_unit_and_what_was_wanted() -> None:
    document = run_check([target("within", 10)], Subject(), metrics=metrics(m=Measurement(3.14, "ns", 0.5)))
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
    assert set(targets) == {"temporal-accuracy", "memory", "mine"}
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
        (WHOLE | {"metric": "mood"}, "'mood' is not known"),
        (WHOLE | {"metric": ["memory_rss"]}, "is not known"),
        (WHOLE | {"operator": "~"}, "'~' is not known"),
        (WHOLE | {"threshold": "1 parsec"}, "'1 parsec' can not be used"),
        (WHOLE | {"threshold": "1 ns"}, "'1 ns' can not be used"),
        (WHOLE | {"threshold": 5}, "5 can not be used"),
        (WHOLE | {"threshold": True}, "True can not be used"),
        (WHOLE | {"threshold": "-1 GB"}, "can not be used"),
        (WHOLE | {"severity": "grave"}, "'grave' is not known"),
        (WHOLE | {"treshold": 1}, "unknown key 'treshold'"),
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
        assert all_metrics()[built_in.metric].unit == built_in.unit
        small, large = (Measurement(built_in.threshold * f, built_in.unit, 0.0) for f in (0.5, 2.0))
        assert built_in.judge(small) is Verdict.PASS
        assert built_in.judge(large) is Verdict.FAIL
