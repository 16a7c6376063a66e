"""Checks of the network: receive path, losses, buffers."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from cfctl.diagnose.advice import Command, Fix, sysctl
from cfctl.diagnose.engine import Issue, NotApplicable, Outcome, Pass, check
from cfctl.diagnose.impact import NOT_YET, OTHER_SIDE, SOCKET, SOFTIRQ, gain_of, time_lost_to
from cfctl.diagnose.record import Area, Scope
from cfctl.errors import UnobservableError
from cfctl.host.counters import link_errors, links, protocols, softnet
from cfctl.host.view import Lack, UnreadableError
from cfctl.records import Severity
from cfctl.units import format_quantity

if TYPE_CHECKING:
    from cfctl.diagnose.subject import Host


@check(
    "NET_BUSY_POLL",
    "Sockets wait for interrupts",
    Severity.LOW,
    Area.NETWORK,
    rule="net.core.busy_read or net.core.busy_poll is 0",
    source="tuned 2.28 network-latency: 50",
    solution="Let sockets poll for 50 us.",
    impact=gain_of(SOCKET),
)
def net_busy_poll(host: Host) -> Outcome:
    """A receiver sleeps until an interrupt, a soft interrupt and the scheduler have run; polling
    the device takes them out of the way."""
    read, poll = host.sysctl("net.core.busy_read"), host.sysctl("net.core.busy_poll")
    if read > 0 and poll > 0:
        return Pass(f"sockets poll for {min(read, poll)} us")
    fix = sysctl("net.core.busy_read", 50)
    return Issue("Sockets do not poll.", fix.and_also(sysctl("net.core.busy_poll", 50)))


@check(
    "NET_SOFTNET_DROP",
    "The kernel drops received packets",
    Severity.HIGH,
    Area.NETWORK,
    rule="column 2 of softnet_stat rises during the interval",
    source="kernel, Documentation/admin-guide/sysctl/net.rst, netdev_max_backlog",
    solution="Lengthen the backlog.",
    impact=OTHER_SIDE,
    sample=softnet,
)
def net_softnet_drop(host: Host) -> Outcome:
    """A CPU's backlog was full: the packet is lost, and its retransmission costs milliseconds."""
    change = host.change(softnet)
    rise = sum(s.dropped for s in change.after) - sum(s.dropped for s in change.before)
    host.saw("/proc/net/softnet_stat dropped", rise, f"+{rise} in {change.seconds:.1f} s")
    if rise <= 0:
        return Pass("no packet was dropped")
    return Issue(
        f"{rise} packets were dropped in {change.seconds:.1f} s.",
        sysctl("net.core.netdev_max_backlog", 10_000),
    )


@check(
    "NET_TIME_SQUEEZE",
    "Packet work runs out of its budget",
    Severity.MEDIUM,
    Area.NETWORK,
    rule="column 3 of softnet_stat rises during the interval",
    source="kernel, Documentation/admin-guide/sysctl/net.rst, netdev_budget",
    solution="Raise the budget.",
    impact=time_lost_to(*SOFTIRQ),
    sample=softnet,
)
def net_time_squeeze(host: Host) -> Outcome:
    """Packets stay in the device until the soft interrupt runs again."""
    change = host.change(softnet)
    rise = sum(s.time_squeeze for s in change.after) - sum(s.time_squeeze for s in change.before)
    host.saw("/proc/net/softnet_stat time_squeeze", rise, f"+{rise} in {change.seconds:.1f} s")
    if rise <= 0:
        return Pass("the budget sufficed")
    return Issue(
        f"The budget ran out {rise} times in {change.seconds:.1f} s.",
        sysctl("net.core.netdev_budget", 600),
    )


def _rises(host: Host, protocol: str, *names: str) -> tuple[dict[str, int], float]:
    """Return how much counters of a protocol rose, and the seconds between the samples."""
    change = host.change(protocols)
    before, after = change.before.get(protocol, {}), change.after.get(protocol, {})
    if not set(names) <= after.keys():
        raise UnreadableError(f"/proc/net/snmp {protocol}", Lack.MISSING)
    rises = {name: after[name] - before.get(name, 0) for name in names}
    host.saw(
        f"/proc/net/snmp {protocol}", rises, ", ".join(f"{name} +{rise}" for name, rise in rises.items())
    )
    return rises, change.seconds


@check(
    "NET_UDP_DROPS",
    "UDP datagrams are lost",
    Severity.HIGH,
    Area.NETWORK,
    rule="receive or send errors > 0.01 % of the datagrams received during the interval",
    source="performance guide: 0.01 %",
    solution="Allow larger buffers, and set SO_RCVBUF in the program.",
    impact=OTHER_SIDE,
    sample=protocols,
)
def net_udp_drops(host: Host) -> Outcome:
    """A socket's buffer was full: the program does not read fast enough, and the datagram is gone."""
    rises, seconds = _rises(host, "Udp", "InDatagrams", "InErrors", "SndbufErrors")
    lost = rises["InErrors"] + rises["SndbufErrors"]
    if lost <= 0:
        return Pass(f"none of {rises['InDatagrams']} datagrams")
    share = lost / (rises["InDatagrams"] + lost)
    if share <= 0.0001:
        return Pass(f"{share:.4%} of the datagrams")
    return Issue(
        f"{lost} datagrams were lost in {seconds:.1f} s, {share:.2%}.",
        sysctl("net.core.rmem_max", 16 << 20),
    )


