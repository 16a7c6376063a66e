"""A host's reads recorded while they are made, and a view that answers from such a record."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

from cfctl.host.syscalls import CapturedSyscalls, SyscallError, Syscalls
from cfctl.host.view import HostView, Lack, UnreadableError, shown
from cfctl.records import to_plain

# A question that names a thing has a table in syscalls.json, called like the question but for these.
_TABLES: Final = {"limit": "limits"}
# Kernel messages that say something about latency; the rest of a log is nobody's business.
_LOG_WORDS: Final = (
    "tsc", "clocksource", "timekeeping", "watchdog", "throttl", "mce", "hardware error", "edac", "nohz", "rcu",
)  # fmt: skip
_CONTAINER: Final = b"container="
# Variables of which a check asks whether they are set; their values stay where they are.
_NAMES_KEPT: Final = (b"MALLOC_", b"GLIBC_TUNABLES")
_MOUNTS_KEPT: Final = ("/proc", "/sys", "/dev")


@dataclass(frozen=True, slots=True)
class Reads:
    """What a view was asked beside the content of files, and what it answered.

    `refused` are the files without content as (lack, detail).
    """

    refused: dict[str, tuple[Lack, str]] = field(default_factory=dict)
    exists: dict[str, bool] = field(default_factory=dict)
    names: dict[str, list[str]] = field(default_factory=dict)
    matching: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def from_plain(cls, value: Any) -> Reads:
        """Return the reads in a JSON value that came from outside; raises ValueError for anything else."""
        if not isinstance(value, dict):
            raise ValueError("the reads are no object")  # noqa: TRY004 - one error for all that is wrong
        refused = {path: _refusal(found) for path, found in _table(value, "refused").items()}
        exists = {path: answer is True for path, answer in _table(value, "exists").items()}
        names = {path: _texts(found) for path, found in _table(value, "names").items()}
        matching = {pattern: _texts(found) for pattern, found in _table(value, "matching").items()}
        return cls(refused, exists, names, matching)


def _table(value: dict[str, Any], name: str) -> dict[str, Any]:
    table = value.get(name)
    if not isinstance(table, dict):
        raise ValueError(f"'{name}' of the reads is no object")  # noqa: TRY004
    return table


def _refusal(value: Any) -> tuple[Lack, str]:
    lack, detail = _texts(value)
    return Lack(lack), detail


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("the reads hold something that is no text")  # noqa: TRY004
    return value


def _texts(value: Any) -> list[str]:
    if not isinstance(value, list):
        raise ValueError("the reads hold something that is no list")  # noqa: TRY004
    return [_text(item) for item in value]


class RecordingSyscalls:
    """Syscalls that keep each answer, and each refusal with its reason, in the form of syscalls.json."""

    def __init__(self, asked: Syscalls) -> None:
        self._asked = asked
        self.answers: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Callable[..., Any]:
        ask = getattr(self._asked, name)

        def recorded(*arguments: Any) -> Any:
            try:
                answer = ask(*arguments)
            except SyscallError as error:
                self._keep(name, arguments, {"error": error.cause, "source": error.source})
                raise
            plain = _discreet_log(answer) if name == "kernel_log" else to_plain(answer)
            self._keep(name, arguments, plain)
            return answer

        return recorded

    def _keep(self, name: str, arguments: tuple[Any, ...], answer: Any) -> None:
        if arguments:
            self.answers.setdefault(_TABLES.get(name, name), {})[str(arguments[0])] = answer
        else:
            self.answers[name] = answer


class RecordingView(HostView):
    """A view that passes every question on to another one and keeps what it answered."""

    # The base's constructor would read the host itself; everything it sets comes from `asked`.
    def __init__(self, asked: HostView) -> None:
        self._asked = asked
        self._recorder = RecordingSyscalls(asked.syscalls)
        self._recorder.answers["monotonic_ns"] = asked.monotonic_ns
        self.sysroot = asked.sysroot
        self.is_live = asked.is_live
        self.syscalls = cast("Syscalls", self._recorder)
        self.monotonic_ns = asked.monotonic_ns
        self.cpu_brand = asked.cpu_brand
        self.reads = Reads()
        self.files: dict[str, bytes] = {}

    @property
    def answers(self) -> dict[str, Any]:
        """Return what the syscalls answered, as syscalls.json holds it."""
        return self._recorder.answers

    def content(self, path: str) -> bytes:
        """Return a file's bytes as they are."""
        try:
            data = self._asked.content(path)
        except UnreadableError as error:
            self.reads.refused[path] = (error.lack, error.detail)
            raise
        self.files[path] = discreet(path, data)
        return data

    def exists(self, path: str) -> bool:
        """Return whether there is something of that name, readable or not."""
        found = self.reads.exists[path] = self._asked.exists(path)
        return found

    def names(self, path: str) -> list[str]:
        """Return the names in a directory, sorted; none when it can not be listed."""
        found = self.reads.names[path] = self._asked.names(path)
        return found

    def matching(self, pattern: str) -> list[str]:
        """Return the paths that match a shell pattern, in the order of the numbers in them."""
        found = self.reads.matching[pattern] = self._asked.matching(pattern)
        return found


