"""Two saved results of `cfctl alloc` compared."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from cfctl.alloc.report import build_report
from cfctl.compare.alloc import compare
from cfctl.compare.comparison import Comparison, Threshold
from cfctl.errors import InputError
from cfctl.records import Verdict, to_plain
from tests.unit.alloc_reports import counts, leaking, process, steady


def result(allocations: int = 10_000, freed: int = 9_000, **more: Any) -> dict[str, Any]:
    found = to_plain(build_report([process(counts(allocations, freed), [], **more)], []))
    assert isinstance(found, dict)
    return found


def verdicts(found: Comparison) -> dict[tuple[str, str], tuple[Verdict, str]]:
    return {(c.name, c.metric): (c.verdict, str(c.direction)) for c in found.changes}


def test_more_calls_live_and_peak_bytes_fail_and_fewer_are_better() -> None:
    worse = verdicts(compare([result()], [result(12_000, 10_000)], ()))
    assert worse["app", "allocations"] == (Verdict.FAIL, "worse")
    assert worse["app", "live_bytes"] == (Verdict.FAIL, "worse")
    assert worse["app", "peak"] == (Verdict.FAIL, "worse")
    better = verdicts(compare([result(12_000, 10_000)], [result()], ()))
    assert better["app", "bytes_allocated"] == (Verdict.PASS, "better")


def test_what_the_environment_changes_by_itself_is_the_same() -> None:
    found = verdicts(compare([result()], [result(10_080, 9_080)], ()))
    assert {verdict for verdict, _ in found.values()} == {Verdict.PASS}


def test_a_peak_within_its_batches_decides_nothing() -> None:
    base = result(peak_bytes=1_000_000)
    for peak_bytes, expected in (
        (1_000_000, Verdict.PASS),
        (1_120_000, Verdict.INCONCLUSIVE),
        (1_300_000, Verdict.FAIL),
    ):
        found = verdicts(compare([base], [result(peak_bytes=peak_bytes)], ()))
        assert found["app", "peak"][0] is expected


def test_a_threshold_of_the_user_goes_before_the_own_one() -> None:
    strict = Threshold("allocations", 0.001, 1.0, "1")
    assert (
        verdicts(compare([result()], [result(10_080, 9_050)], [strict]))["app", "allocations"][0]
        is Verdict.FAIL
    )


def test_processes_are_matched_by_program_and_those_of_one_name_by_their_order() -> None:
    both = to_plain(build_report([leaking(), steady(), steady()], []))
    assert isinstance(both, dict)
    names = [change.name for change in compare([both], [both], ()).changes]
    assert list(dict.fromkeys(sorted(names))) == ["leak\ufffd[31m", "python3", "python3 (2)"]
    alone = to_plain(build_report([steady()], []))
    assert isinstance(alone, dict)
    assert {change.name for change in compare([both], [alone], ()).changes} == {"python3"}


def test_several_runs_of_a_side_widen_its_figure() -> None:
    spread = [result(allocations=n, freed=9_000) for n in (9_000, 10_000, 14_000)]
    found = compare(spread, [result(allocations=10_900, freed=9_900)], ())
    assert verdicts(found)["app", "allocations"][0] is Verdict.INCONCLUSIVE


@pytest.mark.parametrize("key", ["total", "peak", "live_bytes"])
def test_a_damaged_result_is_refused(key: str) -> None:
    damaged = copy.deepcopy(result())
    damaged["processes"][0][key] = "text"
    with pytest.raises(InputError):
        compare([result()], [damaged], ())