@check(
    "NET_TCP_RETRANS",
    "TCP segments are sent again",
    Severity.MEDIUM,
    Area.NETWORK,
    rule="RetransSegs > 0.1 % of OutSegs during the interval",
    source="judgement",
    solution="Look for a full link, a bad cable or a small ring.",
    impact=OTHER_SIDE,
    sample=protocols,
)
def net_tcp_retrans(host: Host) -> Outcome:
    """A lost segment costs at least the retransmission timeout of 200 ms, or a round trip."""
    rises, seconds = _rises(host, "Tcp", "RetransSegs", "OutSegs")
    again, sent = rises["RetransSegs"], rises["OutSegs"]
    if again <= 0 or again <= 0.001 * sent:
        return Pass(f"{again} of {sent} segments")
    return Issue(
        f"{again} of {sent} segments were sent again in {seconds:.1f} s.",
        Fix((Command("ss -ti"), Command("nstat -az TcpRetransSegs")),
            privilege=None),
    )  # fmt: skip


@check(
    "NET_SOCKBUF",
    "Socket buffers are small",
    Severity.LOW,
    Area.NETWORK,
    rule="net.core.rmem_max or wmem_max < 4 MiB",
    source="judgement",
    solution="Allow buffers of 16 MiB.",
    impact=NOT_YET,
)
def net_sockbuf(host: Host) -> Outcome:
    """A burst overflows the buffer while the program is busy."""
    sizes = {name: host.sysctl(name) for name in ("net.core.rmem_max", "net.core.wmem_max")}
    small = [name for name, size in sizes.items() if size < 4 << 20]
    if not small:
        return Pass(format_quantity(min(sizes.values()), "B"))
    fix = sysctl(small[0], 16 << 20)
    for name in small[1:]:
        fix = fix.and_also(sysctl(name, 16 << 20))
    return Issue(f"{' and '.join(small)} allow {format_quantity(min(sizes.values()), 'B')}.", fix)


@check(
    "NET_TCP_IDLE_RESTART",
    "An idle connection starts slowly",
    Severity.LOW,
    Area.NETWORK,
    rule="net.ipv4.tcp_slow_start_after_idle is 1",
    source="kernel, Documentation/networking/ip-sysctl.rst",
    solution="Keep the window.",
    impact=OTHER_SIDE,
)
def net_tcp_idle_restart(host: Host) -> Outcome:
    """After a pause a connection sends a few segments only and waits for their acknowledgement."""
    if host.sysctl("net.ipv4.tcp_slow_start_after_idle") == 0:
        return Pass("connections keep their window")
    return Issue(
        "Connections lose their window when idle.",
        sysctl("net.ipv4.tcp_slow_start_after_idle", 0),
    )


@check(
    "NET_LINK_ERRORS",
    "A network link has errors",
    Severity.MEDIUM,
    Area.NETWORK,
    rule="an error or drop counter of a link rises during the interval",
    source="kernel, Documentation/networking/statistics.rst",
    solution="Check cable, driver and ring size.",
    impact=OTHER_SIDE,
    scope=Scope.MACHINE,
    sample=link_errors,
)
def net_link_errors(host: Host) -> Outcome:
    """Each damaged or dropped frame is sent again, milliseconds later."""
    change = host.change(link_errors)
    if not change.after:
        if host.view.names("sys/class/net"):
            return NotApplicable("no link but the loopback")
        raise UnobservableError("/sys/class/net can not be listed")
    rises = {
        f"{link} {name}": count - change.before.get(link, {}).get(name, 0)
        for link, counters in change.after.items()
        for name, count in counters.items()
    }
    found = {name: rise for name, rise in rises.items() if rise > 0}
    host.saw(
        "/sys/class/net/*/statistics", found, ", ".join(f"{n} +{r}" for n, r in found.items()) or "no rise"
    )
    if not found:
        return Pass(f"no rise on {', '.join(change.after)}")
    first = next(iter(found)).rpartition(" ")[0]
    return Issue(
        f"Rising: {', '.join(f'{name} +{rise}' for name, rise in found.items())}.",
        Fix(
            (Command(f"ethtool -S {shlex.quote(first)}"),),
            privilege=None,
        ),
    )


@check(
    "NET_LINK_SPEED",
    "A network link is slow",
    Severity.LOW,
    Area.NETWORK,
    rule="speed < 1000 Mbit/s",
    source="performance guide: 1 Gbit/s",
    solution="Check cable, switch port and negotiation.",
    impact=OTHER_SIDE,
    scope=Scope.MACHINE,
)
def net_link_speed(host: Host) -> Outcome:
    """A frame of 1500 bytes takes 120 us at 100 Mbit/s, 1.2 us at 10 Gbit/s."""
    speeds: dict[str, int] = {}
    for link in links(host.view):
        try:
            speed = host.view.integer(f"sys/class/net/{link}/speed")
        except UnreadableError:
            # EINVAL: the link is down or virtual and has no speed.
            continue
        if speed > 0:
            speeds[link] = host.saw(f"/sys/class/net/{link}/speed, Mbit/s", speed)
    if not speeds:
        raise UnobservableError("no link states a speed")
    slow = {link: speed for link, speed in speeds.items() if speed < 1000}
    if not slow:
        return Pass(", ".join(f"{link} {speed} Mbit/s" for link, speed in speeds.items()))
    return Issue(
        f"{', '.join(f'{link} runs at {speed} Mbit/s' for link, speed in slow.items())}.",
        Fix(
            (Command(f"ethtool {shlex.quote(next(iter(slow)))}"),),
            privilege=None,
        ),
    )
