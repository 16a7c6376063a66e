"""Diagnostics and profiling for microsecond latency budgets on Linux."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cfctl.pool.buffers import BufferPool
    from cfctl.pool.objects import Pool
    from cfctl.profile.profiler import Profiler

__version__ = "0.1.0"
__all__ = ["BufferPool", "Pool", "Profiler", "__version__"]

_HOMES = {
    "BufferPool": "cfctl.pool.buffers",
    "Pool": "cfctl.pool.objects",
    "Profiler": "cfctl.profile.profiler",
}


def __getattr__(name: str) -> object:
    # Loaded when it is first asked for: `import cfctl` alone costs an application nothing.
    if name in _HOMES:
        from importlib import import_module

        found: object = getattr(import_module(_HOMES[name]), name)
        globals()[name] = found
        return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
