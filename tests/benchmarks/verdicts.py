"""The comparison's alarms on equal sides and misses of a slower one, from distributions recorded here.

A program is recorded by cfctl in many processes. A simulated run draws one of these processes and
from its histogram the samples, so that what differs from process to process on this host is in the
pairs. Equal sides draw from the same processes; the slower side's slowest 2 % are 10 % slower,
by which p99 moves by 10 %. The second pair of figures is of runs whose processes differ by 2 %, which is what the goal
supposes; how much they really differ here stands beside.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.figure import Figure
from tests.unit.profile_runs import Values, document, side, slower_tail

PROCESSES = 24
SAMPLES = 20_000
RUNS = 10
PAIRS_SAME, PAIRS_SLOWER = 200, 100
PROGRAM = f"""
import json, cfctl
operation = cfctl.Profiler().operation("dumps")
dumps = operation(json.dumps)
document = {{"queue": [1, 2, 3], "name": "x" * 40}}
for _ in range({SAMPLES}):
    dumps(document)
"""


def run() -> Iterator[Figure]:
    """Yield the figures; records into segments of its own."""
    recorded = _recorded()
    spread = statistics.stdev(np.log([float(np.quantile(values, 0.99)) for values in recorded])) * 100

    def as_recorded(random: np.random.Generator, ratio: float) -> Values:
        values = recorded[random.integers(len(recorded))]
        return slower_tail(random.choice(values, SAMPLES), ratio)

    yield from _figures(f"processes as recorded, p99 differs by {spread:.1f} %", lambda seed, ratio: [
        document({"serve": as_recorded(random, ratio)}) for random in [np.random.default_rng(seed)] for _ in range(RUNS)
    ])  # fmt: skip
    first = recorded[0]

    def alike(random: np.random.Generator, count: int) -> Any:
        return random.choice(first, count)

    yield from _figures(
        "processes differ by 2 %", lambda seed, ratio: side(seed, RUNS, SAMPLES, ratio, alike)
    )


def _figures(name: str, draw: Callable[[int, float], list[dict[str, Any]]]) -> Iterator[Figure]:
    from cfctl.compare.comparison import Threshold
    from cfctl.compare.profile import compare
    from cfctl.records import Verdict

    alarms = sum(
        compare(draw(2 * pair, 1.0), draw(2 * pair + 1, 1.0)).verdict is Verdict.FAIL
        for pair in range(PAIRS_SAME)
    )
    threshold = [Threshold.parse("p99:5%")]
    found = [
        compare(draw(2 * pair, 1.0), draw(2 * pair + 1, 1.1), threshold)
        for pair in range(PAIRS_SAME, PAIRS_SAME + PAIRS_SLOWER)
    ]
    missed = sum(comparison.verdict is not Verdict.FAIL for comparison in found)
    unseen = sum(comparison.changes[0].direction != "worse" for comparison in found)
    yield Figure(f"alarms of {PAIRS_SAME} equal pairs; {name}", (alarms / PAIRS_SAME * 100,), "%", 5)
    yield Figure(
        f"p99 +10 % not seen as worse, of {PAIRS_SLOWER}; {name}", (unseen / PAIRS_SLOWER * 100,), "%", 10
    )
    yield Figure(f"p99 +10 % not failed at a limit of 5 %; {name}", (missed / PAIRS_SLOWER * 100,), "%", 10)


def _recorded() -> list[Values]:
    """Return the samples, in ticks, that a program recorded in each of some processes."""
    from cfctl.profile.recording import record_of_file
    from cfctl.profile.tally import bucket_bounds
    from cfctl.segment.directory import find_segment

    found = []
    random = np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as directory:
        for number in range(PROCESSES):
            segments = Path(directory) / str(number)
            os.environ["CFCTL_SEGMENT_DIR"] = str(segments)
            subprocess.run([sys.executable, "-c", PROGRAM], check=True, cwd=directory)
            (tally,) = record_of_file(find_segment(None)).tallies
            bounds = [(*bucket_bounds(bucket), samples) for bucket, samples in tally.buckets]
            found.append(
                np.concatenate([random.integers(low, high + 1, samples) for low, high, samples in bounds])
            )
    return found
