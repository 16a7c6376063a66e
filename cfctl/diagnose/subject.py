"""What a check sees: the host now and an interval ago, its facts, and a record of what was read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from cfctl.diagnose.record import Evidence
from cfctl.errors import UnobservableError
from cfctl.host.cpus import format_cpu_list
from cfctl.host.environment import Environment, environment
from cfctl.host.kernel import command_line, cpu_vendor
from cfctl.host.processes import effective_capabilities, soft_limit
from cfctl.host.syscalls import SyscallError
from cfctl.host.topology import Topology, topology
from cfctl.host.view import HostView, Lack, UnreadableError, shown
from cfctl.text import safe_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cfctl.bus.statistics import BusReport
    from cfctl.diagnose.live import Live, SeenEntry
    from cfctl.diagnose.measurements import Measurements

T = TypeVar("T")
# A function that reads counters of a host at one moment; pid None is the program that asks.
Sample = Callable[[HostView, int | None], Any]

RT_POLICIES: Final = frozenset({"FIFO", "RR", "DEADLINE"})
_MAX_RAW: Final = 160
NEEDS_TWO: Final = "needs two samples: run with an interval"
NEEDS_PID: Final = "needs a target: name one with --pid"
NOT_MEASURED: Final = "not measured"


@dataclass(frozen=True, slots=True)
class Change(Generic[T]):
    """Two samples and the seconds between them."""

    before: T
    after: T
    seconds: float


@dataclass(frozen=True)
class Facts:
    """What many checks ask of one host, found once."""

    view: HostView
    pid: int | None
    profile: str
    measurements: Measurements | None
    before: HostView | None = None
    samples_before: dict[Sample, Any] = field(default_factory=dict)
    live: Live | None = None
    samples_now: dict[Sample, Any] = field(default_factory=dict)

    @cached_property
    def environment(self) -> Environment:
        """Return the layers below and around the system."""
        return environment(self.view)

    @cached_property
    def topology(self) -> Topology:
        """Return the topology of the CPUs."""
        return topology(self.view)

    @cached_property
    def vendor(self) -> str | None:
        """Return the CPU's vendor as /proc/cpuinfo names it; None when it does not."""
        return cpu_vendor(self.view)

    @cached_property
    def command_line(self) -> dict[str, str]:
        """Return the kernel's parameters; raises UnreadableError."""
        return command_line(self.view)


