"""`python -m tests.hlc_histories [HISTORIES]`: random histories of hybrid logical clocks, by default 100 000.

About 2 minutes; the seeds are fixed, and an AssertionError names the first history that fails.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# The installed package, as in tests/benchmarks.
if not list((ROOT / "cfctl").glob("_native*.so")):
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT]


def main(histories: int) -> int:
    """Run histories of fixed seeds."""
    from tests.hlc_machine import drive

    events = refused = 0
    for seed in range(histories):
        try:
            history = drive(random.Random(seed), 20)
        except AssertionError as error:
            raise AssertionError(f"history {seed}") from error
        events += len(history.events)
        refused += history.refused
    print(f"{histories} histories, {events} events, {refused} refusals: nothing violated")
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000))
