"""How many random reads a second the storage below a directory gives, past the page cache."""

from __future__ import annotations

import mmap
import os
import random
import tempfile
import threading
import time
from dataclasses import dataclass
from typing import Final

from cfctl.errors import UnobservableError, os_error_reason
from cfctl.host.view import HostView, UnreadableError
from cfctl.records import Measurement

FILE_BYTES: Final = 64 << 20
DURATION_S: Final = 1.0
_BLOCK: Final = 4096
_CHUNK: Final = 1 << 20
# Enough requests in flight for an SSD to show what it can, few enough for one CPU to keep up.
_THREADS: Final = 8


@dataclass(frozen=True, slots=True)
class StorageRate:
    """Random reads of 4 KiB a second in a directory, with 8 in flight."""

    directory: str
    reads_per_s: Measurement


def measure_storage(directory: str, duration_s: float = DURATION_S) -> StorageRate:
    """Return the rate of random O_DIRECT reads from a file of 64 MiB made in `directory`.

    The file has no name and is gone when this returns, however it ends. Writes 64 MiB once and reads
    for about `duration_s`. Raises UnobservableError when the file can not be made or its file system
    has no O_DIRECT.
    """
    refuse_memory(directory)
    try:
        with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
            for _ in range(FILE_BYTES // _CHUNK):
                # Not zeros: a file system may keep those nowhere.
                file.write(os.urandom(_CHUNK))
            os.fsync(file.fileno())
            fd = os.open(f"/proc/self/fd/{file.fileno()}", os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
            try:
                count, elapsed_s = _read_randomly(fd, duration_s)
            finally:
                os.close(fd)
    except OSError as error:
        raise UnobservableError(
            f"The storage of {directory} can not be measured.", os_error_reason(error),
            "Name a directory on a disk, with 64 MiB free.",
        ) from error  # fmt: skip
    if count == 0:
        raise UnobservableError(f"The storage of {directory} answered no read within {duration_s:g} s.")
    method = f"random reads of 4 KiB past the page cache, {_THREADS} in flight; Poisson error"
    rate = Measurement(count / elapsed_s, "1/s", count**0.5 / elapsed_s, count, method)
    return StorageRate(directory, rate)


def refuse_memory(directory: str) -> None:
    """Raise UnobservableError for a file system in memory: its rate says nothing about a disk."""
    try:
        device = os.stat(directory).st_dev  # noqa: PTH116 - a path of the user, followed as it is
        mounts = HostView().lines("proc/self/mountinfo")
    except (OSError, UnreadableError):
        # What stands in the way is told by making the file.
        return
    numbers = f"{os.major(device)}:{os.minor(device)}"
    for line in mounts:
        before, _, after = line.partition(" - ")
        if before.split()[2:3] == [numbers] and after.split()[:1] in (["tmpfs"], ["ramfs"]):
            raise UnobservableError(
                f"The storage of {directory} can not be measured.", "It is a file system in memory.",
                "Name a directory on a disk.",
            )  # fmt: skip


def _read_randomly(fd: int, duration_s: float) -> tuple[int, float]:
    """Return how many reads were made and how long it took; raises OSError of the first that failed."""
    counts = [0] * _THREADS
    errors: list[OSError] = []
    start = time.monotonic()
    end = start + duration_s

    def read(lane: int) -> None:
        places = random.Random(lane)  # noqa: S311 - places in a file are no secret
        # O_DIRECT wants memory that begins at a page.
        with mmap.mmap(-1, _BLOCK) as buffer:
            try:
                while time.monotonic() < end and not errors:
                    os.preadv(fd, [buffer], places.randrange(FILE_BYTES // _BLOCK) * _BLOCK)
                    counts[lane] += 1
            except OSError as error:
                errors.append(error)

    threads = [threading.Thread(target=read, args=(lane,), daemon=True) for lane in range(_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return sum(counts), time.monotonic() - start