class Host:
    """One check's access to a host; every read it makes is kept as evidence."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.view = facts.view
        self.pid = facts.pid
        self.profile = facts.profile
        self.evidence: list[Evidence] = []

    @property
    def environment(self) -> Environment:
        """Return the layers below and around the system."""
        return self.facts.environment

    @property
    def topology(self) -> Topology:
        """Return the topology of the CPUs."""
        return self.facts.topology

    def saw(self, source: str, parsed: T, raw: str | None = None) -> T:
        """Keep a read as evidence and return what it means."""
        text = safe_text(parsed if raw is None else raw, _MAX_RAW)
        self.evidence.append(Evidence(source, text, _cleaned(parsed)))
        return parsed

    def integer(self, path: str) -> int:
        """Return the integer in a file."""
        return self.saw(shown(path), self.view.integer(path))

    def word(self, path: str) -> str:
        """Return the word in a file."""
        return self.saw(shown(path), self.view.word(path))

    def text(self, path: str) -> str:
        """Return the text in a file."""
        return self.saw(shown(path), safe_text(self.view.text(path)))

    def choice(self, path: str) -> str:
        """Return the word in brackets in a file."""
        return self.saw(shown(path), self.view.choice(path), self.view.text(path))

    def cpu_list(self, path: str) -> tuple[int, ...]:
        """Return the CPUs in a list file."""
        cpus = self.view.cpu_list(path)
        return self.saw(shown(path), cpus, format_cpu_list(cpus) or "none")

    def cpu_mask(self, path: str) -> tuple[int, ...]:
        """Return the CPUs in a mask file."""
        cpus = self.view.cpu_mask(path)
        return self.saw(shown(path), cpus, self.view.text(path))

    def sysctl(self, name: str) -> int:
        """Return an integer sysctl."""
        return self.integer(f"proc/sys/{name.replace('.', '/')}")

    def asked(self, source: str, ask: Callable[[], T]) -> T:
        """Return a syscall's answer; raises SyscallError."""
        return self.saw(source, ask())

    def of_each_cpu(self, file: str, read: Callable[[str], T]) -> dict[int, T]:
        """Return what `read` finds in a file of each online CPU; raises for the first that lacks it."""
        found = {cpu: read(f"sys/devices/system/cpu/cpu{cpu}/{file}") for cpu in self.online()}
        groups: dict[str, list[int]] = {}
        for cpu, value in found.items():
            groups.setdefault(str(value), []).append(cpu)
        parsed = {value: format_cpu_list(cpus) for value, cpus in groups.items()}
        raw = ", ".join(f"{value} on {cpus}" for value, cpus in parsed.items())
        self.saw(f"/sys/devices/system/cpu/cpu*/{file}", parsed, raw)
        return found

    def online(self) -> tuple[int, ...]:
        """Return the online CPUs, at least one; raises when they are not known."""
        if not self.topology.online:
            raise UnreadableError("/sys/devices/system/cpu/online", Lack.MISSING)
        return self.topology.online

    def cpu_count(self) -> int:
        """Return how many CPUs are online; raises when it is not known."""
        return len(self.online())

    def target_cpus(self) -> tuple[int, ...]:
        """Return the CPUs the target may run on, all online ones without a target."""
        if self.pid is None:
            return self.online()
        try:
            allowed = self.view.syscalls.affinity(self.pid)
        except SyscallError:
            return self.online()
        return tuple(cpu for cpu in self.online() if cpu in allowed)

    def hot_cpus(self) -> frozenset[int]:
        """Return the CPUs that are kept for somebody: isolated ones, and those a target is pinned to."""
        hot = frozenset(self.isolated())
        if self.pid is not None and len(self.target_cpus()) < self.cpu_count():
            hot |= set(self.target_cpus())
        return hot

    def isolated(self) -> tuple[int, ...]:
        """Return the CPUs kept from the scheduler, () for none; raises when it is not known."""
        return self.cpu_list("sys/devices/system/cpu/isolated")

    def parameters(self) -> dict[str, str]:
        """Return the kernel's parameters by name; the value of a bare one is ""."""
        return self.facts.command_line

    def target(self) -> int:
        """Return the target's pid; raises when no target was named."""
        if self.pid is None:
            raise UnobservableError(NEEDS_PID)
        return self.pid

    def policy(self) -> str:
        """Return the scheduling policy of the target, of this program without one."""
        pid = self.pid or 0
        return self.asked(f"sched_getscheduler({pid or 'self'})", lambda: self.view.syscalls.policy(pid))

    def limit(self, name: str) -> int:
        """Return the soft RLIMIT_`name` of the target, of this program without one."""
        if self.pid is not None:
            return self.saw(f"/proc/{self.pid}/limits {name}", soft_limit(self.view, self.pid, name))
        return self.asked(f"getrlimit(RLIMIT_{name})", lambda: self.view.syscalls.limit(name))

    def may(self, capability: int, name: str) -> bool:
        """Return whether the target, or this program without one, has an effective capability."""
        if self.pid is not None:
            source, held = f"/proc/{self.pid}/status CapEff", effective_capabilities(self.view, self.pid)
        else:
            source, held = "capget", self.view.syscalls.capabilities()
        return self.saw(f"{source} {name}", bool(held >> capability & 1))

    @property
    def has_interval(self) -> bool:
        """Return whether there are two views to compare."""
        return self.facts.before is not None

    def now(self, sample: Callable[[HostView, int | None], T]) -> T:
        """Return a sample of this moment, taken once for all checks; raises UnreadableError."""
        taken = self.facts.samples_now
        if sample not in taken:
            taken[sample] = sampled(sample, self.view, self.pid)
        found: T = _given(taken[sample])
        return found

    def change(self, sample: Callable[[HostView, int | None], T]) -> Change[T]:
        """Return a sample of the start of the interval and one of its end.

        Raises UnobservableError with a single view, UnreadableError when either can not be read.
        """
        before = self.facts.before
        if before is None:
            # What can not be read at all is the better reason.
            self.now(sample)
            raise UnobservableError(NEEDS_TWO)
        earlier = _given(self.facts.samples_before[sample])
        seconds = (self.view.monotonic_ns - before.monotonic_ns) / 1e9
        if seconds <= 0:
            raise UnobservableError("the two samples do not say how far apart they are")
        return Change(earlier, self.now(sample), seconds)

    def live(self) -> Live:
        """Return what was seen of running programs; raises when nothing was looked at."""
        if self.facts.live is None:
            raise UnobservableError("no program was looked at")
        return self.facts.live

    def entries(self, kind: str) -> Sequence[SeenEntry]:
        """Return the instruments of a kind in the segments of the programs that are diagnosed.

        Raises UnobservableError when there is no segment.
        """
        return self.live().entries(kind)

    def bus(self) -> BusReport:
        """Return what was seen of the message bus; raises UnobservableError when nothing was."""
        live = self.live()
        if live.bus is None:
            raise UnobservableError(live.reason)
        return live.bus

    def rate(self, sample: Callable[[HostView, int | None], T], count: Callable[[T], int]) -> float | None:
        """Return how much a counter rose in a second of the interval; None when that can not be told."""
        try:
            change = self.change(sample)
        except UnobservableError:
            return None
        return max(0, count(change.after) - count(change.before)) / change.seconds

    def measured(self) -> Measurements:
        """Return what was measured; raises when nothing was."""
        if self.facts.measurements is None:
            raise UnobservableError(NOT_MEASURED)
        return self.facts.measurements

    def cost_ns(self, operation: str) -> float:
        """Return the measured median cost of an operation, ns."""
        return self.saw(f"measured cost of {operation}, ns", round(self.measured().cost_ns(operation), 1))


def _cleaned(value: Any) -> Any:
    """Return a value whose text holds nothing a terminal or page interprets."""
    if isinstance(value, str):
        return safe_text(value)
    if isinstance(value, (list, tuple)):
        return [_cleaned(item) for item in value]
    if isinstance(value, dict):
        return {safe_text(key): _cleaned(item) for key, item in value.items()}
    return value


def _given(sample: Any) -> Any:
    """Return a sample that was taken; raises the reason for which there is none."""
    if isinstance(sample, Exception):
        raise sample
    return sample


def sampled(sample: Sample, view: HostView, pid: int | None) -> Any:
    """Return a sample, or the exception for which there is none: it belongs to the checks that compare it."""
    try:
        return sample(view, pid)
    except Exception as error:  # noqa: BLE001 - raised again in the check that asks for the change
        return error
