"""Histograms and heat maps in text: nothing is lost, everything fits, ASCII where it must."""

from __future__ import annotations

import io
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from cfctl import _native
from cfctl.probe.distribution import Histogram
from cfctl.render.histogram import _edge, _rows, _step_of, bar, heat_map, histogram_table, shade


def console(encoding: str = "utf-8", width: int = 80) -> Console:
    return Console(file=io.TextIOWrapper(io.BytesIO(), encoding=encoding), width=width, no_color=True)


def printed(target: Console) -> str:
    target.file.flush()
    data: bytes = target.file.buffer.getvalue()  # type: ignore[attr-defined]
    return data.decode(target.encoding)


buckets = st.dictionaries(st.integers(0, _native.HISTOGRAM_BUCKETS - 1), st.integers(1, 10**9), max_size=50)


@given(counts=buckets, scale=st.floats(1e-3, 1e3))
def test_the_rows_hold_every_sample(counts: dict[int, int], scale: float) -> None:
    rows = _rows(Histogram("tick", scale, 7, 0, tuple(sorted(counts.items()))))
    assert sum(count for _, count in rows) == sum(counts.values())
    edges = [edge for edge, _ in rows]
    assert edges == sorted(edges)


@given(st.floats(1e-3, 1e15))
def test_a_value_lies_between_its_edge_and_the_next(value: float) -> None:
    step = _step_of(value)
    assert _edge(step) <= value * (1 + 1e-12)
    assert value < _edge(step + 1) * (1 + 1e-12)


@given(share=st.floats(0, 1), ascii_bar=st.booleans())
def test_a_bar_is_never_longer_than_its_width_and_shows_the_least(share: float, ascii_bar: bool) -> None:
    text = bar(share, 20, ascii_bar)
    assert len(text) <= 20
    assert bool(text) == (share > 0)
    assert not ascii_bar or text.isascii()
    assert bar(1.0, 20, ascii_bar) in {"█" * 20, "#" * 20}


def test_a_histogram_is_ascii_on_an_ascii_terminal() -> None:
    target = console("ascii")
    target.print(histogram_table(Histogram("ns", 1.0, 7, 0, ((5, 3), (900, 40))), target, None))
    text = printed(target)
    assert text.isascii()
    assert "####" in text


def pairs(count: int) -> dict[tuple[int, int], float]:
    return {pair: 20.0 + sum(pair) for pair in itertools.combinations(range(count), 2)}


@pytest.mark.parametrize("count", [2, 8, 10, 11, 70])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_heat_map_of_any_size_fits_and_is_symmetric(count: int, encoding: str) -> None:
    target = console(encoding)
    for part in heat_map(range(count), pairs(count), target):
        target.print(part)
    text = printed(target)
    assert max(len(line) for line in text.splitlines()) <= 80
    if encoding == "ascii" and count > 10:
        assert text.isascii()
        grid = [line[5:].ljust(count) for line in text.splitlines()[1:]]
        assert [row[: len(grid)] for row in grid] == ["".join(column) for column in zip(*grid, strict=True)][
            : len(grid)
        ]


def test_the_highest_value_has_the_darkest_shade() -> None:
    assert shade(20, 20, 90, True) == "."
    assert shade(90, 20, 90, True) == "#"
    assert shade(5, 5, 5, True) == "."
