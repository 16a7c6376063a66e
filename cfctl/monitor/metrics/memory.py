"""Memory of a process."""

from __future__ import annotations

import os
import re

from cfctl.monitor.metric import Reading, Subject, metric
from cfctl.records import Measurement


@metric("memory_rss", "B")
def memory_rss(subject: Subject) -> Reading:
    """Return the resident memory of a process."""
    import psutil

    pid = os.getpid() if subject.pid is None else subject.pid
    who = f"cfctl itself (pid {pid})" if subject.pid is None else f"process {pid}"
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            if subject.pid is not None:
                who += f" ({process.name()})"
            status = process.status()
            rss_bytes, threads = process.memory_info().rss, process.num_threads()
    except psutil.NoSuchProcess:
        return Reading(Measurement.missing("B", f"There is no process {pid}."), who)
    except psutil.AccessDenied:
        return Reading(Measurement.missing("B", f"/proc/{pid} is closed to this user."), who)
    if status == psutil.STATUS_ZOMBIE:
        return Reading(Measurement.missing("B", f"Process {pid} has ended (zombie)."), who)
    if rss_bytes == 0:
        return Reading(
            Measurement.missing("B", f"Process {pid} has no memory of its own (kernel thread)."), who
        )
    measurement = Measurement(
        float(rss_bytes),
        "B",
        uncertainty=float(
            rss_slack_bytes(threads, os.cpu_count() or 1, os.sysconf("SC_PAGE_SIZE"), os.uname().release)
        ),
        sample_count=1,
        method="RSS of /proc/PID/statm; +- is the bound of the kernel's batched page counters",
    )
    return Reading(measurement, who)


def rss_slack_bytes(threads: int, cpus: int, page_bytes: int, kernel: str) -> int:
    """Return how far /proc/PID/statm can be off: pages counted per CPU or thread, not yet added up.

    Three counters (file, anonymous, shared). Since Linux 6.2 each holds back up to max(32, 2 * CPUs)
    pages per CPU (lib/percpu_counter.c); before that up to 64 pages per thread (mm/memory.c).
    """
    version = re.match(r"(\d+)\.(\d+)", kernel)
    batched_per_cpu = version is not None and (int(version[1]), int(version[2])) >= (6, 2)
    return 3 * page_bytes * (max(32, 2 * cpus) * cpus if batched_per_cpu else 64 * threads)
