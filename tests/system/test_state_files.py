"""State files under strace, on a full disk, and where errors are injected into each system call."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cfctl import text

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed"),
]

PACKAGE_PARENT = str(Path(text.__file__).parents[1])
WRITE = """
import sys
from pathlib import Path
from cfctl.errors import StateError
from cfctl.paths import write_atomically
try:
    write_atomically(Path(sys.argv[1]), b"new" * int(sys.argv[2]))
except StateError as error:
    print(error)
    sys.exit(3)
"""


def write(file: Path, *, strace: list[str], count: int = 1) -> subprocess.CompletedProcess[str]:
    """Write a state file in a process under strace."""
    command = ["strace", "-f", *strace, sys.executable, "-c", WRITE, str(file), str(count)]
    environ = os.environ | {"PYTHONPATH": PACKAGE_PARENT, "PYTHONDONTWRITEBYTECODE": "1"}
    result = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)
    if "ptrace" in result.stderr and "Operation not permitted" in result.stderr:
        pytest.skip("ptrace is not permitted here")
    return result


def test_the_kernel_sees_write_fsync_rename_and_fsync_of_the_directory(tmp_path: Path) -> None:
    file = tmp_path / "state" / "a.json"
    log = tmp_path / "log"
    result = write(file, strace=["-y", "-o", str(log), "-e", "trace=write,fsync,rename,renameat,renameat2"])
    assert result.returncode == 0
    steps = [
        re.sub(r"^\d+ +", "", line)
        for line in log.read_text().splitlines()
        if str(file.parent) in line and "resumed" not in line
    ]
    assert [step.partition("(")[0].rstrip("2").removesuffix("at") for step in steps] == [
        "write", "fsync", "rename", "fsync",
    ]  # fmt: skip
    assert ".tmp>" in steps[0]
    assert ".tmp>" in steps[1]
    assert f"<{file.parent}>" in steps[3]


@pytest.mark.parametrize("error", ["ENOSPC", "EIO", "EROFS", "EDQUOT"])
@pytest.mark.parametrize("call", ["fsync", "rename,renameat,renameat2", "fchmod"])
def test_an_error_of_each_call_keeps_the_old_file_and_leaves_no_temporary_one(
    tmp_path: Path, call: str, error: str
) -> None:
    directory = tmp_path / "state"
    directory.mkdir()
    file = directory / "a.json"
    file.write_text("old")
    result = write(file, strace=["-o", "/dev/null", "-e", f"inject={call}:error={error}:when=1"])
    assert result.returncode == 3, result.stderr
    assert "can not be written" in result.stdout
    assert [(entry.name, entry.read_text()) for entry in directory.iterdir()] == [("a.json", "old")]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a tmpfs of 64 KiB; only root can."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k,mode=0700", "cfctl-test", str(place)],
        capture_output=True,
        text=True,
    )
    if mounted.returncode != 0:
        pytest.skip(f"no tmpfs can be mounted: {mounted.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_a_full_disk_keeps_the_old_file_and_leaves_no_temporary_one(small_disk: Path) -> None:
    file = small_disk / "a.json"
    assert write(file, strace=["-o", "/dev/null"]).returncode == 0
    result = write(file, strace=["-o", "/dev/null"], count=100_000)
    assert result.returncode == 3
    assert "No space left on device" in result.stdout
    assert [(entry.name, entry.read_text()) for entry in small_disk.iterdir()] == [("a.json", "new")]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_a_result_that_does_not_fit_exits_3_and_keeps_the_old_one(small_disk: Path) -> None:
    report = small_disk / "report.json"
    report.write_text("old")
    (small_disk / "filler").write_bytes(b"x" * 60_000)
    result = subprocess.run(
        [sys.executable, "-m", "cfctl", "config", "show", "--json", "-o", str(report)],
        env=os.environ | {"PYTHONPATH": PACKAGE_PARENT}, cwd=small_disk, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert result.returncode == 3
    assert "No space left on device" in result.stderr
    assert report.read_text() == "old"
