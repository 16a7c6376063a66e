"""Memory and CPU time of processes."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import ClassVar

from cfctl.monitor.metric import Metric, Subject
from cfctl.monitor.rates import Rates
from cfctl.monitor.snapshot import Found, Moment, Series
from cfctl.records import Measurement

_TICK_NS = 1e9 / os.sysconf("SC_CLK_TCK")


class Processes:
    """Reads /proc/PID of the subject's processes, else of all with a segment and of itself."""

    METRICS: ClassVar[tuple[Metric, ...]] = (
        Metric("memory_rss", "B", "Resident memory of a process.", ("pid",)),
        Metric("process_cpu", "ratio", "CPU time of a process per time: 100 % is one CPU.", ("pid",)),
    )

    def __init__(self, subject: Subject) -> None:
        self._pids = subject.pids
        self._rates = Rates()

    def collect(self, moment: Moment) -> Iterable[Found]:
        """Return the memory now and the CPU time since the last call."""
        recording = (os.getpid(), *(segment.pid for segment in moment.segments))
        seen = dict.fromkeys(recording if self._pids is None else self._pids)
        for pid in seen:
            yield from self._of(pid, moment)
        self._rates.forget_all_but(set(seen))

    def _of(self, pid: int, moment: Moment) -> Iterable[Found]:
        import psutil

        own = pid == os.getpid()
        who = f"cfctl itself (pid {pid})" if own else f"process {pid}"
        labels = (("pid", str(pid)),)
        try:
            process = psutil.Process(pid)
            with process.oneshot():
                who += "" if own else f" ({process.name()})"
                state, times = process.status(), process.cpu_times()
                rss_bytes, threads = process.memory_info().rss, process.num_threads()
        except psutil.NoSuchProcess:
            reason = f"There is no process {pid}."
        except psutil.AccessDenied:
            reason = f"/proc/{pid} is closed to this user."
        else:
            reason = f"Process {pid} has ended (zombie)." if state == psutil.STATUS_ZOMBIE else ""
        if reason:
            yield Series("memory_rss", Measurement.missing("B", reason), labels, who)
            yield Series("process_cpu", Measurement.missing("ratio", reason), labels, who)
            return
        yield Series("memory_rss", resident(pid, rss_bytes, threads), labels, who)
        spent_ns = (times.user + times.system) * 1e9
        share = self._rates.share(pid, moment.monotonic_ns, spent_ns, 2 * _TICK_NS)
        yield Series("process_cpu", share, labels, who)


SOURCE = Processes


def resident(pid: int, rss_bytes: int, threads: int) -> Measurement:
    """Return a process's resident memory with the bound of what the kernel has not yet added up."""
    if rss_bytes == 0:
        return Measurement.missing("B", f"Process {pid} has no memory of its own (kernel thread).")
    slack = rss_slack_bytes(threads, os.cpu_count() or 1, os.sysconf("SC_PAGE_SIZE"), os.uname().release)
    return Measurement(
        float(rss_bytes),
        "B",
        uncertainty=float(slack),
        sample_count=1,
        method="RSS of /proc/PID/statm; +- is the bound of the kernel's batched page counters",
    )


def rss_slack_bytes(threads: int, cpus: int, page_bytes: int, kernel: str) -> int:
    """Return how far /proc/PID/statm can be off: pages counted per CPU or thread, not yet added up.

    Three counters (file, anonymous, shared). Since Linux 6.2 each holds back up to max(32, 2 * CPUs)
    pages per CPU (lib/percpu_counter.c); before that up to 64 pages per thread (mm/memory.c).
    """
    version = re.match(r"(\d+)\.(\d+)", kernel)
    batched_per_cpu = version is not None and (int(version[1]), int(version[2])) >= (6, 2)
    return 3 * page_bytes * (max(32, 2 * cpus) * cpus if batched_per_cpu else 64 * threads)
