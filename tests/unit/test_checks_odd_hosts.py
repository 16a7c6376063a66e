"""Checks on hosts that are rare but real, and on names that were chosen to harm."""

from __future__ import annotations

import io
import shlex
from typing import Any, Final

import pytest

from cfctl.cli.output import make_console
from cfctl.diagnose.record import Status
from cfctl.diagnose.run import Request, probe_plan
from cfctl.host.cpus import format_cpu_list
from cfctl.render.diagnosis import _issue
from tests.hosts.cases import CPU, GUEST, MEDIUM, Host, costs
from tests.unit.test_checks_table import BY_ID, run

_EVIL: Final = "a;reboot"


@pytest.mark.parametrize("check_id", ["NET_LINK_ERRORS", "NET_GRO_DEFER", "NET_LINK_SPEED", "NET_RING"])
def test_the_list_of_bonds_is_no_link(check_id: str) -> None:
    result = run(check_id, Host({"sys/class/net/bonding_masters": "bond0\n"}))
    assert (result.status, result.reason) == (Status.PASS, None)
    assert "bonding_masters" not in str(result.evidence)


@pytest.mark.parametrize(
    ("check_id", "files"),
    [
        ("IRQ_DEFAULT_AFFINITY", {"proc/irq/default_smp_affinity": ",".join(["ffffffff"] * 8)}),
        ("WORKQUEUE_MASK", {"sys/devices/virtual/workqueue/cpumask": ",".join(["ffffffff"] * 8)}),
        ("NET_RPS_ON_TARGET", {"sys/class/net/eth0/queues/rx-0/rps_cpus": ",".join(["ffffffff"] * 8)}),
    ],
)
def test_a_mask_of_many_cpus_is_one_that_the_kernel_takes(check_id: str, files: dict[str, str]) -> None:
    housekeeping = {f"{CPU}/isolated": "0-191\n", f"{CPU}/online": "0-255\n"}
    result = run(check_id, Host({**files, **housekeeping}))
    assert result.status is Status.ISSUE
    command = shlex.split(result.commands.now[0])
    assert command[1] == "ffffffff,ffffffff,00000000,00000000,00000000,00000000,00000000,00000000"


def test_a_cpu_that_is_off_has_no_clock_event_device_and_hides_no_other() -> None:
    device = "sys/devices/system/clockevents/clockevent{}/current_device"
    result = run("CLOCKEVENT_DEVICE", Host({device.format(8): "\n"}))
    assert (result.status, result.reason) == (Status.PASS, None)


def test_a_tick_that_is_not_nominal_is_a_part_of_the_rate_error() -> None:
    clock = {
        "state": 0, "status": 0x2001, "max_error_us": 500, "est_error_us": 10, "frequency_ppm": 50.0,
        "tick_us": 10_001,
    }  # fmt: skip
    result = run("CLOCK_FREQ_CORRECTION", Host(syscalls={"adjtimex": clock}))
    assert result.status is Status.ISSUE
    assert result.impact is not None
    assert result.impact.value == pytest.approx(150_000)


@pytest.mark.parametrize("vendor", ["GenuineIntel", "AuthenticAMD"])
def test_a_guest_sees_no_firmware_interrupt_and_that_is_no_pass(vendor: str) -> None:
    cpu = GUEST["proc/cpuinfo"].replace("AuthenticAMD", vendor)
    result = run("SMI_COUNT", Host({**GUEST, "proc/cpuinfo": cpu}))
    assert result.status is Status.UNOBSERVABLE


def test_an_amd_machine_has_firmware_interrupts_that_nothing_here_counts() -> None:
    result = run(
        "SMI_COUNT", Host({"proc/cpuinfo": "processor\t: 0\nvendor_id\t: AuthenticAMD\nflags\t\t: tsc\n"})
    )
    assert result.status is Status.UNOBSERVABLE


def test_cores_of_two_kinds_are_told_without_capacities() -> None:
    hybrid = {"sys/devices/cpu_core/cpus": "0-3\n", "sys/devices/cpu_atom/cpus": "4-7\n"}
    absent = (f"{CPU}/cpu./cpu_capacity",)
    result = run("CPU_HETEROGENEOUS", Host(hybrid, absent=absent, pid=None))
    assert (result.status, result.severity) == (Status.ISSUE, MEDIUM)
    assert result.commands.now == ("taskset -acp 0-3 PID",)
    # The target is pinned to a fast one.
    assert run("CPU_HETEROGENEOUS", Host(hybrid, absent=absent)).status is Status.PASS


def test_the_cpuset_of_an_ancestor_holds_where_the_own_group_has_none() -> None:
    group = "sys/fs/cgroup/system.slice/engine.service"
    ancestor = {"sys/fs/cgroup/system.slice/cpuset.cpus.effective": "3\n"}
    result = run("CGROUP_CPUSET", Host(ancestor, absent=(f"{group}/cpuset.cpus.effective",)))
    assert result.status is Status.ISSUE


