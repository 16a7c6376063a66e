"""How far a quantile of two sides of several runs may differ: a bootstrap over runs and over samples.

Hierarchical: a resample draws runs with replacement, and of each drawn run samples with
replacement (Davison & Hinkley, Bootstrap Methods and their Application, 1997, section 3.8; for
benchmarks: Kalibera & Jones, Rigorous Benchmarking in Reasonable Time, 2013). A side's figure is
the geometric mean of its runs' figures. The interval is Student's, with the bootstrap's standard
errors: of few runs the percentiles of a bootstrap are too narrow. Runs made in rounds are drawn as
pairs, one of each side.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]

# The standard error of as many resamples is itself good to 4 %.
RESAMPLES: Final = 400
MIN_RUNS: Final = 5
# The share of cases in which a number of runs that is named as needed is to be enough.
POWER: Final = 0.9
# A sample of 0 ticks is one below the counter's step, and has no logarithm.
_LEAST_TICKS: Final = 0.5


@dataclass(frozen=True)
class Run:
    """One run's samples of one operation: filled buckets as (lowest value, width, samples)."""

    buckets: tuple[tuple[float, float, float], ...]
    mean: float
    stddev: float

    @cached_property
    def samples(self) -> float:
        """Return how many samples the buckets hold."""
        return math.fsum(samples for _, _, samples in self.buckets)

    @cached_property
    def _arrays(self) -> tuple[Floats, Floats, Floats, Floats]:
        import numpy as np

        low, width, samples = np.array(self.buckets, dtype=np.float64).T
        return low, width, samples, np.cumsum(samples)

    def at_ranks(self, ranks: Floats) -> Floats:
        """Return the values at ranks from 0 to `samples`, spread evenly within a bucket."""
        import numpy as np

        low, width, samples, ends = self._arrays
        index = np.minimum(np.searchsorted(ends, ranks), len(ends) - 1)
        inside = np.clip((ranks - (ends[index] - samples[index])) / samples[index], 0.0, 1.0)
        return np.asarray(low[index] + width[index] * inside)

    def quantile(self, quantile: float) -> float:
        """Return the value at a quantile."""
        import numpy as np

        rank = max(1.0, math.ceil(quantile * self.samples)) - 0.5
        return float(self.at_ranks(np.array([rank]))[0])


@dataclass(frozen=True, slots=True)
class Difference:
    """The means of both sides and the interval of new - base at the confidence asked for.

    `spread` is the standard deviation of the difference that one run a side makes, in their unit.
    """

    base: float
    new: float
    interval: tuple[float, float]
    spread: float


def difference(
    base: Sequence[Run],
    new: Sequence[Run],
    quantile: float | None,
    confidence: float,
    seed: int,
    paired: bool = False,
) -> Difference:
    """Return how a quantile, or the mean (None), of two sides differs; at least two runs a side.

    `paired` says that the runs of equal index were made in one round: a resample draws rounds, so
    that what hits both runs of a round falls out of the difference.
    """
    import numpy as np

    random = np.random.default_rng(seed)
    drawn = _drawn(len(base), len(new), paired, random)
    base_log, base_means = _side(base, quantile, drawn[0], random)
    new_log, new_means = _side(new, quantile, drawn[1], random)
    error, freedom = _error(base_means, len(base), new_means, len(new), paired)
    half_width = _half_width(error, freedom, confidence)
    ratio_log, base_value = new_log - base_log, math.exp(base_log)
    interval = (
        base_value * math.expm1(ratio_log - half_width),
        base_value * math.expm1(min(ratio_log + half_width, 700.0)),
    )
    spread = base_value * error * math.sqrt(min(len(base), len(new)))
    return Difference(base_value, math.exp(new_log), interval, spread)


def ratio_difference(
    base: Sequence[tuple[int, int]],
    new: Sequence[tuple[int, int]],
    confidence: float,
    seed: int,
    paired: bool = False,
) -> Difference:
    """Return how the mean ratio of (part, whole) of two sides differs, such as errors of samples."""
    import numpy as np

    random = np.random.default_rng(seed)
    drawn = _drawn(len(base), len(new), paired, random)
    base_mean, base_means = _ratio_side(base, drawn[0], random)
    new_mean, new_means = _ratio_side(new, drawn[1], random)
    error, freedom = _error(base_means, len(base), new_means, len(new), paired)
    half_width = _half_width(error, freedom, confidence)
    change = new_mean - base_mean
    spread = error * math.sqrt(min(len(base), len(new)))
    return Difference(base_mean, new_mean, (change - half_width, change + half_width), spread)


def runs_needed(spread: float, limit: float, confidence: float) -> int:
    """Return how many runs a side tell equal sides from ones that differ by `limit`, nine times in ten.

    n = ((t(1 - alpha/2) + t(1 - beta)) spread / limit)^2; source: NIST/SEMATECH e-Handbook of
    Statistical Methods, 7.2.2.2 "Sample sizes required", two-sided test: the normal distribution's
    quantiles give a first n, and Student's with n - 1 degrees a second. Its sigma is here `spread`,
    that of the difference of one run a side.
    """
    normal = statistics.NormalDist()
    wide = normal.inv_cdf(1 - (1 - confidence) / 2) + normal.inv_cdf(POWER)
    runs = max(float(MIN_RUNS), (wide * spread / limit) ** 2)
    wide = student_quantile(1 - confidence, runs - 1) + student_quantile(2 * (1 - POWER), runs - 1)
    return max(MIN_RUNS, math.ceil((wide * spread / limit) ** 2))


