"""The Profiler: operations of a program, recorded by the C core into the process's segment."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar, cast

from cfctl import _native

if TYPE_CHECKING:
    from cfctl.profile.report import ProfileReport

_P = ParamSpec("_P")
_R = TypeVar("_R")
_Callable = TypeVar("_Callable", bound=Callable[..., Any])

# Of a code object's flags (inspect.CO_*; importing inspect takes 10 ms).
_GENERATOR: Final = 0x20
_COROUTINE: Final = 0x80
_ASYNC_GENERATOR: Final = 0x200


class Operation(_native.Operation):
    """A named operation: a decorator of functions and a context manager for blocks of one thread.

    Each call or block is a sample; one that an exception leaves is an error too, and the exception
    goes on untouched. In a coroutine decorate, or use `record_since`: blocks of interleaved tasks
    on one thread can be matched to each other's ends.
    """

    __slots__ = ()

    def __call__(self, function: _Callable) -> _Callable:
        """Return `function` so that each of its calls is recorded; of a coroutine, until it is done.

        Raises TypeError for a generator, whose call returns before its work begins, and for a
        class, which would no longer be one.
        """
        if isinstance(function, (classmethod, staticmethod)):
            return type(function)(self(function.__func__))
        if isinstance(function, type):
            raise TypeError(f"{function!r} is a class: decorate its methods")
        flags = _code_flags(function)
        if flags & (_GENERATOR | _ASYNC_GENERATOR):
            raise TypeError(
                f"{function!r} is a generator: its call returns before its work begins; "
                f"use `with operation:` inside of it, around the work between two yields"
            )
        timed: Any = (
            self._timed_coroutine(function) if flags & _COROUTINE else _native.TimedFunction(function, self)
        )
        functools.update_wrapper(timed, function)
        return cast("_Callable", timed)

    def _timed_coroutine(self, function: Callable[..., Any]) -> Callable[..., Any]:
        record_since, ticks = self.record_since, _native.ticks

        async def timed(*args: Any, **kwargs: Any) -> Any:
            start = ticks()
            try:
                result = await function(*args, **kwargs)
            except BaseException:
                # A cancelled call has not done its work either.
                record_since(start, True)
                raise
            record_since(start)
            return result

        return timed


class Profiler:
    """The operations of this process; all profilers of a process share one segment.

    `cfctl profile report` reads it from outside, while the program runs and after.
    """

    def __init__(self) -> None:
        self._operations: dict[tuple[str, tuple[tuple[str, str], ...]], Operation] = {}

    def operation(self, name: str, labels: Mapping[str, str] | None = None) -> Operation:
        """Return the operation of that name and labels, the same one each time. Thread-safe.

        Raises ValueError for an empty name, a NUL character, or more than 1024 bytes.
        """
        key = (name, tuple(sorted(labels.items())) if labels else ())
        found = self._operations.get(key)
        if found is None:
            _open_segment()
            found = self._operations.setdefault(key, Operation(*key))
        return found

    def record_operation(
        self, name: str, function: Callable[_P, _R], /, *args: _P.args, **kwargs: _P.kwargs
    ) -> _R:
        """Return function(*args, **kwargs), recorded as a sample of the operation `name`.

        An exception is counted as an error and goes on untouched.
        """
        with self.operation(name):
            return function(*args, **kwargs)

    def report(self) -> ProfileReport:
        """Return the statistics of this process's operations so far; it may go on recording."""
        from cfctl.profile.own import own_report

        _open_segment()
        return own_report()


def _code_flags(function: Any) -> int:
    """Return the flags of the code that a call of `function` runs, 0 where there is none."""
    while isinstance(function, functools.partial) or hasattr(function, "__func__"):
        function = function.func if isinstance(function, functools.partial) else function.__func__
    flags = getattr(getattr(function, "__code__", None), "co_flags", 0)
    return flags if isinstance(flags, int) else 0


@functools.cache
def _open_segment() -> None:
    """Open the process's segment; warn once when it has to be in anonymous memory."""
    from cfctl import paths
    from cfctl.errors import InputError

    directory, limit_bytes = paths.segment_directory(), None
    try:
        limit_bytes = paths.segment_limit_bytes()
    except InputError as error:
        warnings.warn(f"cfctl: {error} The default is used.", RuntimeWarning, stacklevel=3)
    try:
        _native.segment_configure(
            str(directory), paths.segment_run_id(), limit_bytes or _native.SEGMENT_DEFAULT_LIMIT_BYTES
        )
        _, errno = _native.segment_open()
    except (OSError, ValueError) as error:
        reason = str(error)
    else:
        if errno == 0:
            return
        reason = _open_reason(errno)
    warnings.warn(
        f"cfctl: no segment can be made in {directory}: {reason}. Operations are recorded, but only this "
        f"process can report them. Make the directory usable, or name another with CFCTL_SEGMENT_DIR.",
        RuntimeWarning,
        stacklevel=3,
    )


def _open_reason(number: int) -> str:
    import errno
    import os

    if number == errno.EPERM:
        return "it is a link, another user's, or open to others (it should have mode 0700)"
    return os.strerror(number)


_default = Profiler()
operation = _default.operation
record_operation = _default.record_operation
