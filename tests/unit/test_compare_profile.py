from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cfctl.compare.bootstrap import Run, difference, ratio_difference, runs_needed, student_quantile
from cfctl.compare.comparison import Comparison, Direction, Threshold
from cfctl.compare.profile import compare
from cfctl.errors import InputError
from cfctl.records import Verdict, to_plain
from tests.unit.profile_runs import bimodal, document, side, slower_tail

P99 = [Threshold.parse("p99:5%:200ns")]


def verdict(comparison: Comparison, metric: str = "p99") -> tuple[Verdict, Direction]:
    (change,) = [change for change in comparison.changes if change.metric == metric]
    return change.verdict, change.direction


@pytest.mark.parametrize(
    ("tails", "freedom", "published"),
    [
        (0.05, 4, 2.776),
        (0.05, 10, 2.228),
        (0.01, 5, 4.032),
        (0.001, 8, 5.041),
        (0.1, 20, 1.725),
        (2e-4, 4, 13.034),
    ],
)
def test_students_quantiles_are_those_of_the_tables(tails: float, freedom: float, published: float) -> None:
    assert student_quantile(tails, freedom) == pytest.approx(published, abs=6e-4)


def test_equal_sides_raise_no_more_alarms_than_promised() -> None:
    alarms = sum(
        compare(side(2 * pair, 6, 3_000), side(2 * pair + 1, 6, 3_000)).verdict is Verdict.FAIL
        for pair in range(20)
    )
    assert alarms <= 1


def test_a_tail_that_is_a_tenth_slower_is_found() -> None:
    found = [
        verdict(compare(side(1_000 + pair, 10, 20_000), side(2_000 + pair, 10, 20_000, 1.10), P99))
        for pair in range(10)
    ]
    assert found.count((Verdict.FAIL, Direction.WORSE)) >= 9


def test_a_faster_tail_is_better_and_passes() -> None:
    comparison = compare(side(1, 8, 20_000, 1.2), side(2, 8, 20_000), P99)
    assert verdict(comparison) == (Verdict.PASS, Direction.BETTER)


def test_both_parts_of_a_threshold_have_to_be_exceeded() -> None:
    base, new = side(1, 8, 20_000), side(2, 8, 20_000, 1.2)
    assert verdict(compare(base, new, [Threshold.parse("p99:5%:1ms")]))[0] is Verdict.PASS
    assert verdict(compare(base, new, [Threshold.parse("p99:5%:1ns")]))[0] is Verdict.FAIL


def test_below_five_runs_a_side_nothing_is_judged_but_the_difference_is_shown() -> None:
    comparison = compare(side(1, 4, 2_000), side(2, 9, 2_000, 3.0))
    assert comparison.verdict is Verdict.INCONCLUSIVE
    change = comparison.changes[0]
    assert change.difference is not None
    assert "5 runs a side are needed, there are 4" in change.reason
    assert compare(side(1, 1, 2_000), side(2, 1, 2_000)).verdict is Verdict.INCONCLUSIVE


def test_only_what_a_threshold_names_is_judged() -> None:
    comparison = compare(side(1, 5, 2_000), side(2, 5, 2_000), P99)
    assert [change.metric for change in comparison.changes] == ["p99"]
    with pytest.raises(InputError, match="error-ratio"):
        compare(side(1, 5, 100), side(2, 5, 100), [Threshold.parse("p98:5%")])


def test_too_few_samples_and_missing_operations_are_named() -> None:
    few = compare(side(1, 5, 900), side(2, 5, 900), P99)
    assert few.changes[0].reason == "not in the base: low n"
    other = [document({"other": np.array([500] * 100)})] * 5
    gone = compare(side(1, 5, 2_000), other, [Threshold.parse("serve mean:5%")])
    assert "not in the new result: a run does not have the operation" in gone.changes[0].reason
    assert gone.changes[0].base is not None
    assert gone.changes[0].new is None


