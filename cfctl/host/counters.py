"""The kernel's counters at one moment: CPU time, interrupts, memory events, network, pressure.

Each function takes a view and the target's pid (which most ignore), so that all can be sampled
alike, and raises UnreadableError when the file is absent or holds something else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cfctl.host.view import HostView, UnreadableError, garbage, integer_in

if TYPE_CHECKING:
    from collections.abc import Mapping

# Ticks per second of /proc/stat: USER_HZ is 100 on every Linux that runs Python.
USER_HZ: Final = 100
# A number of fewer digits is below 2^64.
_SURELY_64_BITS: Final = 20
_CPU_FIELDS: Final = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")


def cpu_times(view: HostView, pid: int | None = None) -> dict[int, dict[str, int]]:  # noqa: ARG001
    """Return the time of each CPU by kind, in ticks of 1/USER_HZ s, from /proc/stat."""
    path = "proc/stat"
    found: dict[int, dict[str, int]] = {}
    for line in view.lines(path):
        name, *values = line.split()
        if name.startswith("cpu") and name != "cpu":
            if len(values) < len(_CPU_FIELDS):
                raise garbage(path, line, "eight times")
            found[integer_in(path, name[3:])] = {
                field: integer_in(path, value) for field, value in zip(_CPU_FIELDS, values, strict=False)
            }
    if not found:
        raise garbage(path, view.text(path), "CPU times")
    return found


def vmstat(view: HostView, pid: int | None = None) -> dict[str, int]:  # noqa: ARG001
    """Return the counters of /proc/vmstat by name."""
    return integers(view, "proc/vmstat")


def meminfo_kib(view: HostView) -> dict[str, int]:
    """Return the sizes of /proc/meminfo in KiB by name."""
    path = "proc/meminfo"
    return {
        name: integer_in(path, text.removesuffix("kB").strip())
        for name, text in view.fields(path, ":").items()
    }


def integers(view: HostView, path: str) -> dict[str, int]:
    """Return the "name number" lines of a file."""
    return {name: integer_in(path, text) for name, text in view.fields(path).items()}


@dataclass(frozen=True, slots=True)
class InterruptRow:
    """One line of /proc/interrupts: counts by CPU, and what the interrupt is."""

    counts: Mapping[int, int]
    description: str

    @property
    def total(self) -> int:
        """Return the count over all CPUs."""
        return sum(self.counts.values())


def interrupts(view: HostView, pid: int | None = None) -> dict[str, InterruptRow]:  # noqa: ARG001
    """Return the rows of /proc/interrupts by name ("36", "LOC"); ERR and MIS count on no CPU: -1."""
    return _cpu_table(view, "proc/interrupts")


def softirqs(view: HostView, pid: int | None = None) -> dict[str, InterruptRow]:  # noqa: ARG001
    """Return the rows of /proc/softirqs by name ("NET_RX")."""
    return _cpu_table(view, "proc/softirqs")


def _cpu_table(view: HostView, path: str) -> dict[str, InterruptRow]:
    header, *lines = view.lines(path)
    names = header.split()
    if not names or not all(name.startswith("CPU") for name in names):
        raise garbage(path, header, "a line of CPU names")
    cpus = [integer_in(path, name[3:]) for name in names]
    rows: dict[str, InterruptRow] = {}
    for line in lines:
        name, separator, rest = line.partition(":")
        fields = rest.split()
        if not separator:
            continue
        counts = _counts(path, fields[: len(cpus)])
        where = cpus if len(counts) == len(cpus) else [-1] * min(len(counts), 1)
        rows[name.strip()] = InterruptRow(
            dict(zip(where, counts, strict=False)), " ".join(fields[len(where) :])[:80]
        )
    if not rows:
        raise garbage(path, header, "rows of counts")
    return rows


def _counts(path: str, fields: list[str]) -> list[int]:
    """Return the numbers among the fields of a row; a host of 256 CPUs has 100 000 of them in a table."""
    text = "".join(fields)
    if text.isascii() and text.isdecimal() and max(map(len, fields)) < _SURELY_64_BITS:
        return list(map(int, fields))
    return [integer_in(path, field) for field in fields if field.isascii() and field.isdecimal()]


@dataclass(frozen=True, slots=True)
class Softnet:
    """Network receive work of one CPU: packets dropped for a full backlog, and budgets used up."""

    dropped: int
    time_squeeze: int


def softnet(view: HostView, pid: int | None = None) -> tuple[Softnet, ...]:  # noqa: ARG001
    """Return /proc/net/softnet_stat, one record a line (an online CPU); columns 2 and 3, hex."""
    path = "proc/net/softnet_stat"
    found = []
    for line in view.lines(path):
        columns = line.split()
        if len(columns) < 3:
            raise garbage(path, line, "hex columns")
        found.append(Softnet(integer_in(path, columns[1], 16), integer_in(path, columns[2], 16)))
    return tuple(found)


def protocols(view: HostView, pid: int | None = None) -> dict[str, dict[str, int]]:  # noqa: ARG001
    """Return the counters of /proc/net/snmp by protocol and name: ["Udp"]["InErrors"]."""
    path = "proc/net/snmp"
    lines = view.lines(path)
    found: dict[str, dict[str, int]] = {}
    for names, values in zip(lines[::2], lines[1::2], strict=False):
        protocol, _, header = names.partition(":")
        other, _, numbers = values.partition(":")
        if protocol != other or len(header.split()) != len(numbers.split()):
            raise garbage(path, names, "a line of names and one of values")
        found[protocol] = {
            name: integer_in(path, number)
            for name, number in zip(header.split(), numbers.split(), strict=True)
        }
    if not found:
        raise garbage(path, lines[0], "protocols")
    return found


LINK_ERRORS: Final = ("rx_errors", "tx_errors", "rx_dropped", "tx_dropped", "rx_missed_errors")


def links(view: HostView) -> list[str]:
    """Return the network links except the loopback; the bonding driver's list among them is none."""
    return [name for name in view.names("sys/class/net") if name not in {"lo", "bonding_masters"}]


