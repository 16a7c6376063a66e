"""Whether the dynamic loader would load the preload library into a program, told before it runs.

Sources: elf(5), ld.so(8) on secure-execution mode, execve(2) on interpreter scripts.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cfctl.errors import os_error_reason
from cfctl.launch import LaunchError

_SCRIPT_DEPTH: Final = 5
_FIRST_LINE_BYTES: Final = 4096
_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_DT_NEEDED, _DT_STRTAB, _DT_STRSZ = 1, 5, 10
_MAX_TABLE_BYTES: Final = 1 << 20
_ASSIGNMENT: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")
# Runtimes that stand before malloc themselves and end a program in which another does.
_SANITIZERS: Final = ("libasan.so", "libtsan.so", "liblsan.so", "libhwasan.so", "libmsan.so")


def require_countable(command: Sequence[str], library: Path) -> None:
    """Raise LaunchError when a command's program, or a script's interpreter, would not be counted.

    What is not there, or can not be read, is left to the attempt to run it.
    """
    path = shutil.which(command[0])
    if path is None:
        return
    try:
        own = _Elf.read(library)
    except (OSError, _NoElfError) as error:
        why = os_error_reason(error) if isinstance(error, OSError) else "It is no ELF file."
        raise LaunchError(
            f"The preload library {library} can not be read.", why, "Install cfctl anew."
        ) from error
    for program in _chain(Path(path), command[1:]):
        _require_program(program, own)


def _chain(path: Path, arguments: Sequence[str], depth: int = 0) -> Iterator[Path]:
    """Yield the program, and for a script its interpreters, down to what env(1) starts."""
    line = _first_line(path)
    if line is not None and depth < _SCRIPT_DEPTH:
        interpreter, _, rest = line.partition(" ")
        if interpreter:
            yield from _chain(Path(interpreter), rest.split(), depth + 1)
        return
    yield path
    if path.name == "env" and (target := _started_by_env(arguments)) and depth < _SCRIPT_DEPTH:
        found = shutil.which(target)
        if found is not None:
            yield from _chain(Path(found), (), depth + 1)


def _started_by_env(words: Sequence[str]) -> str | None:
    return next((word for word in words if not (word.startswith("-") or _ASSIGNMENT.match(word))), None)


def _first_line(path: Path) -> str | None:
    """Return what follows #! in a script, None for anything else or what can not be read."""
    try:
        with path.open("rb") as file:
            data = file.read(_FIRST_LINE_BYTES)
    except OSError:
        return None
    if not data.startswith(b"#!"):
        return None
    return os.fsdecode(data[2:].partition(b"\n")[0]).strip()


def _require_program(path: Path, own: _Elf) -> None:
    _require_unprivileged(path)
    try:
        program = _Elf.read(path)
    except (OSError, _NoElfError):
        return
    if program.machine != own.machine:
        raise _refused(path, "It is built for another CPU or word size than the preload library.")
    if program.interpreter is None:
        raise _refused(path, "It is statically linked, so that no library can be loaded before it.")
    if Path(program.interpreter).name != Path(own_interpreter()).name:
        raise _refused(path, f"Its loader is {program.interpreter}: it uses another C library.")
    for name in program.needed:
        if name.startswith(_SANITIZERS):
            raise _refused(path, f"It is built with a sanitizer ({name}), which does not share malloc.")


def own_interpreter() -> str:
    """Return the loader of the running Python, which the preload library belongs to; "" if static."""
    try:
        return _Elf.read(Path("/proc/self/exe")).interpreter or ""
    except (OSError, _NoElfError):
        return ""


