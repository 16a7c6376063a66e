"""CPU time of the machine."""

from __future__ import annotations

import math
import os
from typing import Final

from cfctl.monitor.metric import Reading, Subject, metric
from cfctl.records import Measurement


@metric("cpu_utilization", "ratio")
def cpu_utilization(subject: Subject) -> Reading:
    """Return the share of CPU time of the whole machine that was not idle over the window."""
    import psutil

    before = psutil.cpu_times()
    subject.sleep(subject.window_ns / 1e9)
    after = psutil.cpu_times()
    measurement = busy_share(before._asdict(), after._asdict(), 1 / os.sysconf("SC_CLK_TCK"))
    return Reading(measurement, f"this machine over {subject.window_ns / 1e9:g} s")


# guest and guest_nice are already contained in user and nice: proc_stat(5).
_CPU_FIELDS: Final = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")


def busy_share(before: dict[str, float], after: dict[str, float], tick_s: float) -> Measurement:
    """Return the share of CPU time between two readings of /proc/stat that was neither idle nor iowait.

    Uncertainty: each counter is floored to a tick, so a difference errs by a triangular +-1 tick of
    variance 1/6 (GUM 4.3.9); two counters are in the idle time and all of them in the total; k = 2.
    """
    spent = {name: after.get(name, 0.0) - before.get(name, 0.0) for name in _CPU_FIELDS}
    total = sum(spent.values())
    if total <= 0:
        return Measurement.missing("ratio", "The CPU counters of /proc/stat did not advance.")
    # iowait and idle can run backwards by a tick: proc_stat(5).
    idle = min(max((spent["idle"] + spent["iowait"]) / total, 0.0), 1.0)
    variance_ticks = 2 / 6 + idle * idle * len(_CPU_FIELDS) / 6
    return Measurement(
        1.0 - idle,
        "ratio",
        uncertainty=2 * math.sqrt(variance_ticks) * tick_s / total,
        sample_count=2,
        method="1 - (idle + iowait) / total of /proc/stat; +- is 2 sigma of the counters' tick",
    )
