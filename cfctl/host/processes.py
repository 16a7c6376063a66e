"""What /proc says about one process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cfctl.host.view import HostView, Lack, UnreadableError, garbage, shown


def directory(pid: int | None) -> str:
    """Return the directory of a process; that of the program that asks without a pid."""
    return "proc/self" if pid is None else f"proc/{pid}"


@dataclass(frozen=True, slots=True)
class ProcessCounters:
    """Counters and attributes of a process from its stat file: faults, nice value, last CPU, policy."""

    minor_faults: int
    major_faults: int
    nice: int
    start_ticks: int


# Positions after the name in parentheses. Source: proc_pid_stat(5), where minflt is field 10.
_MINFLT: Final = 10 - 3
_MAJFLT: Final = 12 - 3
_NICE: Final = 19 - 3
_STARTTIME: Final = 22 - 3


def process_counters(view: HostView, pid: int | None) -> ProcessCounters:
    """Return the counters of a process; a name with spaces and parentheses does not confuse them."""
    path = f"{directory(pid)}/stat"
    text = view.text(path)
    fields = text[text.rfind(")") + 1 :].split()
    try:
        numbers = [int(fields[index]) for index in (_MINFLT, _MAJFLT, _NICE, _STARTTIME)]
    except (IndexError, ValueError):
        raise garbage(path, text, "the fields of proc_pid_stat(5)") from None
    return ProcessCounters(*numbers)


@dataclass(frozen=True, slots=True)
class RunDelay:
    """Time the threads of a process ran, and time they waited for a CPU although runnable, ns."""

    run_ns: int
    wait_ns: int


def run_delay(view: HostView, pid: int | None) -> dict[str, RunDelay]:
    """Return the run delay of each thread by its directory, from schedstat. Raises UnreadableError."""
    base = directory(pid)
    found: dict[str, RunDelay] = {}
    for path in view.matching(f"{base}/task/[0-9]*/schedstat") or [f"{base}/schedstat"]:
        try:
            text = view.text(path)
        except UnreadableError as error:
            if error.lack is Lack.MISSING and found:
                # The thread ended between the listing and the read.
                continue
            raise
        fields = text.split()
        if len(fields) < 2 or not all(field.isascii() and field.isdecimal() for field in fields[:2]):
            raise garbage(path, text, "run and wait times")
        found[path] = RunDelay(int(fields[0]), int(fields[1]))
    return found


def status(view: HostView, pid: int | None, name: str) -> str:
    """Return one value of a process's status file; raises UnreadableError."""
    path = f"{directory(pid)}/status"
    value = view.fields(path, ":").get(name)
    if value is None:
        raise UnreadableError(f"{shown(path)} {name}", Lack.MISSING)
    return value


def status_integer(view: HostView, pid: int | None, name: str) -> int:
    """Return one number of a process's status file, KiB for sizes; raises UnreadableError."""
    value = status(view, pid, name)
    try:
        return int(value.removesuffix("kB").strip())
    except ValueError:
        raise garbage(f"{directory(pid)}/status", value, "a number") from None


def processes_named(view: HostView, name: str) -> tuple[int, ...]:
    """Return the pids whose comm is `name`."""
    found = []
    for path in view.matching("proc/[0-9]*/comm"):
        try:
            if view.text(path) == name:
                found.append(int(path.split("/")[1]))
        except (UnreadableError, ValueError):
            # A process that ended while we looked is not running.
            continue
    return tuple(found)
