"""Costs of single events that Python's own clock can tell: from a microsecond up, medians of few samples."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import itertools
import math
import mmap
import os
import resource
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Final

from cfctl.diagnose.impact import CACHE_LINE, COLLECTION, FSYNC, GIL, HUGE_FAULT, MIGRATION, PAUSE, SIBLING
from cfctl.diagnose.order_statistics import quantile_ranks
from cfctl.diagnose.storage_probe import refuse_memory
from cfctl.errors import UnobservableError, os_error_reason
from cfctl.records import Measurement

_HUGE: Final = 2 << 20
_PAGE: Final = 4096
_FAULTS: Final = 40
_PAUSES: Final = 60
_PAUSE_S: Final = 0.005
# About 50 us on a CPU of these years.
_WORK: Final = 1000
_TURNS: Final = 7
_MOVES: Final = 60
# More than a first-level cache, less than a second-level one.
_WORKING_SET: Final = 256 << 10
_HAND_OVERS: Final = 30
_COLLECTIONS: Final = 7
_LINE_SAMPLES: Final = 200
_SYNCS: Final = 1000
_SYNC_S: Final = 2.0
# Below it a 99th percentile would be the slowest of too few.
_MIN_SYNCS: Final = 100

Costs = dict[str, Measurement]


def median_of(samples: Sequence[float], method: str) -> Measurement:
    """Return the median in ns; its error is half of its 95 % interval (order statistics)."""
    ordered = sorted(samples)
    low, high = quantile_ranks(len(ordered), 0.5)
    error = (ordered[min(high, len(ordered)) - 1] - ordered[max(low, 1) - 1]) / 2
    middle = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
    return Measurement(middle, "ns", error, len(ordered), f"median; {method}")


def huge_fault(cpus: Sequence[int], storage: str | None) -> Costs:  # noqa: ARG001
    """Return the cost of the first write to a huge page, which the kernel has to find and clear: 10 ms."""
    samples = [found for found in (_touch_huge() for _ in range(_FAULTS)) if found is not None]
    if len(samples) < _FAULTS // 2:
        raise UnobservableError("the kernel gave no huge pages")
    return {HUGE_FAULT: median_of(samples, "first write to a huge page of fresh memory")}


def _touch_huge() -> int | None:
    """Return how long a first write took, ns; None when no huge page came of it."""
    with mmap.mmap(-1, 2 * _HUGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.madvise(mmap.MADV_HUGEPAGE)
        place = ctypes.c_char.from_buffer(memory)
        aligned = -ctypes.addressof(place) % _HUGE
        # The mapping can not be closed while something points into it.
        del place
        start_ns = time.perf_counter_ns()
        memory[aligned] = 1
        took_ns = time.perf_counter_ns() - start_ns
        faults = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
        memory[aligned + _HUGE // 2] = 1
        return took_ns if resource.getrusage(resource.RUSAGE_THREAD).ru_minflt == faults else None


def _work_ns() -> int:
    start_ns = time.perf_counter_ns()
    for _ in range(_WORK):
        pass
    return time.perf_counter_ns() - start_ns


def pause(cpus: Sequence[int], storage: str | None) -> Costs:  # noqa: ARG001
    """Return what the first work after a pause costs beyond the same work at once after it: 0.3 s.

    A clock that fell while the CPU was idle, its sleep state and cold caches are all in it.
    """
    samples = []
    for _ in range(_PAUSES):
        time.sleep(_PAUSE_S)
        first_ns = _work_ns()
        samples.append(first_ns - _work_ns())
    return {PAUSE: median_of(samples, "first work after 5 ms asleep less the same work again")}


def migration(cpus: Sequence[int], storage: str | None) -> Costs:  # noqa: ARG001
    """Return what caches that are cold cost after a move to another CPU: 20 ms."""
    if len(cpus) < 2:
        raise UnobservableError("it needs a second CPU; only one was named or is usable")
    data = bytes(os.urandom(_WORKING_SET))
    samples = []
    with _on_own_cpus():
        for cpu, _ in zip(itertools.cycle(cpus[:2]), range(_MOVES), strict=False):
            os.sched_setaffinity(0, {cpu})
            first_ns = _read_ns(data)
            samples.append(first_ns - _read_ns(data))
    return {MIGRATION: median_of(samples, "first pass over 256 KiB on another CPU less the next one")}


def _read_ns(data: bytes) -> int:
    start_ns = time.perf_counter_ns()
    zlib.crc32(data)
    return time.perf_counter_ns() - start_ns


@contextlib.contextmanager
def _on_own_cpus() -> Iterator[None]:
    """Give this thread its CPUs back when the block ends."""
    allowed = os.sched_getaffinity(0)
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def sibling(cpus: Sequence[int], storage: str | None) -> Costs:  # noqa: ARG001
    """Return what of each second of work a busy sibling thread of the core takes: 0.5 s."""
    from cfctl.host.topology import topology
    from cfctl.host.view import HostView

    cores = [[cpu for cpu in core if cpu in cpus] for core in topology(HostView()).cores]
    pair = next((core[:2] for core in cores if len(core) > 1), None)
    if pair is None:
        raise UnobservableError("no two threads of one core are known here")
    return {SIBLING: lost_beside(pair[0], pair[1])}


def lost_beside(cpu: int, other: int) -> Measurement:
    """Return what of each second work on one CPU loses while another CPU is busy, ns/s."""
    from cfctl.diagnose.awake import spinners

    lost = []
    with _on_own_cpus(), spinners((other,)) as awake:
        os.sched_setaffinity(0, {cpu})
        for _ in range(_TURNS):
            alone_ns = min(_work_ns() for _ in range(_PAUSES))
            with awake():
                beside_ns = min(_work_ns() for _ in range(_PAUSES))
            lost.append((1 - alone_ns / beside_ns) * 1e9)
    return replace(
        median_of(lost, f"fastest of {_PAUSES} turns beside a busy sibling against alone"), unit="ns/s"
    )


def cache_line(cpus: Sequence[int], storage: str | None) -> Costs:  # noqa: ARG001
    """Return how long a cache line takes within a last-level cache and between two: 50 ms."""
    from cfctl.host.topology import topology
    from cfctl.host.view import HostView
    from cfctl.probe.core_to_core import measure_core_to_core

    domains = [[cpu for cpu in domain if cpu in cpus] for domain in topology(HostView()).caches]
    domains = [domain for domain in domains if domain]
    pair = next((domain[:2] for domain in domains if len(domain) > 1), None)
    other = next(
        (domain[0] for domain in domains if pair and domain[0] not in pair and pair[0] not in domain), None
    )
    if pair is None or other is None:
        raise UnobservableError("it needs two CPUs of one last-level cache and one of another")
    found = measure_core_to_core((*pair, other), ("cas",), _LINE_SAMPLES)
    if found.interrupted:
        raise KeyboardInterrupt
    near = [each.one_way for each in found.pairs if {each.cpu_a, each.cpu_b} == set(pair)]
    far = [each.one_way for each in found.pairs if other in {each.cpu_a, each.cpu_b}]
    return {"cache_line_near": near[0], "cache_line_far": max(far, key=lambda each: each.value or 0.0)}


def gil_hand_over(cpus: Sequence[int], storage: str | None) -> Costs:  # noqa: ARG001
    """Return how long a thread that wakes up waits for the interpreter while another one computes: 0.2 s."""
    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        raise UnobservableError("this interpreter has no global lock")
    alone = [_late_ns() for _ in range(_HAND_OVERS)]
    done = threading.Event()

    def compute() -> None:
        while not done.is_set():
            pass

    busy = threading.Thread(target=compute, daemon=True)
    busy.start()
    try:
        beside = [_late_ns() for _ in range(_HAND_OVERS)]
    finally:
        done.set()
        busy.join()
    usual_ns = median_of(alone, "").value or 0.0
    method = f"wake-up beside a thread that computes less one without it (switch interval {sys.getswitchinterval() * 1e3:g} ms)"
    return {GIL: median_of([late - usual_ns for late in beside], method)}


def _late_ns() -> int:
    start_ns = time.perf_counter_ns()
    time.sleep(0.001)
    return time.perf_counter_ns() - start_ns - 1_000_000


def gc_collection(cpus: Sequence[int], storage: str | None) -> Costs:  # noqa: ARG001
    """Return the cost of a full collection of this program's objects: 0.1 s."""
    samples = []
    for _ in range(_COLLECTIONS):
        start_ns = time.perf_counter_ns()
        gc.collect()
        samples.append(time.perf_counter_ns() - start_ns)
    return {COLLECTION: median_of(samples, f"full collection of cfctl's own {len(gc.get_objects())} objects")}


