"""`alloc run`: a command with the preload library before its allocator, and the report of what it did."""

from __future__ import annotations

import dataclasses
import errno
import os
import tempfile
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cfctl import _native, paths
from cfctl.alloc.cycle_launch import cycles_environment, load_cycles
from cfctl.alloc.executable import require_countable
from cfctl.alloc.recording import process_of_file
from cfctl.alloc.report import AllocReport, ProcessAllocations, build_report
from cfctl.alloc.sites import summary, under_memray
from cfctl.errors import SegmentError, os_error_reason
from cfctl.launch import LaunchError, run_to_end
from cfctl.segment.directory import segments_of_run
from cfctl.segment.tick_rate import boot_id

_LIBRARY_NAME: Final = "_alloc_preload.so"
# The loader takes these for the end of a name in LD_PRELOAD.
_SEPARATORS: Final = " :\t\n"
_FIRST_BYTES: Final = 16 << 10
_NO_CYCLES: Final = "No reference cycles were reported: no Python that has cfctl ran to its end (it was killed, or ended by os._exit)."


@dataclass(frozen=True, slots=True)
class AllocOutcome:
    """How a command ended, and what it allocated; without processes the report's problems say why."""

    status: int
    report: AllocReport


def library_path() -> Path:
    """Return the absolute path of the preload library; raises LaunchError when it can not be used."""
    path = Path(_native.__file__ or "").resolve().parent / _LIBRARY_NAME
    if not path.is_file():
        raise LaunchError("The preload library is missing.", f"There is no {path}.", "Install cfctl anew.")
    if any(separator in str(path) for separator in _SEPARATORS):
        raise LaunchError(
            "The preload library can not be named to the loader.",
            f"Its path holds a space or a colon: {path}.",
            "Install cfctl where the path has none.",
        )
    return path


def run_and_count(
    command: Sequence[str],
    follow_children: bool = False,
    with_memray: bool = False,
    with_cycles: bool = False,
) -> AllocOutcome:
    """Run a command and return its exit status with the report of its processes.

    With memray it runs under both, and the report has memray's summary too; with cycles it has the
    reference cycles of the first Python of the command. Raises LaunchError when it was not run: not
    found, not executable, or not to be counted.
    """
    library = library_path()
    require_countable(command, library)
    run_id = uuid.uuid4().hex
    environment = counting_environment(library, run_id, follow_children)
    if not with_memray and not with_cycles:
        return AllocOutcome(run_to_end(command, environment), report_of_run(run_id))
    with tempfile.TemporaryDirectory(prefix="cfctl-") as directory:
        capture, cycles = Path(directory) / "memray.bin", Path(directory) / "cycles.json"
        if with_cycles:
            environment = cycles_environment(environment, cycles)
        status = run_to_end(under_memray(command, capture) if with_memray else command, environment)
        sites = summary(command[0], capture) if with_memray else ()
        found = load_cycles(cycles) if with_cycles else None
    report = report_of_run(run_id)
    if with_cycles and found is None:
        report = dataclasses.replace(report, problems=(*report.problems, _NO_CYCLES))
    return AllocOutcome(status, dataclasses.replace(report, sites=sites, cycles=found))


def counting_environment(library: Path, run_id: str, follow_children: bool) -> dict[str, str]:
    """Return this process's environment with the library before the preloads that are there.

    The library takes itself and its request out again, unless children are followed.
    """
    environment = paths.environment()
    others = environment.get("LD_PRELOAD", "")
    limit_bytes = paths.segment_limit_bytes() or _native.SEGMENT_DEFAULT_LIMIT_BYTES
    # What the library would find out for itself, in 100 us at each start. Children may be in another namespace.
    counter_is_usable = int(_native.tick_source()[0] != "os")
    namespace = 0 if follow_children else _pid_namespace()
    request = (
        f"{int(follow_children)}:{limit_bytes}:{counter_is_usable}:{boot_id()}:{namespace}:{run_id}:"
        f"{paths.segment_directory()}"
    )
    return environment | {
        "LD_PRELOAD": f"{library}:{others}" if others else str(library),
        "CFCTL_ALLOC": request,
    }


def _pid_namespace() -> int:
    """Return the inode of this process's pid namespace, 0 where it can not be seen."""
    try:
        return Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return 0


def report_of_run(run_id: str) -> AllocReport:
    """Return the report of all processes of a run; what is missing is among its problems."""
    processes: list[ProcessAllocations] = []
    problems: list[str] = []
    try:
        files = segments_of_run(run_id)
    except SegmentError as error:
        files = ()
        problems.append(str(error))
    for file in files:
        try:
            found, wrong = process_of_file(file.path)
        except SegmentError as error:
            problems.append(str(error))
            continue
        problems += wrong
        if found is not None:
            processes.append(found)
        elif file.header.shards_refused:
            problems.append(
                f"Process {file.header.pid} found no space for its counters in {file.path.parent}."
            )
    if not processes and not problems:
        problems.append(_why_nothing(paths.segment_directory()))
    return build_report(processes, problems)


def _why_nothing(directory: Path) -> str:
    """Return why no process left a segment: what stands in the way of making one now, if anything."""
    probe = directory / f"probe-{os.getpid()}"
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
        fd = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, _FIRST_BYTES)
        finally:
            os.close(fd)
            probe.unlink()
    except OSError as error:
        full = (
            "; free space there, or name another with CFCTL_SEGMENT_DIR"
            if error.errno == errno.ENOSPC
            else ""
        )
        return f"No segment could be made in {directory}: {os_error_reason(error).rstrip('.')}{full}."
    return "The program left no counters: its loader did not load the preload library, or it ended before."
