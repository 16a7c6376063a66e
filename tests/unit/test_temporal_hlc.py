"""The hybrid logical clock: random histories, a scripted one, threads, processes, forks, node ids."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from cfctl import _native, clock
from cfctl.errors import ClockOffsetError, InputError
from cfctl.segment.process import open_segment
from cfctl.segment.reader import parse_segment
from cfctl.temporal import Hlc, initialize_global_hlc
from tests.hlc_machine import History, drive

# Here, where the directory of the tests' one segment is still named.
open_segment()

# A manual clock: November 2023.
T = 1_700_000_000_000_000_000


class HlcMachine(RuleBasedStateMachine):
    """History's checks under choices of hypothesis, which shrink."""

    @initialize(nodes=st.integers(1, 4))
    def start(self, nodes: int) -> None:
        self.history = History(nodes)

    @rule(node=st.integers(0, 3), by_ns=st.sampled_from([1, 15, 16, 17, 1000, 3000, -16, -400, -5000]))
    def elapse(self, node: int, by_ns: int) -> None:
        self.history.elapse(node % len(self.history.nodes), by_ns)

    @rule(node=st.integers(0, 3), times=st.sampled_from([1, 2, 18]))
    def tick(self, node: int, times: int) -> None:
        for _ in range(times):
            self.history.tick(node % len(self.history.nodes))

    @precondition(lambda self: self.history.events)
    @rule(node=st.integers(0, 3), event=st.integers(0, 10**6))
    def receive(self, node: int, event: int) -> None:
        self.history.receive(node % len(self.history.nodes), event % len(self.history.events))


TestHlcMachine = HlcMachine.TestCase
TestHlcMachine.settings = settings(max_examples=150, stateful_step_count=25)


def test_random_histories_violate_nothing() -> None:
    histories = [drive(random.Random(seed), 20) for seed in range(300)]
    assert sum(history.refused for history in histories) > 50
    assert any(history.carried for history in histories)


# (what happens at which time, the argument, the stamp expected): all times are after T, in ns.
SCRIPT = [
    ("tick", 160, None, 160),
    ("tick", 160, None, 161),
    ("tick", 175, None, 162),
    ("tick", 176, None, 176),
    ("receive", 180, 170, 177),
    ("receive", 180, 177, 178),
    ("receive", 180, 300, 301),
    ("tick", 200, None, 302),
    ("receive", 200, 290, 303),
    ("receive", 400, 310, 400),
    ("tick", 100, None, 401),
    ("receive", 100, 1101, "refused"),
    ("tick", 100, None, 402),
    ("receive", 100, 1100, 1101),
    ("receive", 2000, 1101, 2000),
]


def test_the_scripted_history_gives_the_stamps_of_the_table() -> None:
    hlc = Hlc(7, max_offset_ns=1000)
    base = T // 16 * 16
    for number, (kind, now_ns, message, expected) in enumerate(SCRIPT):
        if expected == "refused":
            assert message is not None
            with pytest.raises(ClockOffsetError, match=r"node 9 .*1001 ns ahead"):
                hlc.receive(base + message, 9, base + now_ns)
            continue
        found = hlc.tick(base + now_ns) if message is None else hlc.receive(base + message, 9, base + now_ns)
        assert found - base == expected, f"line {number}: {kind}"


def test_seventeen_ticks_in_one_grain_carry_into_the_time() -> None:
    hlc, base = Hlc(7), T // 16 * 16
    stamps = [hlc.tick(base) for _ in range(40)]
    assert stamps == list(range(base, base + 40))
    assert stamps[16] // 16 == base // 16 + 1


@pytest.mark.parametrize("message", [(1 << 64) - 1, (1 << 64) - (1 << 60)])
def test_a_stamp_at_the_end_of_time_is_refused_whatever_the_offset_allowed(message: int) -> None:
    hlc = Hlc(7, max_offset_ns=(1 << 64) - 1)
    with pytest.raises(ClockOffsetError):
        hlc.receive(message, 9, T)
    assert hlc.last == 0


@pytest.mark.parametrize("node", [0, -1, 65536])
def test_a_node_id_has_16_bits_and_is_not_0(node: int) -> None:
    with pytest.raises(InputError, match="1 to 65535"):
        Hlc(node)


