from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfctl.host.cpus import MAX_CPU, format_cpu_list, format_cpu_mask, parse_cpu_list, parse_cpu_mask

CPU_SETS = st.frozensets(st.integers(0, 1023))


@given(CPU_SETS)
def test_a_list_survives_writing_and_reading(cpus: frozenset[int]) -> None:
    assert parse_cpu_list(format_cpu_list(cpus)) == tuple(sorted(cpus))


@given(CPU_SETS)
def test_a_mask_in_words_of_32_bits_survives_reading(cpus: frozenset[int]) -> None:
    mask = sum(1 << cpu for cpu in cpus)
    words = [f"{mask >> 32 * n & 0xFFFFFFFF:08x}" for n in reversed(range(32))]
    assert parse_cpu_mask(",".join(words)) == tuple(sorted(cpus))


@given(CPU_SETS)
def test_a_mask_survives_writing_and_reading_in_words_of_32_bits(cpus: frozenset[int]) -> None:
    written = format_cpu_mask(cpus)
    assert parse_cpu_mask(written) == tuple(sorted(cpus))
    assert all(len(word) <= 8 for word in written.split(","))


def test_a_list_that_names_all_cpus_over_and_over_takes_no_time() -> None:
    with pytest.raises(ValueError, match="CPUs are named"):
        parse_cpu_list(",".join([f"0-{MAX_CPU}"] * 1_000_000))


@pytest.mark.parametrize("text", ["", "\n", "(null)", "  (null)\n"])
def test_none_is_no_cpu(text: str) -> None:
    assert parse_cpu_list(text) == parse_cpu_mask(text) == ()


@pytest.mark.parametrize(
    ("text", "cpus"),
    [
        ("0", (0,)),
        ("0-3,8\n", (0, 1, 2, 3, 8)),
        ("8,0-1", (0, 1, 8)),
        ("0-7:1/2", (0, 2, 4, 6)),
        ("1,1-2", (1, 2)),
    ],
)
def test_lists_as_the_kernel_writes_them(text: str, cpus: tuple[int, ...]) -> None:
    assert parse_cpu_list(text) == cpus


@pytest.mark.parametrize(
    "text", ["abc", "3-1", "1-", "-1", "0,,1", "0-99999999", str(MAX_CPU + 1), "0-7:3/2", "1 2"]
)
def test_other_lists_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="CPU range"):
        parse_cpu_list(text)


@pytest.mark.parametrize(
    ("text", "cpus"), [("3\n", (0, 1)), ("0x8", (3,)), ("1,00000000", (32,)), ("1,3", (0, 1, 32))]
)
def test_masks_as_the_kernel_writes_them(text: str, cpus: tuple[int, ...]) -> None:
    assert parse_cpu_mask(text) == cpus


@pytest.mark.parametrize("text", ["xyz", "1,,2", "-1", "f" * 40_000, "1 2", "123456789,123456789"])
def test_other_masks_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="CPU mask"):
        parse_cpu_mask(text)
