"""The processes of a workload: started, waited for until they are ready, and ended."""

from __future__ import annotations

import contextlib
import select
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Final

from cfctl.errors import StateError

_MODULE: Final = "cfctl.bench.workload"
_START_S: Final = 30.0
# On a busy machine; a second Ctrl-C cuts it short.
_END_S: Final = 10.0
_LONGEST_REASON: Final = 300

Worker = subprocess.Popen[bytes]


@contextlib.contextmanager
def workers(roles: Sequence[str], topic: str) -> Iterator[dict[str, Worker]]:
    """Give the processes of roles of `cfctl.bench.workload`, ready, by role; none outlives the block.

    One after the other, in their order. Raises StateError when one ends or is not ready in 30 s.
    """
    with contextlib.ExitStack() as stack:
        started: dict[str, Worker] = {}
        for role in roles:
            started[role] = stack.enter_context(_worker(role, topic))
            _wait_until_ready(role, started[role])
        yield started


def require_alive(started: dict[str, Worker]) -> None:
    """Raise StateError when a process has ended."""
    for role, worker in started.items():
        if worker.poll() is not None:
            raise _failed(role, worker)


@contextlib.contextmanager
def _worker(role: str, topic: str) -> Iterator[Worker]:
    # -P: not the working directory's packages.
    worker = subprocess.Popen(
        [sys.executable, "-P", "-m", _MODULE, role, topic], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        yield worker
    finally:
        assert worker.stdin is not None
        worker.stdin.close()
        try:
            worker.wait(_END_S)
        finally:
            # Also when the wait is interrupted; nothing of one that has ended.
            worker.kill()
            worker.wait()
            for stream in (worker.stdout, worker.stderr):
                if stream is not None:
                    stream.close()


def _wait_until_ready(role: str, worker: Worker) -> None:
    assert worker.stdout is not None
    readable, _, _ = select.select([worker.stdout], [], [], _START_S)
    if not readable or worker.stdout.readline() != b"ready\n":
        worker.kill()
        raise _failed(role, worker)


def _failed(role: str, worker: Worker) -> StateError:
    """Return why a process that has ended, or is being ended, did not do its work."""
    status = worker.wait()
    assert worker.stderr is not None
    lines = worker.stderr.read().decode(errors="replace").strip().splitlines()
    how = f"signal {-status}" if status < 0 else f"exit status {status}"
    # "errors.StateError: what failed" without the class.
    why = lines[-1].partition(": ")[2] or lines[-1] if lines else f"It ended with {how}."
    return StateError(f"The bench's process '{role}' did not work.", why[:_LONGEST_REASON])
