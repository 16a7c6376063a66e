"""Programs under the preload library: counted exactly, and run as they would have run without it.

Most run as `cfctl alloc run` would run them, without its own start, which costs more than they do.
`python -m tests.alloc` does it at length: ten million operations, gdb, Python's test modules.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cfctl.alloc.executable import require_countable
from cfctl.alloc.run import counting_environment, library_path, report_of_run
from cfctl.launch import LaunchError
from cfctl.records import to_plain
from cfctl.segment.file import read_segment
from tests.system.profile_programs import run_cfctl

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler is installed"),
]

PROGRAMS = Path(__file__).parent / "programs"
PRELOADS = Path("/usr/lib/x86_64-linux-gnu")
ALLOCATORS = ("libjemalloc.so.2", "libmimalloc.so.2.0", "libtcmalloc_minimal.so.4")
COUNTERS = ("allocations", "deallocations", "reallocations", "failures", "bytes_allocated", "bytes_freed")

Compile = Callable[..., Path]


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CFCTL_SEGMENT_DIR", str(tmp_path / "segments"))
    return tmp_path / "segments"


def build(source: Path, *options: str, compiler: str = "cc", into: Path) -> Path:
    program = into / source.stem
    subprocess.run([compiler, "-w", "-fno-builtin", "-pthread", "-o", program, source, *options], check=True)
    return program


@pytest.fixture
def compiled(tmp_path: Path) -> Compile:
    def build_text(text: str, *options: str, compiler: str = "cc", suffix: str = ".c") -> Path:
        source = tmp_path / f"source{suffix}"
        source.write_text(text)
        return build(source, *options, compiler=compiler, into=tmp_path)

    return build_text


@pytest.fixture(scope="module")
def counted_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(PROGRAMS / "counted.c", into=tmp_path_factory.mktemp("counted"))


def count(
    *command: str | Path, follow_children: bool = False, **environment: str
) -> tuple[Any, dict[str, Any]]:
    """Run a command with the library, in this environment and more, and return how it ended and the report."""
    run_id = uuid.uuid4().hex
    counting = counting_environment(library_path(), run_id, follow_children) | environment
    done = subprocess.run(
        list(map(str, command)), env=counting, capture_output=True, text=True, errors="replace", timeout=300
    )
    return done, to_plain(report_of_run(run_id))


def alloc_run(*command: str | Path, **settings: Any) -> tuple[Any, dict[str, Any] | None]:
    """Run a command under `cfctl alloc run` and return how that ended and the JSON report."""
    out = Path("report.json").absolute()
    out.unlink(missing_ok=True)
    done = run_cfctl("alloc", "run", "--json", "-o", str(out), "--", *map(str, command), **settings)
    return done, json.loads(out.read_text()) if out.exists() else None


def counters(report: dict[str, Any]) -> list[int]:
    (process,) = report["processes"]
    return [process["total"][name] for name in COUNTERS]


def difference(program: Path, threads: int, rounds: int) -> tuple[list[int], list[int], dict[str, Any]]:
    """Return what the program says it did, what was counted beyond a run of no rounds, and the report."""
    (_, base), (done, report) = (count(program, str(threads), str(each)) for each in (0, rounds))
    assert done.returncode == 0, done.stderr
    counted = [after - before for before, after in zip(counters(base), counters(report), strict=True)]
    (process,) = report["processes"]
    assert process["live_bytes"] == base["processes"][0]["live_bytes"]
    assert report["problems"] == []
    return [int(word) for word in done.stdout.split()], counted, report


@pytest.mark.parametrize("allocator", ["", *ALLOCATORS])
def test_eight_threads_are_counted_exactly(
    counted_program: Path, allocator: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if allocator and not (PRELOADS / allocator).exists():
        pytest.skip(f"{allocator} is not installed")
    if allocator:
        monkeypatch.setenv("LD_PRELOAD", allocator)
    known, counted, report = difference(counted_program, 8, 20_000)
    assert known[0] == 160_000
    assert counted == known
    (process,) = report["processes"]
    assert process["peak"]["value"] >= process["live_bytes"]
    requests = sum(size["requests"] for size in process["sizes"])
    assert requests == process["total"]["allocations"] + process["total"]["reallocations"]


def test_a_linked_allocator_is_counted(tmp_path: Path) -> None:
    library = PRELOADS / "libjemalloc.so.2"
    if not library.exists():
        pytest.skip("libjemalloc2 is not installed")
    known, counted, _ = difference(build(PROGRAMS / "counted.c", str(library), into=tmp_path), 2, 5000)
    assert counted == known


def test_threads_forks_and_handlers_are_survived_and_nothing_is_lost(tmp_path: Path) -> None:
    done, report = count(build(PROGRAMS / "stress.c", into=tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")
    parent = next(process for process in report["processes"] if not process["inherited_bytes"])
    # 400 at once and 300 in turn, and each of the latter frees in its destructor.
    assert sum(thread["threads"] for thread in parent["threads"]) >= 700
    assert len(parent["threads"]) < 500
    assert parent["child_processes"] == 80
    assert parent["children"]["allocations"] > 0
    # Of a child of 9000 and more pairs, all that follow the first 8192 calls are in its own segment.
    children = [process for process in report["processes"] if process["inherited_bytes"]]
    assert children
    for process in report["processes"]:
        assert process["live_bytes"] >= 0
        assert process["live_blocks"] >= 0
    counted = parent["children"]["allocations"] + sum(p["total"]["allocations"] for p in children)
    assert counted >= 4 * sum(range(20)) * 1000


def test_new_and_delete_are_counted_through_malloc(compiled: Compile) -> None:
    if shutil.which("c++") is None:
        pytest.skip("no C++ compiler is installed")
    source = """
    #include <vector>
    #include <memory>
    int main(int count, char **) {
        for (int i = 0; i < 1000 * (count - 1); i++) {
            auto one = std::make_unique<long[]>(10 + i % 7);
            std::vector<int> many(100);
            delete new (std::align_val_t(64)) char[200];
        }
    }
    """
    program = compiled(source, "-std=c++17", compiler="c++", suffix=".cc")
    (_, base), (_, report) = (count(program, *words) for words in ((), ("x",)))
    beyond = [after - before for before, after in zip(counters(base), counters(report), strict=True)]
    assert beyond[:2] == [3000, 3000]
    assert report["processes"][0]["bypass"] == []


FAILING = """
#include <errno.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
extern void fail_at(long) __attribute__((weak));
static int failed(void *block) { return block == NULL && errno == ENOMEM; }
int main(void) {
    void *block = malloc(100);
    int seen = 0;
    for (int round = 0; round < 100; round++) {
        errno = 0, fail_at(1), seen += failed(malloc(10));
        errno = 0, fail_at(1), seen += failed(calloc(10, 10));
        errno = 0, fail_at(1), seen += failed(realloc(block, 5000));
        errno = 0, fail_at(1), seen += failed(reallocarray(block, 500, 10));
        errno = 0, seen += failed(reallocarray(block, 1UL << 60, 1UL << 60));
        errno = 0, seen += failed(aligned_alloc(64, 1UL << 62));
        errno = 0, seen += failed(memalign(64, 1UL << 62));
        errno = 0, seen += failed(valloc(1UL << 62));
        errno = 0, seen += failed(pvalloc(1UL << 62));
        seen += posix_memalign(&block, 64, 1UL << 62) == ENOMEM;
    }
    free(block);
    return seen == 1000 ? 0 : 1;
}
"""


def test_what_the_allocator_refuses_is_counted_and_the_program_sees_it(
    compiled: Compile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = tmp_path / "failing_malloc.so"
    source = Path(__file__).with_name("failing_malloc.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", failing, source], check=True)
    program = compiled(FAILING)
    monkeypatch.setenv("LD_PRELOAD", str(failing))
    done, report = count(program)
    assert done.returncode == 0
    (process,) = report["processes"]
    assert process["total"]["failures"] == 1000
    assert process["live_blocks"] == count(program)[1]["processes"][0]["live_blocks"]


def test_a_program_with_a_malloc_of_its_own_is_named(compiled: Compile) -> None:
    source = """
    #include <stddef.h>
    static char arena[1 << 20];
    static size_t used;
    void *malloc(size_t size) { used += (size + 31) & ~15; return arena + used - ((size + 15) & ~15); }
    void free(void *block) { (void)block; }
    int main(void) { malloc(10); return 0; }
    """
    program = compiled(source, "-rdynamic")
    done, report = count(program)
    assert done.returncode == 0
    assert report["processes"][0]["bypass"] == [
        "The program brings its own malloc; what it allocates by that is not counted."
    ]


SHELL = "x=1; for i in 1 2 3; do x=$x$(echo $i | tr 1 2); done; (exit 3) || echo $x $?; exec 3>f; echo a >&3; cat f"
UNCHANGED: dict[str, list[str]] = {
    "bash": ["bash", "-c", SHELL],
    "sh": ["sh", "-c", SHELL],
    "env": ["env", "-0"],
    "perl": [
        "perl",
        "-e",
        'my %h = map { $_ => "v" x $_ } 1..2000; print scalar(keys %h), `echo sub`; exit 7',
    ],
    "sort": ["sort", "-n", "numbers"],
    "git": ["git", "log", "--format=%an %s", "-3"],
    "signal": ["sh", "-c", "kill -TERM $$"],
    "python": [
        sys.executable,
        "-c",
        "import subprocess, os\nprint(subprocess.check_output(['env']))\nos._exit(5)",
    ],
    "gcc": ["cc", "-c", "-o", "out.o", "unit.c"],
    "unittest": [sys.executable, "-m", "unittest", "test.test_bisect"],
    "gdb": ["gdb", "-nx", "-batch", "-ex", "info line main", "-ex", "disassemble main", "./unit"],
}


def make_repository() -> None:
    identity = ["-c", "user.name=a", "-c", "user.email=a@localhost"]
    for arguments in (["init", "-q"], ["add", "numbers"], ["commit", "-q", "-m", "one"]):
        subprocess.run(["git", *identity, *arguments], check=True, capture_output=True)


@pytest.mark.parametrize(("script", "status"), [("exit 7", 7), ("kill -TERM $$", 143)])
def test_the_command_ends_as_its_program_does(script: str, status: int) -> None:
    done, report = alloc_run("sh", "-c", f"echo out; echo err >&2; {script}")
    assert (done.returncode, done.stdout, done.stderr) == (status, "out\n", "err\n")
    assert report is not None
    assert report["processes"][0]["total"]["allocations"] > 0


@pytest.mark.parametrize("name", UNCHANGED)
def test_a_real_program_runs_as_it_would_without(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = UNCHANGED[name]
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    Path("numbers").write_text("\n".join(str(n * 7919 % 10007) for n in range(20000)))
    Path("unit.c").write_text('#include <stdio.h>\nint main(void) { return printf("x"); }\n')
    if command[0] == "gdb":
        build(Path("unit.c"), "-g", into=Path())
    for name in ("_", "SHLVL", "LD_PRELOAD"):
        monkeypatch.delenv(name, raising=False)
    if command[0] == "git":
        make_repository()
    plain = subprocess.run(command, capture_output=True, text=True, timeout=300)
    done, report = count(*command)
    assert (done.returncode, done.stdout) == (plain.returncode, plain.stdout)
    # unittest tells how long it took.
    assert re.sub(r"in \d+\.\d+s", "", done.stderr) == re.sub(r"in \d+\.\d+s", "", plain.stderr)
    assert report["problems"] == []
    root = report["processes"][0]
    assert root["total"]["allocations"] > 0
    assert len({process["pid"] for process in report["processes"]}) == 1


def test_a_program_that_replaces_itself_is_counted_on(tmp_path: Path) -> None:
    done, report = count(
        "env", "A=1", "nice", sys.executable, "-c", "import os; print(os.environ.get('LD_PRELOAD'))"
    )
    assert done.stdout == "None\n"
    names = [Path(process["command_line"][0]).name for process in report["processes"]]
    assert sorted(names)[:2] == ["env", "nice"]
    assert len(names) == 3
    assert {process["state"] for process in report["processes"]} == {"ended"}
    assert len({process["pid"] for process in report["processes"]}) == 1


def test_children_are_counted_on_request_only() -> None:
    command = ("sh", "-c", "cat /dev/null; tr a b </dev/null; true")
    for follow, programs in ((False, {"sh"}), (True, {"sh", "cat", "tr"})):
        _, report = count(*command, follow_children=follow)
        found = {Path(process["command_line"][0]).name for process in report["processes"]}
        assert found == programs


def test_a_full_segment_directory_leaves_the_program_alone_and_is_told(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    place = tmp_path / "small"
    place.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "none", place], capture_output=True
    ).returncode:
        pytest.skip("no mount here")
    try:
        for left in (0, 4 << 10):
            (place / "segments").mkdir(mode=0o700, exist_ok=True)
            for old in (place / "segments").iterdir():
                old.unlink()
            with (place / "fill").open("wb") as file:
                file.truncate(0)
                os.posix_fallocate(file.fileno(), 0, (64 << 10) - left)
            done, report = alloc_run(
                "echo", "here", env=os.environ | {"CFCTL_SEGMENT_DIR": str(place / "segments")}
            )
            assert done.stdout == "here\n"
            assert done.returncode == 3, done.stderr
            assert report is not None
            assert report["processes"] == []
            assert len(report["problems"]) == 1
            assert "No space left" in report["problems"][0] or "no space" in report["problems"][0]
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def test_what_would_not_be_counted_is_refused_before_it_runs(compiled: Compile, tmp_path: Path) -> None:
    static = compiled('#include <stdio.h>\nint main(void) { puts("ran"); return 0; }', "-static")
    done, report = alloc_run(static)
    assert (done.returncode, done.stdout, report) == (125, "", None)
    assert f"The allocations of {static} can not be counted." in done.stderr
    assert "statically linked" in done.stderr
    for number, line in enumerate((f"#!{static}", f"#!/usr/bin/env {static}")):
        script = tmp_path / f"script{number}"
        script.write_text(f"{line}\n")
        script.chmod(0o755)
        with pytest.raises(LaunchError, match="statically linked"):
            require_countable([str(script)], library_path())


def test_a_setuid_program_of_another_user_is_refused(compiled: Compile) -> None:
    program = compiled("int main(void) { return 0; }")
    if os.geteuid() == 0:
        os.chown(program, 65534, -1)
    else:
        pytest.skip("giving a file away needs root")
    program.chmod(program.stat().st_mode | stat.S_ISUID)
    with pytest.raises(LaunchError, match="setuid"):
        require_countable([str(program)], library_path())


def test_a_sanitized_program_is_refused(compiled: Compile) -> None:
    try:
        program = compiled("int main(void) { return 0; }", "-fsanitize=address")
    except subprocess.CalledProcessError:
        pytest.skip("the compiler has no AddressSanitizer")
    with pytest.raises(LaunchError, match="sanitizer"):
        require_countable([str(program)], library_path())


def test_the_extension_and_the_library_share_one_segment(directory: Path) -> None:
    code = (
        "import cfctl, os\nwith cfctl.Profiler().operation('work'): pass\n"
        "if os.fork() == 0:\n    with cfctl.Profiler().operation('child'): pass\n    block = bytearray(10**6); os._exit(0)\nos.wait()"
    )
    done, report = count(sys.executable, "-c", code)
    assert done.returncode == 0, done.stderr
    # One for each process: the child that records an operation opens its own, and is counted there.
    assert len(list(directory.glob("*.seg"))) == 2
    assert len(report["processes"]) == 2
    child = next(process for process in report["processes"] if process["inherited_bytes"])
    assert child["state"] == "ended"
    names = [
        {entry.name for entry in read_segment(path).entries if entry.kind == "operation"}
        for path in directory.glob("*.seg")
    ]
    assert sorted(map(sorted, names)) == [["child"], ["work"]]


def test_a_hostile_name_reaches_no_terminal(compiled: Compile, tmp_path: Path) -> None:
    program = compiled("int main(void) { return 0; }")
    hostile = tmp_path / "\x1b[31mred\u202e\n[bold]"
    program.rename(hostile)
    done = run_cfctl("alloc", "run", "--", str(hostile), "\x1b]0;title\x07")
    assert done.returncode == 0
    assert "[bold]" in done.stderr
    assert not any(char in done.stderr for char in "\x1b\x07\u202e")


KILLED = """
import os, signal
blocks = [bytearray(100_000) for _ in range(100)]
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_program_leaves_its_counts() -> None:
    done, report = alloc_run(sys.executable, "-c", KILLED)
    assert done.returncode == 137
    assert report is not None
    (process,) = report["processes"]
    assert process["state"] == "killed"
    assert process["live_bytes"] > 10_000_000
    assert report["problems"] == []


def test_more_threads_than_the_segment_has_room_for_lose_nothing(
    counted_program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CFCTL_SEGMENT_LIMIT", "64KiB")
    known, counted, report = difference(counted_program, 60, 500)
    assert counted == known
    assert report["processes"][0]["shards_refused"] > 0
