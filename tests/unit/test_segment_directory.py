from __future__ import annotations

from pathlib import Path

import pytest

from cfctl.errors import SegmentError
from cfctl.segment.directory import (
    find_segment,
    list_segments,
    remove_segment,
    segments_of_run,
    user_directories,
)
from tests.unit.segment_builder import SegmentBuilder
from tests.unit.test_segment_file import locked


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CFCTL_SEGMENT_DIR", str(tmp_path))
    return tmp_path


def add(directory: Path, name: str, pid: int, opened_s: int, run_id: bytes = b"") -> Path:
    path = directory / f"{name}.seg"
    path.write_bytes(
        SegmentBuilder({"pid": pid, "opened_unix_ns": opened_s * 10**9, "run_id": run_id}).build()
    )
    return path


def test_segments_are_listed_newest_first_and_other_files_left_out(directory: Path) -> None:
    add(directory, "old", 1, 100)
    add(directory, "new", 2, 200)
    (directory / "notes.txt").write_text("no segment")
    listing = list_segments(user_directories())
    assert [file.path.stem for file in listing.files] == ["new", "old"]
    assert listing.unreadable == ()


def test_a_file_that_is_no_segment_is_listed_with_its_reason(directory: Path) -> None:
    (directory / "bad.seg").write_bytes(b"\x1b[31m" * 2000)
    (directory / "link.seg").symlink_to("/etc/passwd")
    listing = list_segments(user_directories())
    assert listing.files == ()
    assert {unreadable.path.name for unreadable in listing.unreadable} == {"bad.seg", "link.seg"}


def test_a_directory_that_is_not_there_is_empty(directory: Path) -> None:
    assert list_segments([directory / "none"]).files == ()


def test_a_directory_that_is_a_link_or_a_file_is_an_error(directory: Path) -> None:
    (directory / "real").mkdir()
    (directory / "link").symlink_to("real")
    (directory / "file").write_text("")
    for name in ("link", "file"):
        with pytest.raises(SegmentError, match="cannot be read"):
            list_segments([directory / name])


def test_the_newest_segment_is_found_without_a_name(directory: Path) -> None:
    add(directory, "a", 1, 100)
    newest = add(directory, "b", 2, 200)
    assert find_segment() == newest


def test_a_segment_is_found_by_pid_the_live_one_first(directory: Path) -> None:
    live = add(directory, "live", 7, 100)
    newer = add(directory, "ended", 7, 200)
    add(directory, "other", 8, 300)
    assert find_segment("7") == newer
    with locked(live):
        assert find_segment("7") == live


def test_a_path_is_taken_as_it_is(directory: Path) -> None:
    assert find_segment("some/where.seg") == Path("some/where.seg")


def test_nothing_found_says_what_to_do(directory: Path) -> None:
    with pytest.raises(SegmentError, match="profile run"):
        find_segment()
    with pytest.raises(SegmentError, match="process 99"):
        find_segment("99")


def test_the_segments_of_a_run_are_those_with_its_id_oldest_first(directory: Path) -> None:
    add(directory, "child", 2, 200, b"this")
    add(directory, "parent", 1, 100, b"this")
    add(directory, "other", 3, 300, b"that")
    assert [file.header.pid for file in segments_of_run("this")] == [1, 2]


def test_an_ended_segment_is_removed_and_a_live_one_stays(directory: Path) -> None:
    path = add(directory, "a", 1, 100)
    (file,) = list_segments(user_directories()).files
    with locked(path):
        assert not remove_segment(file)
    assert path.exists()
    assert remove_segment(file)
    assert not path.exists()
    assert not remove_segment(file)


def test_a_segment_that_was_replaced_since_it_was_listed_is_not_removed(directory: Path) -> None:
    path = add(directory, "a", 1, 100)
    (file,) = list_segments(user_directories()).files
    add(directory, "a", 1, 500)
    assert not remove_segment(file)
    assert path.exists()


def test_only_root_may_ask_for_all_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(SegmentError, match="Run as root"):
        user_directories(all_users=True)
