"""Archives of small files in memory: written so that equal content gives equal bytes, read without trust."""

from __future__ import annotations

import gzip
import io
import tarfile
import zlib
from collections.abc import Mapping
from typing import IO, Final, cast

from cfctl.errors import InputError, os_error_reason
from cfctl.host.view import MAX_FILE_BYTES, read_file

# A host of 1024 CPUs has some 60 files for each, at two moments.
MAX_FILES: Final = 200_000
MAX_ARCHIVE_BYTES: Final = 64 << 20
MAX_TOTAL_BYTES: Final = 256 << 20
# Many files of a few bytes, each padded to 512, shrink up to 60 times; bombs start above 1000.
MAX_RATIO: Final = 400
_RATIO_FLOOR_BYTES: Final = 16 << 20
_MAX_NAME: Final = 4096


def pack(files: Mapping[str, bytes]) -> bytes:
    """Return a .tar.gz of files by name, ordered, without owners, times or modes of this machine."""
    memory = io.BytesIO()
    with (
        gzip.GzipFile("", "wb", 9, memory, mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name in sorted(files):
            member = tarfile.TarInfo(name)
            member.size = len(files[name])
            archive.addfile(member, io.BytesIO(files[name]))
    return memory.getvalue()


def unpack(path: str) -> dict[str, bytes]:
    """Return the files of a .tar.gz by name, read into memory; nothing is written anywhere.

    Raises InputError for anything but a whole archive of regular files under plain relative names,
    and for one beyond the bounds of count, size and compression.
    """
    try:
        data = read_file(path, MAX_ARCHIVE_BYTES)
    except (OSError, ValueError) as error:
        why = os_error_reason(error) if isinstance(error, OSError) else f"{error}."
        raise InputError(f"{path} can not be read.", why, "Name a capture or a directory.") from error
    try:
        return _members(data)
    except _RefusedError as error:
        raise InputError(f"{path} is not used.", f"{error}.", "Make it anew: cfctl capture -o FILE") from None
    except (tarfile.TarError, OSError, EOFError, zlib.error, ValueError, OverflowError) as error:
        raise InputError(
            f"{path} is damaged or no capture.", f"{error or type(error).__name__}.",
            "Make it anew: cfctl capture -o FILE",
        ) from None  # fmt: skip


class _RefusedError(Exception):
    """Why an archive is not used."""


class _Bounded:
    """The inflated bytes of an archive, which end with an error where a bomb would go on."""

    def __init__(self, data: bytes) -> None:
        self._inflated = gzip.GzipFile(fileobj=io.BytesIO(data))
        self._limit = min(MAX_TOTAL_BYTES, max(_RATIO_FLOOR_BYTES, MAX_RATIO * len(data)))
        self._seen = 0

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes; never more than what is left of the bound and one."""
        left = self._limit - self._seen + 1
        data = self._inflated.read(left if size < 0 else min(size, left))
        self._seen += len(data)
        if self._seen > self._limit:
            raise _RefusedError(f"It would fill more than {self._limit >> 20} MiB")
        return data


def _members(data: bytes) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    count = 0
    # As a stream: a hostile offset can not lead back.
    with tarfile.open(fileobj=cast("IO[bytes]", _Bounded(data)), mode="r|") as archive:
        while (member := archive.next()) is not None:
            # The library keeps every header it saw; a stream never goes back to them.
            archive.members.clear()  # type: ignore[attr-defined]
            count += 1
            if count > MAX_FILES:
                raise _RefusedError(f"It holds more than {MAX_FILES} files")
            if member.isdir():
                continue
            _check(member, found)
            content = archive.extractfile(member)
            found[member.name] = content.read() if content is not None else b""
            if len(found[member.name]) != member.size:
                raise _RefusedError("It ends in the middle of a file")
    return found


def _check(member: tarfile.TarInfo, found: Mapping[str, bytes]) -> None:
    name = member.name
    if not member.isreg() or member.issparse():
        raise _RefusedError(f"'{name[:80]}' is no regular file")
    parts = name.split("/")
    if not name or len(name) > _MAX_NAME or "\0" in name or {"", ".", ".."} & set(parts):
        raise _RefusedError(f"'{name[:80]}' is no plain relative name")
    if name in found:
        raise _RefusedError(f"'{name[:80]}' is in it twice")
    if not 0 <= member.size <= MAX_FILE_BYTES:
        raise _RefusedError(f"'{name[:80]}' is larger than {MAX_FILE_BYTES >> 20} MiB")
