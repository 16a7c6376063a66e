from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cfctl.diagnose.impact import (
    COSTS,
    IDLE,
    JITTER,
    PM_QOS,
    SLACK,
    SOCKET,
    THROTTLED,
    TICK,
    WAKEUP,
    gain_of,
    throttled_while_probing,
    time_lost_to,
)
from cfctl.diagnose.latency import CpuLatency, UseLatency
from cfctl.diagnose.loopback import _as_native
from cfctl.diagnose.measurements import Measurements
from cfctl.diagnose.probing import LATENCY, ProbePlan, Probes, probe_host
from cfctl.diagnose.subject import Facts, Host
from cfctl.errors import InputError, UnobservableError
from cfctl.host.cgroup import Throttling
from cfctl.host.syscalls import CapturedSyscalls
from cfctl.probe.attribution import Cause
from cfctl.probe.distribution import from_native
from cfctl.probe.scheduling import PmQos
from cfctl.records import Measurement
from tests.hosts.fake_host import MemoryView

QUIET = SimpleNamespace(contaminated=False, contamination="waited 0 %")


def measured_on(found: Measurements, pid: int | None = None) -> Host:
    """Return a host without a file, on which something was measured."""
    return Host(Facts(MemoryView({}, {}), pid, "timer", found))


def distribution(ns: int, count: int = 2000) -> Any:
    return from_native(_as_native([ns] * count), "ns", 1.0, 1.0)


def wakeup(ns: int) -> Any:
    cpu = SimpleNamespace(
        cpu=0, distribution=distribution(ns), latency=distribution(ns).median(), slack_ns=50_000, load=QUIET
    )
    return SimpleNamespace(
        cpus=(cpu,), interval_ns=200_000, pm_qos=PmQos(None, None, None), interrupted=False
    )


def jitter() -> Any:
    shares = tuple(
        SimpleNamespace(cause=cause, share_ratio=share, gap_count=10, method="phase")
        for cause, share in ((Cause.TIMER_TICK, 0.75), (Cause.UNEXPLAINED, 0.25))
    )
    cpu = SimpleNamespace(
        cpu=1, gaps=distribution(10_000), load=QUIET, duration_ns=10**9, handling_ratio=0.1,
        lost_ns_per_s=Measurement(4e6, "ns/s"), attribution=SimpleNamespace(shares=shares, method="unprivileged"),
    )  # fmt: skip
    return SimpleNamespace(cpus=(cpu,), threshold_ns=200.0, interrupted=False)


