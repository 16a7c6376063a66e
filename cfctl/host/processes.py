"""What /proc says about one process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cfctl.host.syscalls import UNLIMITED
from cfctl.host.view import HostView, Lack, UnreadableError, garbage, integer_in, shown


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
    if len(fields) <= _STARTTIME:
        raise garbage(path, text, "the fields of proc_pid_stat(5)")
    return ProcessCounters(
        *(integer_in(path, fields[index]) for index in (_MINFLT, _MAJFLT, _NICE, _STARTTIME))
    )


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
        if len(fields) != 3:
            raise garbage(path, text, "run time, wait time and slices")
        found[path] = RunDelay(integer_in(path, fields[0]), integer_in(path, fields[1]))
    return found


def migrations(view: HostView, pid: int | None) -> int:
    """Return how often the threads of a process moved to another CPU. Raises UnreadableError.

    Source: kernel, kernel/sched/debug.c; the file needs CONFIG_SCHED_DEBUG.
    """
    base = directory(pid)
    total = 0
    for path in view.matching(f"{base}/task/[0-9]*/sched") or [f"{base}/sched"]:
        lines = [line for line in view.lines(path) if line.startswith("se.nr_migrations")]
        if not lines:
            raise garbage(path, view.text(path), "a line se.nr_migrations")
        total += integer_in(path, lines[0].rpartition(":")[2].strip())
    return total


def status(view: HostView, pid: int | None, name: str) -> str:
    """Return one value of a process's status file; raises UnreadableError."""
    path = f"{directory(pid)}/status"
    value = view.fields(path, ":").get(name)
    if value is None:
        raise UnreadableError(f"{shown(path)} {name}", Lack.MISSING)
    return value


# How /proc/PID/limits names what getrlimit(2) calls RLIMIT_*. Source: kernel, fs/proc/base.c.
_LIMIT_NAMES: Final = {
    "MEMLOCK": "Max locked memory",
    "NOFILE": "Max open files",
    "NICE": "Max nice priority",
    "RTPRIO": "Max realtime priority",
    "RTTIME": "Max realtime timeout",
}


def soft_limit(view: HostView, pid: int, name: str) -> int:
    """Return the soft RLIMIT_`name` of a process, UNLIMITED for none; raises UnreadableError."""
    path = f"{directory(pid)}/limits"
    title = _LIMIT_NAMES[name]
    for line in view.lines(path):
        if line.startswith(title):
            value = (line.removeprefix(title).split() or [""])[0]
            return UNLIMITED if value == "unlimited" else integer_in(path, value)
    raise UnreadableError(f"{shown(path)} {title}", Lack.MISSING)


def effective_capabilities(view: HostView, pid: int) -> int:
    """Return the effective capabilities of a process as a bit mask; raises UnreadableError."""
    return integer_in(f"{directory(pid)}/status", status(view, pid, "CapEff"), 16)


def status_integer(view: HostView, pid: int | None, name: str) -> int:
    """Return one number of a process's status file, KiB for sizes; raises UnreadableError."""
    value = status(view, pid, name)
    return integer_in(f"{directory(pid)}/status", value.removesuffix("kB").strip())


def processes_named(view: HostView, name: str) -> tuple[int, ...]:
    """Return the pids whose comm is `name`.

    Raises UnreadableError when no process can be seen, or when none has the name and some are hidden.
    """
    found = []
    seen = False
    refusal: UnreadableError | None = None
    for path in view.matching("proc/[0-9]*/comm"):
        try:
            comm = view.text(path)
        except UnreadableError as error:
            # A process that ended while we looked is not running.
            refusal = error
            continue
        seen = True
        if comm == name:
            found.append(int(path.split("/")[1]))
    if not seen:
        raise refusal or UnreadableError("/proc/*/comm", Lack.MISSING)
    if not found:
        require_every_process(view)
    return tuple(found)


def require_every_process(view: HostView) -> None:
    """Raise UnreadableError where /proc shows some processes only: in a PID namespace, or with hidepid.

    Process 2 of the first namespace is the kernel's kthreadd, which belongs to root.
    """
    path = "proc/2/comm"
    try:
        if view.text(path) == "kthreadd":
            return
    except UnreadableError:
        pass
    raise UnreadableError(shown(path), Lack.MISSING, "this PID namespace or user sees some processes only")