@pytest.mark.parametrize("check_id", ["IRQBALANCE", "ISOLATED_INTRUDERS"])
def test_a_namespace_that_shows_few_processes_says_nothing_of_the_others(check_id: str) -> None:
    result = run(check_id, Host(absent=("proc/2/comm",)))
    assert result.status is Status.UNOBSERVABLE
    assert "namespace" in str(result.reason)


def test_an_empty_list_of_banned_cpus_bans_none() -> None:
    files = {"proc/900/comm": "irqbalance\n", "etc/default/irqbalance": "IRQBALANCE_BANNED_CPULIST=\n"}
    assert run("IRQBALANCE", Host(files)).status is Status.ISSUE


def test_a_group_with_less_than_its_share_is_deprioritised() -> None:
    group = "sys/fs/cgroup/system.slice/engine.service"
    result = run(
        "PROC_DEPRIORITISED", Host({f"{group}/cpu.weight": "20\n"}, syscalls={"policy": {"4242": "OTHER"}})
    )
    assert (result.status, result.severity) == (Status.ISSUE, MEDIUM)
    assert "20 of 100" in str(result.description)


def test_a_group_near_its_memory_limit_has_little_left_whatever_the_host_has() -> None:
    group = "sys/fs/cgroup/system.slice/engine.service"
    files = {f"{group}/memory.max": "1000000000\n", f"{group}/memory.current": "970000000\n"}
    result = run("MEMORY_LOW", Host(files))
    assert result.status is Status.ISSUE
    assert "3.0%" in str(result.description)


def test_memory_of_no_size_is_garbage() -> None:
    assert run("MIN_FREE_KBYTES", Host({"proc/meminfo": "MemTotal: 0 kB\nMemAvailable: 0 kB\n"})).status is (
        Status.UNOBSERVABLE
    )


def test_one_cpu_is_said_as_one() -> None:
    result = run("CPU_TOO_FEW", Host({f"{CPU}/online": "0\n"}))
    assert str(result.description).startswith("1 CPU is online")


@pytest.mark.parametrize(
    ("check_id", "host"),
    [
        ("NET_COALESCE", Host({f"sys/class/net/{_EVIL}/speed": "1\n"},
                              syscalls={"coalescing": {_EVIL: {"rx_us": 50, "adaptive_rx": 0}}})),
        ("NET_LINK_SPEED", Host({f"sys/class/net/{_EVIL}/speed": "1\n"})),
        ("NET_RPS_ON_TARGET", Host({f"sys/class/net/{_EVIL}/queues/rx-0/rps_cpus": "ff\n"})),
        ("IO_SCHEDULER", Host({f"sys/block/{_EVIL}/queue/scheduler": "[bfq]\n",
                               f"sys/block/{_EVIL}/queue/rotational": "0\n"})),
        ("CGROUP_CPU_QUOTA", Host({"proc/4242/cgroup": f"0::/{_EVIL}\n",
                                   f"sys/fs/cgroup/{_EVIL}/cpu.max": "1000 100000\n"})),
    ],
)  # fmt: skip
def test_a_name_chosen_to_harm_is_one_word_of_a_command(check_id: str, host: Host) -> None:
    result = run(check_id, host)
    assert result.status is Status.ISSUE
    commands = [*result.commands.now, *result.commands.persist]
    assert any(_EVIL in command for command in commands)
    for command in commands:
        # As a shell reads it: a semicolon that is not quoted is a word of its own.
        assert ";" not in list(shlex.shlex(command, posix=True, punctuation_chars=True))


@pytest.mark.parametrize(
    ("measured", "status"),
    [({}, Status.UNOBSERVABLE), (costs(throttled=0.0), Status.PASS), (costs(throttled=4e8), Status.ISSUE)],
)
def test_a_quota_that_stopped_nobody_asleep_is_judged_at_work(
    measured: dict[str, Any], status: Status
) -> None:
    group = "sys/fs/cgroup/system.slice/engine.service"
    host = Host({f"{group}/cpu.max": "40000 100000\n"}, pid=None, measured=measured)
    assert run("CGROUP_CPU_THROTTLED", host).status is status


def test_a_quota_is_watched_while_a_busy_loop_runs() -> None:
    checks = [BY_ID["CGROUP_CPU_THROTTLED"]]
    assert {"throttled", "jitter"} <= probe_plan(Request(), checks).wanted


def test_a_command_for_many_cpus_is_shown_whole() -> None:
    even = format_cpu_list(range(0, 256, 2))
    host = Host({f"{CPU}/online": "0-255\n", f"{CPU}/isolated": f"{even}\n", "proc/cmdline": "quiet\n"})
    result = run("RCU_NOCBS_OFF", host)
    (command,) = result.commands.persist
    assert command == f"kernel command line: rcu_nocbs={even}"
    stream = io.StringIO()
    _issue(result, make_console(stream, "never"))
    assert command in stream.getvalue()