class Machine:
    """Probes that answer at once and remember what they were asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any]] = []

    def wakeup(self, cpus: Any, duration_ns: int, interval_ns: int, **more: Any) -> Any:
        self.asked.append(("wakeup", more))
        scheduling = more.get("scheduling")
        slow = 84_000 if scheduling is None else 31_000
        return wakeup(slow - 17_000 if more.get("pm_qos_us") == 0 else slow)

    def jitter(self, cpus: Any, duration_ns: int) -> Any:
        self.asked.append(("jitter", duration_ns))
        return jitter()

    def costs(self, cpus: Any, samples: int = 2000) -> Any:
        self.asked.append(("costs", samples))
        raise UnobservableError("The costs can not be measured.", "One CPU.")

    def loopback(self, duration_ns: int, *, polls: bool = False) -> UseLatency:
        self.asked.append(("loopback", polls))
        sample = CpuLatency(None, distribution(20_000 if polls else 60_000), False, "")
        return UseLatency("network", "UDP", (sample,), False)

    def pause(self, cpus: Any, storage: str | None) -> dict[str, Measurement]:
        return {"pause": Measurement(11_000.0, "ns", 100.0, 60, "median")}

    def fsync(self, cpus: Any, storage: str | None) -> dict[str, Measurement]:
        if storage is None:
            raise UnobservableError("measured only on request: --storage DIR")
        return {"fsync": Measurement(1e6, "ns"), "fsync_p99": Measurement(3e6, "ns")}

    def probes(self) -> Probes:
        syscalls = CapturedSyscalls({"policy": {"0": "OTHER"}})
        return Probes(
            cast("Any", self.wakeup), cast("Any", self.jitter), cast("Any", self.costs), syscalls, self.loopback,
            {"pause": self.pause, "fsync": self.fsync},
        )  # fmt: skip

    def run(self, use: str, *wanted: str, **more: Any) -> Measurements:
        return probe_host(ProbePlan(use, frozenset(wanted), **more), Measurements(), find=self.probes)


def test_a_timer_is_probed_as_programs_started_here_wake_up() -> None:
    found = Machine().run("timer", LATENCY).latency
    assert found is not None
    assert "policy OTHER, slack 50.0 us" in found.what
    assert found.cpus[0].distribution.sample_count == 2000


def test_slack_costs_what_interleaved_runs_differ_by() -> None:
    machine = Machine()
    found = machine.run("timer", SLACK)
    gain = found.effects["slack"].gain
    assert gain.value == pytest.approx(53_000, rel=0.02)
    assert gain.uncertainty == 0.0
    assert len(machine.asked) == 14
    impact = gain_of(SLACK).of(measured_on(found))
    assert impact.cost is gain
    assert impact.ns_per_s == pytest.approx(53_000 * 5000, rel=0.02)


def test_a_pm_qos_limit_is_held_only_when_it_is_asked_for() -> None:
    machine = Machine()
    found = machine.run("timer", PM_QOS, SLACK)
    assert not any("pm_qos_us" in more for _, more in machine.asked)
    assert "--pm-qos 0" in str(gain_of(PM_QOS).of(measured_on(found)).cost.reason)
    found = machine.run("timer", PM_QOS, pm_qos_us=0)
    assert found.effects["pm_qos"].gain.value == pytest.approx(17_000, rel=0.05)


def test_a_busy_loop_serves_as_latency_and_for_the_causes() -> None:
    machine = Machine()
    found = machine.run("busy-poll", LATENCY, JITTER)
    assert [name for name, _ in machine.asked] == ["jitter"]
    assert found.latency is not None
    assert found.latency.cpus[0].looked_ns == pytest.approx(0.9e9)
    assert [(lost.cause, lost.ns_per_s) for lost in found.lost] == [("timer tick", 3e6), ("unexplained", 1e6)]
    assert time_lost_to(*TICK).of(measured_on(found)).ns_per_s == 3e6
    assert found.lost_ns_per_s() == 4e6


def test_a_cause_that_took_no_time_has_no_number() -> None:
    found = Machine().run("timer", JITTER)
    impact = time_lost_to("page fault").of(measured_on(found))
    assert impact.cost.value is None
    assert impact.cost.reason == "the busy loop lost no time to: page fault"


def test_a_probe_that_fails_leaves_the_others_and_its_reason() -> None:
    found = Machine().run("timer", COSTS, JITTER)
    assert found.reasons["costs"] == "The costs can not be measured. One CPU."
    assert found.lost
    found = Machine().run("ipc", LATENCY)
    assert found.latency is None
    assert "One CPU" in found.reasons["latency"]


def test_without_the_core_every_probe_has_the_reason() -> None:
    def find() -> Probes:
        raise ImportError("no _native")

    found = probe_host(ProbePlan("timer", frozenset({LATENCY, SLACK})), Measurements(), find=find)
    assert found.reasons["latency"] == found.reasons["slack"] == "no _native"


def test_a_duration_too_short_for_any_answer_is_refused() -> None:
    with pytest.raises(InputError, match="duration"):
        Machine().run("timer", LATENCY, duration_ns=1000)


def test_a_sleeping_cpu_costs_what_one_kept_awake_saves(monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[Any] = []

    @contextlib.contextmanager
    def spinners(cpus: Any) -> Iterator[Any]:
        @contextlib.contextmanager
        def awake() -> Iterator[None]:
            held.append(cpus)
            yield
            held.append(None)

        yield awake

    monkeypatch.setattr("cfctl.diagnose.awake.spinners", spinners)
    machine = Machine()
    usual = machine.wakeup

    def wakeup(*arguments: Any, **more: Any) -> Any:
        run = usual(*arguments, **more)
        return wakeup_of(15_000) if held and held[-1] is not None else run

    wakeup_of = globals()["wakeup"]
    machine.wakeup = wakeup  # type: ignore[method-assign]
    found = machine.run("timer", IDLE, cpus=(0,))
    # Beside the wake-up without slack, which would hide it.
    assert found.effects["idle"].gain.value == pytest.approx(16_000, rel=0.02)
    assert found.effects["idle"].gain.unit == "ns/wake-up"
    assert held == [(0,), None] * 7
    assert "slack" not in found.effects


def test_the_wake_up_as_started_has_a_median_and_a_tail() -> None:
    found = Machine().run("timer", WAKEUP, cpus=(0,))
    assert found.costs["wakeup"].value == pytest.approx(84_000, rel=0.01)
    assert found.costs["wakeup_p99"].value == pytest.approx(84_000, rel=0.01)
    assert found.costs["wakeup_p99"].sample_count == 14_000
    assert found.effects == {}


def test_a_refused_way_to_wake_up_is_the_reason_of_every_effect() -> None:
    machine = Machine()

    def refuse(*arguments: Any, **more: Any) -> Any:
        raise UnobservableError("The policy was refused.")

    machine.wakeup = refuse  # type: ignore[method-assign]
    found = machine.run("timer", SLACK, WAKEUP)
    assert found.reasons["slack"] == found.reasons["wakeup"] == "The policy was refused."
    assert gain_of(SLACK).of(measured_on(found)).cost.reason == "The policy was refused."


def test_sleeping_in_recv_costs_what_polling_saves() -> None:
    machine = Machine()
    found = machine.run("timer", SOCKET, cpus=(0, 1))
    assert found.effects["socket"].gain.value == pytest.approx(40_000, rel=0.02)
    assert [polls for _, polls in machine.asked] == [False, True] * 7
    alone = Machine().run("timer", SOCKET, cpus=(0,))
    assert alone.effects == {}
    assert "second CPU" in alone.reasons["socket"]


def test_fsync_is_measured_only_where_it_was_asked_for() -> None:
    found = Machine().run("timer", "fsync", "pause")
    assert found.costs["pause"].value == 11_000
    with pytest.raises(UnobservableError, match="--storage DIR"):
        found.cost_ns("fsync_p99")
    assert Machine().run("timer", "fsync", storage="/var").cost_ns("fsync_p99") == 3e6


@pytest.mark.parametrize(
    ("use", "wanted", "probe"),
    [("timer", LATENCY, "wakeup"), ("busy-poll", LATENCY, "jitter"), ("timer", SLACK, "wakeup"), ("timer", JITTER, "jitter")],
)  # fmt: skip
def test_ctrl_c_in_one_probe_starts_no_other(use: str, wanted: str, probe: str) -> None:
    machine = Machine()
    usual = getattr(machine, probe)

    def interrupted(*arguments: Any, **more: Any) -> Any:
        run = usual(*arguments, **more)
        run.interrupted = True
        return run

    setattr(machine, probe, interrupted)
    with pytest.raises(KeyboardInterrupt):
        machine.run(use, wanted, SOCKET, "pause")
    assert [name for name, _ in machine.asked] == [probe]


def test_the_groups_quota_is_watched_while_the_probes_run() -> None:
    moments = [Throttling(3, 5_000_000), Throttling(8, 405_000_000)]
    machine = Machine()
    probes = replace(machine.probes(), throttling=lambda: moments.pop(0))
    found = probe_host(ProbePlan("timer", frozenset({THROTTLED})), Measurements(), find=lambda: probes)
    stopped = found.costs[THROTTLED]
    assert stopped.unit == "ns/s"
    assert stopped.sample_count == 5
    assert (stopped.value or 0) > 0
    # It is this program's group: of a target it says nothing.
    assert throttled_while_probing(measured_on(found, pid=1)) is None
    told = throttled_while_probing(measured_on(found))
    assert told is not None
    assert told.ns_per_s == stopped.value


def test_a_group_that_counts_no_throttling_has_the_reason() -> None:
    def refuse() -> Throttling:
        raise UnobservableError("no governing group counts it")

    probes = replace(Machine().probes(), throttling=refuse)
    found = probe_host(ProbePlan("timer", frozenset({THROTTLED})), Measurements(), find=lambda: probes)
    assert THROTTLED not in found.costs
    assert found.reasons[THROTTLED] == "no governing group counts it"
