"""Pool: objects that are expensive to make, used again."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from cfctl import _native
from cfctl.segment.process import open_segment

if TYPE_CHECKING:
    from cfctl.pool.statistics import PoolStatistics

T = TypeVar("T")
DEFAULT_MAX_IDLE: Final = 1024


class Pool(_native.Pool, Generic[T]):
    """Objects that are used again: acquire one, release it, and the next acquire gets the same.

    The one released last is handed out first, while it is in the cache. Acquiring and releasing cost
    about what two calls cost; `cfctl pool bench` says whether that pays for a type. Thread-safe, also
    on a Python without a GIL; `factory`, `reset` and destructors may use the pool. A forked child
    has a copy of the idle objects and counts its own.

    An object that is dropped without a release counts as in use for good; with `debug` it is found
    by a weak reference and counted as lost, if its type allows one.
    """

    __slots__ = ("__weakref__",)

    def __new__(
        cls,
        factory: Callable[[], T],
        reset: Callable[[T], object] | None = None,
        max_idle: int = DEFAULT_MAX_IDLE,
        *,
        name: str | None = None,
        debug: bool = False,
    ) -> Pool[T]:
        """Return an empty pool.

        `reset` is called on each object that is released: what it does not clear, the next user
        sees. An object whose reset raises is dropped, and the exception goes to who released it. Of
        more than `max_idle` idle objects the surplus is dropped. `name` is its row in `cfctl pool
        stats`, the factory's name without one; pools of one name share it. Raises TypeError or
        ValueError for what can not be used.
        """
        open_segment()
        return super().__new__(cls, factory, reset, max_idle, name or callable_name(factory), debug)

    if TYPE_CHECKING:

        def acquire(self) -> T:
            """Return an idle object, or one that the factory makes; what the factory raises goes on."""

        def release(self, item: T, /) -> None:
            """Take an object back; raises PoolError when it is not this pool's or is not in use."""

        def item(self) -> AbstractContextManager[T]:
            """Return a context manager: `with pool.item() as x:` acquires and releases."""

    def stats(self) -> PoolStatistics:
        """Return the counters of this pool in this process, exact."""
        from cfctl.pool.statistics import own_statistics

        return own_statistics(self.name, self.counters())


def callable_name(function: Callable[..., Any]) -> str:
    """Return "module.qualname" of a function or class, of a partial's function, or of an object's class."""
    function = getattr(function, "func", function)
    if not hasattr(function, "__qualname__"):
        function = type(function)
    return f"{getattr(function, '__module__', None) or 'builtins'}.{function.__qualname__}"[:200]
