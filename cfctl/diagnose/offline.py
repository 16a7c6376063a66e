"""A captured host opened for a diagnosis: an archive, that archive unpacked, or a plain copy of /proc and /sys."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cfctl.diagnose.measurements import Measurements
from cfctl.diagnose.stored import restored
from cfctl.errors import InputError
from cfctl.host.archive import unpack
from cfctl.host.capture import CapturedView, Reads
from cfctl.host.syscalls import CAPTURE_NAME
from cfctl.host.view import HostView, UnreadableError
from cfctl.text import safe_text

OFFLINE: Final = "offline: a captured host can not be measured"
SCHEMA: Final = "cfctl.capture"
VERSION: Final = 1
INDEX_NAME: Final = "capture.json"
READS_NAME: Final = "reads.json"
MOMENTS: Final = ("t0", "t1")
_NEW: Final = "Make it anew: cfctl capture -o FILE"

Stored = Callable[[str], bytes | None]


@dataclass(frozen=True, slots=True)
class Captured:
    """A captured host: its views at the start (None for a single one) and the end of the interval.

    `measurements` are those made on the host, None with the reason.
    """

    before: HostView | None
    now: HostView
    measurements: Measurements | None
    reason: str | None


def open_captured(sysroot: str, open_view: Callable[[str], HostView] = HostView) -> Captured:
    """Return the captured host in a directory or archive; raises InputError for anything else."""
    root = Path(sysroot)
    if not root.is_dir():
        if not root.exists():
            raise InputError(
                f"{sysroot} does not exist.", "A captured host is a directory with proc and sys in it, or an archive.",
                "Make one: cfctl capture -o FILE",
            )  # fmt: skip
        files = unpack(sysroot)
        return _indexed(sysroot, files.get, len(files))
    if (root / INDEX_NAME).is_file():
        return _indexed(sysroot, _in_directory(root), None)
    early, late = (root / name for name in MOMENTS)
    if early.is_dir() and late.is_dir():
        return Captured(open_view(str(early)), open_view(str(late)), None, OFFLINE)
    return Captured(None, open_view(sysroot), None, OFFLINE)


def _in_directory(root: Path) -> Stored:
    view = HostView(root)

    def stored(name: str) -> bytes | None:
        try:
            return view.content(name)
        except UnreadableError:
            return None

    return stored


def _indexed(sysroot: str, stored: Stored, file_count: int | None) -> Captured:
    try:
        index = _json(stored, INDEX_NAME)
        _require(
            index.get("schema") == SCHEMA and index.get("version") == VERSION,
            f"its {INDEX_NAME} is not of schema {SCHEMA}, version {VERSION}",
        )
        _require(file_count in {None, index.get("files")}, "files are missing at its end")
        brand = index.get("cpu_brand")
        brand = safe_text(brand) if isinstance(brand, str) else None
        moments = [name for name in MOMENTS if stored(f"{name}/{READS_NAME}") is not None]
        _require(MOMENTS[1] in moments, "it holds no moment")
        views = {name: _view(sysroot, name, stored, brand) for name in moments}
        measured = index.get("measurements")
        reason = str(index.get("measurements_reason") or OFFLINE)
        return Captured(
            views.get(MOMENTS[0]),
            views[MOMENTS[1]],
            None if measured is None else restored(Measurements, measured, "measurements"),
            safe_text(reason) if measured is None else None,
        )
    except (ValueError, RecursionError) as error:
        why = "It is nested too deeply." if isinstance(error, RecursionError) else f"{safe_text(error)}."
        raise InputError(f"{sysroot} is no whole capture.", why, _NEW) from None


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(what)


def _view(sysroot: str, moment: str, stored: Stored, brand: str | None) -> CapturedView:
    return CapturedView(
        sysroot,
        lambda path: stored(f"{moment}/{path}"),
        Reads.from_plain(_json(stored, f"{moment}/{READS_NAME}")),
        _json(stored, f"{moment}/{CAPTURE_NAME}"),
        brand,
    )


def _json(stored: Stored, name: str) -> Mapping[str, Any]:
    data = stored(name)
    if data is None:
        raise ValueError(f"it holds no {name}")
    value = json.loads(data)
    if not isinstance(value, dict):
        raise ValueError(f"{name} holds no object")  # noqa: TRY004 - one error for all that is wrong
    return value
