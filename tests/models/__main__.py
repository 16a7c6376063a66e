"""`python -m tests.models [--quick]`: check the ring's models and that each planted fault is found.

About 5 minutes; exits 1 when a model has a fault or a planted one is not found. What has no tool here
(Debian: spin, relacy-dev, g++) is skipped and said so.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from tests.models.cases import CASES, finds_a_fault, missing_tool


def main(arguments: list[str]) -> int:
    """Run all cases, or those that are quick."""
    if arguments not in ([], ["--quick"]):
        print("usage: python -m tests.models [--quick]", file=sys.stderr)
        return 2
    wrong = 0
    for case in CASES:
        if arguments and not case.quick:
            continue
        reason = missing_tool(case)
        if reason is not None:
            print(f"skipped   {case.name}: {reason}")
            continue
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="cfctl-model-") as directory:
            found, words = finds_a_fault(case, Path(directory))
        outcome = "fault found" if found else "no fault"
        verdict = "ok" if found == case.faulty else "WRONG"
        print(f"{verdict:<9} {case.name}: {outcome} ({time.monotonic() - began:.1f} s)", flush=True)
        if found != case.faulty:
            wrong += 1
            print(words)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
