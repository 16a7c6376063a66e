"""The processes of a benchmark: started, waited for, and their findings read."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from cfctl import _native
from cfctl.errors import StateError

if TYPE_CHECKING:
    from cfctl.bench.endpoint import Plan

_MODULE: Final = "cfctl.bench.endpoint"


def run_plans(plans: Sequence[Plan], *, threads: bool, timeout_s: float) -> list[dict[str, Any]]:
    """Return what each plan found: in a process each, or in the threads of one.

    Raises StateError when one fails or takes longer; none outlives the call.
    """
    groups = [list(plans)] if threads else [[plan] for plan in plans]
    processes: list[subprocess.Popen[str]] = []
    try:
        # One by one: those that were started are ended also when another can not be.
        processes.extend(map(_start, groups))
        end = time.monotonic() + timeout_s
        return [found for process in processes for found in _finish(process, end - time.monotonic())]
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.wait()


def _start(group: Iterable[Plan]) -> subprocess.Popen[str]:
    text = json.dumps([asdict(plan) for plan in group])
    # -P: not the working directory's packages.
    return subprocess.Popen(
        [sys.executable, "-P", "-m", _MODULE, text], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def _finish(process: subprocess.Popen[str], timeout_s: float) -> list[dict[str, Any]]:
    try:
        out, errors = process.communicate(timeout=max(0.1, timeout_s))
    except subprocess.TimeoutExpired as error:
        raise StateError(
            "A side of the benchmark did not end.", "It was ended by force.", "Try a lower rate."
        ) from error
    if process.returncode != 0:
        last = errors.strip().splitlines()[-1:] or [f"exit status {process.returncode}"]
        raise StateError(
            "A side of the benchmark failed.", f"{last[0]}.", "Try again with fewer subscribers."
        )
    found: list[dict[str, Any]] = json.loads(out)
    return [{name: _dense(value) for name, value in each.items()} for each in found]


def _dense(value: Any) -> Any:
    """Return a distribution with its histogram as bytes; other values as they are."""
    if not isinstance(value, dict) or "histogram" not in value:
        return value
    counts = [0] * _native.HISTOGRAM_BUCKETS
    for bucket, count in value["histogram"]:
        counts[bucket] = count
    return {**value, "histogram": struct.pack(f"={len(counts)}Q", *counts)}