def _drawn(base: int, new: int, paired: bool, random: Any) -> tuple[Integers, Integers]:
    """Return which runs each resample holds of both sides; of pairs the same rounds."""
    first = random.integers(base, size=(RESAMPLES, base))
    return first, first if paired else random.integers(new, size=(RESAMPLES, new))


def _side(runs: Sequence[Run], quantile: float | None, drawn: Integers, random: Any) -> tuple[float, Floats]:
    """Return the mean logarithm of the runs' figures, and that of each resample."""
    import numpy as np

    figures = [run.mean if quantile is None else run.quantile(quantile) for run in runs]
    observed = statistics.fmean(math.log(max(figure, _LEAST_TICKS)) for figure in figures)
    values = np.empty(drawn.shape)
    for index, run in enumerate(runs):
        chosen = drawn == index
        values[chosen] = _resampled(run, quantile, int(chosen.sum()), random)
    return observed, np.asarray(np.log(np.maximum(values, _LEAST_TICKS)).mean(axis=1))


def _resampled(run: Run, quantile: float | None, count: int, random: Any) -> Any:
    """Return the figure in `count` resamples of a run's samples, without drawing each sample.

    The order statistic of rank k of n draws lies at a share of the distribution that is
    Beta(k, n - k + 1); the mean of many is normal.
    """
    if quantile is None:
        return random.normal(run.mean, run.stddev / math.sqrt(run.samples), count)
    rank = max(1, math.ceil(quantile * run.samples))
    return run.at_ranks(random.beta(rank, run.samples - rank + 1, count) * run.samples)


def _ratio_side(runs: Sequence[tuple[int, int]], drawn: Integers, random: Any) -> tuple[float, Floats]:
    import numpy as np

    ratios = [part / whole for part, whole in runs]
    wholes = np.array([whole for _, whole in runs], dtype=np.int64)[drawn]
    parts = random.binomial(wholes, np.array(ratios)[drawn])
    return statistics.fmean(ratios), np.asarray((parts / wholes).mean(axis=1))


def _error(base: Floats, base_runs: int, new: Floats, new_runs: int, paired: bool) -> tuple[float, float]:
    """Return the standard error of the difference of resampled means, and its degrees of freedom.

    Of independent sides those are Welch's.
    """
    if paired:
        return _corrected(float((new - base).std()), base_runs), base_runs - 1
    base_variance = _corrected(float(base.std()), base_runs) ** 2
    new_variance = _corrected(float(new.std()), new_runs) ** 2
    variance = base_variance + new_variance
    if variance == 0:
        return 0.0, math.inf
    freedom = variance**2 / (base_variance**2 / (base_runs - 1) + new_variance**2 / (new_runs - 1))
    return math.sqrt(variance), freedom


def _corrected(error: float, runs: int) -> float:
    # The spread of n drawn runs is that of a sample of n, which is too small by (n - 1) / n.
    return error * math.sqrt(runs / (runs - 1))


def _half_width(error: float, freedom: float, confidence: float) -> float:
    return error * student_quantile(1 - confidence, freedom) if error else 0.0


def student_quantile(tails: float, freedom: float) -> float:
    """Return t of Student's distribution with the probability `tails` beyond -t and t; 3 and more degrees.

    Source: G. W. Hill, Algorithm 396, Communications of the ACM 13 (1970); 6 digits.
    """
    a = 1.0 / (freedom - 0.5)
    b = 48.0 / a**2
    c = ((20700.0 * a / b - 98.0) * a - 16.0) * a + 96.36
    d = ((94.5 / (b + c) - 3.0) / b + 1.0) * math.sqrt(a * math.pi / 2.0) * freedom
    y = (d * tails) ** (2.0 / freedom)
    if y <= 0.05 + a:
        y = (
            (1.0 / (((freedom + 6.0) / (freedom * y) - 0.089 * d - 0.822) * (freedom + 2.0) * 3.0)
             + 0.5 / (freedom + 4.0)) * y - 1.0
        ) * (freedom + 1.0) / (freedom + 2.0) + 1.0 / y  # fmt: skip
        return math.sqrt(freedom * y)
    x = statistics.NormalDist().inv_cdf(tails * 0.5)
    y = x * x
    if freedom < 5:
        c += 0.3 * (freedom - 4.5) * (x + 0.6)
    c += (((0.05 * d * x - 5.0) * x - 7.0) * x - 2.0) * x + b
    y = (((((0.4 * y + 6.3) * y + 36.0) * y + 94.5) / c - y - 3.0) / b + 1.0) * x
    return math.sqrt(freedom * math.expm1(a * y * y))
