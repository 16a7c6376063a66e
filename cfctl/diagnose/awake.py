"""CPUs kept awake: what an idle CPU costs shows beside one that never sleeps."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from typing import TYPE_CHECKING, Final

from cfctl.errors import UnobservableError, os_error_reason

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# It gives way to everything else at once, needs no privilege, and ends with the process that started
# it or after a minute. Source: sched(7), SCHED_IDLE.
_SPINNER: Final = """
import os, sys, time
os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
os.sched_setaffinity(0, {int(sys.argv[1])})
parent, end = os.getppid(), time.monotonic() + 60
print(flush=True)
while os.getppid() == parent and time.monotonic() < end:
    for _ in range(10000):
        pass
"""


@contextlib.contextmanager
def kept_awake(cpus: Sequence[int]) -> Iterator[None]:
    """Run a process of the idle policy on each CPU while the block runs, so that none halts.

    Raises UnobservableError when one can not be started. Costs 20 ms a CPU to start.
    """
    with contextlib.ExitStack() as stack:
        for cpu in cpus:
            try:
                spinner = stack.enter_context(
                    subprocess.Popen(
                        [sys.executable, "-I", "-S", "-c", _SPINNER, str(cpu)],
                        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                    )
                )  # fmt: skip
            except OSError as error:
                raise UnobservableError("A CPU can not be kept awake.", os_error_reason(error)) from error
            stack.callback(spinner.kill)
            assert spinner.stdout is not None
            if not spinner.stdout.readline():
                raise UnobservableError("A CPU can not be kept awake.", f"CPU {cpu} refused the idle policy.")
        yield
