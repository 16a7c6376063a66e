"""One line of progress on stderr, only on a terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def step_line() -> Iterator[Callable[[str], None]]:
    """Give a function that shows what is being done; the line is gone afterwards."""
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield lambda _step: None
        return
    width = 0

    def show(step: str) -> None:
        # Blanks, not an escape sequence: what was longer before is covered on every terminal.
        nonlocal width
        print(f"\r{step:<{width}}", end="", file=sys.stderr, flush=True)
        width = len(step)

    try:
        yield show
    finally:
        print("\r" + " " * width + "\r", end="", file=sys.stderr, flush=True)


@contextmanager
def progress(what: str) -> Iterator[Callable[[float], None]]:
    """Give a function that shows the share (0..1) that is done of one thing, as `step_line` does."""
    with step_line() as show:
        show(f"{what}   0%")
        yield lambda share: show(f"{what} {share:4.0%}")
