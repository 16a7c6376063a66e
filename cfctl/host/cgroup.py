"""The control groups of a process, v1 and v2, with all the ancestors that limit it too."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass

from cfctl.host.counters import integers
from cfctl.host.processes import directory
from cfctl.host.view import HostView, Lack, UnreadableError, garbage, integer_in, shown


@dataclass(frozen=True, slots=True)
class Group:
    """One control group directory of a process, as a path of the view, and the hierarchy's version."""

    path: str
    version: int


def groups(view: HostView, pid: int | None, controller: str) -> tuple[Group, ...]:
    """Return the groups whose `controller` governs a process: its own first, then every ancestor.

    The v1 hierarchy of the controller where it is mounted, and the v2 hierarchy. In a cgroup
    namespace the walk ends at the namespace's root. Raises UnreadableError when there is neither.
    """
    memberships = _memberships(view, pid)
    found: list[Group] = []
    for mount_point, root, kind, options in _mounts(view):
        if kind == "cgroup2":
            names: set[str] = {""}
        elif controller in options:
            names = {controller}
        else:
            continue
        for member_controllers, path in memberships:
            if names & member_controllers:
                found += _walk(view, mount_point, root, path, 2 if kind == "cgroup2" else 1)
    if not found:
        raise UnreadableError(
            f"cgroup controller {controller}", Lack.MISSING, "no hierarchy of it is mounted"
        )
    return tuple(dict.fromkeys(found))


def _memberships(view: HostView, pid: int | None) -> list[tuple[set[str], str]]:
    path = f"{directory(pid)}/cgroup"
    found = []
    for line in view.lines(path):
        fields = line.split(":", 2)
        if len(fields) != 3 or not fields[2].startswith("/"):
            raise garbage(path, line, "hierarchy:controllers:path")
        found.append((set(fields[1].split(",")), fields[2]))
    return found


def _mounts(view: HostView) -> list[tuple[str, str, str, set[str]]]:
    """Return (mount point, root within the hierarchy, type, options) of each cgroup mount."""
    found = []
    for line in view.lines("proc/self/mountinfo"):
        before, _, after = line.partition(" - ")
        left, right = before.split(), after.split()
        if len(left) >= 5 and len(right) >= 3 and right[0] in {"cgroup", "cgroup2"}:
            found.append((left[4], left[3], right[0], set(right[2].split(","))))
    return found


def _walk(view: HostView, mount_point: str, root: str, path: str, version: int) -> list[Group]:
    # Without a cgroup namespace a container's mount shows a subtree, and paths start above it.
    if root != "/" and (path == root or path.startswith(root + "/")):
        path = path[len(root) :]
    path = posixpath.normpath("/" + path)
    if path.startswith("//"):
        path = path[1:]
    base = mount_point.strip("/")
    found = []
    while True:
        directory_path = posixpath.join(base, path.strip("/")).rstrip("/")
        if view.exists(directory_path):
            found.append(Group(directory_path, version))
        if path == "/":
            return found
        path = posixpath.dirname(path)


@dataclass(frozen=True, slots=True)
class Quota:
    """The CPU bandwidth limit of one group: CPU time per period, us; quota None for no limit."""

    path: str
    quota_us: int | None
    period_us: int

    @property
    def cpus(self) -> float | None:
        """Return how many CPUs the quota is worth, None without a limit."""
        return None if self.quota_us is None else self.quota_us / self.period_us


def cpu_quotas(view: HostView, pid: int | None) -> tuple[Quota, ...]:
    """Return the CPU quota of each governing group that has such a file.

    Raises UnreadableError when no group has one (the v2 root has none: nothing limits it).
    """
    found = []
    governing = groups(view, pid, "cpu")
    for group in governing:
        quota = _quota_v2(view, group.path) if group.version == 2 else _quota_v1(view, group.path)
        if quota is not None:
            found.append(quota)
    return tuple(found)


def _quota_v2(view: HostView, group: str) -> Quota | None:
    path = f"{group}/cpu.max"
    if not view.exists(path):
        # The root, and groups whose parent does not delegate the controller, set no limit.
        return None
    fields = view.text(path).split()
    if len(fields) != 2:
        raise garbage(path, view.text(path), "quota and period")
    quota = None if fields[0] == "max" else integer_in(path, fields[0])
    return _checked_quota(path, quota, integer_in(path, fields[1]))


