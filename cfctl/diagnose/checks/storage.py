"""Checks of storage: what a write or a page read waits for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cfctl.diagnose.advice import Command, Fix, run
from cfctl.diagnose.engine import Issue, NotApplicable, Outcome, Pass, check
from cfctl.diagnose.record import Area
from cfctl.host.counters import pressure
from cfctl.host.view import Lack, UnreadableError, shown
from cfctl.records import Severity

if TYPE_CHECKING:
    from cfctl.diagnose.subject import Host

_VIRTUAL: Final = ("loop", "zram", "ram", "dm-", "md")


@check(
    "IO_SCHEDULER",
    "A fast disk is scheduled like a slow one",
    Severity.LOW,
    Area.STORAGE,
    rule="scheduler bfq or cfq on a device that does not rotate",
    source="kernel, Documentation/block/bfq-iosched.rst",
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
            "Use no scheduler.",
            tuple(
                Command(
                    f"echo none > {shown(f'sys/block/{d}/queue/scheduler')}", f"sys/block/{d}/queue/scheduler"
                )
                for d in wrong
            ),
            tuple(Command(f"echo '{rule.format(d)}' >> /etc/udev/rules.d/90-cfctl.rules") for d in wrong),
        ),
    )


@check(
    "IO_PRESSURE",
    "Programs wait for disks",
    Severity.MEDIUM,
    Area.STORAGE,
    rule="PSI io some avg10 > 5 %; high when full avg10 > 1 % too",
    source="judgement; kernel, Documentation/accounting/psi.rst",
)
def io_pressure(host: Host) -> Outcome:
    """A thread that touches a file or logs waits with the others."""
    found = pressure(host.view, "proc/pressure/io")
    host.saw("/proc/pressure/io some avg10, %", found.some_avg10)
    if found.some_avg10 <= 5:
        return Pass(f"{found.some_avg10:.2f} % of the last 10 s")
    return Issue(
        f"In {found.some_avg10:.1f} % of the last 10 s a task waited for a disk.",
        run(
            "Find what reads and writes, and log to memory in hot programs.", "pidstat -d 1 5", privilege=None
        ),
        severity=Severity.HIGH if (found.full_avg10 or 0) > 1 else None,
        impact_ns_per_s=found.some_avg10 * 1e7,
    )
