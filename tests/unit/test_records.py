"""The record model and its JSON form."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfctl.records import Document, Measurement, Severity, Verdict, to_json, to_plain

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@dataclasses.dataclass(frozen=True, slots=True)
class Sample(Document):
    SCHEMA: ClassVar[str] = "cfctl.sample"
    VERSION: ClassVar[int] = 3
    value: Any


def test_a_measurement_has_a_value_or_a_reason_and_never_both() -> None:
    assert Measurement.missing("ns", "no counter").value is None
    with pytest.raises(ValueError, match="reason"):
        Measurement(None, "ns")
    with pytest.raises(ValueError, match="reason"):
        Measurement(1.0, "ns", reason="but why")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_no_measurement(value: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        Measurement(value, "ns")


def test_a_document_starts_with_schema_and_version() -> None:
    assert list(json.loads(to_json(Sample(1)))) == ["schema", "version", "value"]
    assert json.loads(to_json(Sample(Sample(2))))["value"]["version"] == 3


def test_enumerations_tuples_and_sets_become_json() -> None:
    assert to_plain((Verdict.PASS, Severity.HIGH)) == ["pass", "high"]
    assert to_plain({"b", "a"}) == ["a", "b"]
    assert to_plain({Verdict.FAIL: math.nan}) == {"fail": None}


def test_what_has_no_json_form_is_refused() -> None:
    with pytest.raises(TypeError, match="object"):
        to_plain(object())


def test_json_is_ascii_without_control_characters_even_for_broken_names() -> None:
    text = to_json({"name": "\x1b[31m\x7f\x9b\u202e\udc80\N{SNOWMAN}"})
    assert text.isascii()
    assert all(char == "\n" or char.isprintable() for char in text)
    assert json.loads(text)["name"] == "\x1b[31m\x7f\x9b\u202e\N{REPLACEMENT CHARACTER}\N{SNOWMAN}"


@given(PLAIN)
def test_json_reads_back_what_was_written(value: Any) -> None:
    assert json.loads(to_json(Sample(value)))["value"] == to_plain(value)


def test_severities_rank_from_low_to_critical() -> None:
    ranks = [severity.rank for severity in (Severity.LOW, Severity.MEDIUM, Severity.HIGH, Severity.CRITICAL)]
    assert ranks == [0, 1, 2, 3]
