"""Times functions of a running program that nobody edited, chosen by name.

From 3.12 by sys.monitoring, where code that is not chosen is asked about once and then runs at its
full speed; on 3.11 by a profile function of each thread.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Callable, Sequence
from types import CodeType, FrameType, FunctionType
from typing import TYPE_CHECKING, Final

from cfctl import _native
from cfctl.profile.profiler import Profiler

if TYPE_CHECKING:
    from cfctl.profile.patterns import FunctionPattern

# Of a code object's flags: generator, coroutine, asynchronous generator.
_SUSPENDS: Final = 0x20 | 0x80 | 0x200
_NEAREST: Final = 3
# Names of functions that ran, from which the nearest to a missing one are offered.
_NAMES_KEPT: Final = 20_000
NEAREST_TO: Final = "Nearest to"
# Not sys.monitoring.PROFILER_ID: the program may run a profiler of its own, which takes that one.
_TOOL_IDS: Final = (4, 3)


def instrument(patterns: Sequence[FunctionPattern], note: Callable[[str], None]) -> None:
    """Time the functions that match from now on, in all threads of this process.

    `note` is told in a sentence what was found and can not be timed.
    """
    if sys.version_info >= (3, 12):
        _monitor_events(patterns, note)
    else:
        _set_profile_functions(patterns, note)


class _Chooser:
    """Decides once for each code object whether it is timed, and as which operation."""

    def __init__(
        self,
        patterns: Sequence[FunctionPattern],
        note: Callable[[str], None],
        chosen: Callable[[CodeType], None],
    ) -> None:
        self._patterns = patterns
        self._note = note
        self._chosen = chosen
        self._profiler = Profiler()
        self._missing = set(patterns)
        self._ran: set[tuple[str, str]] = set()

    def note_nearest(self) -> None:
        """Tell for each function that was never called which ones with a similar name were."""
        if not self._missing:
            return
        from difflib import get_close_matches

        # Copied: this very function's callees, and other threads, still run for the first time.
        ran, missing = tuple(self._ran), tuple(self._missing)
        names = sorted(f"{module}:{qualname}" for module, qualname in ran)
        for pattern in sorted(missing, key=str):
            nearest = get_close_matches(str(pattern), names, _NEAREST)
            if nearest:
                self._note(f"{NEAREST_TO} {pattern} among the functions that ran: {', '.join(nearest)}")

    def match(self, code: CodeType, module: str) -> _native.Operation | None:
        """Return the operation of a code object that runs for the first time, None to leave it."""
        meant = [pattern for pattern in self._patterns if pattern.matches(module, code.co_qualname)]
        if len(self._ran) < _NAMES_KEPT:
            self._ran.add((module, code.co_qualname))
        if not meant:
            return None
        self._missing.difference_update(meant)
        name = f"{module}:{code.co_qualname}"
        try:
            operation = self._profiler.operation(name)
        except ValueError as error:
            self._note(f"{name} was not timed: {error}")
            return None
        self._chosen(code)
        return operation


def _watch_the_process(chooser: _Chooser, monitor: _native.Monitor) -> None:
    os.register_at_fork(after_in_child=monitor.forked)
    atexit.register(_at_exit, chooser, monitor)


def _at_exit(chooser: _Chooser, monitor: _native.Monitor) -> None:
    monitor.flush()
    chooser.note_nearest()


if sys.version_info >= (3, 12):

    def _monitor_events(patterns: Sequence[FunctionPattern], note: Callable[[str], None]) -> None:
        events = sys.monitoring.events
        tool_id = next((i for i in _TOOL_IDS if sys.monitoring.get_tool(i) is None), None)
        if tool_id is None:
            note("No function was timed: other tools hold all ids of sys.monitoring")
            return
        sys.monitoring.use_tool_id(tool_id, "cfctl")

        def watch(code: CodeType) -> None:
            steps = events.PY_YIELD | events.PY_RESUME if code.co_flags & _SUSPENDS else 0
            sys.monitoring.set_local_events(tool_id, code, events.PY_RETURN | steps)

        chooser = _Chooser(patterns, note, watch)
        monitor = _native.Monitor(chooser.match)
        sys.monitoring.register_callback(tool_id, events.PY_START, monitor.start)
        sys.monitoring.register_callback(tool_id, events.PY_RETURN, monitor.finish)
        sys.monitoring.register_callback(tool_id, events.PY_UNWIND, monitor.unwind)
        sys.monitoring.register_callback(tool_id, events.PY_YIELD, monitor.suspend)
        sys.monitoring.register_callback(tool_id, events.PY_RESUME, monitor.resume)
        sys.monitoring.register_callback(tool_id, events.PY_THROW, monitor.resume)
        sys.monitoring.set_events(tool_id, events.PY_START | events.PY_UNWIND | events.PY_THROW)
        _watch_the_process(chooser, monitor)

else:

    def _set_profile_functions(patterns: Sequence[FunctionPattern], note: Callable[[str], None]) -> None:
        chooser = _Chooser(patterns, note, lambda _: None)
        monitor = _native.Monitor(chooser.match)

        def begin(code: CodeType) -> object:
            return monitor.start(code, 0)

        def in_new_thread(frame: FrameType, event: str, _value: object) -> None:
            # The first event is the call of the thread's run(), which the monitor would miss. It
            # asks for the module of whoever calls it, hence a function with the globals of run().
            if event == "call":
                FunctionType(begin.__code__, frame.f_globals, closure=begin.__closure__)(frame.f_code)
            monitor.install()

        threading.setprofile(in_new_thread)
        monitor.install()
        _watch_the_process(chooser, monitor)


class Notes:
    """Sentences for the command that started the program, which shows them at the end.

    They go through a file, so that the program's own output stays its own, and at once, so that a
    kill loses none.
    """

    def __init__(self, path: str | None) -> None:
        self._path = path

    def add(self, sentence: str) -> None:
        """Append a sentence; a file that can not be written loses it."""
        if self._path is None:
            return
        line = sentence.replace("\n", " ").encode("utf-8", "replace") + b"\n"
        try:
            fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            # The command that wanted to know is gone.
            return
        try:
            os.write(fd, line)
        except OSError:
            pass
        finally:
            os.close(fd)
