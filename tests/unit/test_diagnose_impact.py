"""What an issue costs: measured, or absent with its reason; a bound is called one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cfctl.diagnose.engine import catalogue
from cfctl.diagnose.impact import (
    PER_FAULT,
    PER_ROUND_TRIP,
    SLACK,
    Impact,
    cost_of,
    gain_of,
    not_measurable,
    stopped_by_quota,
    throttled_for_heat,
    time_lost_to,
    waiting_for,
)
from cfctl.diagnose.measurements import Effect, LostTime, Measurements
from cfctl.diagnose.record import Status
from cfctl.diagnose.subject import Facts, Host, sampled
from cfctl.records import Measurement
from tests.hosts.cases import GOOD
from tests.hosts.fake_host import FakeHost, MemoryView
from tests.unit.test_checks_table import CASES, run

TUNED = FakeHost.load("bare_tuned")
EVERY_CAUSE = tuple(
    LostTime(2, cause, 1e6, 0.1, 100, "a trace")
    for cause in ("timer tick", "tick + softirq", "softirq", "device IRQ", "interprocessor interrupt",
                  "scheduled out", "page fault", "hypervisor or firmware")
)  # fmt: skip
# What is measured in this process is no cost of the target, and no file here counts the time in heat.
WITHOUT_A_NUMBER_HERE = {"SANDBOX_KERNEL", "SECCOMP_FILTER", "PTRACED", "CPU_THERMAL_THROTTLE"}


def host(
    measured: Measurements | None = GOOD,
    *,
    later: dict[str, str] | None = None,
    pid: int | None = None,
    one_view: bool = False,
) -> Host:
    before, now = (MemoryView(files, answers) for files, answers in TUNED.with_files({}, later).moments())
    if one_view:
        return Host(Facts(now, pid, "timer", measured))
    samples = {sample: sampled(sample, before, pid) for check in catalogue() for sample in check.samples}
    return Host(Facts(now, pid, "timer", measured, before, samples))


def test_every_check_says_which_measurement_is_its_cost_or_why_there_is_none() -> None:
    for check in catalogue():
        found = check.impact.of(host(None))
        assert found.cost.value is not None or found.cost.reason
    numbered = [check.id for check in catalogue() if check.impact.probe or check.impact.sample]
    assert len(numbered) >= 80


@pytest.mark.parametrize(
    "check_id", [check.id for check in catalogue() if check.impact.probe or check.impact.sample]
)
def test_a_check_with_a_measurement_puts_a_number_on_its_issue(check_id: str) -> None:
    _, case = CASES[check_id].bad[0]
    measured = {"lost": EVERY_CAUSE, **case.measured}
    result = run(check_id, replace(case, measured=measured))
    assert result.status is Status.ISSUE
    assert result.impact is not None
    assert (result.impact.value is None) == (check_id in WITHOUT_A_NUMBER_HERE), result.impact.reason


def test_time_lost_is_a_bound_with_the_error_of_its_count() -> None:
    found = time_lost_to("timer tick").of(host(replace(GOOD, lost=EVERY_CAUSE)))
    assert (found.ns_per_s, found.is_bound) == (1e6, True)
    assert found.cost.uncertainty == pytest.approx(1e5)


def test_a_gain_within_its_error_is_a_number_and_no_loss() -> None:
    small = Effect(31e3, 30e3, Measurement(1e3, "ns/wake-up", 2e3, 100, "in turn"), 5e3)
    found = gain_of(SLACK).of(host(replace(GOOD, effects={"slack": small})))
    assert (found.cost.value, found.ns_per_s) == (1e3, None)
    assert gain_of(SLACK).of(host()).ns_per_s == 53e3 * 5e3


def test_a_cost_beyond_another_carries_both_errors() -> None:
    costs = {
        "futex_cross_cpu": Measurement(40e3, "ns", 30.0, 100, "round trip"),
        "futex_same_cpu": Measurement(4e3, "ns", 10.0, 100, "round trip"),
    }
    source = cost_of("futex_cross_cpu", PER_ROUND_TRIP, less="futex_same_cpu")
    found = source.of(host(replace(GOOD, costs=costs)))
    assert (found.cost.value, found.cost.unit, found.cost.uncertainty) == (36e3, PER_ROUND_TRIP, 40.0)
    assert source.probe == "costs"


def test_events_that_a_check_counted_make_a_cost_a_loss() -> None:
    fault = Impact(Measurement(1500.0, PER_FAULT, method="median"))
    assert fault.at_rate(1000.0).ns_per_s == 1.5e6
    assert "1e+03" not in str(fault.at_rate(1000.0).cost.method)
    assert "0.5 in a second" in str(fault.at_rate(0.5).cost.method)
    assert "none in the interval" in str(fault.at_rate(0.0).cost.method)
    assert fault.at_rate(None) is fault
    missing = Impact(Measurement.missing(PER_FAULT, "no core"))
    assert missing.at_rate(10.0) is missing


def test_what_is_measured_in_this_process_says_nothing_of_a_target() -> None:
    own = cost_of("syscall", of_target=False)
    assert own.of(host()).cost.value == 165.0
    assert "says nothing of the target" in str(own.of(host(pid=4242)).cost.reason)


def test_the_time_tasks_waited_is_the_rise_of_the_kernels_sum() -> None:
    line = "some avg10=0.00 avg60=0.00 avg300=0.00 total=3000\n"
    found = waiting_for("memory").of(host(later={"proc/pressure/memory": line}))
    # 3000 us more in 2 s.
    assert (found.ns_per_s, found.is_bound) == (1.5e6, True)
    assert waiting_for("cpu").of(host()).ns_per_s == 0.0
    spoilt = waiting_for("memory").of(host(later={"proc/pressure/memory": "some avg10=0.00\n"}))
    assert spoilt.cost.reason == "/proc/pressure/memory gives no total"


def test_one_view_gives_the_kernels_average_instead() -> None:
    found = waiting_for("io").of(host(one_view=True))
    assert found.ns_per_s == pytest.approx(1e6)
    assert "average over 10 s" in str(found.cost.method)


def test_a_quota_and_heat_cost_the_time_the_kernel_counted() -> None:
    stat = "usage_usec 9\nnr_periods 10\nnr_throttled 4\nthrottled_usec 450000\n"
    files = {"sys/fs/cgroup/system.slice/engine.service/cpu.stat": stat}
    found = stopped_by_quota().of(host(later=files, pid=4242))
    assert found.ns_per_s is not None
    assert found.ns_per_s > 0
    assert not found.is_bound
    assert "thermal_throttle" in str(throttled_for_heat().of(host()).cost.reason)


def test_a_reason_stands_where_nothing_can_be_measured() -> None:
    found = not_measurable("a second host would have to answer").of(host())
    assert (found.cost.value, found.cost.reason) == (None, "a second host would have to answer")