def _quota_v1(view: HostView, group: str) -> Quota:
    path = f"{group}/cpu.cfs_quota_us"
    quota = view.integer(path)
    return _checked_quota(path, None if quota < 0 else quota, view.integer(f"{group}/cpu.cfs_period_us"))


def _checked_quota(path: str, quota: int | None, period: int) -> Quota:
    if period <= 0:
        raise garbage(path, str(period), "a period above zero")
    return Quota(shown(path), quota, period)


@dataclass(frozen=True, slots=True)
class Throttling:
    """How often and how long the groups of a process were stopped for their quota, all together."""

    periods: int
    throttled_ns: int


def cpu_throttling(view: HostView, pid: int | None) -> Throttling:
    """Return the throttling of all governing groups that count it; raises UnreadableError when none does."""
    periods = throttled_ns = 0
    counted = False
    for group in groups(view, pid, "cpu"):
        path = f"{group.path}/cpu.stat"
        if not view.exists(path):
            continue
        counts = integers(view, path)
        if "nr_throttled" not in counts:
            continue
        counted = True
        periods += counts["nr_throttled"]
        # v2 counts microseconds, v1 nanoseconds.
        throttled_ns += counts.get("throttled_usec", 0) * 1000 + counts.get("throttled_time", 0)
    if not counted:
        raise UnreadableError("cpu.stat nr_throttled", Lack.MISSING, "no governing group counts it")
    return Throttling(periods, throttled_ns)


def memory_stalls(view: HostView, pid: int | None) -> dict[str, int]:
    """Return how often each governing group hit its memory limits, by file and counter."""
    found: dict[str, int] = {}
    for group in groups(view, pid, "memory"):
        if group.version == 1:
            path = f"{group.path}/memory.failcnt"
            if view.exists(path):
                found[shown(path)] = view.integer(path)
            continue
        path = f"{group.path}/memory.events"
        if view.exists(path):
            counts = integers(view, path)
            found |= {f"{shown(path)} {name}": counts.get(name, 0) for name in ("high", "max")}
    if not found:
        raise UnreadableError("memory.events", Lack.MISSING, "no governing group counts it")
    return found


@dataclass(frozen=True, slots=True)
class MemoryLimit:
    """The memory limit of one group, and what of it is in use and not just cached, bytes."""

    path: str
    limit_bytes: int
    used_bytes: int


def memory_limits(view: HostView, pid: int | None) -> tuple[MemoryLimit, ...]:
    """Return the memory limit of each governing group that has one; raises UnreadableError.

    File pages that nobody used lately are given back before the limit hurts and do not count
    (source: cAdvisor, the working set). v1 writes no limit as a number beyond all memory.
    """
    found = []
    for group in groups(view, pid, "memory"):
        names = ("memory.max", "memory.current", "inactive_file")
        if group.version == 1:
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        path = f"{group.path}/{names[0]}"
        # The root has none, and neither has a group without the controller.
        if not view.exists(path) or view.text(path) == "max":
            continue
        limit, used = view.integer(path), view.integer(f"{group.path}/{names[1]}")
        cached = 0
        if view.exists(f"{group.path}/memory.stat"):
            cached = integers(view, f"{group.path}/memory.stat").get(names[2], 0)
        found.append(MemoryLimit(shown(path), limit, max(0, used - cached)))
    return tuple(found)


def cpu_weights(view: HostView, pid: int | None) -> dict[str, tuple[int, int]]:
    """Return (weight, the default) of each governing group by file: cpu.weight, or cpu.shares of v1.

    Raises UnreadableError. Source: kernel, Documentation/admin-guide/cgroup-v2.rst, cpu.weight.
    """
    found = {}
    for group in groups(view, pid, "cpu"):
        name, usual = ("cpu.weight", 100) if group.version == 2 else ("cpu.shares", 1024)
        path = f"{group.path}/{name}"
        if view.exists(path):
            found[path] = view.integer(path), usual
    return found
