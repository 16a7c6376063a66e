"""Diagnostics and profiling for microsecond latency budgets on Linux."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cfctl.profile.profiler import Profiler

__version__ = "0.1.0"
__all__ = ["Profiler", "__version__"]


def __getattr__(name: str) -> object:
    # Loaded when it is first asked for: `import cfctl` alone costs an application nothing.
    if name == "Profiler":
        from cfctl.profile.profiler import Profiler

        globals()[name] = Profiler
        return Profiler
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