@pytest.mark.parametrize("offset_ns", [-1, 1 << 64])
def test_an_offset_out_of_its_range_is_refused_with_the_range(offset_ns: int) -> None:
    with pytest.raises(InputError, match=rf"max_offset_ns {offset_ns} .*0 to 18446744073709551615"):
        Hlc(1, offset_ns)
    with pytest.raises(InputError, match=rf"max_offset_ns {offset_ns} .*0 to 18446744073709551615"):
        initialize_global_hlc(max_offset_ns=offset_ns)


def test_stamps_senders_and_times_out_of_their_range_are_refused() -> None:
    hlc = Hlc(1)
    calls: list[Callable[[], int]] = [
        lambda: hlc.tick(-1),
        lambda: hlc.tick(1 << 64),
        lambda: hlc.receive(-1, 2, T),
        lambda: hlc.receive(T, 1 << 70, T),
        lambda: hlc.receive(T, 2, -1),
    ]
    for call in calls:
        with pytest.raises(InputError, match="It is an int of"):
            call()
    with pytest.raises(TypeError):
        hlc.tick(1.5)  # type: ignore[arg-type]
    assert hlc.last == 0


CLOCK_FIRST = """
import os, warnings
warnings.simplefilter("error")
from cfctl import temporal
{first}
from pathlib import Path
from cfctl.bus import Bus
from cfctl.segment.directory import list_segments
from cfctl.segment.file import read_segment
with Bus() as bus:
    bus.subscribe("t")
    (file,) = list_segments([Path(os.environ["CFCTL_SEGMENT_DIR"])]).files
    assert file.header.pid == os.getpid()
    print(*(each.kind for each in read_segment(file.path).entries))
"""


