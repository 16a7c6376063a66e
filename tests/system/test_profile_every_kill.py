"""A program stopped after each instruction of its recording: what a reader finds had it been killed there."""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cfctl.profile.recording import record_of_segment
from cfctl.profile.timeline import TimelineSample, timeline
from cfctl.segment.file import Liveness
from cfctl.segment.format import TickSource
from cfctl.segment.reader import parse_segment
from cfctl.segment.tick_rate import local_clock
from tests.unit.segment_builder import bucket_of

if TYPE_CHECKING:
    from cfctl.profile.report import Recording

pytestmark = pytest.mark.system

PTRACE_TRACEME, PTRACE_SINGLESTEP = 0, 9
MOST_STEPS = 400_000
NOT_PERMITTED = 77
# Each is followed by one that lasted much longer or much shorter; 2**41 is beyond the histogram.
TICKS = [10_000_000, 10, 2**41, 10, 12, 3_000_000, 3_000_000, 7]
NS = [1_000_000, 5, 2**41, 5, 1_000_000, 3, 4, 2**42, 6]

# The shards are there before the first stop, as making one reads the OS clock, and that starts anew
# whenever the kernel has updated it: stepped through, it may never end. `with` makes one that is empty.
BEFORE = f"""
import array, ctypes, os, signal, cfctl
profiler = cfctl.Profiler()
plain, block, nested = map(profiler.operation, ("plain", "block", "nested"))
many = [array.array("q", {NS[4:6]}), array.array("d", {NS[7:9]})]
@profiler.operation("call")
def call():
    with nested:
        pass
def stop():
    os.kill(os.getpid(), signal.SIGSTOP)
if ctypes.CDLL(None, use_errno=True).ptrace({PTRACE_TRACEME}, 0, None, None) != 0:
    os._exit({NOT_PERMITTED})
"""
SAMPLES = f"""
plain.record_many(array.array("q"))
with plain:
    stop()
    for ticks in {TICKS}:
        plain.record_ticks(ticks)
    for ns in {NS[:4]}:
        plain.record(ns)
    plain.record_many(many[0])
    plain.record({NS[6]}, True)
    plain.record_many(many[1])
    stop()
"""
SPANS = """
call()
with block:
    stop()
block.record_ticks(10_000_000)
with block.span():
    pass
block.record_ticks(10_000_000)
block.begin().end(True)
call()
stop()
"""
TIMELINE = """
profiler.timeline()
call()
stop()
call()
call()
stop()
"""


def step(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Let the program go on to its next SIGSTOP, and yield after each instruction."""
    ptrace = ctypes.CDLL(None, use_errno=True).ptrace
    ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    for _ in range(MOST_STEPS):
        if ptrace(PTRACE_SINGLESTEP, process.pid, None, None) != 0:
            raise OSError(ctypes.get_errno(), "PTRACE_SINGLESTEP")
        _, status = os.waitpid(process.pid, 0)
        assert os.WIFSTOPPED(status), status
        if os.WSTOPSIG(status) == signal.SIGSTOP:
            return
        yield
    pytest.fail(f"the recording takes more than {MOST_STEPS} instructions")


def snapshots(directory: Path, code: str) -> Iterator[bytes]:
    """Yield the segment at the first stop, and after each instruction until the second that changed it."""
    environment = os.environ | {"CFCTL_SEGMENT_DIR": str(directory)}
    process = subprocess.Popen([sys.executable, "-c", BEFORE + code], env=environment)
    try:
        _, status = os.waitpid(process.pid, 0)
        if not os.WIFSTOPPED(status):
            process.returncode = os.waitstatus_to_exitcode(status)
            assert process.returncode == NOT_PERMITTED
            pytest.skip("ptrace is not permitted here")
        (path,) = directory.iterdir()
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as segment:
            latest = segment[:]
            if parse_segment(latest).header.tick_source is TickSource.OS:
                pytest.skip("a reading of the OS clock may never end when it is stepped through")
            yield latest
            for _ in step(process):
                if segment[:] != latest:
                    latest = segment[:]
                    yield latest
    finally:
        process.kill()
        process.wait()


def recordings(directory: Path, code: str) -> Iterator[tuple[Recording, list[TimelineSample]]]:
    """Yield what is read after a kill at each moment, and the timeline."""
    local = local_clock()
    for data in snapshots(directory, code):
        segment = parse_segment(data)
        yield record_of_segment(segment, Liveness.ENDED, local), timeline(segment)


def assert_holds_what_it_counts(recording: Recording, name: str, unit: str, values: list[int]) -> None:
    """The buckets hold each sample that the count counts, and at most one more."""
    (tally,) = [t for t in recording.tallies if (t.name, t.unit) == (name, unit)]
    wanted = Counter(bucket_of(value) for value in values[: tally.count] if value < 2**40)
    found = Counter(dict(tally.buckets))
    assert found >= wanted, (tally, wanted)
    assert 0 <= tally.in_range + tally.out_of_range - tally.count <= 1, tally


def test_no_kill_leaves_a_contradiction_or_loses_a_counted_sample(tmp_path: Path) -> None:
    counted: list[int] = []
    for recording, _ in recordings(tmp_path / "segments", SAMPLES):
        assert recording.problems == ()
        assert_holds_what_it_counts(recording, "plain", "ticks", TICKS)
        assert_holds_what_it_counts(recording, "plain", "ns", NS)
        counted.append(sum(tally.count for tally in recording.tallies))
    # Each sample was seen to come, so the program was stopped where it records.
    assert list(dict.fromkeys(counted)) == list(range(len(TICKS) + len(NS) + 1))


@pytest.mark.parametrize("code", [SPANS, TIMELINE], ids=["spans", "timeline"])
def test_no_kill_inside_of_spans_leaves_a_contradiction(tmp_path: Path, code: str) -> None:
    calls: list[int] = []
    for recording, samples in recordings(tmp_path / "segments", code):
        assert recording.problems == ()
        counted = {tally.name: tally.count for tally in recording.tallies}
        calls.append(counted["call"])
        assert counted["call"] <= counted["nested"] <= counted["call"] + 1
        (edge,) = recording.edges
        assert counted["nested"] - 1 <= edge.count <= counted["nested"]
        if code == TIMELINE:
            assert sum(counted.values()) - 1 <= len(samples) <= sum(counted.values())
            assert {(s.operation, s.parent) for s in samples} == {("call", None), ("nested", "call")}
    assert calls[-1] == calls[0] + code.count("call()") - 1
