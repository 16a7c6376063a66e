"""What the system tests of the profiler share: running cfctl and the Pythons that have it."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CFCTL = (sys.executable, "-m", "cfctl")


def run_cfctl(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the command line as a process of its own."""
    settings: dict[str, Any] = {"capture_output": True, "text": True, "errors": "replace", "timeout": 120}
    return subprocess.run([*CFCTL, *arguments], **(settings | options))


def profile_run(
    command: Sequence[str], *functions: str, report: Path, **options: Any
) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    """Run a command under `profile run` and return how it ended with the JSON report, {} without one."""
    named = [word for function in functions for word in ("--function", function)]
    ended = run_cfctl("profile", "run", *named, "--json", "-o", str(report), "--", *command, **options)
    text = report.read_text() if report.exists() else ""
    return ended, json.loads(text) if text else {}


def counts(report: dict[str, Any]) -> dict[str, int]:
    """The number of samples by operation."""
    return {operation["name"]: operation["count"] for operation in report.get("operations", [])}


@functools.cache
def pythons() -> tuple[str, ...]:
    """The interpreters with this cfctl: this one, and those named in CFCTL_TEST_PYTHONS or on PATH."""
    named = os.environ.get("CFCTL_TEST_PYTHONS", "").split(os.pathsep)
    on_path = [shutil.which(f"python3.{minor}") or "" for minor in range(11, 16)]
    found = [sys.executable]
    for python in (*named, *on_path):
        if python and os.path.realpath(python) not in map(os.path.realpath, found) and _has_cfctl(python):
            found.append(python)
    return tuple(found)


def _has_cfctl(python: str) -> bool:
    code = "import cfctl._native"
    probe = subprocess.run([python, "-c", code], capture_output=True, cwd="/", timeout=60)
    return probe.returncode == 0
