"""A recording of observations: append-only, whole up to the last acknowledged record, bounded, replayable.

Each line is the CRC-32 of a JSON document in hex, a space, and the document. A recorder that is
killed leaves at most one torn line at the end, which the next one cuts off. A file that has reached
half of the limit becomes FILE.1, in the place of the older half.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final

from cfctl.diagnose.stored import restored
from cfctl.errors import InputError, StateError, os_error_reason
from cfctl.monitor.watch import Observation
from cfctl.records import to_plain

DEFAULT_LIMIT_BYTES: Final = 256 << 20
# One snapshot of some hundred series is 40 kB; a line beyond this is no record.
MAX_LINE_BYTES: Final = 16 << 20
_OLDER: Final = ".1"


class Recorder:
    """Appends documents to a file. Not thread-safe; one recorder per file, which a lock sees to.

    Raises InputError when the file is no recording or another recorder has it, StateError when it
    can not be written.
    """

    def __init__(self, path: Path, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> None:
        self._path = path
        self._half = max(1, limit_bytes // 2)
        try:
            self._fd, self._size = _opened(path)
        except OSError as error:
            raise _unwritable(path, error) from error

    def append(self, document: Any) -> None:
        """Store a document; it is on the disk when this returns."""
        line = encoded(document)
        try:
            if self._size and self._size + len(line) > self._half:
                self._turn_over()
            _write_whole(self._fd, line)
            os.fsync(self._fd)
        except OSError as error:
            # What was written of the line is torn: the next append must not stand behind it.
            os.ftruncate(self._fd, self._size)
            raise StateError(
                f"The recording {self._path} could not be written.", os_error_reason(error), "Free space."
            ) from error
        self._size += len(line)

    def _turn_over(self) -> None:
        self._path.rename(f"{self._path}{_OLDER}")
        fd, self._size = _opened(self._path)
        os.close(self._fd)
        self._fd = fd
        _fsync_directory(self._path)

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def encoded(document: Any) -> bytes:
    """Return a document as a line of a recording."""
    data = json.dumps(to_plain(document), allow_nan=False, separators=(",", ":")).encode()
    return b"%08x " % zlib.crc32(data) + data + b"\n"


def replay(path: Path) -> Iterator[Observation]:
    """Yield the observations of a recording, oldest first, the older half before the newer.

    A torn last line is left out. Raises InputError for a file that is no recording of a monitor,
    StateError for a damaged record that others follow.
    """
    for document in documents(path):
        try:
            yield restored(Observation, document)
        except ValueError as error:
            raise InputError(f"{path} holds something that is no observation.", f"{error}.") from error


def documents(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the documents of a recording as they were stored; errors as `replay`."""
    halves = [half for half in (Path(f"{path}{_OLDER}"), path) if half.exists()]
    if not halves:
        raise InputError(f"There is no recording {path}.", "The file does not exist.")
    for half in halves:
        yield from _documents(half)


def _documents(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with path.open("rb") as file:
            number = 0
            while line := file.readline(MAX_LINE_BYTES):
                number += 1
                document = decoded(line)
                if document is not None:
                    yield document
                elif number == 1:
                    raise InputError(f"{path} is no recording.", "Its first line is no record.")
                elif file.readline(1):
                    raise StateError(
                        f"{path} is damaged.", f"Line {number} is no record, and others follow it."
                    )
    except OSError as error:
        raise InputError(f"{path} can not be read.", os_error_reason(error)) from error


def decoded(line: bytes) -> dict[str, Any] | None:
    """Return the document of a line, None for anything that is no whole record."""
    checksum, _, data = line.partition(b" ")
    if len(checksum) != 8 or not data.endswith(b"\n"):
        return None
    data = data[:-1]
    try:
        if int(checksum, 16) != zlib.crc32(data):
            return None
        document = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _opened(path: Path) -> tuple[int, int]:
    """Return a locked descriptor at the end of the last whole record, and that end; cuts off what is torn."""
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    with contextlib.ExitStack() as undo:
        fd = os.open(path, flags, 0o600)
        undo.callback(os.close, fd)
        _require_regular(fd)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(f"{path} is being recorded to.", "Another cfctl monitor has it open.") from error
        with os.fdopen(os.dup(fd), "rb") as file:
            end = _whole_bytes(path, file)
        os.ftruncate(fd, end)
        _fsync_directory(path)
        undo.pop_all()
    return fd, end


def _require_regular(fd: int) -> None:
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        raise OSError(errno.EINVAL, "It is no regular file")


def _whole_bytes(path: Path, file: BinaryIO) -> int:
    """Return how many bytes of a file are whole records; raises InputError when it never held any."""
    end = 0
    while line := file.readline(MAX_LINE_BYTES):
        if decoded(line) is None:
            if end == 0 and not _begins_a_record(line):
                raise InputError(f"{path} is no recording.", "It holds something else.", "Name another file.")
            if file.readline(1):
                raise StateError(f"{path} is damaged.", "A record in it is broken, and others follow it.")
            break
        end += len(line)
    return end


def _begins_a_record(line: bytes) -> bool:
    """Return whether a first line may be a record that a kill tore: 8 hex digits, a space, a brace."""
    return re.fullmatch(rb"[0-9a-f]{1,8}|[0-9a-f]{8} |[0-9a-f]{8} \{.*", line, re.DOTALL) is not None


def _write_whole(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _fsync_directory(path: Path) -> None:
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _unwritable(path: Path, error: OSError) -> InputError:
    return InputError(
        f"The recording {path} can not be written.", os_error_reason(error), "Name another file."
    )
