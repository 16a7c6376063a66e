"""Checks of storage: what a write or a page read waits for."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Final

from cfctl.diagnose.advice import Command, Fix, run
from cfctl.diagnose.engine import Issue, NotApplicable, Outcome, Pass, check
from cfctl.diagnose.impact import FSYNC, PER_FSYNC, cost_of, waiting_for
from cfctl.diagnose.record import Area, Scope
from cfctl.errors import UnobservableError
from cfctl.host.counters import pressure
from cfctl.host.view import HostView, Lack, UnreadableError, garbage, shown
from cfctl.records import Severity
from cfctl.units import format_quantity

if TYPE_CHECKING:
    from cfctl.diagnose.subject import Host

_FSYNC_LIMIT_NS: Final = 10_000_000
_VIRTUAL: Final = ("loop", "zram", "ram", "dm-", "md")


@check(
    "IO_SCHEDULER",
    "A fast disk is scheduled like a slow one",
    Severity.LOW,
    Area.STORAGE,
    rule="scheduler bfq or cfq on a device that does not rotate",
    source="kernel, Documentation/block/bfq-iosched.rst",
    solution="Use no scheduler.",
    impact=waiting_for("io"),
)
def io_scheduler(host: Host) -> Outcome:
    """Sorting requests costs microseconds and gains nothing on a disk without a head."""
    disks = [name for name in host.view.names("sys/block") if not name.startswith(_VIRTUAL)]
    if not disks:
        if host.view.names("sys/block"):
            return NotApplicable("no disk")
        raise UnreadableError("/sys/block", Lack.MISSING)
    wrong: dict[str, str] = {}
    for disk in disks:
        path = f"sys/block/{disk}/queue/scheduler"
        scheduler = host.choice(path) if "[" in host.view.text(path) else host.word(path)
        if scheduler in {"bfq", "cfq"} and host.integer(f"sys/block/{disk}/queue/rotational") == 0:
            wrong[disk] = scheduler
    if not wrong:
        return Pass(f"{len(disks)} disks")
    rule = 'ACTION=="add|change", KERNEL=="{}", ATTR{{queue/scheduler}}="none"'
    return Issue(
        f"{', '.join(f'{disk} uses {name}' for disk, name in wrong.items())}.",
        Fix(
            tuple(
                Command(f"echo none > {shlex.quote(shown(path))}", path)
                for path in (f"sys/block/{disk}/queue/scheduler" for disk in wrong)
            ),
            tuple(
                Command(f"echo {shlex.quote(rule.format(disk))} >> /etc/udev/rules.d/90-cfctl.rules")
                for disk in wrong
            ),
        ),
    )


@check(
    "IO_PRESSURE",
    "Programs wait for disks",
    Severity.MEDIUM,
    Area.STORAGE,
    rule="PSI io some avg10 > 5 %; high when full avg10 > 1 % too",
    source="judgement; kernel, Documentation/accounting/psi.rst",
    solution="Find what reads and writes, and log to memory in hot programs.",
    impact=waiting_for("io"),
)
def io_pressure(host: Host) -> Outcome:
    """A thread that touches a file or logs waits with the others."""
    found = pressure(host.view, "proc/pressure/io")
    host.saw("/proc/pressure/io some avg10, %", found.some_avg10)
    if found.some_avg10 <= 5:
        return Pass(f"{found.some_avg10:.2f} % of the last 10 s")
    return Issue(
        f"In {found.some_avg10:.1f} % of the last 10 s a task waited for a disk.",
        run("pidstat -d 1 5", privilege=None),
        severity=Severity.HIGH if (found.full_avg10 or 0) > 1 else None,
    )


@check(
    "DISK_ROTATIONAL",
    "The system's disk rotates",
    Severity.MEDIUM,
    Area.STORAGE,
    rule="the device of the root file system is rotational",
    source="performance guide: SSD",
    solution="Use a solid-state disk.",
    impact=waiting_for("io"),
    scope=Scope.MACHINE,
)
def disk_rotational(host: Host) -> Outcome:
    """A seek takes 5 to 10 ms, and everything that touches a file waits for the same head."""
    number = ""
    for line in host.view.lines("proc/self/mountinfo"):
        fields = line.split()
        if len(fields) > 4 and fields[4] == "/":
            # The last mount on a path hides the earlier ones: proc(5), mountinfo.
            number = fields[2]
    if not number or number.startswith("0:"):
        raise UnobservableError("the root file system lies on no block device")
    path = f"sys/block/{_disk_of(host.view, number)}/queue/rotational"
    rotates = host.integer(path)
    if rotates == 1 and host.environment.is_guest:
        # virtio-blk says so unless the host sets it otherwise.
        raise UnobservableError("a virtual disk says that it rotates, whatever lies below it")
    claim = " (as the host claims)" if host.environment.is_guest else ""
    if rotates not in {0, 1}:
        raise garbage(path, str(rotates), "0 or 1")
    if rotates == 0:
        return Pass(f"it does not rotate{claim}")
    return Issue(f"Device {number} rotates.", Fix(privilege=None))


def _disk_of(view: HostView, number: str) -> str:
    """Return the disk that has a device number or a partition with it; raises when none has."""
    for path in view.matching("sys/block/*/dev") + view.matching("sys/block/*/*/dev"):
        if view.text(path) == number:
            return path.split("/")[2]
    raise UnreadableError(f"/sys/block, device {number}", Lack.MISSING)


@check(
    "FSYNC_COST",
    "Making a write durable is slow",
    Severity.LOW,
    Area.STORAGE,
    rule="99th percentile of write and fsync of 4 KiB below --storage DIR > 10 ms",
    source="judgement; fsync(2)",
    solution="Log to memory (tmpfs) in hot programs, or write and sync in a thread of its own.",
    impact=cost_of("fsync_p99", PER_FSYNC),
    scope=Scope.PROCESS,
    needs=(FSYNC,),
    verify="cfctl diagnose latency --only FSYNC_COST --storage DIR",
)
def fsync_cost(host: Host) -> Outcome:
    """A thread that makes a log line or a record durable stands still until the disk has it."""
    cost = host.cost_ns("fsync_p99")
    shown_cost = format_quantity(cost, "ns")
    if cost <= _FSYNC_LIMIT_NS:
        return Pass(f"99 of 100 take at most {shown_cost}")
    return Issue(
        f"One fsync of 100 takes {shown_cost} or more.",
        Fix(privilege=None),
    )