def test_more_errors_are_a_regression() -> None:
    values = {"serve": np.array([500] * 10_000)}
    base, new = [document(values, 10)] * 6, [document(values, 500)] * 6
    assert verdict(compare(base, new), "error-ratio") == (Verdict.FAIL, Direction.WORSE)
    even = [document(values, 5_000)] * 6
    assert verdict(compare(even, even), "error-ratio")[0] is Verdict.PASS


def test_the_answer_is_the_same_each_time() -> None:
    base, new = side(1, 5, 2_000), side(2, 5, 2_000)
    assert to_plain(compare(base, new)) == to_plain(compare(base, new))


def test_a_document_that_is_no_profile_is_refused() -> None:
    with pytest.raises(InputError, match="no saved profile"):
        compare([{"schema": "cfctl.profile", "version": 1}], side(1, 1, 100))


def test_the_interval_of_a_difference_holds_the_truth_as_often_as_promised() -> None:
    random = np.random.default_rng(5)

    def run() -> Run:
        luck = random.lognormal(0, 0.03)
        values, counts = np.unique((random.lognormal(7, 0.3, 2_000) * luck).astype(int), return_counts=True)
        buckets = tuple((float(v), 1.0, float(c)) for v, c in zip(values, counts, strict=True))
        return Run(buckets, float(values @ counts) / 2_000, 400.0)

    held = 0
    for pair in range(60):
        found = difference([run() for _ in range(6)], [run() for _ in range(6)], 0.9, 0.95, pair)
        held += found.interval[0] <= 0 <= found.interval[1]
    assert held >= 54


def test_ratios_of_equal_runs_differ_by_nothing() -> None:
    found = ratio_difference([(5, 1000)] * 5, [(5, 1000)] * 5, 0.95, 1)
    assert found.base == found.new == 0.005
    assert found.interval[0] < 0 < found.interval[1]


def rounds(seed: int, count: int, tail_ratio: float = 1.0) -> tuple[list[Any], list[Any]]:
    """Runs of two sides in rounds: the machine's state of a round is in both of its runs."""
    random = np.random.default_rng(seed)
    sides: tuple[list[Any], list[Any]] = ([], [])
    for _ in range(count):
        shift = random.lognormal(0.0, 0.15)
        for runs, ratio in zip(sides, (1.0, tail_ratio), strict=True):
            values = (bimodal(random, 5_000) * shift * random.lognormal(0.0, 0.01)).astype(np.int64)
            runs.append(document({"serve": slower_tail(values, ratio)}))
    return sides


def test_what_shifts_the_machine_for_a_round_is_no_noise_of_pairs() -> None:
    base, new = rounds(1, 10, 1.15)
    assert verdict(compare(base, new, P99))[0] is Verdict.INCONCLUSIVE
    assert verdict(compare(base, new, P99, paired=True)) == (Verdict.FAIL, Direction.WORSE)


def test_equal_pairs_raise_no_more_alarms_than_promised() -> None:
    alarms = sum(compare(*rounds(seed, 6), paired=True).verdict is Verdict.FAIL for seed in range(20))
    assert alarms <= 1


def test_an_open_figure_tells_how_many_runs_would_settle_it() -> None:
    base, new = rounds(1, 10)[0], rounds(3, 10)[0]
    (change,) = compare(base, new, P99).changes
    assert change.verdict is Verdict.INCONCLUSIVE
    # Both sides differ by 15 % from run to run: about 190, from ten runs' guess of the spread.
    assert change.runs_needed is not None
    assert 60 < change.runs_needed < 600


def test_the_runs_needed_are_those_of_the_handbook() -> None:
    # The handbook's example: a shift of one standard deviation, alpha 5 %, beta 10 %: 11 by the normal
    # distribution, 13 or 14 by Student's.
    assert runs_needed(1.0, 1.0, 0.95) in {13, 14}
    assert runs_needed(0.01, 1.0, 0.95) == 5
    assert runs_needed(2.0, 0.1, 0.95) == pytest.approx(4203, rel=0.01)
