"""Programs of their own for tests of the bus, which are killed, stopped or end as real ones do."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

PATIENCE_S = 60.0
_PRELUDE = """
import os, signal, sys, time
from cfctl.bus import *
signal.alarm(120)
def ready(): print("ready", flush=True)
"""


@contextlib.contextmanager
def program(text: str, directory: Path) -> Iterator[subprocess.Popen[str]]:
    """Start a program on the bus of a directory and wait until it calls ready(); it is killed at the end."""
    environment = os.environ | {"CFCTL_SEGMENT_DIR": str(directory)}
    with subprocess.Popen(
        [sys.executable, "-c", _PRELUDE + text], stdout=subprocess.PIPE, text=True, env=environment
    ) as running:
        assert running.stdout is not None
        try:
            assert running.stdout.readline() == "ready\n"
            yield running
        finally:
            running.kill()


def finished(running: subprocess.Popen[str]) -> str:
    """Return what a program still prints until it ends."""
    return running.communicate(timeout=PATIENCE_S)[0]


def eventually(holds: Callable[[], object]) -> None:
    """Wait until something holds; fails when it never does."""
    end = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.001)
