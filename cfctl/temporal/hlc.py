"""The hybrid logical clock of this process, and its node id, which no other process of this user has.

A stamp (`Hlc.tick`, `Hlc.receive`) is Unix nanoseconds with a counter in the low four bits: it reads
as a time, never repeats, only grows, and is above the stamp of every message received before.
Total order over processes is (stamp, node). The converse does not hold: a smaller stamp does not
mean that one event caused the other; `causality.verify` tells concurrency from order.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from pathlib import Path
from typing import Final

from cfctl import _native, paths
from cfctl._native import Hlc
from cfctl.errors import InputError, StateError, os_error_reason
from cfctl.segment.process import open_segment

DEFAULT_MAX_OFFSET_NS: Final = _native.HLC_MAX_OFFSET_NS
HIGHEST_NODE: Final = 65535
HIGHEST_OFFSET_NS: Final = (1 << 64) - 1

__all__ = ["DEFAULT_MAX_OFFSET_NS", "HIGHEST_NODE", "Hlc", "global_hlc", "initialize_global_hlc"]


class _Claim:
    """A node id held by this process: a locked file, released by the kernel when the process dies."""

    def __init__(self, node: int, path: Path, fd: int) -> None:
        self.node = node
        self.path = path
        self.fd = fd

    @classmethod
    def attempt(cls, directory: Path, node: int) -> _Claim | None:
        """Return the claim, None when another process (or another claim) holds the id; raises OSError."""
        path = directory / f"node-{node}.lock"
        while True:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Its holder may have removed the file between the two calls.
                if os.fstat(fd).st_nlink > 0:
                    os.truncate(fd, 0)
                    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
                    return cls(node, path, fd)
            except BlockingIOError:
                os.close(fd)
                return None
            except OSError:
                os.close(fd)
                raise
            os.close(fd)

    def release(self) -> None:
        """Give the id back."""
        with contextlib.suppress(OSError):
            self.path.unlink()
        os.close(self.fd)

    def abandon(self) -> None:
        """Close the file without giving the id back: in a forked child, whose parent holds it."""
        os.close(self.fd)


class _Node:
    """The node id of this process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.claim: _Claim | None = None

    def take(self, node: int | None, max_offset_ns: int) -> None:
        if self.claim is not None and node in {None, self.claim.node}:
            node = self.claim.node
        else:
            fresh = _claimed(node)
            if self.claim is not None:
                self.claim.release()
            self.claim, node = fresh, fresh.node
        _native.process_hlc_initialise(node, max_offset_ns)

    def renew_in_child(self) -> None:
        """Take an id of the child's own: its parent's is never shared."""
        self.lock = threading.Lock()
        if self.claim is None:
            return
        self.claim.abandon()
        self.claim = None
        # Without an id the clock refuses to stamp and says so.
        with contextlib.suppress(StateError, InputError):
            self.take(None, _clock.max_offset_ns)


_clock: Final = _native.process_hlc()
_node: Final = _Node()
os.register_at_fork(after_in_child=_node.renew_in_child)


def initialize_global_hlc(node_id: int | None = None, *, max_offset_ns: int = DEFAULT_MAX_OFFSET_NS) -> Hlc:
    """Return the clock of this process under a node id that no other process of this user has here.

    Without `node_id` it is the one this process has, else the lowest that is free. Calling it again
    with another id changes the id; stamps keep growing. The id is held by a lock on a file in the
    segment directory until the process ends, however it ends; so uniqueness is per segment
    directory, by default one per user and host. A forked child (os.fork, multiprocessing) gets the lowest
    free id of its own at once, and its stamps stay above its parent's up to the fork.

    Messages stamped more than `max_offset_ns` ahead of this host's clock are refused; within one
    host 1 ms is enough.

    Raises InputError for an id outside of 1 to 65535 or one that another process holds, and for an offset
    outside of 0 to 2^64 - 1 ns; StateError when the lock's file cannot be made.
    """
    if node_id is not None and not 1 <= node_id <= HIGHEST_NODE:
        raise InputError(f"Node id {node_id} cannot be used.", f"An id is 1 to {HIGHEST_NODE}.")
    if not 0 <= max_offset_ns <= HIGHEST_OFFSET_NS:
        raise InputError(
            f"max_offset_ns {max_offset_ns} cannot be used.", f"It is 0 to {HIGHEST_OFFSET_NS} ns."
        )
    open_segment()
    with _node.lock:
        _node.take(node_id, max_offset_ns)
    return _clock


def global_hlc() -> Hlc:
    """Return the clock of this process, under the lowest free node id unless it has one. About 0.1 us."""
    return _clock if _clock.node else initialize_global_hlc()


def _claimed(node: int | None) -> _Claim:
    """Return the claim to an id, to the lowest free one for None; raises InputError or StateError."""
    directory = paths.segment_directory()
    paths.ensure_private_directory(directory)
    try:
        if node is not None:
            claim = _Claim.attempt(directory, node)
            if claim is None:
                raise InputError(
                    f"Node id {node} is taken.",
                    f"{_holder(directory, node)} holds {directory}/node-{node}.lock.",
                    "Choose another id, or none for the lowest free one.",
                )
            return claim
        for candidate in range(1, HIGHEST_NODE + 1):
            claim = _Claim.attempt(directory, candidate)
            if claim is not None:
                return claim
    except OSError as error:
        raise StateError(
            f"No node id can be held in {directory}.",
            os_error_reason(error),
            "Make the directory usable, or name another with CFCTL_SEGMENT_DIR.",
        ) from error
    raise StateError("There is no free node id.", f"All {HIGHEST_NODE} are held.", "End some processes.")


def _holder(directory: Path, node: int) -> str:
    """Return who holds an id, as far as its file tells."""
    try:
        text = (directory / f"node-{node}.lock").read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        text = ""
    return f"Process {text}" if text.isdigit() else "Another process"
