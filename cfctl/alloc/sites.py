"""Allocation sites of a Python program, from memray (an optional extra), which records stacks."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from cfctl.launch import LaunchError
from cfctl.units import format_quantity

_PYTHON_NAME: Final = re.compile(r"(?:python|pypy)(?:\d+(?:\.\d+)*)?t?")
# Options of the interpreter that take the next word.
_WITH_VALUE: Final = frozenset({"-W", "-X", "--check-hash-based-pycs"})
_TIMEOUT_S: Final = 600
_LOCATIONS: Final = 5
_MAX_SUMMARY_BYTES: Final = 64 << 20


def under_memray(command: Sequence[str], capture: Path) -> list[str]:
    """Return the command with its Python program run by memray, which writes to `capture`.

    Raises LaunchError when the command is no Python or its Python has no memray.
    """
    python = command[0]
    if not _PYTHON_NAME.fullmatch(Path(python).name):
        raise LaunchError(
            f"{python} can not be run by memray.",
            "Memray runs Python programs: python SCRIPT, python -m MODULE or python -c CODE.",
            "Name the Python first, or leave --with memray out.",
        )
    _require_memray(python)
    first = _first_of_program(command)
    program = command[first:]
    if not program:
        raise LaunchError("There is nothing to run by memray.", "The command names no script.", "Add one.")
    return [*command[:first], "-m", "memray", "run", "--quiet", "--output", str(capture), *program]


def _first_of_program(command: Sequence[str]) -> int:
    """Return where the script, -m or -c stands, after the interpreter's own options."""
    position = 1
    while position < len(command):
        word = command[position]
        if not word.startswith("-") or word == "-" or word[:2] in {"-m", "-c"}:
            break
        position += 2 if word in _WITH_VALUE else 1
    return position


def _require_memray(python: str) -> None:
    try:
        found = subprocess.run(
            [python, "-c", "import memray"], stdin=subprocess.DEVNULL, capture_output=True, timeout=_TIMEOUT_S,
            check=False,
        )  # fmt: skip
    except FileNotFoundError:
        # That it is not there is told by the attempt to run it.
        return
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LaunchError(
            f"{python} can not be asked for memray.", f"{error}.", "Name another Python."
        ) from error
    if found.returncode != 0:
        raise LaunchError(
            f"{python} has no memray.", "It can not import it.", f"Install it: {python} -m pip install memray"
        )


def summary(python: str, capture: Path) -> tuple[str, ...]:
    """Return the lines of memray's summary of a capture: totals, and the sites that allocated most.

    What went wrong is a line too: the program has run, and its report stands without.
    """
    if not capture.exists():
        return ("Memray left no capture: the program ended before it began.",)
    target = capture.with_suffix(".json")
    command = [python, "-m", "memray", "stats", "--json", "--num-largest", str(_LOCATIONS), "--output", str(target),
               str(capture)]  # fmt: skip
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_TIMEOUT_S, check=False
        )
        if done.returncode != 0:
            return (f"Memray could not read its capture: {_last_line(done.stderr)}",)
        with target.open("rb") as file:
            document = json.loads(file.read(_MAX_SUMMARY_BYTES))
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        return (f"Memray's summary can not be read: {error}",)
    return tuple(_lines(document)) if isinstance(document, dict) else ("Memray's summary is no object.",)


def _last_line(text: bytes) -> str:
    lines = text.decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else "it gave no reason"


def _lines(document: dict[str, Any]) -> list[str]:
    metadata = document.get("metadata")
    peak = metadata.get("peak_memory") if isinstance(metadata, dict) else None
    shown_peak = format_quantity(peak if isinstance(peak, (int, float)) else None, "B")
    count = document.get("total_num_allocations", "unknown")
    lines = [
        f"Memray, which records stacks: {count} allocations, peak {shown_peak}; the counts above include its own",
        "Sites by bytes allocated:",
    ]
    sites = document.get("top_allocations_by_size")
    lines += [
        f"  {format_quantity(float(site['size']), 'B'):>8}  {site.get('location', 'unknown')}"
        for site in (sites if isinstance(sites, list) else [])
        if isinstance(site, dict) and isinstance(site.get("size"), (int, float))
    ]
    return lines
