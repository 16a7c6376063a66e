"""Kinds of workload, and what each makes of a check's severity."""

from __future__ import annotations

from typing import Final

from cfctl.records import Severity

# What is probed for a profile that is a use. The others say where a program runs, not what it waits
# for: they are probed as a timer.
USES: Final = ("timer", "busy-poll", "ipc", "network")
_OFF: Final = None
_LOW, _MEDIUM, _HIGH = Severity.LOW, Severity.MEDIUM, Severity.HIGH

# Source: judgement; host-measured costs behind it are those of the checks themselves. None leaves
# a check out.
PROFILES: Final[dict[str, dict[str, Severity | None]]] = {
    # Waits for a timer or an event: wake-up cost rules.
    "timer": {"TIMER_SLACK": _HIGH},
    # Never sleeps: what interrupts a running loop rules, wake-up costs do not matter.
    "busy-poll": {
        "NOHZ_FULL_OFF": _HIGH, "CPU_NOT_ISOLATED": _HIGH, "TIMER_SLACK": _LOW, "PREEMPT_MODEL": _LOW,
        "CPU_HALTPOLL_OFF": _LOW, "CPU_CSTATE_DEEP": _LOW,
    },
    # Hands work between threads or processes: the wake-up of the other side rules.
    "ipc": {"GUEST_KICK_COST": _HIGH, "CPU_HALTPOLL_OFF": _HIGH, "TIMER_SLACK": _LOW},
    # Lives from packets: the receive path rules.
    "network": {"NET_BUSY_POLL": _MEDIUM, "NET_TCP_IDLE_RESTART": _MEDIUM, "NET_TIME_SQUEEZE": _HIGH},
    # Sees its limits, hardly its host.
    "container": {"CGROUP_CPU_QUOTA": _HIGH, "CPU_NOT_ISOLATED": _LOW, "NOHZ_FULL_OFF": _LOW},
    # Runs tests: repeatable enough, on a machine nobody will tune.
    "ci": {
        "CPU_GOVERNOR": _OFF, "CPU_EPP": _OFF, "CPU_FREQ_FLOOR": _OFF, "CPU_NOT_ISOLATED": _OFF,
        "NOHZ_FULL_OFF": _OFF, "TIMER_SLACK": _LOW, "PREEMPT_MODEL": _LOW, "CPU_TOO_FEW": _LOW,
        "CLOCK_UNSYNCED": _LOW,
    },
}  # fmt: skip


def severity_in(profile: str, check_id: str, severity: Severity) -> Severity | None:
    """Return a check's severity in a profile; None when the profile leaves the check out."""
    return PROFILES[profile].get(check_id, severity)


def use_of(profile: str) -> str:
    """Return the use whose latency stands for a profile."""
    return profile if profile in USES else "timer"
