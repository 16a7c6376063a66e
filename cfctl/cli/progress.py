"""One line of progress on stderr, only on a terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress(what: str) -> Iterator[Callable[[float], None]]:
    """Give a function that shows the share (0..1) that is done; the line is gone afterwards."""
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield lambda _share: None
        return

    def show(share: float) -> None:
        print(f"\r{what} {share:4.0%}", end="", file=sys.stderr, flush=True)

    try:
        show(0.0)
        yield show
    finally:
        print("\r" + " " * (len(what) + 5) + "\r", end="", file=sys.stderr, flush=True)
