from __future__ import annotations

import contextlib
import cProfile
import json
import marshal
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogWriter
from hypothesis import given
from hypothesis import strategies as st

from cfctl.errors import InputError
from cfctl.profile.saved import load_report
from cfctl.profile.sources import SourceError, hdr_log, histogram_bucket, import_report, pyperf, source_names
from cfctl.records import to_json
from tests.unit.segment_builder import bucket_of

if TYPE_CHECKING:
    from cfctl.profile.report import ProfileReport


def written(path: Path, data: bytes | str) -> Path:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def saved_and_read(report: ProfileReport, path: Path) -> ProfileReport | None:
    return load_report(written(path, to_json(report)))


def test_cprofiles_statistics_become_operations_with_calls_and_time(tmp_path: Path) -> None:
    def work() -> int:
        return sum(range(1000))

    profile = cProfile.Profile()
    for _ in range(7):
        profile.runcall(work)
    profile.dump_stats(tmp_path / "p.prof")
    report = import_report(tmp_path / "p.prof")
    (found,) = [o for o in report.operations if ":work:" in o.name]
    assert found.count == 7
    assert found.errors is None
    assert found.total.value is not None
    assert found.total.value > 0
    for missing in (found.p50, found.p99, found.min, found.stddev, found.rate):
        assert (missing.value, missing.reason) == (None, "cProfile keeps counts and sums only")
    assert saved_and_read(report, tmp_path / "r.json") == report


PYPERF: dict[str, Any] = {
    "version": "1.0",
    "metadata": {"name": "json.dumps"},
    "benchmarks": [{"runs": [{"warmups": [[1, 9.0]]}, {"values": [2.0e-8, 2.01e-8]}, {"values": [4.0e-8]}]}],
}


def test_pyperfs_values_are_samples_and_its_warmups_are_not(tmp_path: Path) -> None:
    report = import_report(written(tmp_path / "b.json", json.dumps(PYPERF)))
    (found,) = report.operations
    assert (found.name, found.count) == ("json.dumps", 3)
    assert found.min.value == pytest.approx(20.0)
    assert found.max.value == pytest.approx(40.0)
    assert found.mean.value == pytest.approx(26.7, abs=0.1)
    assert found.errors is None
    assert saved_and_read(report, tmp_path / "r.json") == report


@given(
    st.dictionaries(st.integers(0, 2**40 - 1), st.integers(1, 10**6), min_size=1, max_size=40),
    st.sampled_from([1, 2, 3, 4]),
)
def test_a_hdr_log_is_read_as_the_hdrhistogram_package_wrote_it(counts: dict[int, int], digits: int) -> None:
    histogram = HdrHistogram(1, 2**41, digits)
    for value, samples in counts.items():
        histogram.record_value(value, samples)
    text = StringIO()
    log = HistogramLogWriter(text)
    log.output_log_format_version()
    log.output_legend()
    log.output_interval_histogram(histogram, 0, 1)
    lines = text.getvalue().splitlines()
    lines[-1] = f"Tag=serve,{lines[-1]}"
    (tally,) = hdr_log.read("\n".join(lines).encode()).tallies
    assert tally.name == "serve"
    assert tally.count == sum(counts.values())
    tolerance = 10.0**-digits
    assert tally.max_ticks == pytest.approx(max(counts), rel=tolerance, abs=1)
    assert tally.min_ticks == pytest.approx(min(counts), rel=tolerance, abs=1)
    assert tally.sum_ticks == pytest.approx(
        sum(v * n for v, n in counts.items()), rel=tolerance, abs=tally.count
    )


@given(st.integers(0, 2**40 - 1))
def test_buckets_are_those_of_the_segments(value: int) -> None:
    assert histogram_bucket(value) == bucket_of(value)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"hello",
        b'{"benchmarks": 3}',
        b'{"benchmarks": [{"runs": [{"values": [NaN]}]}]}',
        b'{"benchmarks": [{"runs": [{"values": [-1]}]}]}',
        b'{"benchmarks": ' + b"[" * 100_000,
        b"0,1,2,HISTFAAAAAAAA",
        b"0,1,2,HISTFAAAB!",
        b"{(" + b"\xff" * 40,
        marshal.dumps({("f", 1, "g"): ("x", -1, 0, 0, {})}),
        marshal.dumps({("f", 1, "g"): (1, -1, 0.0, 0.0, {})}),
        marshal.dumps({("f", 1, "g"): 5}),
    ],
)
def test_what_is_no_profile_is_one_message(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="can not be imported"):
        import_report(written(tmp_path / "x", data))


@given(st.binary(max_size=200))
def test_no_bytes_break_a_reader(data: bytes) -> None:
    for read in (pyperf.read, hdr_log.read):
        with contextlib.suppress(SourceError):
            read(data)


def test_a_format_can_be_named_and_a_missing_file_is_told(tmp_path: Path) -> None:
    assert source_names() == ("hdr_log", "pstats", "pyperf")
    with pytest.raises(InputError, match="There is no format 'x'"):
        import_report(written(tmp_path / "x", "x"), "x")
    with pytest.raises(InputError, match="can not be read"):
        import_report(tmp_path / "none")
