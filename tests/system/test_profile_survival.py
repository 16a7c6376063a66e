"""What becomes of recorded samples when a program is killed, forks, or has no room to write."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.system.profile_programs import CFCTL, counts, profile_run, run_cfctl

pytestmark = pytest.mark.system

ROOT = os.geteuid() == 0
NOBODY = 65534


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "segments"
    monkeypatch.setenv("CFCTL_SEGMENT_DIR", str(path))
    return path


def report(*arguments: str, **options: Any) -> dict[str, Any]:
    ended = run_cfctl("profile", "report", "--json", *arguments, **options)
    assert ended.returncode == 0, ended.stderr
    return dict(json.loads(ended.stdout))


def python(code: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, **options
    )


ACKNOWLEDGING = """
import os, cfctl
operation = cfctl.Profiler().operation("loop")
while True:
    with operation:
        pass
    os.write(1, b".")
"""


@pytest.mark.parametrize("wanted", [1, 1000, 20_000])
def test_a_program_killed_in_the_middle_of_a_loop_loses_no_acknowledged_sample(wanted: int) -> None:
    with subprocess.Popen([sys.executable, "-c", ACKNOWLEDGING], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        acknowledged = len(process.stdout.read(wanted))
        process.send_signal(signal.SIGKILL)
        acknowledged += len(process.stdout.read())
    found = report()
    # The sample that was recorded, and not yet acknowledged, when the signal came.
    assert counts(found)["loop"] - acknowledged in {0, 1}
    assert found["processes"][0]["state"] == "killed"
    assert found["problems"] == []


def test_a_running_program_is_reported_while_it_runs() -> None:
    with subprocess.Popen([sys.executable, "-c", ACKNOWLEDGING], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.read(5000)
        found = report(str(process.pid))
        listed = json.loads(run_cfctl("segments", "list", "--json").stdout)["segments"]
        process.kill()
        process.stdout.read()
    assert counts(found)["loop"] >= 5000
    assert found["processes"][0]["state"] == "live"
    assert found["problems"] == []
    assert [(row["pid"], row["live"]) for row in listed] == [(process.pid, True)]


def test_a_forked_child_records_for_itself(directory: Path, tmp_path: Path) -> None:
    code = """
import os, cfctl
operation = cfctl.Profiler().operation("forked")
for _ in range(10):
    with operation: pass
if os.fork() == 0:
    for _ in range(5):
        with operation: pass
else:
    os.wait()
    with operation: pass
"""
    ended, found = profile_run([sys.executable, "-c", code], report=tmp_path / "r.json")
    assert ended.returncode == 0, ended.stderr
    assert counts(found) == {"forked": 16}
    assert len(found["processes"]) == 2


def test_a_child_that_runs_another_program_belongs_to_the_run(tmp_path: Path) -> None:
    inner = "import cfctl\nwith cfctl.Profiler().operation('inner'): pass"
    code = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {inner!r}])"
    ended, found = profile_run([sys.executable, "-c", code], report=tmp_path / "r.json")
    assert ended.returncode == 0, ended.stderr
    assert counts(found) == {"inner": 1}


WARNS = """
import warnings, cfctl
profiler = cfctl.Profiler()
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for number in range(3):
        with profiler.operation(f"op{number}"):
            pass
