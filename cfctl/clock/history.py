"""The calibrations of this user on this machine, newest last, in $XDG_STATE_HOME/cfctl/calibrations.json."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from cfctl import _native, paths
from cfctl.clock import environment
from cfctl.clock.calibration import Calibration, from_plain
from cfctl.errors import InputError, StateError, os_error_reason
from cfctl.records import to_plain

SCHEMA: Final = "cfctl.calibrations"
VERSION: Final = 1
MAX_ENTRIES: Final = 64


@dataclass(frozen=True, slots=True)
class Saved:
    """Where a calibration was saved; `note` tells what happened to a corrupt file before it."""

    path: Path
    note: str | None


def path() -> Path:
    """Return the path of the history, whether it exists or not."""
    return paths.state_directory() / "calibrations.json"


def save(calibration: Calibration) -> Saved:
    """Append a calibration to the history and return where; the oldest beyond 64 are dropped.

    Writers exclude each other by a lock file, so that none loses another's entry. A corrupt history
    is set aside and a new one begun. Raises StateError when it can not be written.
    """
    file = path()
    with _locked(file):
        note = None
        try:
            entries = _raw_entries(file)
        except StateError as error:
            # Set aside by now; what can not be read for another reason fails again.
            entries, note = _raw_entries(file), str(error)
        entries = [*entries, to_plain(calibration)][-MAX_ENTRIES:]
        content = {"schema": SCHEMA, "version": VERSION, "calibrations": entries}
        paths.write_atomically(file, (json.dumps(content, allow_nan=False) + "\n").encode())
    return Saved(file, note)


def load() -> list[Calibration]:
    """Return the saved calibrations, the oldest first; entries that can not be read are left out.

    Raises StateError when the file can not be read; a corrupt one is set aside first.
    """
    found = []
    for entry in _raw_entries(path()):
        with contextlib.suppress(InputError):
            found.append(from_plain(entry))
    return found


def saved_calibration() -> Calibration | None:
    """Return the newest valid calibration whose line still holds for this process, None without one.

    It must come from this boot and this tick source, against CLOCK_MONOTONIC_RAW, and nothing may
    have ended its epoch since: suspend, migration, another clocksource. One from another time namespace is
    moved into this one. A history that this user may not read counts as none; raises StateError for
    a corrupt one (which is set aside).
    """
    try:
        calibrations = load()
    except StateError as error:
        if isinstance(error.__cause__, PermissionError):
            return None
        raise
    now = environment.observe()
    source = _native.tick_source()[0]
    for calibration in reversed(calibrations):
        if (
            calibration.verdict == "valid"
            and calibration.reference == "raw"
            and calibration.method == "clustered"
            and calibration.source == source
            and same_epoch(calibration, now)
        ):
            return moved(calibration, now.time_namespace_offset_ns)
    return None


def same_epoch(calibration: Calibration, now: environment.Environment) -> bool:
    """Return whether nothing that is known has ended a calibration's epoch."""
    return (
        calibration.boot_id is not None
        and calibration.boot_id == now.boot_id
        and calibration.clocksource == now.clocksource
        and calibration.suspended_ns == now.suspended_ns
        and calibration.disruption_marker == now.disruption_marker
    )


def moved(calibration: Calibration, time_namespace_offset_ns: int) -> Calibration:
    """Return a calibration in another time namespace: the rate is the same, the zero is not."""
    shift_ns = time_namespace_offset_ns - calibration.time_namespace_offset_ns
    if shift_ns == 0:
        return calibration
    return replace(
        calibration,
        base_ns=calibration.base_ns + shift_ns,
        points=tuple(replace(point, ns=point.ns + shift_ns) for point in calibration.points),
        time_namespace_offset_ns=time_namespace_offset_ns,
    )


def _raw_entries(file: Path) -> list[Any]:
    content = paths.read_json_state(file)
    if content is None:
        return []
    entries = content.get("calibrations")
    if content.get("schema") != SCHEMA or not isinstance(entries, list):
        raise StateError(
            f"{file} is not used.", f"It holds no '{SCHEMA}'.", "Move it away; nothing was changed in it."
        )
    return entries


@contextlib.contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Hold the lock of the history; it ends with the process that holds it, however that ends."""
    paths.ensure_private_directory(file.parent)
    lock = file.with_suffix(".lock")
    try:
        fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StateError(
            f"{lock} can not be made.", os_error_reason(error), "Make the directory writable."
        ) from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
