"""Starts the watch for reference cycles in a Python that `cfctl alloc run --cycles` started.

Python's `site` imports it by name before the program begins. It removes its own traces, so that
the program and its children see the path they would have seen, and then imports the sitecustomize
of the application's own, if there is one. It must do no harm in a Python without cfctl.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

REQUEST_VARIABLE = "CFCTL_CYCLES_REQUEST"


def _take_request() -> dict[str, Any]:
    """Return what to do, and leave the environment as the program was meant to see it."""
    request: dict[str, Any] = json.loads(os.environ.pop(REQUEST_VARIABLE, "{}"))
    original = request.get("pythonpath")
    if original is None:
        os.environ.pop("PYTHONPATH", None)
    else:
        os.environ["PYTHONPATH"] = original
    return request


def _start(request: dict[str, Any]) -> None:
    try:
        from cfctl.alloc.cycle_launch import watch_until_exit
    except ImportError:
        return
    watch_until_exit(Path(request["result"]))


def _step_aside() -> None:
    own = str(Path(__file__).parent)
    sys.path[:] = [entry for entry in sys.path if entry != own]
    sys.path_importer_cache.pop(own, None)
    # The import machinery hands on whatever module stands under the name when this one is done.
    sys.modules.pop("sitecustomize", None)
    importlib.import_module("sitecustomize")


if __name__ == "sitecustomize":
    _request = _take_request()
    if _request.get("result"):
        _start(_request)
    # Without one of the application's own this raises the ImportError that `site` expects.
    _step_aside()
