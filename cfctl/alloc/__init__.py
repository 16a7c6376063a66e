"""What a process allocates, counted: from outside by a preload, from inside by hooks.

`track`, `share_facts` and `CycleWatch` are what an application calls.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cfctl.alloc.cycles import CycleWatch
    from cfctl.alloc.interpreter import share_facts
    from cfctl.alloc.track import track

__all__ = ["CycleWatch", "share_facts", "track"]

_HOMES = {
    "CycleWatch": "cfctl.alloc.cycles",
    "share_facts": "cfctl.alloc.interpreter",
    "track": "cfctl.alloc.track",
}


def __getattr__(name: str) -> object:
    if name in _HOMES:
        from importlib import import_module

        found: object = getattr(import_module(_HOMES[name]), name)
        globals()[name] = found
        return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
