"""Costs that Python's clock tells: their statistics, their refusals, and that they leave nothing behind."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cfctl.diagnose import timed
from cfctl.diagnose.awake import spinners
from cfctl.diagnose.effects import effect_of
from cfctl.diagnose.loopback import measure_loopback
from cfctl.errors import UnobservableError

CPUS = tuple(sorted(os.sched_getaffinity(0)))


def test_a_median_carries_half_of_its_interval() -> None:
    found = timed.median_of(range(1, 101), "counting")
    # Ranks 40 and 61 enclose the median of 100 samples with 95 %.
    assert (found.value, found.uncertainty, found.sample_count) == (50.5, 10.5, 100)
    assert found.method == "median; counting"


def test_an_effect_is_the_median_of_differences_with_half_their_range() -> None:
    found = effect_of([(10.0, 4.0), (12.0, 7.0), (30.0, 20.0)], 300, "ns/wake-up", "with less without", 5e3)
    assert (found.before_ns, found.after_ns) == (12.0, 7.0)
    assert (found.gain.value, found.gain.uncertainty, found.gain.sample_count) == (6.0, 2.5, 300)
    disturbed = [(10.0, 4.0), (12.0, 7.0), (30.0, 20.0), (9e6, 1.0), (11.0, 4.0)]
    gain = effect_of(disturbed, 5, "ns/wake-up", "with less without", 5e3).gain
    assert (gain.value, gain.uncertainty) == (7.0, 2.0)


def test_one_cpu_has_no_migration_and_a_reason() -> None:
    with pytest.raises(UnobservableError, match="second CPU"):
        timed.migration((0,), None)


def test_fsync_needs_a_directory_that_can_be_written(tmp_path: Path) -> None:
    with pytest.raises(UnobservableError, match="--storage DIR"):
        timed.fsync(CPUS, None)
    with pytest.raises(UnobservableError, match="can not be written"):
        timed.fsync(CPUS, str(tmp_path / "absent"))


def test_the_99th_percentile_of_too_few_fsyncs_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timed, "refuse_memory", lambda directory: None)
    monkeypatch.setattr(timed, "_syncs", lambda fd: iter([20_000_000] * 99))
    found = timed.fsync(CPUS, str(tmp_path))
    assert found["fsync"].value == 20_000_000
    assert found["fsync_p99"].value is None
    assert "needs 100" in str(found["fsync_p99"].reason)
    monkeypatch.setattr(timed, "_syncs", lambda fd: iter([1_000_000] * 980 + [12_000_000] * 20))
    found = timed.fsync(CPUS, str(tmp_path))
    assert (found["fsync"].value, found["fsync_p99"].value) == (1_000_000, 12_000_000)
    assert list(tmp_path.iterdir()) == []


def test_a_memory_that_gets_no_huge_pages_has_no_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timed, "_touch_huge", lambda: None)
    with pytest.raises(UnobservableError, match="no huge pages"):
        timed.huge_fault(CPUS, None)


@pytest.mark.host
@pytest.mark.parametrize("name", sorted(set(timed.TIMED) - {"fsync"}))
def test_a_cost_of_this_machine_is_measured_or_has_its_reason(name: str) -> None:
    threads, allowed = threading.active_count(), os.sched_getaffinity(0)
    try:
        found = timed.TIMED[name](CPUS, None)
    except UnobservableError as error:
        pytest.skip(str(error))
    assert found
    assert all(
        cost.value is not None and cost.unit in {"ns", "ns/s"} and cost.method for cost in found.values()
    )
    assert (threading.active_count(), os.sched_getaffinity(0)) == (threads, allowed)
    assert gc.isenabled()


@pytest.mark.host
@pytest.mark.skipif(len(CPUS) < 2, reason="it needs a second CPU")
def test_what_a_busy_neighbour_takes_is_a_part_of_each_second() -> None:
    found = timed.lost_beside(CPUS[0], CPUS[1])
    assert found.value is not None
    assert found.value < 1e9
    assert found.unit == "ns/s"
    assert os.sched_getaffinity(0) == set(CPUS)


@pytest.mark.host
def test_a_cpu_is_kept_awake_by_a_process_that_gives_way_and_ends() -> None:
    with spinners(CPUS[:1]) as awake:
        started = [pid for pid in _children() if os.sched_getscheduler(pid) == os.SCHED_IDLE]
        assert len(started) == 1
        assert os.sched_getaffinity(started[0]) == set(CPUS[:1])
        for _ in range(2):
            _wait_for_state(started[0], "S")
            with awake():
                _wait_for_state(started[0], "R")
    assert not set(started) & set(_children())


@pytest.mark.host
def test_a_cpu_that_is_not_there_can_not_be_kept_awake() -> None:
    with pytest.raises(UnobservableError, match="kept awake"), spinners((CPUS[0], 100_000)):
        pytest.fail("it was")
    assert not [pid for pid in _children() if os.sched_getscheduler(pid) == os.SCHED_IDLE]


@pytest.mark.host
def test_what_keeps_a_cpu_awake_ends_with_a_program_that_is_killed() -> None:
    program = (
        "import time\nfrom cfctl.diagnose.awake import spinners\n"
        f"with spinners(({CPUS[0]},)) as awake, awake():\n    print(flush=True)\n    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        (spinner,) = _children(parent.pid)
        parent.kill()
    end = time.monotonic() + 20
    while Path(f"/proc/{spinner}").exists() and time.monotonic() < end:
        time.sleep(0.01)
    state = Path(f"/proc/{spinner}/stat")
    # Nobody may collect an orphan in a container: then it stays as a zombie.
    assert not state.exists() or ") Z " in state.read_text()


@pytest.mark.host
@pytest.mark.skipif(len(CPUS) < 2, reason="both ends poll: it needs two CPUs")
def test_a_loopback_that_polls_answers_too() -> None:
    found = measure_loopback(50_000_000, polls=True).cpus[0].distribution
    assert found.sample_count > 0
    assert found.min_ns is not None


def _wait_for_state(pid: int, state: str) -> None:
    end = time.monotonic() + 60
    while f") {state} " not in Path(f"/proc/{pid}/stat").read_text():
        assert time.monotonic() < end
        time.sleep(0.01)


def _children(parent: int | None = None) -> list[int]:
    path = Path(f"/proc/{parent or os.getpid()}/task")
    return [int(pid) for task in path.iterdir() for pid in (task / "children").read_text().split()]
