"""A host at one moment: its /proc and /sys under a sysroot, and the syscalls that describe it."""

from __future__ import annotations

import enum
import errno
import glob
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

from cfctl.errors import UnobservableError
from cfctl.host.cpus import parse_cpu_list, parse_cpu_mask
from cfctl.host.syscalls import CapturedSyscalls, RealSyscalls, Syscalls

# /proc/interrupts of 1024 CPUs is about 2 MB; no file a check reads is larger.
MAX_FILE_BYTES: Final = 8 << 20
_CHUNK_BYTES: Final = 1 << 16
# The one device a check reads: it answers at once with the PM QoS limit and has an end.
_READABLE_DEVICES: Final = frozenset({"/dev/cpu_dma_latency"})


class Lack(enum.StrEnum):
    """Why a file gave no value."""

    MISSING = "missing"
    EMPTY = "empty"
    DENIED = "permission denied"
    REFUSED = "refused by the kernel"
    GARBAGE = "not understood"
    TOO_LARGE = "too large"
    FOREIGN = "no regular file"
    UNCAPTURED = "not in the capture"


class UnreadableError(UnobservableError):
    """Raised when a file or syscall of the host gives no value; says which and why."""

    def __init__(self, source: str, lack: Lack, detail: str = "") -> None:
        super().__init__(f"{source}: {lack}", detail)
        self.source = source
        self.lack = lack
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.what} ({self.detail})" if self.detail else self.what


Reader = Callable[[str, int], bytes]