def fsync(cpus: Sequence[int], storage: str | None) -> Costs:  # noqa: ARG001
    """Return median and 99th percentile of an fsync after 4 KiB in a directory: 1000 of them or 2 s.

    The file has no name and is gone afterwards. Raises UnobservableError without a directory.
    """
    if storage is None:
        raise UnobservableError("measured only on request: --storage DIR")
    refuse_memory(storage)
    try:
        with tempfile.TemporaryFile(dir=storage, buffering=0) as file:
            samples = sorted(_syncs(file.fileno()))
    except OSError as error:
        raise UnobservableError(f"{storage} can not be written.", os_error_reason(error)) from error
    method = f"write of 4 KiB and fsync below {storage}"
    found = {FSYNC: median_of(samples, method)}
    if len(samples) < _MIN_SYNCS:
        reason = f"{len(samples)} samples in {_SYNC_S:g} s, the percentile needs {_MIN_SYNCS}"
        return found | {"fsync_p99": Measurement.missing("ns", reason)}
    low, high = quantile_ranks(len(samples), 0.99)
    spread = (samples[min(high, len(samples)) - 1] - samples[max(low, 1) - 1]) / 2
    value = samples[math.ceil(0.99 * len(samples)) - 1]
    return found | {"fsync_p99": Measurement(value, "ns", spread, len(samples), f"p99; {method}")}


def _syncs(fd: int) -> Iterator[int]:
    block = os.urandom(_PAGE)
    end_ns = time.perf_counter_ns() + round(_SYNC_S * 1e9)
    for _ in range(_SYNCS):
        start_ns = time.perf_counter_ns()
        if start_ns > end_ns:
            return
        os.pwrite(fd, block, 0)
        os.fsync(fd)
        yield time.perf_counter_ns() - start_ns


# What can be asked for in a plan, by the name of the probe.
TIMED: Final[dict[str, Callable[[Sequence[int], str | None], Costs]]] = {
    HUGE_FAULT: huge_fault, PAUSE: pause, SIBLING: sibling, MIGRATION: migration, CACHE_LINE: cache_line, FSYNC: fsync,
    GIL: gil_hand_over, COLLECTION: gc_collection,
}  # fmt: skip
