from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from cfctl.diagnose.impact import COSTS, JITTER, PM_QOS, SLACK, TICK, gain_of, time_lost_to
from cfctl.diagnose.loopback import _as_native
from cfctl.diagnose.measurements import Measurements
from cfctl.diagnose.probing import LATENCY, ProbePlan, Probes, probe_host
from cfctl.errors import InputError, UnobservableError
from cfctl.host.syscalls import CapturedSyscalls
from cfctl.probe.attribution import Cause
from cfctl.probe.distribution import from_native
from cfctl.probe.scheduling import PmQos
from cfctl.records import Measurement

QUIET = SimpleNamespace(contaminated=False, contamination="waited 0 %")


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

    def probes(self) -> Probes:
        syscalls = CapturedSyscalls({"policy": {"0": "OTHER"}})
        return Probes(cast("Any", self.wakeup), cast("Any", self.jitter), cast("Any", self.costs), syscalls)

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
    assert len(machine.asked) == 10
    impact = gain_of("slack", SLACK).of(found, "")
    assert impact.cost is gain
    assert impact.ns_per_s == pytest.approx(53_000 * 5000, rel=0.02)


def test_a_pm_qos_limit_is_held_only_when_it_is_asked_for() -> None:
    machine = Machine()
    found = machine.run("timer", PM_QOS, SLACK)
    assert not any("pm_qos_us" in more for _, more in machine.asked)
    assert "--pm-qos 0" in str(gain_of("pm_qos", PM_QOS).of(found, "").cost.reason)
    found = machine.run("timer", PM_QOS, pm_qos_us=0)
    assert found.effects["pm_qos"].gain.value == pytest.approx(17_000, rel=0.05)


def test_a_busy_loop_serves_as_latency_and_for_the_causes() -> None:
    machine = Machine()
    found = machine.run("busy-poll", LATENCY, JITTER)
    assert [name for name, _ in machine.asked] == ["jitter"]
    assert found.latency is not None
    assert found.latency.cpus[0].looked_ns == pytest.approx(0.9e9)
    assert [(lost.cause, lost.ns_per_s) for lost in found.lost] == [("timer tick", 3e6), ("unexplained", 1e6)]
    assert time_lost_to(*TICK).of(found, "").ns_per_s == 3e6
    assert found.lost_ns_per_s() == 4e6


def test_a_cause_that_took_no_time_has_no_number() -> None:
    found = Machine().run("timer", JITTER)
    impact = time_lost_to("page fault").of(found, "")
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
