"""The ring's models: no fault in them, and each planted one is found. `python -m tests.models` runs all."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.models.cases import CASES, Case, finds_a_fault, missing_tool

pytestmark = pytest.mark.system


@pytest.mark.parametrize("case", [case for case in CASES if case.quick], ids=lambda case: case.name)
def test_a_model_has_a_fault_exactly_when_one_was_planted(case: Case, tmp_path: Path) -> None:
    reason = missing_tool(case)
    if reason is not None:
        pytest.skip(reason)
    found, words = finds_a_fault(case, tmp_path)
    assert found == case.faulty, words
