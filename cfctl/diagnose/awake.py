"""CPUs kept awake: what an idle CPU costs shows beside one that never sleeps."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Final

from cfctl.errors import UnobservableError, os_error_reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

# Sleeps until it is told to spin, and spins until it is told to sleep. It ends with the process that
# started it, whose end of the pipe is then closed.
_SPINNER: Final = """
import os, select, sys
os.sched_setaffinity(0, {int(sys.argv[1])})
print(flush=True)
while os.read(0, 1):
    while not select.select([0], [], [], 0)[0]:
        for _ in range(10000):
            pass
    if not os.read(0, 1):
        break
"""


@contextlib.contextmanager
def spinners(cpus: Sequence[int]) -> Iterator[Callable[[], contextlib.AbstractContextManager[None]]]:
    """Start a process of the idle policy for each CPU and give what keeps the CPUs awake while its block runs.

    They need no privilege and give way to everything else at once (sched(7), SCHED_IDLE): where other
    programs leave no CPU idle they do not run, and nothing waits for them. Raises UnobservableError when
    one can not be started. Costs 20 ms a CPU to start, nothing to turn on and off.
    """
    with contextlib.ExitStack() as stack:
        started = [stack.enter_context(_spinner(cpu)) for cpu in cpus]

        def tell() -> None:
            for spinner in started:
                assert spinner.stdin is not None
                with contextlib.suppress(BrokenPipeError):
                    spinner.stdin.write(b"!")

        @contextlib.contextmanager
        def awake() -> Iterator[None]:
            tell()
            try:
                yield
            finally:
                tell()

        yield awake


@contextlib.contextmanager
def _spinner(cpu: int) -> Iterator[subprocess.Popen[bytes]]:
    try:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _SPINNER, str(cpu)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0,
        )  # fmt: skip
    except OSError as error:
        raise UnobservableError("A CPU can not be kept awake.", os_error_reason(error)) from error
    with process:
        try:
            assert process.stdout is not None
            if not process.stdout.readline():
                raise UnobservableError("A CPU can not be kept awake.", f"CPU {cpu} refused a process.")
            # Not before it is ready: of the idle policy it might wait for seconds on a busy CPU.
            _set_policy(process.pid, os.SCHED_IDLE)
            yield process
        finally:
            # For the same reason: it has to run once more to end. Without a privilege it waits its turn.
            with contextlib.suppress(UnobservableError):
                _set_policy(process.pid, os.SCHED_OTHER)
            process.kill()


def _set_policy(pid: int, policy: int) -> None:
    try:
        os.sched_setscheduler(pid, policy, os.sched_param(0))
    except OSError as error:
        raise UnobservableError("A CPU can not be kept awake.", os_error_reason(error)) from error