def _require_unprivileged(path: Path) -> None:
    """Refuse what the loader runs in secure-execution mode, in which it ignores LD_PRELOAD."""
    try:
        status = path.stat()
    except OSError:
        return
    if status.st_mode & stat.S_ISUID and status.st_uid != os.geteuid():
        raise _refused(path, "It is setuid: the loader ignores LD_PRELOAD for it.", "Run it as its owner.")
    if status.st_mode & stat.S_ISGID and status.st_mode & stat.S_IXGRP and status.st_gid != os.getegid():
        raise _refused(path, "It is setgid: the loader ignores LD_PRELOAD for it.", "Run it as its group.")
    if os.geteuid() != 0 and _has_capabilities(path):
        raise _refused(
            path, "It has file capabilities: the loader ignores LD_PRELOAD for it.", "Run as root."
        )


def _has_capabilities(path: Path) -> bool:
    try:
        return bool(os.getxattr(path, "security.capability"))
    except OSError:
        return False


def _refused(path: Path, why: str, todo: str = "Name a dynamically linked program.") -> LaunchError:
    return LaunchError(f"The allocations of {path} can not be counted.", why, todo)


class _NoElfError(Exception):
    """What is no ELF file, or is damaged."""


@dataclass(frozen=True, slots=True)
class _Elf:
    """What of an ELF file decides: class with machine, the loader it asks for, the libraries it needs."""

    machine: tuple[int, int]
    interpreter: str | None
    needed: tuple[str, ...]

    @classmethod
    def read(cls, path: Path) -> _Elf:
        """Return what stands in a file; raises OSError, _NoElfError."""
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            return _parse(fd)
        except (struct.error, UnicodeDecodeError) as error:
            raise _NoElfError from error
        finally:
            os.close(fd)


def _parse(fd: int) -> _Elf:
    head = os.pread(fd, 64, 0)
    if head[:4] != b"\x7fELF" or head[4] not in {1, 2} or head[5] not in {1, 2}:
        raise _NoElfError
    order = "<" if head[5] == 1 else ">"
    wide = head[4] == 2
    (machine,) = struct.unpack_from(f"{order}H", head, 18)
    (offset,) = struct.unpack_from(f"{order}{'Q' if wide else 'I'}", head, 32 if wide else 28)
    size, count = struct.unpack_from(f"{order}2H", head, 54 if wide else 42)
    table = os.pread(fd, size * count, offset)
    headers = [_program_header(table, index * size, order, wide) for index in range(count)]
    interpreter = next((h for h in headers if h[0] == _PT_INTERP), None)
    dynamic = next((h for h in headers if h[0] == _PT_DYNAMIC), None)
    return _Elf(
        (head[4], machine),
        None if interpreter is None else _text(os.pread(fd, min(interpreter[3], 4096), interpreter[1])),
        () if dynamic is None else tuple(_needed(fd, dynamic, headers, order, wide)),
    )


def _program_header(table: bytes, at: int, order: str, wide: bool) -> tuple[int, int, int, int]:
    """Return type, offset in the file, address in memory and size in the file."""
    if wide:
        kind, _, offset, address, _, size = struct.unpack_from(f"{order}2I4Q", table, at)
    else:
        kind, offset, address, _, size = struct.unpack_from(f"{order}5I", table, at)
    return kind, offset, address, size


def _needed(
    fd: int,
    dynamic: tuple[int, int, int, int],
    headers: Sequence[tuple[int, int, int, int]],
    order: str,
    wide: bool,
) -> Iterator[str]:
    pair = struct.Struct(f"{order}{'2Q' if wide else '2I'}")
    data = os.pread(fd, min(dynamic[3], _MAX_TABLE_BYTES), dynamic[1])
    entries = list(pair.iter_unpack(data[: len(data) // pair.size * pair.size]))
    facts = dict(entries)
    address = facts.get(_DT_STRTAB, 0)
    load = next((h for h in headers if h[0] == _PT_LOAD and h[2] <= address < h[2] + h[3]), None)
    if load is None:
        return
    names = os.pread(fd, min(facts.get(_DT_STRSZ, 0), _MAX_TABLE_BYTES), load[1] + address - load[2])
    for tag, value in entries:
        if tag == _DT_NEEDED and value < len(names):
            yield _text(names[value:])


def _text(data: bytes) -> str:
    return os.fsdecode(data.partition(b"\0")[0])
