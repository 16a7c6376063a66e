"""`profile run`: a command under a fresh run id, and the report of all it recorded."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cfctl import paths
from cfctl.errors import SegmentError, StateError
from cfctl.launch import run_to_end
from cfctl.profile import inject
from cfctl.profile.inject.sitecustomize import REQUEST_VARIABLE
from cfctl.profile.instrument import NEAREST_TO
from cfctl.profile.interpreter import check_interpreter, python_command
from cfctl.profile.patterns import FunctionPattern, unmatched
from cfctl.profile.recording import record_of_file
from cfctl.profile.report import ProfileReport, Recording, build_report
from cfctl.segment.directory import open_directory, segments_of_run

if TYPE_CHECKING:
    from cfctl.profile.sampler import Sampler

_NOTES_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """How a command ended, what it recorded, and what its user should know, a sentence each."""

    status: int
    report: ProfileReport
    notes: tuple[str, ...]


def run_and_record(
    command: Sequence[str],
    patterns: Sequence[FunctionPattern] = (),
    follow_children: bool = False,
    timeline: bool = False,
    sampler: Sampler | None = None,
) -> RunOutcome:
    """Run a command and return its exit status with the report of its segments.

    The segments of all its processes that carry the run id are merged; what `sampler` found is in
    the report too. The status is the command's own, also when every sample was lost for lack of space:
    the report says so, and who wraps a program has to be able to tell what that program said. Raises
    LaunchError when it was not run.
    """
    run_id = uuid.uuid4().hex
    environment = paths.environment() | {"CFCTL_RUN_ID": run_id}
    if timeline:
        environment["CFCTL_TIMELINE"] = "1"
    python = python_command(command)
    if python is not None:
        check_interpreter(python, environment, bool(patterns))
    with _notes_file(run_id, bool(patterns)) as notes_file:
        if patterns:
            environment |= _request(patterns, follow_children, environment.get("PYTHONPATH"), notes_file)
        status = run_to_end(command, environment, sampler.start if sampler else None)
        notes = _read_notes(notes_file)
    report = build_report(list(_recordings(run_id, notes)))
    notes = _with_never_called(patterns, report, notes)
    if sampler is not None:
        stacks, why = sampler.finish()
        report = dataclasses.replace(report, stacks=stacks)
        notes += [] if stacks else [f"No stacks were sampled: {why}."]
    return RunOutcome(status, report, tuple(notes))


def _request(
    patterns: Sequence[FunctionPattern], follow: bool, pythonpath: str | None, notes_file: Path | None
) -> dict[str, str]:
    """Return the environment by which sitecustomize is found and knows what to do."""
    directory = str(Path(inject.__file__).parent)
    request = {
        "functions": [str(pattern) for pattern in patterns],
        "follow": follow,
        "pythonpath": pythonpath,
        "notes": None if notes_file is None else str(notes_file),
    }
    return {
        REQUEST_VARIABLE: json.dumps(request),
        "PYTHONPATH": os.pathsep.join([directory, pythonpath] if pythonpath else [directory]),
    }


@contextlib.contextmanager
def _notes_file(run_id: str, wanted: bool) -> Iterator[Path | None]:
    """Yield an empty private file in the segment directory, None when it can not be made."""
    path = paths.segment_directory() / f"run-{run_id}.notes"
    if not wanted:
        yield None
        return
    try:
        _create_private(path)
    except (OSError, SegmentError):
        # Neither will there be segments; the program itself warns of that, with the reason.
        yield None
        return
    try:
        yield path
    finally:
        with contextlib.suppress(OSError):
            path.unlink()


def _create_private(path: Path) -> None:
    """Create an empty file in a directory that nobody else can enter; raises OSError, SegmentError."""
    with contextlib.suppress(FileExistsError):
        path.parent.mkdir(mode=0o700)
    directory = open_directory(path.parent)
    if directory is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path.parent))
    try:
        if os.fstat(directory).st_mode & 0o077:
            raise PermissionError(errno.EPERM, "Others can enter it", str(path.parent))
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        os.close(os.open(path.name, flags, 0o600, dir_fd=directory))
    finally:
        os.close(directory)


def _read_notes(path: Path | None) -> list[str]:
    if path is None:
        return []
    try:
        lines = paths.read_bounded(path, _NOTES_BYTES).decode("utf-8", "replace").splitlines()
    except (OSError, StateError) as error:
        return [f"What the program had to say was lost: {error}"]
    return [f"{line}." for line in dict.fromkeys(lines)]


def _recordings(run_id: str, notes: list[str]) -> Iterator[Recording]:
    try:
        files = segments_of_run(run_id)
    except SegmentError as error:
        notes.append(str(error))
        return
    for file in files:
        try:
            yield record_of_file(file.path)
        except SegmentError as error:
            notes.append(str(error))


def _with_never_called(
    patterns: Sequence[FunctionPattern], report: ProfileReport, notes: Sequence[str]
) -> list[str]:
    """Return the notes with the functions that no process called, each before its nearest names."""
    seen = [operation.name for operation in report.operations]
    missing = unmatched(patterns, [*seen, *(note.partition(" ")[0] for note in notes)])
    nearest = tuple(f"{NEAREST_TO} {pattern} " for pattern in missing)
    # A process that did not call a function says so, also when another one did.
    notes = [note for note in notes if not note.startswith(NEAREST_TO) or note.startswith(nearest)]
    if not missing:
        return notes
    hint = "" if any(p.module == "__main__" for p in missing) else " A script's own are __main__:NAME."
    return [f"Never called: {', '.join(map(str, missing))}.{hint}", *notes]
