"""Measuring threads and their modes: pinning, a common start, stops, errors, refusals."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cfctl.errors import InputError, UnobservableError
from cfctl.probe import scheduling as scheduling_module
from cfctl.probe import threads
from cfctl.probe.load import judge, thread_load, total
from cfctl.probe.scheduling import PmQos, Scheduling, pm_qos, refuse_starving_all_cpus
from cfctl.probe.threads import Lane, run_pinned, usable_cpus

OTHER = Scheduling()


def test_each_thread_runs_on_its_cpu_and_all_begin_at_the_same_tick() -> None:
    cpus = usable_cpus(None)
    outcome = run_pinned(
        cpus, lambda lane: (lane.cpu, os.sched_getaffinity(0), lane.ready()), scheduling=OTHER
    )
    assert [cpu for cpu, _, _ in outcome.results] == list(cpus)
    assert all(affinity == {cpu} for cpu, affinity, _ in outcome.results)
    assert len({start for _, _, start in outcome.results}) == 1
    assert not outcome.interrupted


def test_the_callers_affinity_and_collector_are_as_before() -> None:
    before = os.sched_getaffinity(0)
    cpu = min(before)
    seen = run_pinned([cpu], lambda lane: gc.isenabled(), scheduling=OTHER).results
    assert seen == (False,)
    assert os.sched_getaffinity(0) == before
    assert gc.isenabled()


def test_an_error_in_one_thread_ends_the_others_and_is_raised() -> None:
    def body(lane: Lane) -> None:
        if lane.cpu is None and threading.current_thread().name.endswith("None"):
            raise UnobservableError("refused")
        lane.ready()

    with pytest.raises(UnobservableError, match="refused"):
        run_pinned([None, min(os.sched_getaffinity(0))], body, scheduling=OTHER)
    assert not [t for t in threading.enumerate() if t.name.startswith("cfctl-probe")]


def test_ctrl_c_sets_the_stop_word_and_what_was_measured_is_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    class InterruptedEvent(threading.Event):
        """Raises at the first wait, as a signal does."""

        first = True

        def wait(self, timeout: float | None = None) -> bool:
            if threading.current_thread() is threading.main_thread() and self.first:
                self.first = False
                raise KeyboardInterrupt
            return super().wait(timeout)

    crew_init = threads._Crew.__init__

    def with_interrupt(self: Any, *arguments: Any) -> None:
        crew_init(self, *arguments)
        self.done = InterruptedEvent()

    monkeypatch.setattr(threads._Crew, "__init__", with_interrupt)

    def body(lane: Lane) -> str:
        while lane.stop[0] == 0:
            os.sched_yield()
        return "what was measured"

    outcome = run_pinned([None], body, scheduling=OTHER)
    assert outcome.interrupted
    assert outcome.results == ("what was measured",)


def test_a_cpu_outside_the_affinity_is_refused_with_the_usable_ones() -> None:
    with pytest.raises(InputError) as error:
        usable_cpus([60_000])
    assert "60000" in error.value.what
    assert "affinity" in error.value.why
    assert error.value.todo.startswith("Usable: ")
    with pytest.raises(InputError):
        usable_cpus([])


@pytest.mark.parametrize(
    "make",
    [
        lambda: Scheduling("idle"),
        lambda: Scheduling("other", 3),
        lambda: Scheduling("fifo", 0),
        lambda: Scheduling("fifo", 100),
        lambda: Scheduling("other", 0, 0),
        lambda: Scheduling("other", 0, 2_000_000_000),
    ],
)
def test_a_scheduling_that_does_not_exist_is_refused(make: Callable[[], Scheduling]) -> None:
    with pytest.raises(InputError):
        make()


def test_fifo_that_is_refused_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    with pytest.raises(UnobservableError) as error:
        run_pinned([None], lambda lane: None, scheduling=Scheduling.named("fifo", 7))
    assert "RLIMIT_RTPRIO of 7" in error.value.why


def test_busy_fifo_loops_on_all_cpus_are_refused_where_nothing_throttles_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    runtime = tmp_path / "sched_rt_runtime_us"
    monkeypatch.setattr(scheduling_module, "_RT_RUNTIME", runtime)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    fifo = Scheduling.named("fifo")
    for content in ("-1\n", "garbage", None):
        runtime.unlink(missing_ok=True)
        if content is not None:
            runtime.write_text(content)
        with pytest.raises(InputError, match="stop the machine"):
            refuse_starving_all_cpus(fifo, (0, 1))
    refuse_starving_all_cpus(fifo, (1,))
    refuse_starving_all_cpus(OTHER, (0, 1))
    runtime.write_text("950000\n")
    refuse_starving_all_cpus(fifo, (0, 1))


def test_pm_qos_is_held_only_inside_the_block(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    device = tmp_path / "cpu_dma_latency"
    device.write_bytes((2_000_000_000).to_bytes(4, "little"))
    monkeypatch.setattr(scheduling_module, "_PM_QOS_DEVICE", device)
    with pm_qos(None) as held:
        assert held == PmQos(None, None, None)
        assert held.describe() == "not held; the system has no limit"
    fds = len(list(Path("/proc/self/fd").iterdir()))
    with pm_qos(0) as held:
        assert held.held_us == 0
        assert "held open by cfctl" in held.describe()
        assert int.from_bytes(device.read_bytes(), "little") == 0
    assert len(list(Path("/proc/self/fd").iterdir())) == fds
    device.write_bytes((30).to_bytes(4, "little"))
    with pm_qos(None) as held:
        assert held.describe() == "not held; the system's limit is 30 us"


def test_pm_qos_without_the_device_or_with_nonsense_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(scheduling_module, "_PM_QOS_DEVICE", tmp_path / "missing")
    with pytest.raises(UnobservableError, match="can not be held"), pm_qos(0):
        pass
    with pytest.raises(InputError), pm_qos(-1):
        pass
    with pm_qos(None) as held:
        assert held.system_us is None
        assert held.reason is not None


def test_waiting_for_the_cpu_contaminates_and_waking_up_does_not() -> None:
    assert judge(10**9, 0, 0, 2_000_000)[0]
    assert not judge(10**9, 50, 0, 900_000)[0]
    assert not judge(10**9, 0, 5_000, 50_000_000)[0]
    assert judge(10**9, 0, 5_000, 52_000_000)[0]


def test_without_run_delay_the_rate_of_switches_decides() -> None:
    contaminated, why = judge(10**9, 11, 0, None)
    assert contaminated
    assert "not readable" in why
    assert not judge(10**9, 9, 0, None)[0]


def test_loads_add_up_and_an_unknown_delay_stays_unknown() -> None:
    one = {
        "involuntary_switches": 1,
        "voluntary_switches": 2,
        "minor_faults": 3,
        "major_faults": 4,
        "run_delay_ns": 5,
    }
    assert total([one, one]) == {key: 2 * value for key, value in one.items()}
    assert total([one, one | {"run_delay_ns": None}])["run_delay_ns"] is None
    assert thread_load(one, 10**9).run_delay_ns == 5
