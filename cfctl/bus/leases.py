"""Who of a directory's bus lives, and the locks of its topics: bytes of "bus.leases", as native/participant.h says."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Self

NAME: Final = "bus.leases"
_FIRST_PARTICIPANT: Final = 1 << 32
_TOPIC_LOCKS: Final = 1 << 62
# struct flock of a 64-bit Linux: type, whence, start, length, pid.
_FLOCK: Final = struct.Struct("@hhqqi4x")


class Leases:
    """The leases of a directory at one moment: who is asked for again gets the same answer.

    A context manager. What cannot be known is taken for living, so that nothing in use is removed; where there
    is no file of leases, nobody lives. `to_lock` opens the file for the locks of topics. Not thread-safe.
    """

    def __init__(self, directory: Path, *, to_lock: bool = False) -> None:
        flags = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
        self._known: dict[int, bool] = {}
        self._nobody = False
        self._fd = -1
        try:
            self._fd = os.open(directory / NAME, flags | (os.O_RDWR if to_lock else os.O_RDONLY))
            if not stat.S_ISREG(os.fstat(self._fd).st_mode):
                self.close()
        except FileNotFoundError:
            self._nobody = True
        except OSError:
            # Another user's, or a link: who lives cannot be known.
            self.close()

    def __enter__(self) -> Self:
        """Return the leases."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file, and give up its locks."""
        self.close()

    def close(self) -> None:
        """Close the file, and give up its locks; idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def lives(self, participant: int) -> bool:
        """Return whether a participant lives; one syscall for each that was not asked for before."""
        if self._nobody or not _FIRST_PARTICIPANT <= participant < _TOPIC_LOCKS:
            return False
        found = self._known.get(participant)
        if found is None:
            found = self._known[participant] = self._fd < 0 or _is_locked(self._fd, participant)
        return found

    def look_again(self) -> None:
        """Forget who was found to live."""
        self._known.clear()

    @contextlib.contextmanager
    def topic_locked(self, topic_hash: int) -> Iterator[bool]:
        """Hold the lock under which a topic's page and its list of rings change; False when another has it."""
        byte = _TOPIC_LOCKS + (topic_hash & _TOPIC_LOCKS - 1)
        held = self._fd >= 0 and _lock(self._fd, byte, fcntl.F_WRLCK)
        try:
            yield held
        finally:
            if held:
                _lock(self._fd, byte, fcntl.F_UNLCK)


def _is_locked(fd: int, byte: int) -> bool:
    query = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)
    try:
        (kind, *_) = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_OFD_GETLK, query))
    except OSError:
        # A file system without locks.
        return True
    return bool(kind != fcntl.F_UNLCK)


def _lock(fd: int, byte: int, kind: int) -> bool:
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, byte, 1, 0))
    except OSError:
        return False
    return True
