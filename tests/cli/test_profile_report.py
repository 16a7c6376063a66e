from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cfctl.cli.app import main
from cfctl.render.operations import sparkline
from tests.unit.segment_builder import SegmentBuilder, operation_payload

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def run_main(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return run_main


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "segments"
    path.mkdir(mode=0o700)
    monkeypatch.setenv("CFCTL_SEGMENT_DIR", str(path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)
    return path


def segment(directory: Path, name: str = "a.seg", **header: int | bytes) -> Path:
    """A segment of another boot on a clock of 2 ticks per ns, so that all that is shown is fixed."""
    builder = SegmentBuilder(dict(header))
    builder.entry(b"parse", [operation_payload([2_000] * 900 + [4_000] * 90 + [40_000] * 10, errors=10)])
    builder.entry(
        b"commit",
        [operation_payload([3_000_000] * 30, first=1000, last=2_001_000)],
        labels={b"db": b"x"},
    )
    path = directory / name
    path.write_bytes(builder.build())
    return path


def plain(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]


def test_the_table_shows_total_samples_first_and_the_slowest_mean_first(directory: Path, run: Run) -> None:
    segment(directory)
    status, out, err = run("profile", "report")
    assert (status, err) == (0, "")
    lines = plain(out)
    assert lines[0] == "Total samples: 1030"
    assert lines[1] == "Process 4242, ended: python app.py"
    assert lines[2] == "operation count errors mean p50 p99 max"
    assert lines[4] == "commit {db=x} 30 0 1.50 ms 1.50 ms low n 1.50 ms"
    assert lines[5].startswith("parse 1000 ")
    assert "10 (1.0 %)" in lines[5]
    assert all(len(line) <= 80 for line in out.splitlines()[:20])


def test_a_tree_takes_filters_and_is_whole_in_json(directory: Path, run: Run) -> None:
    segment(directory)
    lines = plain(run("profile", "report", "--tree", "--top", "1", "--sort", "name")[1])
    assert lines[2].startswith("operation count mean total share self")
    assert lines[4].startswith("commit {db=x} 30 1.50 ms 45.0 ms")
    assert not any(line.startswith("parse") for line in lines)
    assert "1 of 2 lines; more with --top N" in lines
    filtered = plain(run("profile", "report", "--tree", "--filter", "par*")[1])
    assert [line.split()[0] for line in filtered[4:5]] == ["parse"]
    assert run("profile", "report", "--tree", "--json")[1] == run("profile", "report", "--json")[1]
    operations = json.loads(run("profile", "report", "--tree", "--json")[1])["operations"]
    assert [o["self_share"] for o in operations] == [o["share"] for o in operations]


def test_the_own_times_are_columns(directory: Path, run: Run) -> None:
    segment(directory)
    lines = plain(run("profile", "report", "--columns", "self,self-share,total")[1])
    assert lines[2] == "operation self self-share total"
    assert lines[4] == "commit {db=x} 45.0 ms 97 % 45.0 ms"


def test_sort_and_top_choose_the_rows(directory: Path, run: Run) -> None:
    segment(directory)
    out = run("profile", "report", "--sort", "count", "--top", "1")[1]
    assert "parse" in out
    assert "commit" not in out
    assert plain(out)[0] == "Total samples: 1030"


def test_unit_fixes_the_unit_of_times(directory: Path, run: Run) -> None:
    segment(directory)
    lines = plain(run("profile", "report", "--unit", "us")[1])
    assert any("1500 us" in line or "1.5 ms" in line for line in lines)
    assert not any(" ms" in line for line in lines)


def test_json_is_lossless_and_starts_with_its_schema(directory: Path, run: Run) -> None:
    segment(directory)
    document = json.loads(run("profile", "report", "--json")[1])
    assert list(document)[:3] == ["schema", "version", "total_samples"]
    commit, parse = document["operations"]
    assert commit["p99"] == {
        "value": None, "unit": "ns", "uncertainty": None, "sample_count": None, "method": None, "reason": "low n",
    }  # fmt: skip
    assert parse["ticks"]["sum"] == 900 * 2_000 + 90 * 4_000 + 10 * 40_000
    assert sum(samples for _, samples in parse["ticks"]["buckets"]) == 1000


def test_a_saved_report_shows_what_the_segment_shows(directory: Path, run: Run, tmp_path: Path) -> None:
    segment(directory)
    shown = run("profile", "report")[1]
    status, out, err = run("profile", "save", "-o", str(tmp_path / "saved.json"))
    assert (status, out) == (0, "")
    assert err == "Saved 1030 samples of 2 operations.\n"
    assert run("profile", "report", str(tmp_path / "saved.json"))[1] == shown


def test_a_device_or_standard_output_can_be_saved_to_and_a_directory_not(
    directory: Path, run: Run, tmp_path: Path
) -> None:
    segment(directory)
    assert run("profile", "save", "-o", "/dev/null")[0] == 0
    assert Path("/dev/null").is_char_device()
    status, out, _ = run("profile", "save", "-o", "-")
    assert (status, json.loads(out)["total_samples"]) == (0, 1030)
    status, _, err = run("profile", "save", "-o", str(tmp_path))
    assert (status, "can not be written" in err) == (2, True)


def test_saving_leaves_the_mode_of_the_users_directory(directory: Path, run: Run, tmp_path: Path) -> None:
    segment(directory)
    tmp_path.chmod(0o755)
    assert run("profile", "save", "-o", str(tmp_path / "x.json"))[0] == 0
    assert tmp_path.stat().st_mode & 0o777 == 0o755
    assert run("profile", "save", "-o", "/none/such/file")[0] == 2


def test_a_segment_is_named_by_path_or_pid(directory: Path, run: Run) -> None:
    path = segment(directory, pid=31)
    segment(directory, "b.seg", pid=32, opened_unix_ns=1_800_000_000 * 10**9)
    assert "Process 31," in run("profile", "report", str(path))[1]
    assert "Process 31," in run("profile", "report", "31")[1]
    assert "Process 32," in run("profile", "report")[1]


@pytest.mark.parametrize(
    ("arguments", "status", "what"),
    [
        ((), 3, "There is no segment yet."),
        (("99",), 3, "There is no segment of process 99."),
        (("none.seg",), 3, "There is no segment none.seg."),
        (("/",), 3, "is not read"),
        (("--sort", "colour"), 2, "can not be sorted by 'colour'"),
        (("--top", "0"), 2, "--top"),
        (("--format", "none"), 2, "There is no format"),
    ],
)
def test_what_can_not_be_shown_is_one_message_and_an_exit_code(
    arguments: tuple[str, ...], status: int, what: str, directory: Path, run: Run
) -> None:
    if "--sort" in arguments:
        segment(directory)
    found, out, err = run("profile", "report", *arguments)
    assert (found, out) == (status, "")
    assert what in err
    assert "Traceback" not in err


def test_a_corrupt_saved_report_is_one_message(run: Run, tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text('{"schema": "cfctl.profile", "version": 1')
    status, out, err = run("profile", "report", str(tmp_path / "r.json"))
    assert (status, out) == (2, "")
    assert "is no saved profile" in err


def test_damage_is_shown_with_what_is_whole(directory: Path, run: Run) -> None:
    path = segment(directory, lost=3, refused=1)
    os.truncate(path, path.stat().st_size - 64)
    status, out, _ = run("profile", "report")
    assert status == 0
    assert "problem: The file is truncated" in out
    assert "Samples lost: 3" in out
    assert "Shards refused: 1" in out
    assert "parse" in out


def test_a_segment_without_an_operation_is_told_and_exits_3(directory: Path, run: Run) -> None:
    (directory / "a.seg").write_bytes(SegmentBuilder().build())
    status, out, err = run("profile", "report")
    assert status == 3
    assert "Total samples: 0" in out
    assert "The segment holds no operation." in err


def test_times_without_a_clock_rate_are_shown_in_ticks_with_the_reason(directory: Path, run: Run) -> None:
    segment(directory, latest_tick=1000, latest_raw_ns=10**9)
    out = run("profile", "report")[1]
    assert "ticks" in out
    assert "Times are in ticks: " in out


def test_a_wide_terminal_gets_one_table(directory: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    segment(directory)
    lines = plain(run("profile", "report")[1])
    assert any(
        line.startswith("operation count rate errors min mean stddev p50 p90 p99 p99.9") for line in lines
    )


def test_columns_are_shown_as_asked_for_however_wide(directory: Path, run: Run) -> None:
    segment(directory)
    wanted = ["p99.99", "count", "histogram", "first-seen", "last-seen", "threads", "total", "rate", "stddev"]
    lines = plain(run("profile", "report", "--columns", ",".join(wanted))[1])
    assert " ".join(["operation", *wanted]) in lines
    assert any(line.startswith("commit {db=x} low n 30 ") for line in lines)


def test_filter_keeps_matching_names_and_the_shares_of_the_whole(directory: Path, run: Run) -> None:
    segment(directory)
    document = json.loads(run("profile", "report", "--filter", "par*", "--json")[1])
    assert [o["name"] for o in document["operations"]] == ["parse"]
    assert document["recorded_operations"] == 2
    assert document["operations"][0]["share"] == pytest.approx(2_560_000 / (2_560_000 + 90_000_000))
    assert "1 of 2 operations" in run("profile", "report", "--filter", "par*")[1]


def test_a_filter_that_matches_nothing_is_an_empty_table_and_no_failure(directory: Path, run: Run) -> None:
    segment(directory)
    status, out, _ = run("profile", "report", "--filter", "nothing*")
    assert status == 0
    assert "No operation matches; there are 2, which --filter leaves out" in out
    status, out, _ = run("profile", "report", "--filter", "nothing*", "--json")
    document = json.loads(out)
    assert (status, document["operations"], document["recorded_operations"]) == (0, [], 2)
    assert run("profile", "report", "--tree", "--filter", "nothing*")[0] == 0


def test_a_file_that_is_neither_a_segment_nor_a_report_is_told_so(tmp_path: Path, run: Run) -> None:
    (tmp_path / "report.txt").write_text("Total samples: 9")
    status, _, err = run("profile", "report", str(tmp_path / "report.txt"))
    assert status == 3
    assert "The file is no segment." in err
    assert "or a report saved as JSON" in err


@pytest.mark.parametrize("format", ["csv", "markdown"])
def test_the_rows_are_a_table_without_the_raw_buckets(format: str, directory: Path, run: Run) -> None:
    segment(directory)
    status, out, _ = run("profile", "report", "--format", format)
    assert status == 0
    assert "p99" in out.splitlines()[0]
    assert "ticks" not in out.splitlines()[0]
    assert "commit" in out


def test_the_histogram_of_one_operation_has_every_sample(directory: Path, run: Run) -> None:
    segment(directory)
    document = json.loads(run("profile", "report", "--histogram", "parse", "--json")[1])
    assert document["schema"] == "cfctl.profile.histogram"
    assert [b["samples"] for b in document["buckets"]] == [900, 90, 10]
    assert document["buckets"][-1]["cumulative"] == 1
    assert document["buckets"][0]["low"] <= 1000 < document["buckets"][0]["high"]
    status, out, _ = run("profile", "report", "--histogram", "par*")
    assert status == 0
    assert ["1", "us", "900"] in [line.split()[:3] for line in out.splitlines()]


@pytest.mark.parametrize(
    ("name", "what"),
    [("*", "names 2 operations"), ("pars", "There are: parse."), ("", "There is no operation")],
)
def test_a_histogram_is_of_one_operation(name: str, what: str, directory: Path, run: Run) -> None:
    segment(directory)
    status, out, err = run("profile", "report", "--histogram", name)
    assert (status, out) == (2, "")
    assert what in err


def test_without_a_terminal_a_live_report_is_a_line_per_reading(directory: Path, run: Run) -> None:
    segment(directory)
    status, out, err = run("profile", "report", "--live", "--interval", "1ms")
    assert (status, err) == (0, "")
    assert (
        out == "samples 1030  errors 10  commit {db=x}  mean 1.50 ms  p50 1.50 ms  p99 low n  max 1.50 ms\n"
    )
    lines = run("profile", "report", "--live", "--json", "--updates", "3")[1].splitlines()
    assert [json.loads(line)["total_samples"] for line in lines] == [1030]


@pytest.mark.parametrize(
    "arguments",
    [("--live", "--format", "csv"), ("--live", "--interval", "0s"), ("--columns", "p98"), ("--columns", ",")],
)
def test_what_a_report_can_not_do_is_refused(arguments: tuple[str, ...], directory: Path, run: Run) -> None:
    segment(directory)
    status, out, err = run("profile", "report", *arguments)
    assert (status, out) == (2, "")
    assert err.startswith("cfctl: ")


def test_plain_encodings_get_a_plain_sparkline() -> None:
    buckets = tuple((bucket, 1 + bucket % 5) for bucket in range(100, 3000, 100))
    assert sparkline(buckets, plain=True).isascii()
    assert len(sparkline(buckets, plain=True)) == len(sparkline(buckets, plain=False)) == 10
    assert sparkline((), plain=True) == "-"
    assert len(sparkline(((7, 3),), plain=False)) == 1
