"""Checks that consume probes."""

from __future__ import annotations

from typing import Final

from tests.hosts.cases import GUEST, HIGH, MEDIUM, Case, Host, costs, lost

_STAT: Final = "4242 (engine) S 1 4242 4242 0 -1 4194304 {} 0 3 0 100 50 0 0 20 0 2 0 12345 1000000 2000\n"

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
}
