"""Quantities as text and back."""

from __future__ import annotations

import contextlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfctl import units
from cfctl.errors import InputError


@pytest.mark.parametrize(
    ("text", "expected_ns"),
    [
        ("100ms", 100_000_000),
        (" 1.5 s ", 1_500_000_000),
        ("2µs", 2_000),
        ("1e3 ns", 1_000),
        ("2 min", 120 * 10**9),
    ],
)
def test_a_time_is_read_with_its_unit(text: str, expected_ns: int) -> None:
    assert units.parse_time_ns(text) == expected_ns


def test_a_default_unit_is_taken_only_when_none_is_written() -> None:
    assert units.parse_time_ns("60", "s") == 60 * 10**9
    assert units.parse_time_ns("60 ms", "s") == 60 * 10**6


@pytest.mark.parametrize(
    "text",
    ["", "ms", "1", "1 parsec", "-1 s", "nan s", "inf s", "1e400 s", "1e30 s", "1 s s", "1\x00s", "0x10 s"],
)
def test_what_is_no_time_is_refused_with_the_text_and_what_is_expected(text: str) -> None:
    with pytest.raises(InputError) as caught:
        units.parse_time_ns(text)
    assert repr(text)[1:-1] in caught.value.what or text in caught.value.what
    assert caught.value.why


def test_decimal_and_binary_sizes_differ() -> None:
    assert units.parse_bytes("1 MB") == 10**6
    assert units.parse_bytes("1 MiB") == 2**20


@pytest.mark.parametrize(("text", "expected"), [("80%", 0.8), ("0.8", 0.8), ("5 ppm", 5e-6), ("20ppb", 2e-8)])
def test_a_ratio_is_read_in_each_of_its_forms(text: str, expected: float) -> None:
    assert units.parse_ratio(text) == pytest.approx(expected, rel=1e-15)


def test_a_quantity_keeps_its_fraction_where_a_duration_is_rounded() -> None:
    assert units.parse_quantity("0.4 ns", "ns") == 0.4
    assert units.parse_time_ns("0.4 ns") == 0


@pytest.mark.parametrize(
    ("value", "unit", "uncertainty", "expected"),
    [
        (1234.5678, "ns", 0.5, "1.2346 us"),
        (1234.5678, "ns", 20.0, "1.23 us"),
        (1234.5678, "ns", 14.0, "1.235 us"),
        (999.6, "ns", None, "1.00 us"),
        (-0.03, "ns", 1.0, "0.0 ns"),
        (12, "ns", None, "12 ns"),
        (0, "ns", None, "0 ns"),
        (0.8, "ratio", None, "80.0 %"),
        (5.0, "1/s", None, "5.00/s"),
        (2_000_000_000.0, "Hz", None, "2.00 GHz"),
        (100e6, "B", None, "100 MB"),
        (None, "ns", None, "-"),
        (math.nan, "ns", None, "-"),
        (-math.inf, "ns", None, "-inf"),
        (3.0, "ppb", 1.0, "3.0 ppb"),
    ],
)
def test_a_quantity_has_its_unit_and_no_more_digits_than_its_error_allows(
    value: float | None, unit: str, uncertainty: float | None, expected: str
) -> None:
    assert units.format_quantity(value, unit, uncertainty=uncertainty) == expected


def test_a_fixed_unit_holds_for_times_and_leaves_sizes_alone() -> None:
    assert units.format_quantity(1_500_000, "ns", shown_unit="us") == "1500 us"
    assert units.format_quantity(1_500_000, "B", shown_unit="us") == "1.50 MB"


@given(st.floats(min_value=1e-6, max_value=1e15), st.floats(min_value=1e-6, max_value=1e6))
def test_the_shown_digits_are_within_the_uncertainty(value: float, uncertainty: float) -> None:
    text = units.format_quantity(value, "ns", uncertainty=uncertainty, shown_unit="ns")
    # Ten decimals more than a double of this size holds are not asked for.
    slack = max(uncertainty, abs(value) * 1e-15)
    assert abs(float(text.removesuffix(" ns")) - value) <= slack * 0.51


@given(
    st.floats(allow_nan=True, allow_infinity=True), st.sampled_from(["ns", "B", "Hz", "1/s", "ratio", "ppb"])
)
def test_every_float_has_a_text(value: float, unit: str) -> None:
    assert units.format_quantity(value, unit)


@given(st.integers(min_value=0, max_value=2**53), st.sampled_from(["ns", "us", "ms", "s"]))
def test_a_written_time_is_read_back(number: int, unit: str) -> None:
    factor = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9}[unit]
    if number * factor < 2**63:
        assert units.parse_time_ns(f"{number}{unit}") == pytest.approx(number * factor, rel=1e-15)


@given(st.text())
def test_any_text_gives_a_time_or_an_input_error(text: str) -> None:
    value = 0
    with contextlib.suppress(InputError):
        value = units.parse_time_ns(text)
    assert 0 <= value < 2**63
