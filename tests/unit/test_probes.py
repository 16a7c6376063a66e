"""The probes on this machine, in short runs: what their records hold whatever the load is."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cfctl.errors import InputError, UnobservableError
from cfctl.host.topology import Topology
from cfctl.probe.conversion import Conversion, Line, Stamp
from cfctl.probe.core_to_core import measure_core_to_core, relation
from cfctl.probe.cost import measure_costs
from cfctl.probe.jitter import measure_jitter
from cfctl.probe.threads import usable_cpus
from cfctl.probe.wakeup import measure_wakeup
from cfctl.records import Measurement, to_json

pytestmark = pytest.mark.host

MS = 1_000_000
# A made-up rate: the records must be consistent with it, not with the machine's.
CLOCK = Conversion(1e9, 1.0, 10.0, "test", "made up")
TWO_CPUS = pytest.mark.skipif(len(usable_cpus(None)) < 2, reason="one CPU is usable")


def plain(document: Any) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(to_json(document))
    return loaded


def test_jitter_says_what_it_measured_and_how() -> None:
    document = measure_jitter(duration_ns=30 * MS, threshold_ns=100, conversion=CLOCK)
    assert [cpu.cpu for cpu in document.cpus] == list(usable_cpus(None))
    for cpu in document.cpus:
        assert cpu.duration_ns >= 30 * MS
        assert cpu.turns > 0
        assert cpu.gaps.sample_count == sum(count for _, count in cpu.gaps.histogram.buckets)
        assert cpu.lost.value is not None
        assert 0 <= cpu.lost.value <= 1
        lengths = [gap.duration_ns for gap in cpu.largest]
        assert lengths == sorted(lengths, reverse=True)
        assert len(lengths) == min(100, cpu.gaps.sample_count)
        if cpu.attribution is not None:
            assert cpu.attribution.analysed_gaps >= cpu.gaps.sample_count
            assert cpu.attribution.shares[-1].cause.value == "unexplained"
            assert all(share.method for share in cpu.attribution.shares)
    written = plain(document)
    assert (written["schema"], written["version"]) == ("cfctl.probe.jitter", 1)
    assert written["host"] is None
    assert written["pm_qos"]["held_us"] is None
    assert written["scheduling"] == {"policy": "other", "priority": 0, "timer_slack_ns": None}


def test_jitter_without_attribution_names_no_cause() -> None:
    document = measure_jitter(usable_cpus(None)[:1], 5 * MS, attribution="off", conversion=CLOCK)
    assert document.cpus[0].attribution is None
    assert {gap.cause for gap in document.cpus[0].largest} <= {None}


@pytest.mark.parametrize(
    "arguments",
    [
        {"duration_ns": 0},
        {"duration_ns": 1 << 60},
        {"threshold_ns": 19},
        {"threshold_ns": float("nan")},
        {"threshold_ns": 2e9},
        {"attribution": "guess"},
        {"cpus": [60_000]},
        {"pm_qos_us": -1},
    ],
)
def test_jitter_refuses_what_it_can_not_do(arguments: dict[str, Any]) -> None:
    wanted: dict[str, Any] = {"duration_ns": MS, "conversion": CLOCK}
    with pytest.raises(InputError):
        measure_jitter(**(wanted | arguments))


def test_the_smallest_threshold_is_two_steps_of_the_clock() -> None:
    cpu = usable_cpus(None)[:1]
    assert measure_jitter(cpu, MS, 20, attribution="off", conversion=CLOCK).threshold_ns == 20


def test_wakeups_count_every_intended_time() -> None:
    document = measure_wakeup(usable_cpus(None)[:1], 20 * MS, MS)
    cpu = document.cpus[0]
    assert cpu.distribution.sample_count == 20
    assert cpu.slack_ns >= 0
    assert cpu.latency.value is not None
    assert cpu.distribution.at(0.9).reason == "low n"
    assert plain(document)["schema"] == "cfctl.probe.wakeup"


@pytest.mark.parametrize(
    ("duration_ns", "interval_ns"), [(10 * MS, 100), (10 * MS, 2_000 * MS), (MS, 2 * MS), (1 << 60, MS)]
)
def test_wakeup_refuses_what_it_can_not_do(duration_ns: int, interval_ns: int) -> None:
    with pytest.raises(InputError):
        measure_wakeup(None, duration_ns, interval_ns)


@TWO_CPUS
def test_core_to_core_measures_every_pair_in_each_variant() -> None:
    cpus = usable_cpus(None)[:2]
    document = measure_core_to_core(cpus, samples=40, conversion=CLOCK)
    assert [(p.cpu_a, p.cpu_b, p.variant) for p in document.pairs] == [
        (*cpus, "cas"),
        (*cpus, "load-store"),
    ]
    for pair in document.pairs:
        assert pair.distribution.sample_count == 40
        assert pair.one_way.value is not None
        assert pair.one_way.value > 0
    assert plain(document)["schema"] == "cfctl.probe.core-to-core"


def test_core_to_core_with_one_cpu_does_not_apply() -> None:
    with pytest.raises(UnobservableError, match="does not apply"):
        measure_core_to_core(usable_cpus(None)[:1], conversion=CLOCK)


@TWO_CPUS
@pytest.mark.parametrize("arguments", [{"variants": ["swap"]}, {"variants": []}, {"samples": 3}])
def test_core_to_core_refuses_what_it_can_not_do(arguments: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        measure_core_to_core(conversion=CLOCK, **arguments)


TOPOLOGY = Topology(
    (0, 1, 2, 3, 4), (), ((0, 1), (2,), (3,), (4,)), (), ((0, 1, 2), (3,), (4,)), ((0, 1, 2, 3), (4,))
)


@pytest.mark.parametrize(
    ("pair", "expected"),
    [((0, 1), "SMT sibling"), ((0, 2), "same L3"), ((0, 3), "same node"), ((0, 4), "remote")],
)
def test_a_pair_is_called_by_the_closest_thing_it_shares(pair: tuple[int, int], expected: str) -> None:
    assert relation(*pair, TOPOLOGY) == expected


def test_without_a_topology_the_relation_is_unknown() -> None:
    assert relation(0, 1, Topology((0, 1), (), (), (), (), ())) == "unknown"


def clocks() -> dict[str, Measurement]:
    return {
        name: Measurement(20.0, "ns", 1.0, 5, "made up") for name in ("tick", "raw", "monotonic", "realtime")
    }


def test_costs_across_cpus_need_a_second_one_and_say_so() -> None:
    document = measure_costs(usable_cpus(None)[:1], 20, conversion=CLOCK, clock_costs=clocks)
    costs = {cost.name: cost for cost in document.costs}
    assert document.other_cpu is None
    for name in ("pipe_cross_cpu", "futex_cross_cpu"):
        assert costs[name].cost.value is None
        assert "second CPU" in (costs[name].cost.reason or "")
    for name in (
        "syscall",
        "sched_yield",
        "page_fault",
        "pipe_write_read",
        "futex_same_cpu",
        "pipe_same_cpu",
    ):
        value = costs[name].cost.value
        assert value is not None
        assert value > 0
        assert costs[name].load is not None
    assert costs["clock_tick"].cost.value == 20.0


def test_a_context_switch_is_the_pipes_round_trip_without_its_reads_and_writes() -> None:
    document = measure_costs(usable_cpus(None)[:1], 200, conversion=CLOCK, clock_costs=clocks)
    costs = {cost.name: cost.cost for cost in document.costs}
    trip, own, switch = costs["pipe_same_cpu"], costs["pipe_write_read"], costs["context_switch"]
    assert trip.value is not None
    assert own.value is not None
    if switch.value is None:
        assert trip.value / 2 <= own.value
    else:
        assert switch.value == pytest.approx(trip.value / 2 - own.value)


def test_a_line_goes_through_both_of_its_stamps() -> None:
    line = Line(Stamp(1_000, 50), Stamp(3_000, 1_050))
    assert [line.ns_of(tick) for tick in (1_000, 2_000, 3_000, 0)] == [50, 550, 1_050, -450]
    with pytest.raises(ValueError, match="later"):
        Line(Stamp(5, 5), Stamp(5, 6))
