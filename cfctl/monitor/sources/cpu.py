"""CPU time of the machine: busy, stolen, by CPU; context switches."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from typing import ClassVar, Final

from cfctl.monitor.metric import Metric, Subject
from cfctl.monitor.rates import Rates
from cfctl.monitor.snapshot import FIRST_READING, Found, Moment, Series
from cfctl.records import Measurement

Times = dict[str, float]

# guest and guest_nice are already contained in user and nice: proc_stat(5).
FIELDS: Final = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
_IDLE: Final = ("idle", "iowait")


class Cpu:
    """Reads /proc/stat."""

    METRICS: ClassVar[tuple[Metric, ...]] = (
        Metric(
            "cpu_utilization", "ratio", "Share of all CPU time that was neither idle nor waiting for I/O."
        ),
        Metric("cpu_core_utilization", "ratio", "The same for one CPU.", ("cpu",)),
        Metric("cpu_steal", "ratio", "Share of all CPU time that the hypervisor gave to others."),
        Metric("context_switches", "1/s", "Context switches of the machine per second."),
    )

    def __init__(self, subject: Subject) -> None:  # noqa: ARG002 - a machine's CPUs are everybody's
        self._before: list[Times] = []
        self._rates = Rates()

    def collect(self, moment: Moment) -> Iterable[Found]:
        """Return the shares of the time since the last call."""
        import psutil

        cpus: list[Times] = [dict(times._asdict()) for times in psutil.cpu_times(percpu=True)]
        before, self._before = self._before, cpus
        tick_s = 1 / os.sysconf("SC_CLK_TCK")
        known = len(before) == len(cpus)
        spent = [_spent(b, a) for b, a in zip(before, cpus, strict=True)] if known else []
        whole = {name: sum(each[name] for each in spent) for name in FIELDS} if spent else {}
        yield Series("cpu_utilization", busy_share(whole, tick_s, len(cpus)))
        yield Series("cpu_steal", share_of(whole, "steal", tick_s, len(cpus)))
        for number, each in enumerate(spent):
            yield Series("cpu_core_utilization", busy_share(each, tick_s), (("cpu", str(number)),))
        switches = self._rates.per_second("ctxt", moment.monotonic_ns, psutil.cpu_stats().ctx_switches, "1/s")
        yield Series("context_switches", switches)


SOURCE = Cpu


def _spent(before: Times, after: Times) -> Times:
    return {name: after.get(name, 0.0) - before.get(name, 0.0) for name in FIELDS}


def busy_share(spent: Times, tick_s: float, cpus: int = 1) -> Measurement:
    """Return the share of CPU seconds that was neither idle nor iowait; missing when none were spent.

    Uncertainty: each counter is floored to a tick, so a difference errs by a triangular +-1 tick of
    variance 1/6 (GUM 4.3.9); two counters are in the idle time and all of them in the total; k = 2.
    """
    if not spent:
        return Measurement.missing("ratio", FIRST_READING)
    total = sum(spent.values())
    if total <= 0:
        return Measurement.missing("ratio", "The CPU counters of /proc/stat did not advance.")
    # iowait and idle can run backwards by a tick: proc_stat(5).
    idle = min(max(sum(spent[name] for name in _IDLE) / total, 0.0), 1.0)
    variance_ticks = cpus * (len(_IDLE) / 6 + idle * idle * len(FIELDS) / 6)
    return Measurement(
        1.0 - idle,
        "ratio",
        uncertainty=2 * math.sqrt(variance_ticks) * tick_s / total,
        sample_count=2,
        method="1 - (idle + iowait) / total of /proc/stat; +- is 2 sigma of the counters' tick",
    )


def share_of(spent: Times, field: str, tick_s: float, cpus: int = 1) -> Measurement:
    """Return one field's share of CPU seconds; its uncertainty is a tick of every CPU."""
    if not spent:
        return Measurement.missing("ratio", FIRST_READING)
    total = sum(spent.values())
    if total <= 0:
        return Measurement.missing("ratio", "The CPU counters of /proc/stat did not advance.")
    share = min(max(spent[field] / total, 0.0), 1.0)
    error = 2 * math.sqrt(cpus * (1 / 6 + share * share * len(FIELDS) / 6)) * tick_s / total
    return Measurement(share, "ratio", error, 2, f"{field} / total of /proc/stat; +- is 2 sigma of its tick")