def link_errors(view: HostView, pid: int | None = None) -> dict[str, dict[str, int]]:  # noqa: ARG001
    """Return the error counters of each network link except the loopback."""
    return {
        link: {name: view.integer(f"sys/class/net/{link}/statistics/{name}") for name in LINK_ERRORS}
        for link in links(view)
    }


def thermal_throttles(view: HostView, pid: int | None = None) -> dict[str, int]:  # noqa: ARG001
    """Return the thermal throttle counters of each CPU by path."""
    paths = view.matching("sys/devices/system/cpu/cpu[0-9]*/thermal_throttle/*_throttle_count")
    if not paths:
        # The name of the file that is missing is the reason to give.
        view.integer("sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count")
    return {path: view.integer(path) for path in paths}


def thermal_times_ms(view: HostView, pid: int | None = None) -> dict[str, int]:  # noqa: ARG001
    """Return for how long each CPU's thermal control has slowed it down since boot, ms, by path."""
    paths = view.matching("sys/devices/system/cpu/cpu[0-9]*/thermal_throttle/*_throttle_total_time_ms")
    if not paths:
        view.integer("sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_total_time_ms")
    return {path: view.integer(path) for path in paths}


@dataclass(frozen=True, slots=True)
class Pressure:
    """Pressure stall information: the share of the last 10 s some or all tasks stalled, percent."""

    some_avg10: float
    full_avg10: float | None


def pressure(view: HostView, path: str) -> Pressure:
    """Return a PSI file. Source: kernel, Documentation/accounting/psi.rst."""
    averages: dict[str, float] = {}
    for line in view.lines(path):
        kind, *pairs = line.split()
        for pair in pairs:
            name, _, value = pair.partition("=")
            if name == "avg10":
                averages[kind] = _percent(path, value)
    if "some" not in averages:
        raise garbage(path, view.text(path), "a line 'some avg10=...'")
    return Pressure(averages["some"], averages.get("full"))


_STALLING: Final = ("cpu", "memory", "io")


def stall_totals_us(view: HostView, pid: int | None = None) -> dict[str, int]:  # noqa: ARG001
    """Return for how long some task waited for each of cpu, memory and io since boot, us; those that say it."""
    totals: dict[str, int] = {}
    refusal: UnreadableError | None = None
    for resource in _STALLING:
        path = f"proc/pressure/{resource}"
        try:
            words = next((line.split() for line in view.lines(path) if line.startswith("some ")), [])
            if words and words[-1].startswith("total="):
                totals[resource] = integer_in(path, words[-1].removeprefix("total="))
        except UnreadableError as error:
            refusal = error
    if not totals and refusal is not None:
        raise refusal
    return totals


def _percent(path: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise garbage(path, text, "a percentage") from None
    if not 0 <= value <= 100:
        raise garbage(path, text, "a percentage")
    return value


def readable(view: HostView, path: str) -> bool:
    """Return whether a file holds text."""
    try:
        view.text(path)
    except UnreadableError:
        return False
    return True
