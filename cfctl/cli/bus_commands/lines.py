"""Lines that leave one by one, to a terminal or a pipe, until nobody reads them any more."""

from __future__ import annotations

import contextlib
import select
import sys
from collections.abc import Iterator

from cfctl.cli.streams import discard
from cfctl.errors import StateError, os_error_reason


def write_lines(lines: list[str]) -> None:
    """Write lines to standard output at once. Raises BrokenPipeError when nobody reads them, else StateError."""
    with _output_errors():
        sys.stdout.write("".join(lines))
        sys.stdout.flush()


def write_payloads(payloads: list[bytes]) -> None:
    """Write payloads as they are, a line each; errors as `write_lines`."""
    with _output_errors():
        sys.stdout.flush()
        sys.stdout.buffer.write(b"".join(payload + b"\n" for payload in payloads))
        sys.stdout.buffer.flush()


def require_reader() -> None:
    """Raise BrokenPipeError when standard output is a pipe that nobody reads any more: without a line to write."""
    poll = select.poll()
    try:
        poll.register(sys.stdout.fileno(), 0)
    except (OSError, ValueError):
        # No descriptor: standard output was replaced.
        return
    if any(events & select.POLLERR for _, events in poll.poll(0)):
        raise BrokenPipeError


@contextlib.contextmanager
def _output_errors() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        discard(sys.stdout)
        raise StateError("The output could not be written.", os_error_reason(error), "Free space.") from error
