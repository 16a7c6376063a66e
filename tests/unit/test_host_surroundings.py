"""Control groups, virtualisation, containers, topology and processes of hosts in memory."""

from __future__ import annotations

import pytest

from cfctl.host.cgroup import Group, cpu_quotas, groups
from cfctl.host.environment import environment
from cfctl.host.processes import process_counters
from cfctl.host.topology import topology
from cfctl.host.view import UnreadableError
from tests.hosts.fake_host import MemoryView, expanded

INTEL = "processor : 0\nvendor_id : GenuineIntel\nflags : tsc{}\n"


def view(files: dict[str, str]) -> MemoryView:
    return MemoryView(expanded(files), {})


@pytest.mark.parametrize(
    ("files", "virtualisation"),
    [
        ({}, None),
        ({"proc/cpuinfo": INTEL.format("")}, "none"),
        ({"proc/cpuinfo": INTEL.format(" hypervisor")}, "unknown hypervisor"),
        (
            {"proc/cpuinfo": INTEL.format(" hypervisor"), "sys/class/dmi/id/sys_vendor": "VMware, Inc.\n"},
            "vmware",
        ),
        (
            {
                "proc/cpuinfo": INTEL.format(" hypervisor"),
                "sys/class/dmi/id/product_name": "Virtual Machine\n",
            },
            "hyperv",
        ),
        ({"sys/hypervisor/type": "xen\n"}, "xen"),
        ({"proc/cpuinfo": "processor : 0\nFeatures : fp\n"}, None),
        ({"proc/device-tree/hypervisor/compatible": "linux,kvm\0"}, "kvm"),
        (
            {
                "proc/cpuinfo": INTEL.format(" hypervisor"),
                "sys/devices/system/clocksource/clocksource0/available_clocksource": "tsc kvm-clock\n",
            },
            "kvm",
        ),
    ],
)
def test_the_hypervisor_is_named_by_what_shows_it(files: dict[str, str], virtualisation: str | None) -> None:
    assert environment(view(files)).virtualisation == virtualisation


@pytest.mark.parametrize(
    ("files", "container"),
    [
        ({}, None),
        ({"proc/1/comm": "systemd\n"}, "none"),
        ({"proc/1/comm": "bash\n"}, None),
        ({"proc/1/comm": "systemd\n", ".dockerenv": ""}, "docker"),
        ({"run/.containerenv": ""}, "podman"),
        ({"proc/1/environ": "PATH=/bin\0container=lxc\0"}, "lxc"),
        ({"proc/1/cgroup": "0::/kubepods/burstable/pod1\n"}, "kubepods"),
        ({"proc/version": "Linux version 4.4.0 #1 SMP Sun Jan 10 15:06:54 PST 2016\n"}, "gvisor"),
    ],
)
def test_the_container_is_named_by_what_shows_it(files: dict[str, str], container: str | None) -> None:
    assert environment(view(files)).container == container


def test_a_topology_counts_what_is_shared() -> None:
    found = topology(
        view(
            {
                "sys/devices/system/cpu/online": "0-3\n",
                "sys/devices/system/cpu/cpu{0,1}/topology/thread_siblings_list": "0-1\n",
                "sys/devices/system/cpu/cpu{2,3}/topology/thread_siblings_list": "2-3\n",
                "sys/devices/system/cpu/cpu{0-3}/topology/package_cpus_list": "0-3\n",
                "sys/devices/system/node/node0/cpulist": "0-3\n",
                "sys/devices/system/node/node1/cpulist": "\n",
            }
        )
    )
    assert found.cores == ((0, 1), (2, 3))
    assert found.summary() == "1 socket, 2 cores, 4 threads, 1 NUMA node"


def test_half_a_topology_is_none() -> None:
    found = topology(
        view(
            {
                "sys/devices/system/cpu/online": "0-1\n",
                "sys/devices/system/cpu/cpu0/topology/thread_siblings_list": "0\n",
            }
        )
    )
    assert found.cores == ()
    assert found.summary() == "2 threads"


V2 = "31 23 0:28 {} /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"


def test_all_ancestors_of_a_group_are_found_own_first() -> None:
    found = groups(
        view(
            {
                "proc/7/cgroup": "0::/a/b\n",
                "proc/self/mountinfo": V2.format("/"),
                "sys/fs/cgroup/a/b/cpu.max": "max 100000\n",
                "sys/fs/cgroup/cpu.stat": "usage_usec 1\n",
            }
        ),
        7,
        "cpu",
    )
    assert found == tuple(Group(f"sys/fs/cgroup{path}", 2) for path in ("/a/b", "/a", ""))


def test_a_mount_that_shows_a_subtree_hides_what_is_above() -> None:
    found = groups(
        view(
            {
                "proc/self/cgroup": "0::/docker/abc\n",
                "proc/self/mountinfo": V2.format("/docker/abc"),
                "sys/fs/cgroup/cpu.max": "1000 100000\n",
            }
        ),
        None,
        "cpu",
    )
    assert found == (Group("sys/fs/cgroup", 2),)


def test_a_path_that_climbs_out_ends_at_the_mount() -> None:
    found = groups(
        view(
            {
                "proc/self/cgroup": "0::/../../x\n",
                "proc/self/mountinfo": V2.format("/"),
                "sys/fs/cgroup/x/f": "1",
            }
        ),
        None,
        "cpu",
    )
    assert found == (Group("sys/fs/cgroup/x", 2), Group("sys/fs/cgroup", 2))


def test_quotas_of_both_versions_are_found_together() -> None:
    quotas = cpu_quotas(
        view(
            {
                "proc/self/cgroup": "4:cpu,cpuacct:/box\n0::/box\n",
                "proc/self/mountinfo": V2.format("/")
                + "32 23 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n",
                "sys/fs/cgroup/box/cpu.max": "50000 100000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            }
        ),
        None,
    )
    assert [(quota.path, quota.cpus) for quota in quotas] == [
        ("/sys/fs/cgroup/box/cpu.max", 0.5),
        ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", None),
    ]


def test_a_period_of_zero_is_not_divided_by() -> None:
    files = {
        "proc/self/cgroup": "0::/\n",
        "proc/self/mountinfo": V2.format("/"),
        "sys/fs/cgroup/cpu.max": "5 0\n",
    }
    with pytest.raises(UnreadableError, match="a period above zero"):
        cpu_quotas(view(files), None)


def test_a_hostile_process_name_does_not_shift_the_fields() -> None:
    text = "9 (a) R 1 (b\x1b[31m) S 1 1 1 0 -1 0 11 0 22 0 1 1 0 0 20 5 1 0 777 1 1\n"
    found = process_counters(view({"proc/9/stat": text}), 9)
    assert (found.minor_faults, found.major_faults, found.nice, found.start_ticks) == (11, 22, 5, 777)
