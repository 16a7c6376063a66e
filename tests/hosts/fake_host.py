"""Hosts made of text: a TOML file (or a dict) becomes a sysroot with syscalls.json.

A table [files] holds the files of the host, [later] those that differ at the end of the interval,
[syscalls] the answers. "cpu{0-7}" in a name stands for eight files, "{n}" in their content for the
number. The content of proc/config.gz is compressed. An empty [later] means a host seen only once.
"""

from __future__ import annotations

import errno
import fnmatch
import gzip
import json
import os
import re
import tomllib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cfctl.host.cpus import parse_cpu_list
from cfctl.host.syscalls import CAPTURE_NAME, CapturedSyscalls
from cfctl.host.view import HostView, natural_order

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

HOSTS = Path(__file__).parent
INTERVAL_S = 2.0
_RANGE = re.compile(r"\{(\d[\d,-]*)\}")


@dataclass(frozen=True)
class FakeHost:
    """A host as files at the start and at the end of an interval, and its answers to syscalls."""

    files: Mapping[str, str] = field(default_factory=dict)
    later: Mapping[str, str] = field(default_factory=dict)
    syscalls: Mapping[str, Any] = field(default_factory=dict)
    later_syscalls: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, name: str) -> FakeHost:
        """Return the host of tests/hosts/<name>.toml, on top of the one it names as its base."""
        table = tomllib.loads((HOSTS / f"{name}.toml").read_text())
        base = cls.load(table["base"]) if "base" in table else cls()
        host = base.without(*table.get("absent", ()))
        return host.with_files(table.get("files", {}), table.get("later")).with_syscalls(
            table.get("syscalls", {})
        )

    def with_files(self, files: Mapping[str, str], later: Mapping[str, str] | None = None) -> FakeHost:
        """Return the host with more or other files; a file that changes replaces its later state."""
        changed = expanded(files)
        kept = {path: text for path, text in self.later.items() if path not in changed}
        return replace(self, files={**self.files, **changed}, later={**kept, **expanded(later or {})})

    def with_syscalls(self, answers: Mapping[str, Any]) -> FakeHost:
        return replace(self, syscalls={**self.syscalls, **answers})

    def without(self, *patterns: str) -> FakeHost:
        """Return the host without the files that match a regular expression."""

        def kept(files: Mapping[str, str]) -> dict[str, str]:
            return {p: t for p, t in files.items() if not any(re.fullmatch(x, p) for x in patterns)}

        return replace(self, files=kept(self.files), later=kept(self.later))

    def moments(self) -> Iterator[tuple[dict[str, str], dict[str, Any]]]:
        """Yield files and answers at the start and at the end of the interval."""
        start_ns = 1_000_000_000
        yield dict(self.files), {"monotonic_ns": start_ns, **self.syscalls}
        end_ns = start_ns + round(INTERVAL_S * 1e9)
        yield {**self.files, **self.later}, {"monotonic_ns": end_ns, **self.syscalls, **self.later_syscalls}

    def build(self, root: Path) -> Path:
        """Write the host as a capture of two moments (t0, t1) and return its directory."""
        for name, (files, answers) in zip(("t0", "t1"), self.moments(), strict=True):
            for path, text in files.items():
                target = root / name / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(encoded(path, text))
            (root / name).mkdir(parents=True, exist_ok=True)
            (root / name / CAPTURE_NAME).write_text(json.dumps(answers))
        return root


def encoded(path: str, text: str) -> bytes:
    return gzip.compress(text.encode(), mtime=0) if path.endswith("config.gz") else text.encode()


def expanded(files: Mapping[str, str]) -> dict[str, str]:
    """Return the files with "{0-3}" in their names and "{n}" in their content written out."""
    found: dict[str, str] = {}
    for path, text in files.items():
        match = _RANGE.search(path)
        if match is None:
            found[path] = text
            continue
        inner = {
            path[: match.start()] + str(number) + path[match.end() :]: text.replace("{n}", str(number))
            for number in parse_cpu_list(match[1])
        }
        found |= expanded(inner)
    return found


class MemoryView(HostView):
    """A view of files that are in memory only; the kernel refuses those that match `refuse`."""

    def __init__(
        self, files: Mapping[str, str], answers: Mapping[str, Any], refuse: str | None = None, number: int = 1
    ) -> None:
        super().__init__("/nowhere", CapturedSyscalls(dict(answers)), self._read_from_memory)
        self._files = files
        self._names = set(files)
        for path in files:
            parent = path
            while parent := parent.rpartition("/")[0]:
                self._names.add(parent)
        self._refuse = refuse
        self._number = number

    def _read_from_memory(self, path: str, max_bytes: int) -> bytes:
        name = path.removeprefix("/nowhere/")
        if name not in self._names:
            raise FileNotFoundError(errno.ENOENT, "absent")
        if self._refuse and re.fullmatch(self._refuse, name):
            raise OSError(self._number, os.strerror(self._number))
        if name not in self._files:
            raise IsADirectoryError(errno.EISDIR, "directory")
        return encoded(name, self._files[name])

    def exists(self, path: str) -> bool:
        return path in self._names

    def names(self, path: str) -> list[str]:
        head = path + "/"
        return sorted({name[len(head) :].split("/")[0] for name in self._names if name.startswith(head)})

    def matching(self, pattern: str) -> list[str]:
        regex = re.compile(fnmatch.translate(pattern).replace(".*", "[^/]*"))
        return sorted(filter(regex.match, self._names), key=natural_order)