@pytest.mark.parametrize(
    "first",
    ["temporal.global_hlc().tick()", "temporal.initialize_global_hlc(3).tick()", "temporal.Hlc(7).tick()"],
)
def test_a_clock_that_is_there_before_the_first_bus_leaves_the_process_visible(
    first: str, tmp_path: Path
) -> None:
    result = subprocess.run(
        [sys.executable, "-c", CLOCK_FIRST.format(first=first)],
        env=os.environ | {"CFCTL_SEGMENT_DIR": str(tmp_path / "segments")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    assert {"hlc", "bus_dispatcher"} <= set(result.stdout.split())


RECORDED_FIRST = """
import os
from cfctl import _native
record = _native.DispatcherRecord("early")
record.subscriptions(1, 0)
assert _native.segment_bytes() == b""
from cfctl.segment.process import open_segment
open_segment()
record.subscriptions(2, 0)
from cfctl.segment.reader import parse_segment
(entry,) = parse_segment(_native.segment_bytes()).entries
print(len(os.listdir(os.environ["CFCTL_SEGMENT_DIR"])), entry.values["subscribed"])
"""


def test_who_records_before_the_directory_is_named_does_not_hide_the_process(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", RECORDED_FIRST],
        env=os.environ | {"CFCTL_SEGMENT_DIR": str(tmp_path / "segments")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["1", "2"]


def test_the_clock_of_a_process_without_a_node_counts_in_nobody_elses_instrument(tmp_path: Path) -> None:
    program = (
        "from cfctl import _native\n"
        "clock = _native.process_hlc(); [clock.now_ns() for _ in range(1000)]\n"
        "print(len(_native.segment_bytes()))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"CFCTL_SEGMENT_DIR": str(tmp_path / "segments")},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert result.stdout.strip() == "0"


def test_stamps_read_as_the_time_with_and_without_a_calibration() -> None:
    hlc = Hlc(7)
    _native.clock_withdraw()
    for _ in range(2):
        before = time.time_ns()
        stamps = [hlc.tick() for _ in range(1000)]
        after = time.time_ns()
        # 16 ns of grain, and a reading's bracket on either side.
        assert before - 2000 <= stamps[0]
        assert stamps[-1] <= after + 2000 + len(stamps)
        assert all(a < b for a, b in pairwise(stamps))
        clock.calibrate(10_000_000)
    _native.clock_withdraw()


def test_two_threads_never_get_the_same_stamp() -> None:
    hlc, found = Hlc(7), [[], []]  # type: ignore[var-annotated]

    def work(into: list[int]) -> None:
        into.extend(hlc.tick() for _ in range(20_000))

    threads = [threading.Thread(target=work, args=(each,)) for each in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found[0]) | set(found[1])) == 40_000
    assert all(a < b for each in found for a, b in pairwise(each))


def counters(node: int) -> dict[str, int]:
    segment = parse_segment(_native.segment_bytes())
    entry = next(each for each in segment.entries if each.kind == "hlc" and each.name == f"node {node}")
    return {name: value for name, value in entry.values.items() if isinstance(value, int)}


def test_stamps_refusals_and_drift_are_counted_in_the_segment() -> None:
    hlc = Hlc(41, max_offset_ns=1000)
    hlc.tick(T)
    hlc.receive(T + 900, 12, T)
    with pytest.raises(ClockOffsetError):
        hlc.receive(T + 5000, 13, T)
    found = counters(41)
    assert (found["stamps"], found["received"], found["refused"], found["ahead"]) == (2, 1, 1, 1)
    assert (found["refused_node"], found["ahead_node"], found["drift_max_ns"]) == (13, 12, 901)


NODE_PROGRAM = """
import sys, time
from cfctl.temporal import initialize_global_hlc
hlc = initialize_global_hlc(int(sys.argv[1]) if sys.argv[1] else None)
print(hlc.node, flush=True)
if len(sys.argv) > 2:
    print(*[hlc.tick() for _ in range(int(sys.argv[2]))], flush=True)
sys.stdin.read()
"""


def start(directory: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", NODE_PROGRAM, *arguments],
        env=os.environ | {"CFCTL_SEGMENT_DIR": str(directory)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_node_id_is_held_by_one_process_and_free_again_when_that_is_killed(tmp_path: Path) -> None:
    directory = tmp_path / "segments"
    holder = start(directory, "7")
    assert first_line(holder) == "7"
    second = start(directory, "7")
    _, errors = second.communicate(timeout=30)
    assert f"Node id 7 is taken. Process {holder.pid} holds" in errors
    holder.kill()
    holder.wait()
    third = start(directory, "7")
    assert first_line(third) == "7"
    third.communicate(timeout=30)
    for process in (holder, second):
        process.communicate()


def test_two_processes_stamp_without_a_duplicate_and_get_their_own_ids(tmp_path: Path) -> None:
    processes = [start(tmp_path / "segments", "", "20000") for _ in range(2)]
    found = [process.communicate(timeout=60)[0].split() for process in processes]
    assert sorted(int(each[0]) for each in found) == [1, 2] or found[0][0] == found[1][0] == "1"
    pairs = {(stamp, number) for number, each in enumerate(found) for stamp in each[1:]}
    assert len(pairs) == 40_000


FORK_PROGRAM = """
import os
from cfctl.temporal import global_hlc, initialize_global_hlc
parent = initialize_global_hlc(5)
before = parent.tick()
read, write = os.pipe()
if os.fork() == 0:
    child = global_hlc()
    os.write(write, f"{child.node} {child.tick() > before} {child is parent}".encode())
    os._exit(0)
os.wait()
print(os.read(read, 100).decode(), parent.node, parent.tick() > before)
try:
    # The child's end must not have given the parent's id back.
    import subprocess, sys
    code = "from cfctl.temporal import initialize_global_hlc; initialize_global_hlc(5)"
    print(subprocess.run([sys.executable, "-c", code], capture_output=True).returncode)
finally:
    pass
"""


def test_a_forked_child_has_an_id_of_its_own_and_stamps_above_its_parents(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", FORK_PROGRAM],
        env=os.environ | {"CFCTL_SEGMENT_DIR": str(tmp_path / "segments")},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert result.stdout.split() == ["1", "True", "True", "5", "True", "1"]


def test_an_id_out_of_range_is_refused_before_any_file_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cfctl.temporal import initialize_global_hlc

    monkeypatch.setenv("CFCTL_SEGMENT_DIR", str(tmp_path / "segments"))
    with pytest.raises(InputError, match="65536 cannot be used"):
        initialize_global_hlc(65536)
    assert not (tmp_path / "segments").exists()


def test_changing_the_id_gives_the_earlier_one_back_and_stamps_keep_growing(tmp_path: Path) -> None:
    program = (
        "import os; from cfctl.temporal import initialize_global_hlc as i\n"
        "a = i(5); s = a.tick(); b = i(6)\n"
        "print(b.node, b.tick() > s, sorted(os.listdir(os.environ['CFCTL_SEGMENT_DIR'])))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"CFCTL_SEGMENT_DIR": str(tmp_path / "segments")},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert result.stdout.startswith("6 True ")
    assert "node-6.lock" in result.stdout
    assert "node-5.lock" not in result.stdout
