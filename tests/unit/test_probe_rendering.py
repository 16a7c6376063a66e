"""Histograms and heat maps in text: nothing is lost, everything fits, ASCII where it must."""

from __future__ import annotations

import io
import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from cfctl import _native
from cfctl.probe.conversion import Conversion
from cfctl.probe.distribution import Histogram, from_native
from cfctl.probe.jitter import CpuJitter, Jitter
from cfctl.probe.load import ThreadLoad
from cfctl.probe.scheduling import PmQos, Scheduling
from cfctl.records import Measurement
from cfctl.render.histogram import _edge, _rows, _step_of, bar, heat_map, histogram_table, shade
from cfctl.render.probe import render_jitter


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


def test_a_heat_map_wider_than_the_screen_comes_in_blocks_of_columns() -> None:
    target = console("ascii")
    for part in heat_map(range(200), pairs(200), target):
        target.print(part)
    lines = printed(target).splitlines()
    assert max(map(len, lines)) <= 80
    heads = [number for number, line in enumerate(lines) if line.startswith("to CPU")]
    assert [lines[number] for number in heads] == ["to CPU 0 to 74", "to CPU 75 to 149", "to CPU 150 to 199"]
    blocks = [lines[number + 1 : number + 201] for number in heads]
    whole = ["".join(block[row][5:].ljust(75) for block in blocks)[:200] for row in range(200)]
    assert whole == ["".join(column) for column in zip(*whole, strict=True)]


def test_the_highest_value_has_the_darkest_shade() -> None:
    assert shade(20, 20, 90, True) == "."
    assert shade(90, 20, 90, True) == "#"
    assert shade(5, 5, 5, True) == "."


def jitter_of_many_gaps() -> Jitter:
    raw = {"count": 200_000, "sum": 200_000 * 300, "min": 200, "max": 12_100_000, "out_of_range": 0}
    histogram = [0] * _native.HISTOGRAM_BUCKETS
    histogram[300] = 200_000
    gaps = from_native({**raw, "histogram": struct.pack(f"={len(histogram)}Q", *histogram)}, "ns", 1.0, 1.0)
    load = ThreadLoad(1_000_000_000, 231, 0, 5, 0, 681_000_000, True, "waited for the CPU 41 % of the time")
    cpu = CpuJitter(
        0, 1_000_000_000, 9, Measurement(11.3, "ns"), Measurement(0.419, "ratio"), Measurement(419e6, "ns/s"),
        Measurement(200_000, "1/s"), gaps, 0.1, (), None, load,
    )  # fmt: skip
    clock = Conversion(1e9, 1.0, 10.0, "tsc", "made up")
    return Jitter((cpu,), 200, 10**9, "", Scheduling(), PmQos(None, None, None), clock, True, False)


def test_a_disturbed_run_says_so_before_any_figure_and_its_figures_are_not_folded() -> None:
    target = console()
    render_jitter(jitter_of_many_gaps(), target, None)
    lines = printed(target).splitlines()
    assert lines[1] == "Other programs disturbed the run: see CONTAMINATED at the end."
    assert lines[2].split() == ["CPU", "lost", "lost/s", "gaps", "p50", "p99", "p99.9", "p99.99", "max"]
    assert lines[4].endswith("12.1 ms")
    assert max(map(len, lines)) <= 80
