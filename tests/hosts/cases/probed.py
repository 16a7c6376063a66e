"""Checks that consume probes."""

from __future__ import annotations

from typing import Final

from tests.hosts.cases import GUEST, HIGH, LOW, MEDIUM, Case, Host, costs, lost

_STAT: Final = "4242 (engine) S 1 4242 4242 0 -1 4194304 {} 0 3 0 100 50 0 0 20 0 2 0 12345 1000000 2000\n"
_PYTHON: Final = {"proc/4242/cmdline": "/usr/bin/python3\0app.py\0"}

CASES: Final = {
    "HYPERVISOR_NOISE": Case(
        "measured lost",
        (
            (MEDIUM, Host(GUEST, measured=lost("hypervisor or firmware", 5e6))),
            (MEDIUM, Host(measured=lost("hypervisor or firmware", 5e6))),
            (HIGH, Host(GUEST, measured=lost("hypervisor or firmware", 11e6))),
        ),
        Host(measured=lost("timer tick", 5e6)),
    ),
    "GUEST_KICK_COST": Case("measured costs", ((MEDIUM, Host(measured=costs(futex_cross_cpu=37e3))),)),
    "MINOR_FAULTS": Case(
        "proc/4242/stat",
        # 1000 faults a second of 1.5 us each take 0.15 %.
        ((MEDIUM, Host(later={"proc/4242/stat": _STAT.format(3500)})),),
        Host(later={"proc/4242/stat": _STAT.format(2500)}),
    ),
    "FSYNC_COST": Case("measured costs", ((LOW, Host(measured=costs(fsync_p99=10.1e6))),)),
    "PY_GIL_SWITCH": Case(
        "proc/4242/(cmdline|task/4242/schedstat)",
        # Of 2 s one thread runs 0.5 and the other 1.9.
        ((LOW, Host(_PYTHON)), (LOW, Host({"proc/4242/cmdline": "python3.12\0-c\0"}))),
        Host(_PYTHON, later={"proc/4242/task/4242/schedstat": "1100000000 500100 110\n"}),
        # Any name is that of some program, and not of an interpreter.
        lenient=True,
    ),
    "PY_GC_ENABLED": Case(
        "syscalls collector",
        ((LOW, Host(syscalls={"collector": {"enabled": 1, "threshold": 700}}, pid=None)),),
        Host(syscalls={"collector": {"enabled": 0, "threshold": 700}}, pid=None),
    ),
}
