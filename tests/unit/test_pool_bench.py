"""The verdict over a pool: three of them, on a clock that tells what each object costs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from random import Random

import pytest

from cfctl.errors import InputError
from cfctl.pool.bench import bench, load_callable, median_interval
from cfctl.records import Verdict


class World:
    """A clock that goes on by what is done: making an object, resetting one."""

    def __init__(self, fresh_ns: Callable[[], float], reset_ns: float = 0) -> None:
        self.now = 0.0
        self._fresh_ns, self._reset_ns = fresh_ns, reset_ns

    def clock(self) -> int:
        self.now += 10
        return round(self.now)

    def make(self) -> list[int]:
        self.now += self._fresh_ns()
        return []

    def reset(self, item: list[int]) -> None:
        self.now += self._reset_ns


@pytest.mark.parametrize(
    ("fresh_ns", "reset_ns", "verdict", "advice"),
    [
        (31, 0, Verdict.FAIL, "do not pool: saves 31 ns per object"),
        (1000, 10, Verdict.PASS, "pool: 100x"),
        (300, 250, Verdict.FAIL, "do not pool: saves 50 ns per object"),
        (10_000, 6_000, Verdict.FAIL, "do not pool: saves 4000 ns per object"),
        (50, 90, Verdict.FAIL, "do not pool: costs 40 ns per object"),
    ],
)
def test_a_pool_pays_when_it_saves_enough_and_twice_the_time(
    fresh_ns: float, reset_ns: float, verdict: Verdict, advice: str
) -> None:
    world = World(lambda: fresh_ns, reset_ns)
    found = bench(world.make, world.reset, name="t", duration_ns=10**8, clock=world.clock)
    assert (found.verdict, found.advice) == (verdict, advice)
    assert found.fresh.value == pytest.approx(fresh_ns, abs=0.5)
    assert found.pooled.value == pytest.approx(reset_ns, abs=0.5)
    assert found.saving.value == pytest.approx(fresh_ns - reset_ns, abs=0.5)


def test_an_interval_on_both_sides_of_the_limit_is_inconclusive() -> None:
    random = Random(4)
    speeds = itertools.cycle([150, 260])
    current = [150.0]

    def fresh_ns() -> float:
        if random.random() < 0.0005:
            current[0] = next(speeds)
        return current[0]

    found = bench(World(fresh_ns).make, name="t", duration_ns=1, clock=World(fresh_ns).clock)
    world = World(fresh_ns)
    found = bench(world.make, name="t", duration_ns=1, clock=world.clock)
    assert found.rounds == 9
    assert found.verdict is Verdict.INCONCLUSIVE


def test_what_the_factory_raises_goes_on() -> None:
    def factory() -> object:
        raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        bench(factory, name="t")


@pytest.mark.parametrize(
    "text", ["", "json", "json:", ":x", "json:nothing", "no_such_module:x", "json:__name__"]
)
def test_what_names_no_function_is_an_error_that_says_why(text: str) -> None:
    with pytest.raises(InputError):
        load_callable(text)


def test_a_method_of_a_class_can_be_named() -> None:
    import json

    assert load_callable("json:JSONDecoder.decode") is json.JSONDecoder.decode


@pytest.mark.parametrize(
    "shape", [lambda r: r.gauss(100, 5), lambda r: r.expovariate(1), lambda r: r.lognormvariate(3, 1)]
)
def test_the_interval_covers_the_median_in_95_of_100_cases(shape: Callable[[Random], float]) -> None:
    random = Random(7)
    truth = sorted(shape(random) for _ in range(100_001))[50_000]

    def covered(values: Sequence[float]) -> bool:
        _, lower, upper = median_interval(values)
        return lower <= truth <= upper

    hits = sum(covered([shape(random) for _ in range(31)]) for _ in range(1000))
    assert hits >= 945
