"""The C core against an independent implementation in numpy, and invariants of the machine at hand."""

from __future__ import annotations

import math
import threading

import numpy as np
import pytest

from cfctl import _native, clock
from cfctl.clock.calibration import CLOCK_IDS
from cfctl.clock.fit import fit
from cfctl.clock.sampling import POSITIONS, sample_line
from cfctl.errors import InputError

RAW = CLOCK_IDS["raw"]


def numpy_centre(pairs: list[tuple[int, int, int, int]], ns_per_tick: float) -> tuple[float, float]:
    """Return (ns, standard error) of a cluster's centre at its first pair's tick, after clock.md 1.2."""
    before, ns, width, cpu = (np.array(column, dtype=np.int64) for column in zip(*pairs, strict=True))
    same = np.concatenate(([True], cpu[1:] == cpu[:-1]))
    limit = math.floor(1.5 * np.sort(width[same])[same.sum() // 20])
    kept = same & (width <= limit)
    middle = (before - before[0]) + width / 2
    residual = np.sort((ns - ns[0])[kept] - middle[kept] * ns_per_tick)
    held = int(0.3 * len(residual))
    lengths = residual[held:] - residual[:-held]
    first = int(np.argmin(lengths))
    mode = (residual[first] + residual[first + held]) / 2
    half = max(0.8, 1.6 * lengths[first] / 2)
    for _ in range(3):
        inside = residual[np.abs(residual - mode) <= half]
        mode = inside.mean()
    return float(mode) + 0.5, float(inside.std() / math.sqrt(len(inside)))


@pytest.mark.host
def test_centre_in_c_equals_the_one_of_numpy() -> None:
    slope = clock.ns_per_tick(clock.calibrate(publish=False))
    sampler = _native.PairSampler(4, 1500)
    for index in range(4):
        sampler.sample(index, RAW)
        values = sampler.centre(index, slope)
        assert values is not None
        tick, ns, fraction, error, kept, _, min_width, _ = values
        pairs = sampler.pairs(index)
        expected, expected_error = numpy_centre(pairs, slope)
        found = ns - pairs[0][1] + fraction - (tick - pairs[0][0]) * slope
        # The C core sorts residuals in units of 1/1024 ns.
        assert found == pytest.approx(expected, abs=0.003)
        assert error == pytest.approx(expected_error, rel=0.05, abs=1e-4)
        assert min_width == min(width for _, _, width, _ in pairs)
        assert 0 < kept <= 1500


@pytest.mark.host
def test_line_of_the_machine_equals_the_one_of_numpy() -> None:
    sampler = _native.PairSampler(len(POSITIONS), 1500)
    sampled = sample_line(50_000_000, "raw", sampler=sampler)
    # The line through the centres, whether or not they lie on one on this machine at this moment.
    fitted = fit([centre.point for centre in sampled.centres], sampled.fit.line.ns_per_tick)
    slope = fitted.line.ns_per_tick
    x, y, weights = [], [], []
    for index in range(len(POSITIONS)):
        pairs = sampler.pairs(index)
        centre, error = numpy_centre(pairs, slope)
        x.append(float(pairs[0][0] - sampler.pairs(0)[0][0]))
        y.append(pairs[0][1] - sampler.pairs(0)[0][1] + centre - x[-1] * slope)
        weights.append(1 / error)
    chosen = np.array(fitted.inliers)
    (delta, _) = np.polyfit(np.array(x)[chosen], np.array(y)[chosen], 1, w=np.array(weights)[chosen])
    assert abs(delta / slope) * 1e9 < 0.2


def test_a_sampler_refuses_what_it_can_not_hold() -> None:
    for shape in ((0, 10), (1, 0), (2000, 10), (1, 100_000)):
        with pytest.raises(ValueError, match="clusters"):
            _native.PairSampler(*shape)
    sampler = _native.PairSampler(2, 100)
    with pytest.raises(IndexError):
        sampler.sample(2, RAW)
    with pytest.raises(OSError, match="clock_gettime"):
        sampler.sample(0, 9999)
    assert _native.PairSampler(1, 100).centre(0, 0.4) is None


def test_a_sampler_serves_one_thread_at_a_time() -> None:
    sampler = _native.PairSampler(1, 65536)
    refused: list[RuntimeError] = []

    def work() -> None:
        for _ in range(20):
            try:
                sampler.sample(0, RAW)
            except RuntimeError as error:
                refused.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all("one thread" in str(error) for error in refused)
    sampler.sample(0, RAW)


@pytest.mark.parametrize("arguments", [(0, 0, 0, 64, 4), (0, 0, 1, 0, 4), (0, 0, 1, 65, 4), (0, 0, 1, -1, 4)])
def test_a_line_that_is_none_is_not_published(arguments: tuple[int, int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="shift"):
        _native.clock_publish(*arguments)


@pytest.mark.parametrize("function", [clock.ticks, clock.now_ns])
def test_reading_takes_no_arguments(function: object) -> None:
    with pytest.raises(TypeError, match="no arguments"):
        function(1)  # type: ignore[operator]


@pytest.mark.parametrize("bad", [-1, 2**64, 1.5, "7", None])
def test_an_id_that_is_no_64_bit_number_is_refused(bad: object) -> None:
    ring = clock.StampRing(4)
    with pytest.raises((TypeError, OverflowError)):
        ring.stamp(bad)  # type: ignore[arg-type]
    assert len(ring) == 0


def test_an_id_may_be_any_64_bit_number() -> None:
    ring = clock.StampRing(8)
    ids = [0, 1, 2**30 - 1, 2**30, 2**60, 2**64 - 2, 2**64 - 1, True]
    for each in ids:
        ring.stamp(each)
    assert [stamp for stamp, _ in ring.read()] == ids
    ring.clear()
    assert (len(ring), ring.overwritten, ring.read()) == (0, 0, [])


@pytest.mark.host
def test_calibrated_time_is_the_reference_within_its_bound() -> None:
    for reference in ("raw", "monotonic", "realtime"):
        made = clock.calibrate(reference=reference)
        before = _native.os_clock_ns(CLOCK_IDS[reference])
        now = clock.now_ns()
        after = _native.os_clock_ns(CLOCK_IDS[reference])
        bound = math.ceil(made.bound_ns(after - made.base_ns))
        assert before - bound <= now <= after + bound
        assert clock.published_calibration() == made
        residual = clock.residual(made)
        assert residual.value is not None
        assert abs(residual.value) < bound
    # The others leave the process on the reference that everything else expects.
    clock.calibrate()


@pytest.mark.host
def test_a_recheck_right_after_a_calibration_keeps_it() -> None:
    made = clock.calibrate()
    found = clock.recheck(made)
    assert found.cause is None
    assert found.error_ns is not None
    assert abs(found.error_ns) < made.offset_bound_ns
    assert found.drift_ppb.value is None
    assert clock.health().calibration_from == "process"


@pytest.mark.host
def test_every_clock_has_a_cost_and_the_step_is_no_longer_than_a_microsecond() -> None:
    costs = clock.read_costs()
    assert list(costs) == [
        "tick", "tick_ordered", "raw", "monotonic", "realtime", "boottime", "monotonic_coarse", "syscall",
    ]  # fmt: skip
    assert all(cost.value and cost.value > 0 and cost.unit == "ns" for cost in costs.values())
    step = clock.tick_step()
    assert step.value is not None
    assert 0 < step.value < 1000


@pytest.mark.host
def test_offsets_between_cpus_are_antisymmetric() -> None:
    offsets = clock.cpu_offsets()
    size = len(offsets.cpus)
    if offsets.reason is not None and size < 2:
        pytest.skip(offsets.reason)
    for i in range(size):
        assert offsets.offset_ns[i][i] == 0.0
        for j in range(size):
            ahead, behind = offsets.offset_ns[i][j], offsets.offset_ns[j][i]
            if ahead is not None and behind is not None:
                assert ahead == pytest.approx(-behind)
                assert (offsets.bound_ns[i][j] or 0) >= 0


def test_a_cpu_outside_the_affinity_has_no_offset() -> None:
    with pytest.raises(InputError, match="can not be used"):
        clock.cpu_offsets([0, 100_000])


@pytest.mark.host
def test_the_median_method_reaches_the_same_rate_roughly() -> None:
    exact = clock.calibrate(publish=False)
    median = clock.calibrate(method="median", samples=5, sample_ns=5_000_000, publish=False)
    assert median.method == "median"
    assert not median.snapped
    assert median.frequency_hz == pytest.approx(exact.frequency_hz, rel=0.05)
