"""CPUs, cores, sockets, last-level caches and NUMA nodes of a host."""

from __future__ import annotations

from dataclasses import dataclass

from cfctl.host.cpus import MAX_CPU, parse_cpu_list
from cfctl.host.view import HostView, UnreadableError

_CPU = "sys/devices/system/cpu"


@dataclass(frozen=True, slots=True)
class Topology:
    """What sysfs says about the online CPUs; an empty tuple where it does not say.

    `cores`, `sockets` and `caches` are groups of CPUs that share one; `nodes` has one group of
    CPUs for each NUMA node.
    """

    online: tuple[int, ...]
    present: tuple[int, ...]
    cores: tuple[tuple[int, ...], ...]
    sockets: tuple[tuple[int, ...], ...]
    caches: tuple[tuple[int, ...], ...]
    nodes: tuple[tuple[int, ...], ...]

    def summary(self) -> str | None:
        """Return "1 socket, 1 core, 2 threads, 1 NUMA node"; None when nothing is known."""
        counted = [
            (len(self.sockets), "socket"),
            (len(self.cores), "core"),
            (len(self.online), "thread"),
            (len(self.nodes), "NUMA node"),
        ]
        return (
            ", ".join(f"{count} {name}{'s' if count > 1 else ''}" for count, name in counted if count) or None
        )


def online_cpus(view: HostView) -> tuple[int, ...]:
    """Return the online CPUs, from sysfs or else the cpuN lines of /proc/stat; () when neither says."""
    try:
        return view.cpu_list(f"{_CPU}/online")
    except UnreadableError:
        pass
    try:
        names = [line.split()[0] for line in view.lines("proc/stat") if line.startswith("cpu")]
    except UnreadableError:
        return ()
    numbers = (name[3:] for name in names if name[3:].isascii() and name[3:].isdecimal())
    # No more digits than the largest CPU has: int() refuses thousands of them.
    return tuple(int(number) for number in numbers if len(number) <= len(str(MAX_CPU)))


def topology(view: HostView) -> Topology:
    """Return the topology of the online CPUs; what can not be read is an empty tuple."""
    online = online_cpus(view)
    return Topology(
        online,
        _list(view, f"{_CPU}/present"),
        _groups(view, online, "topology/thread_siblings_list"),
        _groups(view, online, "topology/package_cpus_list") or _groups(view, online, "topology/core_siblings_list"),
        _groups(view, online, "cache/index3/shared_cpu_list"),
        tuple(
            cpus
            for node in view.matching("sys/devices/system/node/node[0-9]*")
            if (cpus := _list(view, f"{node}/cpulist"))
        ),
    )  # fmt: skip


def _list(view: HostView, path: str) -> tuple[int, ...]:
    try:
        return view.cpu_list(path)
    except UnreadableError:
        return ()


def _groups(view: HostView, cpus: tuple[int, ...], file: str) -> tuple[tuple[int, ...], ...]:
    groups: dict[tuple[int, ...], None] = {}
    for cpu in cpus:
        try:
            group = parse_cpu_list(view.text(f"{_CPU}/cpu{cpu}/{file}"))
        except (UnreadableError, ValueError):
            # Half a topology would name too few sockets; none is the honest answer.
            return ()
        groups[group] = None
    return tuple(groups)
