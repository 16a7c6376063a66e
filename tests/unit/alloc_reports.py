"""Reports of allocations made by hand, for the tests of what is done with them."""

from __future__ import annotations

from cfctl.alloc.counts import Counts, SizeClass
from cfctl.alloc.growth import TimelinePoint, growth
from cfctl.alloc.report import AllocReport, ProcessAllocations, ThreadCounts, build_report
from cfctl.records import Measurement

SECOND = 10**9
MEGABYTE = 10**6


def counts(allocations: int, freed: int, block_bytes: int = 1000, failures: int = 0) -> Counts:
    """Return the counters of blocks of one size."""
    live = allocations - freed
    return Counts(
        allocations=allocations,
        deallocations=freed,
        reallocations=allocations // 10,
        failures=failures,
        bytes_allocated=allocations * block_bytes,
        bytes_freed=freed * block_bytes,
        live_blocks=live,
        live_bytes=live * block_bytes,
    )


def process(
    total: Counts,
    course: list[tuple[float, float]],
    seconds: float = 10.0,
    command: tuple[str, ...] = ("/usr/bin/app", "--serve"),
    threads: tuple[ThreadCounts, ...] = (),
    shared: Counts | None = None,
    children: Counts | None = None,
    peak_bytes: int | None = None,
    bypass: tuple[str, ...] = (),
    shards_refused: int = 0,
    pid: int = 4242,
) -> ProcessAllocations:
    """Return a process whose live bytes take a course of (second, megabytes)."""
    points = tuple(TimelinePoint(int(at * SECOND), int(live * MEGABYTE)) for at, live in course)
    elapsed_ns = int(seconds * SECOND)
    peak = max([total.live_bytes, *(point.live_bytes for point in points)])
    return ProcessAllocations(
        pid=pid,
        command_line=command,
        state="ended",
        run_id="run",
        opened_unix_ns=0,
        elapsed_ns=elapsed_ns,
        total=total,
        live_bytes=total.live_bytes,
        live_blocks=total.live_blocks,
        inherited_bytes=0,
        inherited_blocks=0,
        peak=Measurement(float(peak_bytes or peak), "B", 65536.0),
        peak_at_ns=points[-1].time_ns if points else 0,
        threads=threads or (ThreadCounts(4242, 1, total),),
        shared=shared or Counts(),
        child_processes=0,
        children=children or Counts(),
        sizes=(
            SizeClass(8, 10, 100),
            SizeClass(64, 80, total.allocations - 150),
            SizeClass(1 << 20, 5 << 18, 50),
        ),
        timeline=points,
        growth=growth(points, elapsed_ns, 65536),
        allocation_rate=Measurement(total.allocations / seconds, "1/s"),
        byte_rate=Measurement(total.bytes_allocated / seconds, "B/s"),
        bypass=bypass,
        shards_refused=shards_refused,
    )


def leaking() -> ProcessAllocations:
    """Return a process of several threads that grows by 2 MB/s and has everything a report can say."""
    total = counts(30_000, 10_000, failures=2)
    return process(
        total,
        [(second / 10, second / 5) for second in range(1, 100)],
        command=("./leak\x1b[31m", "--name", "[bold]two\nlines"),
        threads=(
            ThreadCounts(4242, 1, counts(20_000, 5_000)),
            ThreadCounts(None, 3, counts(9_000, 5_000)),
        ),
        shared=counts(1_000, 0, failures=2),
        children=counts(200, 150),
        bypass=("The program brings its own malloc; what it allocates by that is not counted.",),
        shards_refused=1,
    )


def steady() -> ProcessAllocations:
    """Return a Python that keeps what it has."""
    return process(
        counts(5_000, 2_000),
        [(second / 10, 3.0 + second % 2 / 100) for second in range(1, 100)],
        command=("/usr/bin/python3", "app.py"),
        pid=4243,
    )


def leaking_and_steady() -> AllocReport:
    """Return both, with a problem."""
    return build_report([leaking(), steady()], ["Process 7 found no space for its counters in /dev/shm."])