report = profiler.report()
print(len(caught), report.total_samples, report.samples_lost, [str(w.message) for w in caught])
print([w.filename for w in caught])
"""


def assert_recorded_in_memory_with_one_warning(ended: subprocess.CompletedProcess[str], reason: str) -> None:
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("1 3 0 "), ended.stdout
    assert reason in ended.stdout
    assert "CFCTL_SEGMENT_DIR" in ended.stdout
    # The warning points at the program, not into cfctl.
    assert "['<string>']" in ended.stdout


def test_a_directory_that_can_not_be_made_gives_one_warning_and_recording_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CFCTL_SEGMENT_DIR", str(tmp_path / "file" / "segments"))
    assert_recorded_in_memory_with_one_warning(python(WARNS), "Not a directory")


def test_a_directory_that_is_a_link_is_not_used(directory: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    directory.symlink_to("elsewhere")
    assert_recorded_in_memory_with_one_warning(python(WARNS), "mode 0700")
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.skipif(not ROOT, reason="only root can give a directory away")
def test_a_directory_of_another_user_is_not_used(directory: Path) -> None:
    directory.mkdir(mode=0o700)
    os.chown(directory, NOBODY, NOBODY)
    assert_recorded_in_memory_with_one_warning(python(WARNS), "mode 0700")
    assert list(directory.iterdir()) == []


def test_a_limit_on_file_sizes_never_kills_the_program() -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096 * 12, 4096 * 12))

    ended = python(WARNS, preexec_fn=limit)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("0 ")
    found = report()
    assert found["shards_refused"] > 0
    assert found["samples_lost"] > 0
    assert found["total_samples"] + found["samples_lost"] == 3
    shown = run_cfctl("profile", "report").stdout
    assert "Samples lost: " in shown
    assert "Shards refused: " in shown


def test_a_limit_below_a_header_records_in_memory() -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))

    assert_recorded_in_memory_with_one_warning(python(WARNS, preexec_fn=limit), "File too large")


def test_the_segments_own_limit_refuses_and_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CFCTL_SEGMENT_LIMIT", "64KiB")
    assert python(WARNS).stdout.startswith("0 ")
    found = report()
    assert found["total_samples"] + found["samples_lost"] == 3
    assert found["samples_lost"] > 0


def test_a_limit_that_is_no_size_is_told_and_the_default_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CFCTL_SEGMENT_LIMIT", "plenty")
    ended = python(WARNS)
    assert "CFCTL_SEGMENT_LIMIT" in ended.stdout or "'plenty'" in ended.stdout
    assert report()["total_samples"] == 3


@pytest.fixture
def small_file_system(tmp_path: Path) -> Iterator[Path]:
    if not ROOT or shutil.which("mount") is None:
        pytest.skip("only root can mount a file system")
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "cfctl", str(place)])
    if mounted.returncode != 0:
        pytest.skip("mounting is not permitted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_file_system_loses_samples_and_counts_them_but_never_kills(
    small_file_system: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CFCTL_SEGMENT_DIR", str(small_file_system))
    ended = python(WARNS)
    assert ended.returncode == 0, ended.stderr
    found = report()
    assert (found["total_samples"], found["samples_lost"]) == (1, 2)
    (small_file_system / "filler").write_bytes(bytes(12 << 10))
    again = python(WARNS)
    assert again.returncode == 0, again.stderr


HOSTILE = "\x1b[31mred\x1b]0;title\x07 [bold]x[/bold] [/x]\n\u202eevil\x9b5n"


def test_hostile_names_reach_no_terminal(directory: Path, tmp_path: Path) -> None:
    code = (
        f"import cfctl\nprofiler = cfctl.Profiler()\n"
        f"with profiler.operation({HOSTILE!r}, labels={{{HOSTILE!r}: {HOSTILE!r}}}): pass"
    )
    ended = subprocess.run([sys.executable, "-c", code, HOSTILE], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    outputs = [
        run_cfctl("profile", "report"),
        run_cfctl("profile", "report", "--unit", "us", "--sort", "name"),
        run_cfctl("segments", "list"),
        run_cfctl("segments", "list", env=os.environ | {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"}),
        run_cfctl("profile", "run", "--function", "a:b", "--", sys.executable, "-c", "pass", HOSTILE),
        run_cfctl("profile", "report", HOSTILE),
        run_cfctl("profile", "report", "--sort", HOSTILE),
    ]
    for output in outputs:
        text = output.stdout + output.stderr
        assert text
        assert not [c for c in text if (ord(c) < 32 and c != "\n") or 0x7F <= ord(c) < 0xA0 or c == "\u202e"]
    assert (
        "[bold]x[/bold] [/x]" in outputs[0].stdout.replace("\n", "")[:4000] or "[bold]" in outputs[0].stdout
    )
    assert HOSTILE in counts(report())


@pytest.fixture
def place_of_nobody() -> Iterator[Path]:
    """A directory of nobody's own, outside of pytest's, which others can not enter."""
    with tempfile.TemporaryDirectory() as name:
        os.chown(name, NOBODY, NOBODY)
        yield Path(name)


@pytest.mark.skipif(not ROOT or shutil.which("setpriv") is None, reason="needs root and setpriv")
def test_nobody_can_record_and_report_and_sees_nobody_elses(place_of_nobody: Path) -> None:
    become = ["setpriv", f"--reuid={NOBODY}", "--clear-groups", sys.executable]

    def as_nobody(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"CFCTL_SEGMENT_DIR": str(place_of_nobody), "HOME": str(place_of_nobody)}
        return subprocess.run([*become, *arguments], capture_output=True, text=True, env=environment, cwd="/")

    if as_nobody("-c", "import cfctl._native").returncode != 0:
        pytest.skip("nobody can not read this interpreter")
    foreign = place_of_nobody / "foreign.seg"
    foreign.write_bytes(b"of root")
    foreign.chmod(0o644)
    assert as_nobody("-c", "import cfctl\nwith cfctl.Profiler().operation('of nobody'): pass").stderr == ""
    own = as_nobody("-m", "cfctl", "profile", "report", "--json")
    assert counts(json.loads(own.stdout)) == {"of nobody": 1}
    other = as_nobody("-m", "cfctl", "profile", "report", str(foreign))
    assert (other.returncode, "belongs to another user" in other.stderr) == (3, True)
    everybody = as_nobody("-m", "cfctl", "segments", "list", "--all-users")
    assert (everybody.returncode, "Run as root" in everybody.stderr) == (3, True)
    # Root, and only root, may look into the segments of others.
    listed = run_cfctl(
        "segments", "list", "--json", env=os.environ | {"CFCTL_SEGMENT_DIR": str(place_of_nobody)}
    )
    assert [row["uid"] for row in json.loads(listed.stdout)["segments"]] == [NOBODY]


def test_a_directory_that_others_can_enter_is_neither_used_nor_changed(
    directory: Path, tmp_path: Path
) -> None:
    directory.mkdir(mode=0o700)
    directory.chmod(0o755)
    assert_recorded_in_memory_with_one_warning(python(WARNS), "mode 0700")
    ended, found = profile_run(
        [sys.executable, "-c", "def f(): pass\nf()"], "__main__:f", report=tmp_path / "r.json"
    )
    assert (ended.returncode, found) == (3, {})
    assert directory.stat().st_mode & 0o777 == 0o755
    assert list(directory.iterdir()) == []


def test_a_relative_directory_holds_for_children_that_change_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CFCTL_SEGMENT_DIR", "relative")
    code = """
