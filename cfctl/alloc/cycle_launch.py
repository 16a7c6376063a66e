"""The watch for reference cycles in another program: how it gets there, and how its result comes back."""

from __future__ import annotations

import atexit
import gc
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from cfctl.alloc import inject
from cfctl.alloc.cycle_graph import Link
from cfctl.alloc.cycles import CycleGroup, CycleReport, CycleWatch
from cfctl.alloc.inject.sitecustomize import REQUEST_VARIABLE
from cfctl.records import to_json

_MAX_RESULT_BYTES: Final = 64 << 20


def cycles_environment(environment: Mapping[str, str], result: Path) -> dict[str, str]:
    """Return the environment in which a Python program is watched and writes its report to `result`.

    Only the first Python that starts in it is; its children see the environment as it was.
    """
    original = environment.get("PYTHONPATH")
    own = str(Path(inject.__file__).parent)
    request = json.dumps({"result": str(result), "pythonpath": original})
    path = own if not original else f"{own}{os.pathsep}{original}"
    return {**environment, "PYTHONPATH": path, REQUEST_VARIABLE: request}


def watch_until_exit(result: Path) -> None:
    """Watch from now on and write the report when the interpreter ends."""
    watch = CycleWatch()
    watch.start()
    pid = os.getpid()

    def finish() -> None:
        if os.getpid() == pid:
            # What is garbage by now would never be looked at.
            gc.collect()
            result.write_text(to_json(watch.stop()))

    atexit.register(finish)


def load_cycles(result: Path) -> CycleReport | None:
    """Return the report a watched program wrote; None when it wrote none (killed, or no Python of ours)."""
    try:
        data = result.read_bytes()[:_MAX_RESULT_BYTES]
        document: dict[str, Any] = json.loads(data)
        groups = tuple(_group(each) for each in document["groups"])
        return CycleReport(
            document["duration_ns"], document["collections"], document["examined"],
            document["garbage_objects"], document["skipped_objects"], groups,
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _group(plain: dict[str, Any]) -> CycleGroup:
    links = tuple(Link(**link) for link in plain["links"])
    return CycleGroup(**{**plain, "links": links})
