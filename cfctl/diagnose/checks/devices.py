"""Checks of network devices: coalescing, rings, deferred interrupts, packet steering."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from cfctl.diagnose.advice import Command, Fix
from cfctl.diagnose.engine import Issue, NotApplicable, Outcome, Pass, check
from cfctl.diagnose.impact import OTHER_SIDE, SOFTIRQ, time_lost_to
from cfctl.diagnose.record import Area
from cfctl.errors import UnobservableError
from cfctl.host.counters import link_errors, links
from cfctl.host.cpus import format_cpu_list, format_cpu_mask
from cfctl.host.syscalls import SyscallError
from cfctl.host.view import Lack, UnreadableError, shown
from cfctl.records import Severity

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from cfctl.diagnose.subject import Host

    T = TypeVar("T")


def _links(host: Host) -> list[str]:
    found = links(host.view)
    if not found:
        raise UnobservableError("/sys/class/net names no link but the loopback")
    return found


def _of_each_link(host: Host, ask: Callable[[str], T]) -> dict[str, T]:
    """Return a syscall's answer for each link that has one; raises the last refusal for none."""
    found: dict[str, T] = {}
    refusal: SyscallError | None = None
    for link in _links(host):
        try:
            found[link] = ask(link)
        except SyscallError as error:
            # EOPNOTSUPP: a virtual device without the feature.
            refusal = error
    if not found and refusal is not None:
        raise refusal
    return found


@check(
    "NET_COALESCE",
    "A network device delays its interrupts",
    Severity.MEDIUM,
    Area.NETWORK,
    rule="rx-usecs > 10, or adaptive coalescing is on",
    source="ethtool(8), -C; tuned 2.28 network-latency; judgement",
    solution="Interrupt for each packet where latency matters more than throughput.",
    impact=OTHER_SIDE,
)
def net_coalesce(host: Host) -> Outcome:
    """A received packet waits in the device until the time is over or enough others came."""
    found = _of_each_link(host, host.view.syscalls.coalescing)
    for link, each in found.items():
        raw = f"rx-usecs {each.rx_us}, adaptive-rx {'on' if each.adaptive_rx else 'off'}"
        host.saw(f"ETHTOOL_GCOALESCE {link}", each.rx_us, raw)
    slow = [link for link, each in found.items() if each.rx_us > 10 or each.adaptive_rx]
    if not slow:
        return Pass(f"{', '.join(found)}: at most {max(each.rx_us for each in found.values())} us")
    return Issue(
        f"{', '.join(slow)} may hold packets back.",
        Fix(
            tuple(Command(f"ethtool -C {shlex.quote(link)} adaptive-rx off rx-usecs 0") for link in slow),
        ),
    )


@check(
    "NET_RING",
    "A network device's ring is short and overflows",
    Severity.LOW,
    Area.NETWORK,
    rule="the receive ring is below its maximum, and drops of the link rise during the interval",
    source="ethtool(8), -G; judgement",
    solution="Lengthen the ring.",
    impact=OTHER_SIDE,
    sample=link_errors,
)
def net_ring(host: Host) -> Outcome:
    """A burst that finds the ring full is lost and sent again, milliseconds later."""
    rings = _of_each_link(host, host.view.syscalls.ring)
    change = host.change(link_errors)
    short = []
    for link, ring in rings.items():
        before, after = change.before.get(link, {}), change.after.get(link, {})
        rise = sum(after.get(n, 0) - before.get(n, 0) for n in ("rx_dropped", "rx_missed_errors"))
        host.saw(f"ETHTOOL_GRINGPARAM {link}", ring.rx, f"{ring.rx} of {ring.rx_max}, {rise} drops")
        if ring.rx < ring.rx_max and rise > 0:
            short.append(link)
    if not short:
        return Pass(", ".join(f"{link} {ring.rx} of {ring.rx_max}" for link, ring in rings.items()))
    return Issue(
        f"{', '.join(short)} dropped packets with a ring that could be longer.",
        Fix(
            tuple(Command(f"ethtool -G {shlex.quote(link)} rx {rings[link].rx_max}") for link in short),
        ),
    )


@check(
    "NET_GRO_DEFER",
    "Packets wait for a timer",
    Severity.LOW,
    Area.NETWORK,
    rule="napi_defer_hard_irqs or gro_flush_timeout > 0 without busy polling",
    source="kernel, Documentation/networking/napi.rst, software IRQ coalescing",
    solution="Interrupt at once.",
    impact=OTHER_SIDE,
)
def net_gro_defer(host: Host) -> Outcome:
    """The device's interrupt stays masked until a timer fires; only a program that polls gains."""
    deferred = []
    for link in _links(host):
        irqs, timeout_ns = (
            host.integer(f"sys/class/net/{link}/{name}")
            for name in ("napi_defer_hard_irqs", "gro_flush_timeout")
        )
        if irqs > 0 or timeout_ns > 0:
            deferred.append(link)
    if not deferred:
        return Pass("no link defers its interrupts")
    if host.sysctl("net.core.busy_poll") > 0:
        return Pass(f"{', '.join(deferred)} defer interrupts, and sockets poll")
    files = [
        f"sys/class/net/{link}/{name}"
        for link in deferred
        for name in ("napi_defer_hard_irqs", "gro_flush_timeout")
    ]
    return Issue(
        f"{', '.join(deferred)} defer interrupts, and no socket polls.",
        Fix(tuple(Command(f"echo 0 > {shlex.quote(shown(path))}", path) for path in files)),
    )


@check(
    "NET_RPS_ON_TARGET",
    "Packet work is steered to isolated CPUs",
    Severity.LOW,
    Area.NETWORK,
    rule="rps_cpus of a queue includes an isolated CPU",
    source="kernel, Documentation/networking/scaling.rst, RPS",
    solution="Steer them to the other CPUs.",
    impact=time_lost_to(*SOFTIRQ),
)
def net_rps_on_target(host: Host) -> Outcome:
    """Each packet of the queue interrupts the hot thread for its protocol work."""
    paths = host.view.matching("sys/class/net/*/queues/rx-*/rps_cpus")
    if not paths:
        raise UnreadableError("/sys/class/net/*/queues/rx-*/rps_cpus", Lack.MISSING)
    masks = {path: set(host.cpu_mask(path)) for path in paths}
    isolated = set(host.isolated())
    if not isolated:
        return NotApplicable("no CPU is isolated")
    wrong = [path for path, cpus in masks.items() if cpus & isolated]
    if not wrong:
        return Pass(f"{len(paths)} queues stay off isolated CPUs")
    hit = format_cpu_list(set().union(*(masks[path] for path in wrong)) & isolated)
    mask = format_cpu_mask(set(host.online()) - isolated)
    return Issue(
        f"{len(wrong)} queues steer packets to isolated CPU {hit}.",
        Fix(
            tuple(Command(f"echo {mask} > {shlex.quote(shown(p))}", p) for p in wrong[:16]),
        ),
    )
