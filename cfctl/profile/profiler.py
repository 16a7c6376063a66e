"""The Profiler: operations of a program, recorded by the C core into the process's segment."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, ParamSpec, Protocol, TypeVar, cast

from cfctl import _native
from cfctl.profile.suspending import timed_async_generator, timed_coroutine, timed_generator
from cfctl.segment.process import open_segment

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from cfctl.profile.report import ProfileReport

_P = ParamSpec("_P")
_R = TypeVar("_R")
_Callable = TypeVar("_Callable", bound=Callable[..., Any])
_Labels = tuple[tuple[str, str], ...]

# How many label sets of one operation get a row of their own; each takes 35 KB per thread.
LABEL_SETS: Final = 100
OTHER: Final = "other"

# Of a code object's flags (inspect.CO_*; importing inspect takes 10 ms).
_WRAPPERS: Final[tuple[tuple[int, Callable[..., Any]], ...]] = (
    (0x20, timed_generator),
    (0x80, timed_coroutine),
    (0x200, timed_async_generator),
)


class Operation(_native.Operation):
    """A named operation: a decorator of functions and a context manager for blocks of one thread.

    Each call or block is a sample; one that an exception leaves is an error too, and the exception
    goes on untouched. Blocks and decorated functions that run inside of each other on one thread
    make a tree of parents and children.

    `with operation:` is for synchronous code. Around an `await` take `with operation.span():`, which
    is right however tasks interleave, or decorate the coroutine; `begin()` returns a handle whose
    `end()` may be called anywhere. These three have no parent.
    """

    __slots__ = ()

    def __call__(self, function: _Callable) -> _Callable:
        """Return `function` so that each of its calls is recorded.

        Of a coroutine from its first step until it is done; of a generator the time inside its
        body, summed over its resumptions. Raises TypeError for a class, which would no longer be one.
        """
        if isinstance(function, (classmethod, staticmethod)):
            return type(function)(self(function.__func__))
        if isinstance(function, type):
            raise TypeError(f"{function!r} is a class: decorate its methods")
        flags = _code_flags(function)
        wrap = next((wrapper for flag, wrapper in _WRAPPERS if flags & flag), _native.TimedFunction)
        return cast("_Callable", functools.update_wrapper(wrap(function, self), function))


class NumpyArray(Protocol):
    """What numpy says of its arrays where its types do not say yet that they are buffers."""

    @property
    def __array_interface__(self) -> dict[str, Any]: ...


class _Operations:
    """The operations of this process by name and labels, with a bound on the label sets of a name."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[tuple[str, _Labels], Operation] = {}
        self._label_sets: dict[str, int] = {}

    def find(self, name: str, labels: Mapping[str, str] | None) -> Operation:
        key = (name, tuple(sorted(labels.items())) if labels else ())
        return self._known.get(key) or self._add(key)

    def _add(self, key: tuple[str, _Labels]) -> Operation:
        name, labels = key
        with self._lock:
            if labels and key not in self._known and self._label_sets.get(name, 0) >= LABEL_SETS:
                _native.count_folded(name)
                key = (name, tuple((label, OTHER) for label, _ in labels))
            found = self._known.get(key)
            if found is None:
                found = self._known[key] = Operation(*key)
                self._label_sets[name] = self._label_sets.get(name, 0) + bool(labels)
        return found


_operations = _Operations()


class Profiler:
    """The operations of this process; all profilers of a process share one segment.

    `cfctl profile report` reads it from outside, while the program runs and after.
    """

    def operation(self, name: str, labels: Mapping[str, str] | None = None) -> Operation:
        """Return the operation of that name and labels, the same one each time. Thread-safe.

        After 100 label sets of a name, others share one row whose labels all read "other", and how
        often that happened is counted in the segment. Raises ValueError for an empty name, a NUL
        character, or more than 1024 bytes.
        """
        open_segment()
        return _operations.find(name, labels)

    def record_operation(
        self, name: str, function: Callable[_P, _R], /, *args: _P.args, **kwargs: _P.kwargs
    ) -> _R:
        """Return function(*args, **kwargs), recorded as a sample of the operation `name`.

        An exception is counted as an error and goes on untouched.
        """
        open_segment()
        with self.operation(name):
            return function(*args, **kwargs)

    def record(
        self, name: str, duration_ns: int, failed: bool = False, labels: Mapping[str, str] | None = None
    ) -> None:
        """Add a sample that was measured elsewhere, in nanoseconds; it counts as ended now.

        Of values that follow each other within 0.3 ms only one in eight reads the clock, so that the
        moment an operation was last seen may be that of one of the seven values before the last.
        In a hot loop keep the operation and call its `record`, which spares the look-up.
        """
        open_segment()
        _operations.find(name, labels).record(duration_ns, failed)

    def record_many(
        self, name: str, durations_ns: Buffer | NumpyArray, labels: Mapping[str, str] | None = None
    ) -> None:
        """Add all values of a buffer of int64, uint64 or float64 nanoseconds (numpy, array, bytes).

        At most 2 ns each. Raises TypeError for another buffer, ValueError for a negative or not
        finite value; nothing is recorded then.
        """
        open_segment()
        _operations.find(name, labels).record_many(cast("Buffer", durations_ns))

    def timeline(self) -> None:
        """Keep each thread's latest 8192 samples with their moments and parents, until the process ends.

        256 KiB per thread, never more.
        """
        open_segment()
        _native.timeline_start()

    def report(self) -> ProfileReport:
        """Return the statistics of this process's operations so far; it may go on recording."""
        from cfctl.profile.own import own_report

        open_segment()
        return own_report()


def _code_flags(function: Any) -> int:
    """Return the flags of the code that a call of `function` runs, 0 where there is none."""
    while isinstance(function, functools.partial) or hasattr(function, "__func__"):
        function = function.func if isinstance(function, functools.partial) else function.__func__
    flags = getattr(getattr(function, "__code__", None), "co_flags", 0)
    return flags if isinstance(flags, int) else 0


_default = Profiler()
operation = _default.operation
record_operation = _default.record_operation
record = _default.record
record_many = _default.record_many
timeline = _default.timeline
