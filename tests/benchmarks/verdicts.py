"""The comparison's alarms on equal sides and misses of a slower one, from distributions recorded here.

A program is recorded by cfctl in many processes. A simulated run draws one of these processes and
from its histogram the samples, so that what differs from process to process on this host is in the
pairs. Equal sides draw from the same processes; the slower side's slowest 2 % are 10 % slower,
by which p99 moves by 10 %. Rounds are processes recorded next to each other, compared as pairs. The
last figures are of processes that differ by 2 %, which is what the goal supposes; how much they really
differ here stands beside. Where 10 runs leave much open, the same is done with as many as the verdict asks for.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.benchmarks.figure import Figure
from tests.unit.profile_runs import Values, document, side, slower_tail

if TYPE_CHECKING:
    from cfctl.compare.comparison import Change

PROCESSES = 24
SAMPLES = 20_000
RUNS = 10
# More are not simulated: on a host that noisy nobody makes them either.
MOST_RUNS = 300
PAIRS_SAME, PAIRS_SLOWER, PAIRS_NEEDED = 200, 100, 40
PROGRAM = f"""
import json, cfctl
operation = cfctl.Profiler().operation("dumps")
dumps = operation(json.dumps)
document = {{"queue": [1, 2, 3], "name": "x" * 40}}
for _ in range({SAMPLES}):
    dumps(document)
"""


Sides = tuple[list[dict[str, Any]], list[dict[str, Any]]]


def run() -> Iterator[Figure]:
    """Yield the figures; records into segments of its own."""
    recorded = _recorded()
    logs = np.log([float(np.quantile(values, 0.99)) for values in recorded])
    spread, pair_spread = logs.std(ddof=1) * 100, (logs[1::2] - logs[::2]).std(ddof=1) / 2**0.5 * 100

    def as_recorded(seed: int, ratio: float, runs: int) -> Sides:
        random = np.random.default_rng(seed)
        chosen = random.integers(len(recorded), size=2 * runs)
        samples = [random.choice(recorded[number], SAMPLES) for number in chosen]
        return _sides(samples[:runs], samples[runs:], ratio)

    def in_rounds(seed: int, ratio: float, runs: int) -> Sides:
        """Neighbours in time, either of them first: what a round of --interleave is."""
        random = np.random.default_rng(seed)
        rounds, new_first = random.integers(len(recorded) // 2, size=runs), random.integers(2, size=runs)
        drawn = [
            [random.choice(recorded[2 * number + place], SAMPLES) for number, place in zip(rounds, places, strict=True)]
            for places in (new_first, 1 - new_first)
        ]  # fmt: skip
        return _sides(drawn[0], drawn[1], ratio)

    def alike(seed: int, ratio: float, runs: int) -> Sides:
        def draw(random: np.random.Generator, count: int) -> Any:
            return random.choice(recorded[0], count)

        return side(2 * seed, runs, SAMPLES, 1.0, draw), side(2 * seed + 1, runs, SAMPLES, ratio, draw)

    yield from _figures(f"processes as recorded, p99 {spread:.1f} %", as_recorded, paired=False)
    yield from _figures(f"rounds as recorded, p99 {pair_spread:.1f} % within", in_rounds, paired=True)
    yield from _figures("processes differ by 2 %", alike, paired=False)


def _sides(base: list[Values], new: list[Values], ratio: float) -> Sides:
    return (
        [document({"serve": values}) for values in base],
        [document({"serve": slower_tail(values, ratio)}) for values in new],
    )


def _figures(name: str, draw: Callable[[int, float, int], Sides], paired: bool) -> Iterator[Figure]:
    from cfctl.compare.profile import compare
    from cfctl.records import Verdict

    alarms = sum(
        compare(*draw(pair, 1.0, RUNS), paired=paired).verdict is Verdict.FAIL for pair in range(PAIRS_SAME)
    )
    yield Figure(f"alarms of {PAIRS_SAME} equal pairs; {name}", (alarms / PAIRS_SAME * 100,), "%", 5)
    found = _slower(draw, paired, RUNS, PAIRS_SLOWER)
    yield from _misses(found, f"{RUNS} runs; {name}")
    needed = [change.runs_needed for change in found if change.runs_needed]
    if len(needed) > PAIRS_SLOWER // 10:
        runs = round(statistics.median(needed))
        yield Figure(
            f"runs a side that are needed, as told; {name}", tuple(map(float, needed)), "runs", MOST_RUNS
        )
        if runs <= MOST_RUNS:
            yield from _misses(_slower(draw, paired, runs, PAIRS_NEEDED), f"{runs} runs; {name}")


def _slower(draw: Callable[[int, float, int], Sides], paired: bool, runs: int, pairs: int) -> list[Change]:
    from cfctl.compare.comparison import Threshold
    from cfctl.compare.profile import compare

    threshold = [Threshold.parse("p99:5%")]
    seeds = range(PAIRS_SAME, PAIRS_SAME + pairs)
    return [compare(*draw(seed, 1.1, runs), threshold, paired).changes[0] for seed in seeds]


def _misses(found: list[Change], name: str) -> Iterator[Figure]:
    from cfctl.records import Verdict

    unseen = sum(change.direction != "worse" for change in found) / len(found) * 100
    missed = sum(change.verdict is not Verdict.FAIL for change in found) / len(found) * 100
    yield Figure(f"p99 +10 % not seen as worse, of {len(found)}; {name}", (unseen,), "%", 10)
    yield Figure(f"p99 +10 % not failed at a limit of 5 %; {name}", (missed,), "%", 10)


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
