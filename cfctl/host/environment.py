"""Whether a host is a virtual machine or a container, and of which kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cfctl.host.syscalls import SyscallError
from cfctl.host.view import HostView, UnreadableError

NONE: Final = "none"
UNKNOWN_HYPERVISOR: Final = "unknown hypervisor"

# What firmware says about the machine it belongs to: (part of vendor or product, name).
# Source: systemd, src/basic/virt.c, dmi_vendor_table.
_FIRMWARE: Final = (
    ("KVM", "kvm"), ("QEMU", "kvm"), ("OpenStack", "kvm"), ("Amazon EC2", "kvm"), ("Google Compute", "kvm"),
    ("KubeVirt", "kvm"), ("VMware", "vmware"), ("innotek", "virtualbox"), ("VirtualBox", "virtualbox"),
    ("Xen", "xen"), ("Bochs", "bochs"), ("Parallels", "parallels"), ("BHYVE", "bhyve"), ("Hyper-V", "hyperv"),
    ("Virtual Machine", "hyperv"), ("Apple Virtualization", "apple"), ("Nutanix", "kvm"),
)  # fmt: skip
_CLOCKSOURCES: Final = (("kvm-clock", "kvm"), ("hyperv_clocksource", "hyperv"), ("xen", "xen"))
# gVisor answers with this date whatever the build. Source: gvisor, pkg/sentry/kernel/version.go.
_GVISOR_VERSION: Final = "#1 SMP Sun Jan 10 15:06:54 PST 2016"


@dataclass(frozen=True, slots=True)
class Environment:
    """The layers below and around this system: "none" where there is provably none, None if unknown.

    `virtualisation` is the hypervisor (kvm, xen, hyperv, vmware, ...), `container` the container
    (docker, podman, lxc, gvisor, ...); `evidence` says what each answer rests on.
    """

    virtualisation: str | None
    container: str | None
    evidence: tuple[str, ...]

    @property
    def is_guest(self) -> bool:
        """Return whether a hypervisor is known to be below."""
        return self.virtualisation not in {None, NONE}

    @property
    def is_container(self) -> bool:
        """Return whether this is known to be a container."""
        return self.container not in {None, NONE}


def environment(view: HostView) -> Environment:
    """Return the virtualisation and container of a host."""
    virtualisation, below = _virtualisation(view)
    container, around = _container(view)
    return Environment(virtualisation, container, tuple(text for text in (below, around) if text))


def is_gvisor(view: HostView) -> bool:
    """Return whether the kernel is gVisor's."""
    return _GVISOR_VERSION in _text(view, "proc/version")


def _virtualisation(view: HostView) -> tuple[str | None, str]:
    try:
        return view.word("sys/hypervisor/type"), "/sys/hypervisor/type"
    except UnreadableError:
        pass
    flagged = _hypervisor_flag(view)
    if flagged is False:
        return NONE, "/proc/cpuinfo: no flag hypervisor"
    for file in ("product_name", "sys_vendor"):
        text = _text(view, f"sys/class/dmi/id/{file}")
        for part, name in _FIRMWARE:
            if part in text:
                return name, f"/sys/class/dmi/id/{file}"
    device_tree = _text(view, "proc/device-tree/hypervisor/compatible")
    if device_tree:
        return (
            "kvm" if "kvm" in device_tree else UNKNOWN_HYPERVISOR
        ), "/proc/device-tree/hypervisor/compatible"
    clocksources = _text(view, "sys/devices/system/clocksource/clocksource0/available_clocksource")
    for part, name in _CLOCKSOURCES:
        if part in clocksources:
            return name, f"clocksource {part} is offered"
    return (UNKNOWN_HYPERVISOR, "/proc/cpuinfo: flag hypervisor") if flagged else (None, "")


def _hypervisor_flag(view: HostView) -> bool | None:
    """Return whether an x86 CPU has the flag; None on other machines and when it can not be read."""
    flags = next((x for x in _text(view, "proc/cpuinfo").splitlines() if x.startswith("flags")), None)
    return None if flags is None else "hypervisor" in flags.split()


def _container(view: HostView) -> tuple[str | None, str]:
    if is_gvisor(view):
        return "gvisor", "/proc/version"
    for marker, name in ((".dockerenv", "docker"), ("run/.containerenv", "podman")):
        if view.exists(marker):
            return name, f"/{marker}"
    for entry in _text(view, "proc/1/environ").split("\0"):
        name, _, value = entry.partition("=")
        if name == "container" and value:
            return value[:40], "/proc/1/environ"
    cgroup = _text(view, "proc/1/cgroup")
    for part in ("kubepods", "docker", "lxc", "containerd", "libpod"):
        if part in cgroup:
            return part, "/proc/1/cgroup"
    init = _text(view, "proc/1/comm")
    if init in {"systemd", "init"}:
        return NONE, f"/proc/1/comm is {init}"
    return None, ""


def machine(view: HostView) -> str | None:
    """Return the architecture uname(2) names, None when it is not known."""
    try:
        return view.syscalls.uname().machine
    except SyscallError:
        return None


def _text(view: HostView, path: str) -> str:
    try:
        return view.text(path)
    except UnreadableError:
        return ""