def discreet(path: str, data: bytes) -> bytes:
    """Return a file's content without what no check reads and a capture should not tell.

    The environment of a process keeps only the entry that names a container, and the names of those
    for the allocator; its command line keeps the program; the mount table only the root, the control
    groups and what is mounted on /proc, /sys and /dev.
    """
    name = path.rpartition("/")[2]
    if name == "environ":
        return b"\0".join(_discreet_entry(entry) for entry in data.split(b"\0"))
    if name == "cmdline" and path != "proc/cmdline":
        # The program; what it was told is nobody's business.
        return data.split(b"\0")[0]
    if name == "mountinfo":
        return b"".join(line for line in data.splitlines(keepends=True) if _is_kernel_mount(line))
    return data


def _discreet_entry(entry: bytes) -> bytes:
    if entry.startswith(_CONTAINER):
        return entry
    name = entry.partition(b"=")[0]
    # That there are others is no secret: an environment is not empty.
    return (name if name.startswith(_NAMES_KEPT) else b"...") + b"=" if entry else b""


def _is_kernel_mount(line: bytes) -> bool:
    before, _, after = line.decode("utf-8", "replace").partition(" - ")
    fields = before.split()
    if len(fields) < 5 or after.startswith("cgroup"):
        return True
    return fields[4] == "/" or fields[4].startswith(_MOUNTS_KEPT)


def _discreet_log(log: str) -> str:
    kept = (line for line in log.splitlines() if any(word in line.lower() for word in _LOG_WORDS))
    return "\n".join(kept)


class CapturedView(HostView):
    """A view of one captured moment: every question gets the answer it got on the host itself.

    `stored` returns the content of a captured file, None for one that is not there. What the capture
    never asked is not known: a file is "not in the capture", which no check takes for absent.
    """

    def __init__(
        self,
        sysroot: str | Path,
        stored: Callable[[str], bytes | None],
        reads: Reads,
        answers: Mapping[str, Any],
        cpu_brand: str | None = None,
    ) -> None:
        super().__init__(sysroot, CapturedSyscalls(dict(answers)))
        self.is_live = False
        self.cpu_brand = cpu_brand
        self._stored = stored
        self._reads = reads

    def content(self, path: str) -> bytes:
        """Return a file's bytes as they were."""
        refused = self._reads.refused.get(path)
        if refused is not None:
            raise UnreadableError(shown(path), *refused)
        data = self._stored(path)
        if data is None:
            raise UnreadableError(shown(path), Lack.UNCAPTURED)
        return data

    def exists(self, path: str) -> bool:
        """Return whether there was something of that name."""
        known = self._reads.exists.get(path)
        return self._stored(path) is not None if known is None else known

    def names(self, path: str) -> list[str]:
        """Return the names that were in a directory; none when it was not asked for."""
        return list(self._reads.names.get(path, ()))

    def matching(self, pattern: str) -> list[str]:
        """Return the paths that matched a pattern; none when it was not asked for."""
        return list(self._reads.matching.get(pattern, ()))