def read_file(path: str, max_bytes: int) -> bytes:
    """Return the content of a regular file, at most `max_bytes`; never waits (FIFO, device).

    Raises OSError: ENOTSUP for anything but a regular file, EFBIG for a larger one.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        mode = os.fstat(fd).st_mode
        if not (stat.S_ISREG(mode) or (stat.S_ISCHR(mode) and path in _READABLE_DEVICES)):
            raise OSError(errno.ENOTSUP, "not a regular file")
        chunks = []
        size = 0
        # /proc files state a size of 0, so that only reading to the end finds it.
        while chunk := os.read(fd, min(_CHUNK_BYTES, max_bytes + 1 - size)):
            chunks.append(chunk)
            size += len(chunk)
            if size > max_bytes:
                raise OSError(errno.EFBIG, f"more than {max_bytes} bytes")
        return b"".join(chunks)
    finally:
        os.close(fd)


_LACK_OF_ERRNO: Final = {
    errno.ENOENT: Lack.MISSING,
    errno.ENOTDIR: Lack.MISSING,
    errno.ENODEV: Lack.MISSING,
    errno.ENXIO: Lack.MISSING,
    errno.ESRCH: Lack.MISSING,
    errno.EPERM: Lack.DENIED,
    errno.EACCES: Lack.DENIED,
    errno.EISDIR: Lack.FOREIGN,
    errno.ENOTSUP: Lack.FOREIGN,
    errno.ELOOP: Lack.FOREIGN,
    errno.EFBIG: Lack.TOO_LARGE,
}
# Lacks whose error says more than their name.
_EXPLAINED: Final = frozenset({Lack.REFUSED, Lack.FOREIGN, Lack.TOO_LARGE})


class HostView:
    """Reads of a host's files at one moment: each file is read once and remembered.

    Paths are relative to the sysroot ("proc/stat"). Each method raises UnreadableError when there
    is no value, so that absent, empty, forbidden and meaningless never look like a value.
    """

    def __init__(
        self, sysroot: str | Path = "/", syscalls: Syscalls | None = None, reader: Reader = read_file
    ) -> None:
        self.sysroot = Path(sysroot)
        self.is_live = self.sysroot == Path("/")
        if syscalls is None:
            syscalls = RealSyscalls() if self.is_live else CapturedSyscalls.load(self.sysroot)
        self.syscalls = syscalls
        self.monotonic_ns = syscalls.monotonic_ns()
        # Known beforehand only of a captured host, whose CPU nobody can ask any more.
        self.cpu_brand: str | None = None
        self._reader = reader
        self._root = os.path.realpath(self.sysroot)
        self._contents: dict[str, bytes | UnreadableError] = {}

    def content(self, path: str) -> bytes:
        """Return a file's bytes as they are."""
        found = self._contents.get(path)
        if found is None:
            found = self._contents[path] = self._read(path)
        if isinstance(found, UnreadableError):
            raise found
        return found

    def _read(self, path: str) -> bytes | UnreadableError:
        try:
            return self._reader(self._resolve(path), MAX_FILE_BYTES)
        except OSError as error:
            lack = _LACK_OF_ERRNO.get(error.errno or 0, Lack.REFUSED)
            detail = (error.strerror or type(error).__name__) if lack in _EXPLAINED else ""
            return UnreadableError(shown(path), lack, detail)
        except ValueError:
            return UnreadableError(shown(path), Lack.MISSING, "no such name can exist")

    def _resolve(self, path: str) -> str:
        full = os.path.join(self._root, path)  # noqa: PTH118
        if self.is_live:
            return full
        # A captured directory came from elsewhere: a link in it must not open our own files.
        real = os.path.realpath(full)
        if real != self._root and not real.startswith(self._root + os.sep):
            raise OSError(errno.ELOOP, "the link leads out of the sysroot")
        return real

    def text(self, path: str) -> str:
        """Return a file's text without surrounding white space; never "" (that is a lack)."""
        text = self.content(path).decode("utf-8", "replace").strip()
        if not text.strip("\0"):
            raise UnreadableError(shown(path), Lack.EMPTY)
        return text

    def lines(self, path: str) -> list[str]:
        """Return a file's lines that are not blank, at least one."""
        return [line for line in self.text(path).splitlines() if line.strip()]

    def integer(self, path: str, base: int = 10) -> int:
        """Return the integer a file holds."""
        return integer_in(path, self.text(path), base)

    def word(self, path: str) -> str:
        """Return the one word a file holds."""
        text = self.text(path)
        if not text.isprintable() or len(text.split()) != 1:
            raise garbage(path, text, "one word")
        return text

    def choice(self, path: str) -> str:
        """Return the word in brackets of "always [madvise] never"."""
        text = self.text(path)
        chosen = [word[1:-1] for word in text.split() if word.startswith("[") and word.endswith("]")]
        if len(chosen) != 1 or not chosen[0]:
            raise garbage(path, text, "a choice in brackets")
        return chosen[0]

    def cpu_list(self, path: str) -> tuple[int, ...]:
        """Return the CPUs of a list file; an empty line and "(null)" are no CPUs, no byte is a lack."""
        return self._cpus(path, parse_cpu_list, "a CPU list")

    def cpu_mask(self, path: str) -> tuple[int, ...]:
        """Return the CPUs of a hex mask file."""
        return self._cpus(path, parse_cpu_mask, "a CPU mask")

    def _cpus(self, path: str, parse: Callable[[str], tuple[int, ...]], expected: str) -> tuple[int, ...]:
        content = self.content(path)
        if not content:
            raise UnreadableError(shown(path), Lack.EMPTY)
        text = content.decode("utf-8", "replace").strip()
        try:
            return parse(text)
        except ValueError:
            raise garbage(path, text, expected) from None

    def fields(self, path: str, separator: str | None = None) -> dict[str, str]:
        """Return "name value" or, with `separator`, "name: value" lines; the first of a name wins."""
        found: dict[str, str] = {}
        for line in self.lines(path):
            name, *rest = line.split(separator, 1)
            if rest:
                found.setdefault(name.strip(), rest[0].strip())
        if not found:
            raise garbage(path, self.text(path), "named values")
        return found

    def exists(self, path: str) -> bool:
        """Return whether there is something of that name, readable or not."""
        try:
            return os.path.lexists(self._resolve(path))
        except (OSError, ValueError):
            return False

    def names(self, path: str) -> list[str]:
        """Return the names in a directory, sorted; none when it can not be listed."""
        try:
            return sorted(os.listdir(self._resolve(path)))  # noqa: PTH208
        except (OSError, ValueError):
            return []

    def matching(self, pattern: str) -> list[str]:
        """Return the paths that match a shell pattern, in the order of the numbers in them."""
        found = glob.glob(pattern, root_dir=self._root)  # noqa: PTH207 - relative to the sysroot
        # A link out of a captured directory would show names of our own.
        return sorted((path for path in found if self.is_live or self._is_inside(path)), key=natural_order)

    def _is_inside(self, path: str) -> bool:
        try:
            self._resolve(path)
        except OSError:
            return False
        return True


def shown(path: str) -> str:
    """Return a view's path as a person writes it: "/proc/stat"."""
    return "/" + path


def integer_in(path: str, text: str, base: int = 10) -> int:
    """Return text of a file as the integer it stands for; no kernel counter has more than 64 bits.

    Raises UnreadableError. The bound keeps arithmetic on a hostile capture within a float's range.
    """
    try:
        number = int(text, base)
    except ValueError:
        raise garbage(path, text, "a number") from None
    if not -(2**63) <= number < 2**64:
        raise garbage(path, text, "a number of 64 bits")
    return number


def garbage(path: str, text: str, expected: str) -> UnreadableError:
    """Return the error for a file that holds something else than `expected`."""
    return UnreadableError(shown(path), Lack.GARBAGE, f"{expected} was expected, found {text[:40]!r}")


def natural_order(path: str) -> list[tuple[int, str]]:
    """Return a sort key under which cpu10 comes after cpu9."""
    parts: list[tuple[int, str]] = []
    number = ""
    for char in path:
        if char.isdecimal() and char.isascii():
            number += char
            continue
        if number:
            parts.append((int(number), ""))
            number = ""
        parts.append((-1, char))
    if number:
        parts.append((int(number), ""))
    return parts
