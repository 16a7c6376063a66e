"""State files: whole or not at all, owned, bounded, and never through a link."""

from __future__ import annotations

import errno
import os
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from cfctl import paths
from cfctl.errors import StateError


def names(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir())


def test_a_state_file_is_written_synced_renamed_and_its_directory_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []

    def record(name: str) -> None:
        original = getattr(os, name)

        def call(*arguments: Any, **options: Any) -> Any:
            is_directory = name == "fsync" and stat.S_ISDIR(os.fstat(arguments[0]).st_mode)
            steps.append("fsync directory" if is_directory else name)
            return original(*arguments, **options)

        monkeypatch.setattr(os, name, call)

    for name in ("fsync", "replace"):
        record(name)
    paths.write_atomically(tmp_path / "state" / "a.json", b"{}")
    assert steps == ["fsync", "replace", "fsync directory"]


def test_a_state_file_is_private_whatever_the_umask_is(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        paths.write_atomically(tmp_path / "deep" / "er" / "a.json", b"1")
    finally:
        os.umask(old)
    for directory in ("deep", "deep/er"):
        assert stat.S_IMODE((tmp_path / directory).stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "deep/er/a.json").stat().st_mode) == 0o600


def test_the_mode_of_a_directory_that_exists_is_left_alone(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    paths.write_atomically(tmp_path / "a.json", b"1")
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


def test_what_a_killed_writer_left_is_removed_once_it_is_old(tmp_path: Path) -> None:
    left = {name: tmp_path / name for name in (
        ".a.json.0123456789ab.tmp", ".a.json.ba9876543210.tmp", ".b.json.0123456789ab.tmp", ".a.json.mine.tmp",
    )}  # fmt: skip
    for name, file in left.items():
        file.write_bytes(b"half")
        if name != ".a.json.ba9876543210.tmp":
            os.utime(file, (0, 0))
    (tmp_path / ".a.json.aaaaaaaaaaaa.tmp").mkdir()
    paths.write_atomically(tmp_path / "a.json", b"{}")
    # Neither another file's, nor one that may be being written, nor what has another name.
    assert sorted(found.name for found in tmp_path.iterdir()) == sorted(
        [".a.json.aaaaaaaaaaaa.tmp", "a.json", *(left.keys() - {".a.json.0123456789ab.tmp"})]
    )


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_failed_write_keeps_the_old_file_and_leaves_no_temporary_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    file = tmp_path / "a.json"
    paths.write_atomically(file, b"old")

    def fail(*arguments: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(StateError, match="No space left") as caught:
        paths.write_atomically(file, b"new")
    assert str(file) in caught.value.what
    assert file.read_bytes() == b"old"
    assert names(tmp_path) == ["a.json"]


def test_threads_that_write_one_file_leave_one_whole_file(tmp_path: Path) -> None:
    contents = [bytes([65 + n]) * 50_000 for n in range(4)]
    barrier = threading.Barrier(len(contents))

    def write(data: bytes) -> None:
        barrier.wait()
        for _ in range(5):
            paths.write_atomically(tmp_path / "a", data)

    threads = [threading.Thread(target=write, args=(data,)) for data in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "a").read_bytes() in contents
    assert names(tmp_path) == ["a"]


def test_a_link_in_place_of_the_state_file_is_replaced_and_its_target_untouched(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    link = tmp_path / "a.json"
    link.symlink_to(victim)
    paths.write_atomically(link, b"{}")
    assert victim.read_text() == "precious"
    assert not link.is_symlink()


def test_a_link_is_never_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("{}")
    (tmp_path / "link").symlink_to(secret)
    with pytest.raises(StateError, match="symbolic link"):
        paths.read_bounded(tmp_path / "link")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a file of somebody else")
def test_a_file_or_directory_of_another_user_is_not_used(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "a").write_text("{}")
    os.chown(foreign, 65534, 65534)
    os.chown(foreign / "a", 65534, 65534)
    for use in (
        lambda: paths.write_atomically(foreign / "b", b""),
        lambda: paths.read_bounded(foreign / "a"),
        lambda: paths.ensure_private_directory(foreign),
    ):
        with pytest.raises(StateError):
            use()
    assert names(foreign) == ["a"]


def test_a_private_directory_is_made_private(tmp_path: Path) -> None:
    paths.ensure_private_directory(tmp_path / "new" / "segments")
    assert stat.S_IMODE((tmp_path / "new" / "segments").stat().st_mode) == 0o700
    paths.ensure_private_directory(tmp_path / "new" / "segments")


@pytest.mark.parametrize("mode", [0o755, 0o1777, 0o710])
def test_a_directory_that_is_shared_is_refused_and_left_as_it_is(tmp_path: Path, mode: int) -> None:
    directory = tmp_path / "shared"
    directory.mkdir()
    directory.chmod(mode)
    with pytest.raises(StateError, match=rf"open to others \(mode {mode:04o}"):
        paths.ensure_private_directory(directory)
    assert stat.S_IMODE(directory.stat().st_mode) == mode


@pytest.mark.parametrize("kind", ["link", "dangling link", "file"])
def test_a_private_directory_is_no_link_and_no_file(tmp_path: Path, kind: str) -> None:
    place, target = tmp_path / "place", tmp_path / "target"
    if kind == "file":
        place.write_text("")
    else:
        if kind == "link":
            target.mkdir(mode=0o755)
        place.symlink_to(target)
    with pytest.raises(StateError, match="not used"):
        paths.ensure_private_directory(place)
    if kind == "link":
        assert stat.S_IMODE(target.stat().st_mode) == 0o755


def test_reading_is_bounded(tmp_path: Path) -> None:
    file = tmp_path / "sparse"
    with file.open("wb") as sparse:
        sparse.truncate(10 << 30)
    with pytest.raises(StateError, match="more than"):
        paths.read_bounded(file)


@pytest.mark.parametrize("kind", ["directory", "fifo"])
def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "place"
    if kind == "fifo":
        os.mkfifo(place)
    else:
        place.mkdir()
    with pytest.raises(StateError, match="no regular file"):
        paths.read_bounded(place)


def test_reading_closes_its_descriptor_when_it_refuses(tmp_path: Path) -> None:
    before = len(names(Path("/proc/self/fd")))
    for _ in range(5):
        with pytest.raises(StateError):
            paths.read_bounded(tmp_path)
    assert len(names(Path("/proc/self/fd"))) == before


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b"1" * 5000, b"null"])
def test_a_corrupt_state_file_is_set_aside_and_never_overwritten(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "history.json"
    kept = []
    for number in range(3):
        file.write_bytes(content + b" " * number)
        with pytest.raises(StateError, match="corrupt"):
            paths.read_json_state(file)
        assert not file.exists()
        kept.append(content + b" " * number)
    assert sorted(entry.read_bytes() for entry in tmp_path.iterdir()) == sorted(kept)


def test_a_corrupt_file_that_can_not_be_moved_is_named_for_the_user_to_move(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "history.json"
    file.write_bytes(b"{")

    def refuse(*arguments: Any, **options: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(StateError, match="Move it away"):
        paths.read_json_state(file)
    assert file.read_bytes() == b"{"


def test_no_state_file_is_no_error(tmp_path: Path) -> None:
    assert paths.read_json_state(tmp_path / "none.json") is None


def test_a_result_replaces_a_file_and_keeps_its_mode(tmp_path: Path) -> None:
    file = tmp_path / "report"
    file.write_text("old")
    file.chmod(0o664)
    paths.write_result(file, b"new")
    assert file.read_bytes() == b"new"
    assert stat.S_IMODE(file.stat().st_mode) == 0o664
    assert names(tmp_path) == ["report"]


def test_a_new_result_gets_the_mode_the_umask_leaves(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        paths.write_result(tmp_path / "report", b"")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "report").stat().st_mode) == 0o640


def test_a_result_goes_through_a_link_to_its_target(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("old")
    (tmp_path / "link").symlink_to(target)
    paths.write_result(tmp_path / "link", b"new")
    assert target.read_bytes() == b"new"
    assert (tmp_path / "link").is_symlink()


def test_a_result_goes_into_a_device_in_place() -> None:
    paths.write_result(Path("/dev/null"), b"gone")
    assert not Path("/dev/null").is_file()
    with pytest.raises(OSError, match="No space left"):
        paths.write_result(Path("/dev/full"), b"x")


def test_the_directories_follow_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/s")
    monkeypatch.setenv("XDG_CONFIG_HOME", "/c")
    monkeypatch.setenv("CFCTL_SEGMENT_DIR", "/d")
    assert paths.state_directory() == Path("/s/cfctl")
    assert paths.user_config_file() == Path("/c/cfctl/config.toml")
    assert paths.segment_directory() == Path("/d")
    monkeypatch.delenv("CFCTL_SEGMENT_DIR")
    assert paths.segment_directory() == Path(f"/dev/shm/cfctl-{os.geteuid()}")
