"""Wake-up: how late a cyclic timer wakes its thread, counted from the intended time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

from cfctl import _native
from cfctl.errors import InputError
from cfctl.probe.distribution import Distribution, from_native
from cfctl.probe.load import ThreadLoad, thread_load
from cfctl.probe.scheduling import PmQos, Scheduling, pm_qos
from cfctl.probe.threads import Lane, Progress, run_pinned, usable_cpus
from cfctl.records import Document, Measurement

if TYPE_CHECKING:
    from cfctl.host.fingerprint import Fingerprint

DEFAULT_DURATION_NS: Final = 5_000_000_000
DEFAULT_INTERVAL_NS: Final = 200_000
MIN_INTERVAL_NS: Final = 10_000
# A stop is seen at the next wake-up, so that this bounds how long Ctrl-C takes.
MAX_INTERVAL_NS: Final = 1_000_000_000
MAX_DURATION_NS: Final = 3_600_000_000_000


@dataclass(frozen=True, slots=True)
class CpuWakeup:
    """How late the timer of one CPU was.

    `overruns`: wake-ups later than a whole interval. `slack_ns` is what the thread ran with; the
    kernel takes none for FIFO.
    """

    cpu: int
    duration_ns: int
    latency: Measurement
    distribution: Distribution
    overruns: int
    slack_ns: int
    load: ThreadLoad


@dataclass(frozen=True, slots=True)
class Wakeup(Document):
    """The wake-up latency of the measured CPUs and the modes that decide over it."""

    SCHEMA: ClassVar[str] = "cfctl.probe.wakeup"
    VERSION: ClassVar[int] = 1

    cpus: tuple[CpuWakeup, ...]
    interval_ns: int
    requested_duration_ns: int
    method: str
    scheduling: Scheduling
    pm_qos: PmQos
    contaminated: bool
    interrupted: bool
    host: Fingerprint | None = None


def measure_wakeup(
    cpus: Sequence[int] | None = None,
    duration_ns: int = DEFAULT_DURATION_NS,
    interval_ns: int = DEFAULT_INTERVAL_NS,
    *,
    scheduling: Scheduling | None = None,
    pm_qos_us: int | None = None,
    on_progress: Progress | None = None,
) -> Wakeup:
    """Return how late clock_nanosleep wakes a thread on each CPU (None: all usable ones).

    A wake-up's latency counts from its intended time, which never moves: a late one also counts
    against the periods it delayed. Ctrl-C ends the run early; what was measured is returned.
    Raises InputError for values that can not be used, UnobservableError when a policy, a PM QoS
    limit or a CPU is refused.
    """
    chosen = usable_cpus(cpus)
    scheduling = scheduling or Scheduling()
    if not MIN_INTERVAL_NS <= interval_ns <= MAX_INTERVAL_NS:
        raise InputError(
            "The interval can not be used.", "It must be 10 us to 1 s.", "200 us is the default."
        )
    if not interval_ns <= duration_ns <= MAX_DURATION_NS:
        raise InputError(
            "The duration can not be used.", "It must be one interval to 1 h.", "5 s is the default."
        )
    with pm_qos(pm_qos_us) as held:
        outcome = run_pinned(
            chosen,
            lambda lane: _run(lane, interval_ns, duration_ns),
            scheduling=scheduling,
            expected_ns=duration_ns,
            on_progress=on_progress,
        )
    measured = tuple(_cpu_wakeup(*run) for run in outcome.results)
    return Wakeup(
        measured, interval_ns, duration_ns, "clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME) on a pinned thread",
        scheduling, held, any(cpu.load.contaminated for cpu in measured), outcome.interrupted,
    )  # fmt: skip


def _run(lane: Lane, interval_ns: int, duration_ns: int) -> tuple[int, Mapping[str, Any], int]:
    assert lane.cpu is not None
    slack_ns = _native.timer_slack()
    lane.ready()
    return lane.cpu, _native.probe_wakeup(interval_ns, duration_ns, lane.stop), slack_ns


def _cpu_wakeup(cpu: int, raw: Mapping[str, Any], slack_ns: int) -> CpuWakeup:
    wall_ns = max(0, raw["end_ns"] - raw["start_ns"])
    distribution = from_native(raw["latency"], "ns", 1.0, 1.0)
    return CpuWakeup(
        cpu, wall_ns, distribution.median(), distribution, raw["overruns"], slack_ns, thread_load(raw["load"], wall_ns)
    )  # fmt: skip
