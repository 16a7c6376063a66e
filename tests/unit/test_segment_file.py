from __future__ import annotations

import fcntl
import mmap
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cfctl.errors import SegmentError
from cfctl.segment.file import Liveness, describe_segment, read_segment
from tests.unit.segment_builder import SegmentBuilder, operation_payload


def write_segment(path: Path, **header: int | bytes) -> Path:
    builder = SegmentBuilder(dict(header))
    builder.entry(b"x", [operation_payload([10, 20])])
    path.write_bytes(builder.build())
    return path


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock the C writer holds: an OFD write lock on the whole file."""
    with path.open("r+b") as file:
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, struct.pack("@hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
        yield


def own_start_time() -> int:
    return int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])


def own_namespace() -> int:
    return Path("/proc/self/ns/pid").stat().st_ino


def test_a_segment_is_read_from_its_file(tmp_path: Path) -> None:
    segment = read_segment(write_segment(tmp_path / "a.seg"))
    assert segment.entries[0].values["count"] == 2
    assert segment.problems == ()


def test_a_writer_that_holds_its_lock_is_live_in_any_namespace(tmp_path: Path) -> None:
    path = write_segment(tmp_path / "a.seg", pid=1, pid_namespace=12345)
    with locked(path):
        assert describe_segment(path).liveness is Liveness.LOCKED
    assert describe_segment(path).liveness is Liveness.ENDED


def test_a_writer_that_lost_its_lock_is_live_while_it_maps_the_file(tmp_path: Path) -> None:
    path = write_segment(
        tmp_path / "a.seg", pid=os.getpid(), start_time=own_start_time(), pid_namespace=own_namespace()
    )
    assert describe_segment(path).liveness is Liveness.ENDED
    with path.open("r+b") as file:
        mapping = mmap.mmap(file.fileno(), 4096)
    assert describe_segment(path).liveness is Liveness.MAPPED
    mapping.close()


@pytest.mark.parametrize("changes", [{"start_time": 1}, {"pid_namespace": 1}, {"pid": 2**40}])
def test_a_pid_of_another_time_or_namespace_is_not_the_writer(
    tmp_path: Path, changes: dict[str, int]
) -> None:
    identity = {"pid": os.getpid(), "start_time": own_start_time(), "pid_namespace": own_namespace()}
    path = write_segment(tmp_path / "a.seg", **(identity | changes))
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 4096):
        assert describe_segment(path).liveness is Liveness.ENDED


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    link = tmp_path / "link.seg"
    link.symlink_to(write_segment(tmp_path / "a.seg"))
    with pytest.raises(SegmentError, match="symbolic link"):
        read_segment(link)


def test_a_fifo_is_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.seg")
    with pytest.raises(SegmentError, match="no regular file"):
        read_segment(tmp_path / "fifo.seg")


def test_a_directory_a_missing_file_and_a_path_with_nul_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SegmentError, match="no regular file"):
        read_segment(tmp_path)
    with pytest.raises(SegmentError, match="does not exist"):
        read_segment(tmp_path / "none.seg")
    with pytest.raises(SegmentError, match="unusable"):
        read_segment(Path("a\0b"))


def test_a_huge_sparse_file_is_refused_before_it_fills_the_memory(tmp_path: Path) -> None:
    path = write_segment(tmp_path / "a.seg")
    os.truncate(path, 10 << 30)
    with pytest.raises(SegmentError, match="more than 128 MiB"):
        read_segment(path)


def test_the_time_of_writing_is_the_latest_of_file_and_clock_readings(tmp_path: Path) -> None:
    path = write_segment(tmp_path / "a.seg")
    os.utime(path, ns=(0, 0))
    assert describe_segment(path).written_unix_ns == 1_700_000_000 * 10**9 + 1_000_000
    os.utime(path, ns=(0, 1_800_000_000 * 10**9))
    assert describe_segment(path).written_unix_ns == 1_800_000_000 * 10**9