import os, cfctl
operation = cfctl.Profiler().operation("op")
if os.fork() == 0:
    os.chdir("/")
    with operation: pass
else:
    os.wait()
    with operation: pass
"""
    assert python(code).returncode == 0
    assert len(list((tmp_path / "relative").iterdir())) == 2


KILLED_ANYWHERE = """
import array, os, cfctl
profiler = cfctl.Profiler()
profiler.timeline()
block, values = profiler.operation("block"), profiler.operation("values")
many = array.array("q", range(1, 101))

@profiler.operation("call")
def call():
    with block:
        pass

os.write(1, b".")
while True:
    call()
    values.record_many(many)
"""


def test_whatever_moment_a_program_is_killed_at_its_report_is_whole(directory: Path) -> None:
    """200 kills at random moments: no contradiction, and each completed call counted with its block."""
    from cfctl.profile.recording import record_of_file
    from cfctl.profile.timeline import timeline
    from cfctl.segment.file import read_segment

    random = Random(4)
    for _ in range(200):
        with subprocess.Popen([sys.executable, "-c", KILLED_ANYWHERE], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.read(1)
            for _ in range(random.randrange(20_000)):
                pass
            process.send_signal(signal.SIGKILL)
        (path,) = directory.iterdir()
        recording = record_of_file(path)
        assert recording.problems == ()
        found = {(tally.name, tally.unit): tally.count for tally in recording.tallies}
        calls, blocks = found.get(("call", "ticks"), 0), found.get(("block", "ticks"), 0)
        assert calls <= blocks <= calls + 1
        assert calls - 1 <= found.get(("values", "ns"), 0) / 100 <= calls
        samples = timeline(read_segment(path))
        assert len(samples) <= min(8192, calls + blocks)
        assert len(samples) >= min(8192, calls + blocks) - 1
        assert {(s.operation, s.parent) for s in samples} <= {("call", None), ("block", "call")}
        path.unlink()


PAUSED = """
import sys
def work(depth):
    return depth and work(depth - 1)
def ask():
    work(1)
    print("ready", flush=True)
    return sys.stdin.readline()
work(1)
while ask():
    pass
"""


def test_functions_by_name_are_paused_and_resumed_while_they_run(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(PAUSED)
    out = tmp_path / "report.json"
    command = [*CFCTL, "profile", "run", "--function", "__main__:work", "--json", "-o", str(out), "--",
               sys.executable, str(tmp_path / "script.py")]  # fmt: skip
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None

        def ask() -> None:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write("again\n")
            process.stdin.flush()
            assert process.stdout.readline() == "ready\n"

        assert process.stdout.readline() == "ready\n"
        assert run_cfctl("profile", "pause").returncode == 0
        for _ in range(5):
            ask()
        assert run_cfctl("profile", "resume").returncode == 0
        ask()
        process.stdin.close()
        assert process.wait(60) == 0
    # Two calls each time: two before the pause, none of five during it, one after.
    assert counts(json.loads(out.read_text())) == {"__main__:work": 6}
    ended = run_cfctl("profile", "pause")
    assert (ended.returncode, "It has ended" in ended.stderr) == (3, True)
