"""Whether a pool pays for a type: a fresh object against a pooled one, measured here."""

from __future__ import annotations

import gc
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from itertools import repeat
from statistics import median
from typing import TYPE_CHECKING, Any, ClassVar, Final

from cfctl.errors import InputError
from cfctl.records import Document, Measurement, Verdict

if TYPE_CHECKING:
    from cfctl.pool.objects import Pool

# A pool is a risk of its own (stale content, use after release), so it has to save something that
# can be noticed: profiling.md, 3.7, where pooled small objects saved 37 to 61 ns. Judgement.
WORTH_NS: Final = 200
WORTH_RATIO: Final = 2.0
RULE: Final = "worth it when it saves {worth_ns} ns an object or more, and is 2x or more as fast"
_BATCH_NS: Final = 500_000
_MAX_BATCH: Final = 20_000
_LEAST_ROUNDS: Final = 9
_MOST_ROUNDS: Final = 2_000

Clock = Callable[[], int]
Callback = Callable[[], object]


@dataclass(frozen=True, slots=True)
class PoolBench(Document):
    """A fresh object against a pooled one, in ns an object; `verdict` pass means that a pool pays.

    Each is the median over rounds that take turns, less the cost of the loop, with half the width of
    its distribution-free 95 % interval. `saving` and `ratio` are from the differences and ratios
    within each round.
    """

    SCHEMA: ClassVar[str] = "cfctl.pool-bench"
    VERSION: ClassVar[int] = 1
    factory: str
    reset: str | None
    verdict: Verdict
    advice: str
    reason: str
    fresh: Measurement
    pooled: Measurement
    saving: Measurement
    ratio: Measurement
    rounds: int
    objects_per_round: int


def load_callable(text: str) -> Callable[..., Any]:
    """Return the function or class in "pkg.mod:name"; raises InputError.

    The working directory is searched first, as `python -m` does.
    """
    module_name, separator, name = text.partition(":")
    if not separator or not module_name or not name:
        raise InputError(
            f"'{text}' names no function.", "MODULE:NAME is expected.", "Example: json:JSONDecoder"
        )
    here = os.getcwd()  # noqa: PTH109 - an entry of sys.path
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = import_module(module_name)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"{text} can not be loaded.",
            f"{type(error).__name__}: {error}.",
            "Check the module's name and path.",
        ) from error
    if not callable(found):
        raise InputError(
            f"{text} can not be called.", f"It is a {type(found).__name__}.", "Name a function or class."
        )
    return found  # type: ignore[no-any-return]


def bench(
    factory: Callable[[], Any],
    reset: Callable[[Any], object] | None = None,
    *,
    name: str,
    reset_name: str | None = None,
    duration_ns: int = 1_000_000_000,
    worth_ns: int = WORTH_NS,
    clock: Clock = time.perf_counter_ns,
) -> PoolBench:
    """Return the comparison for objects of `factory`; takes about `duration_ns`.

    Making a fresh object includes destroying it. A pooled one is acquired and released, `reset`
    included. Raises what factory or reset raise, InputError for a factory whose objects can not be
    pooled.
    """
    from cfctl.pool.objects import Pool

    pool: Pool[Any] = Pool(factory, reset, name=f"bench {name}"[:200])
    subjects = (_empty, factory, _pooled(pool))
    batch = _batch(subjects[1:], clock)
    deadline = clock() + duration_ns
    rounds: list[tuple[float, float]] = []
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        while len(rounds) < _MOST_ROUNDS and (len(rounds) < _LEAST_ROUNDS or clock() < deadline):
            # The order turns, so that what drifts on the host falls on all.
            order = (0, 1, 2) if len(rounds) % 2 == 0 else (2, 1, 0)
            took = {index: _time(subjects[index], batch, clock) for index in order}
            rounds.append(((took[1] - took[0]) / batch, (took[2] - took[0]) / batch))
    finally:
        if was_enabled:
            gc.enable()
    return _judged(name, reset_name, rounds, batch, worth_ns)


def _empty() -> None:
    pass


def _pooled(pool: Pool[Any]) -> Callback:
    """Return what acquires and releases; one call more than two in a row, and so not in the pool's favour."""
    acquire, release = pool.acquire, pool.release

    def pair() -> None:
        release(acquire())

    return pair


def _time(function: Callback, times: int, clock: Clock) -> int:
    turns = repeat(None, times)
    start = clock()
    for _ in turns:
        function()
    return clock() - start


def _batch(functions: Sequence[Callback], clock: Clock) -> int:
    """Return how many calls of the slowest take about half a millisecond."""
    for function in functions:
        _time(function, 2, clock)
    slowest_ns = max(_time(function, 5, clock) / 5 for function in functions)
    return max(1, min(_MAX_BATCH, int(_BATCH_NS / max(1.0, slowest_ns))))


def median_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the median and its distribution-free interval of at least 95 %.

    Order statistics by the binomial distribution in its normal approximation: Conover, Practical
    Nonparametric Statistics, 3.2. For 9 values and more.
    """
    ordered = sorted(values)
    n = len(ordered)
    margin = 1.96 * math.sqrt(n) / 2
    lower = max(0, math.floor(n / 2 - margin))
    upper = min(n - 1, math.ceil(n / 2 + margin))
    return median(ordered), ordered[lower], ordered[upper]


def _judged(
    name: str, reset_name: str | None, rounds: Sequence[tuple[float, float]], batch: int, worth_ns: int
) -> PoolBench:
    # What is too short for the clock is not faster than a tenth of a nanosecond.
    ratios = [max(fresh, 0.1) / max(pooled, 0.1) for fresh, pooled in rounds]
    savings = [fresh - pooled for fresh, pooled in rounds]
    saving, least_saving, most_saving = median_interval(savings)
    ratio, least_ratio, most_ratio = median_interval(ratios)
    if least_saving >= worth_ns and least_ratio >= WORTH_RATIO:
        verdict, advice = Verdict.PASS, f"pool: {ratio:.3g}x"
    elif most_saving < worth_ns or most_ratio < WORTH_RATIO:
        gain = f"saves {saving:.0f} ns per object" if saving > 0 else f"costs {-saving:.0f} ns per object"
        verdict, advice = Verdict.FAIL, f"do not pool: {gain}"
    else:
        verdict, advice = Verdict.INCONCLUSIVE, "inconclusive: the interval lies on both sides of the limit"
    return PoolBench(
        name, reset_name, verdict, advice, RULE.format(worth_ns=worth_ns),
        _measured([fresh for fresh, _ in rounds], "ns"), _measured([pooled for _, pooled in rounds], "ns"),
        _measured(savings, "ns"), _measured(ratios, "x"), len(rounds), batch,
    )  # fmt: skip


def _measured(values: Sequence[float], unit: str) -> Measurement:
    middle, lower, upper = median_interval(values)
    method = "median of rounds that take turns, +- half its 95 % interval"
    return Measurement(middle, unit, (upper - lower) / 2, len(values), method)
