"""How a probe's threads run: policy, priority, timer slack, and the PM QoS limit held meanwhile."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cfctl import _native
from cfctl.errors import InputError, UnobservableError, os_error_reason

POLICIES: Final = ("other", "fifo")
DEFAULT_FIFO_PRIORITY: Final = 95
MAX_TIMER_SLACK_NS: Final = 1_000_000_000
_PM_QOS_DEVICE: Final = Path("/dev/cpu_dma_latency")
# PM_QOS_CPU_LATENCY_DEFAULT_VALUE of include/linux/pm_qos.h: 2000 s, no limit.
_NO_LIMIT_US: Final = 2_000_000_000
_RT_RUNTIME: Final = Path("/proc/sys/kernel/sched_rt_runtime_us")


@dataclass(frozen=True, slots=True)
class Scheduling:
    """The policy of the measuring threads; priority 0 for "other", slack None for the default's."""

    policy: str = "other"
    priority: int = 0
    timer_slack_ns: int | None = None

    def __post_init__(self) -> None:
        if self.policy not in POLICIES:
            raise InputError(f"There is no policy '{self.policy}'.", f"Policies: {', '.join(POLICIES)}.")
        if self.policy == "other" and self.priority != 0:
            raise InputError(
                "The policy other has no priority.",
                "Only fifo has one.",
                "Use --policy fifo, or no --priority.",
            )
        if self.policy == "fifo" and not 1 <= self.priority <= 99:
            raise InputError(f"The priority {self.priority} can not be used.", "FIFO priorities are 1 to 99.")
        if self.timer_slack_ns is not None and not 1 <= self.timer_slack_ns <= MAX_TIMER_SLACK_NS:
            raise InputError("The timer slack can not be used.", "It must be 1 ns to 1 s.")

    @classmethod
    def named(cls, policy: str, priority: int | None = None, timer_slack_ns: int | None = None) -> Scheduling:
        """Return the scheduling of a policy, with the priority cyclictest is mostly run with by default."""
        if priority is None:
            priority = DEFAULT_FIFO_PRIORITY if policy == "fifo" else 0
        return cls(policy, priority, timer_slack_ns)

    def apply(self) -> None:
        """Give the calling thread this policy and slack.

        Raises UnobservableError when the policy is refused.
        """
        if self.timer_slack_ns is not None:
            _native.timer_slack(self.timer_slack_ns)
        if self.policy == "other":
            return
        try:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(self.priority))
        except OSError as error:
            raise UnobservableError(
                f"The policy fifo with priority {self.priority} was refused.",
                f"It needs CAP_SYS_NICE, or RLIMIT_RTPRIO of {self.priority}; {os_error_reason(error)}",
                "Run as root, or use --policy other.",
            ) from error


def refuse_starving_all_cpus(scheduling: Scheduling, cpus: tuple[int, ...]) -> None:
    """Raise InputError for busy loops with FIFO on all CPUs where nothing throttles them.

    The machine would answer nobody until they end.
    """
    if scheduling.policy != "fifo" or len(cpus) < (os.cpu_count() or 1):
        return
    try:
        throttled = int(_RT_RUNTIME.read_text()) >= 0
    except (OSError, ValueError):
        throttled = False
    if not throttled:
        raise InputError(
            "Busy loops with the policy fifo on all CPUs would stop the machine.",
            "kernel.sched_rt_runtime_us does not throttle them.",
            "Leave one CPU out of --cpus.",
        )


@dataclass(frozen=True, slots=True)
class PmQos:
    """The PM QoS limit on the CPU's wake-up latency: what was held, and what the system had set.

    `held_us` is None when nothing was held; `system_us` is None when nobody has set a limit or,
    with a reason, when it is not known.
    """

    held_us: int | None
    system_us: int | None
    reason: str | None

    def describe(self) -> str:
        """Return the mode as words."""
        if self.held_us is not None:
            return f"{self.held_us} us, held open by cfctl while probing"
        if self.system_us is not None:
            return f"not held; the system's limit is {self.system_us} us"
        return f"not held; {self.reason or 'the system has no limit'}"


@contextmanager
def pm_qos(limit_us: int | None) -> Iterator[PmQos]:
    """Hold a PM QoS limit while the block runs, or none for None, and give what holds.

    The kernel drops the limit when the file is closed, also when the process is killed. Raises
    UnobservableError when it is refused.
    """
    if limit_us is None:
        yield _system_limit()
        return
    if not 0 <= limit_us < _NO_LIMIT_US:
        raise InputError(
            f"The PM QoS limit {limit_us} can not be used.", "It is in us, 0 or more.", "Use --pm-qos 0."
        )
    try:
        fd = os.open(_PM_QOS_DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        todo = "Run as root, or leave --pm-qos away."
        if error.errno in {errno.ENOENT, errno.ENODEV, errno.ENXIO}:
            todo = "Leave --pm-qos away: this kernel or container has no such device."
        raise UnobservableError("The PM QoS limit can not be held.", os_error_reason(error), todo) from error
    try:
        os.write(fd, struct.pack("=i", limit_us))
        yield PmQos(limit_us, None, None)
    finally:
        os.close(fd)


def _system_limit() -> PmQos:
    try:
        limit_us = struct.unpack("=i", _PM_QOS_DEVICE.read_bytes()[:4])[0]
    except PermissionError:
        return PmQos(None, None, "the system's limit is readable by root only")
    except (OSError, struct.error) as error:
        reason = error.strerror if isinstance(error, OSError) else "unreadable"
        return PmQos(None, None, f"the system's limit is not readable: {reason}")
    return PmQos(None, None if limit_us >= _NO_LIMIT_US else limit_us, None)
