"""Programs under the preload library: counted exactly, and run as they would have run without it.

`python -m tests.alloc` does it at length: ten million operations, gdb, Python's test modules.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

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


@pytest.fixture
def compiled(tmp_path: Path) -> Compile:
    def build(source: str | Path, *options: str, compiler: str = "cc", suffix: str = ".c") -> Path:
        path = source if isinstance(source, Path) else tmp_path / f"source{suffix}"
        if isinstance(source, str):
            path.write_text(source)
        program = tmp_path / path.stem
        subprocess.run(
            [compiler, "-w", "-fno-builtin", "-pthread", "-o", program, path, *options], check=True
        )
        return program

    return build


def alloc_run(*command: str | Path, options: tuple[str, ...] = (), **settings: Any) -> Any:
    """Run a command under `cfctl alloc run`; the result's `report` is the JSON."""
    out = Path("report.json")
    out.unlink(missing_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", "cfctl", "alloc", "run", "--json", "-o", str(out.absolute()), *options, "--",
         *map(str, command)],
        capture_output=True, text=True, timeout=120, **settings,
    )  # fmt: skip
    return done, json.loads(out.read_text()) if out.exists() else None


def counters(report: dict[str, Any]) -> list[int]:
    (process,) = report["processes"]
    return [process["total"][name] for name in COUNTERS]


@pytest.mark.parametrize("allocator", ["", *ALLOCATORS])
def test_eight_threads_are_counted_exactly(compiled: Compile, allocator: str) -> None:
    if allocator and not (PRELOADS / allocator).exists():
        pytest.skip(f"{allocator} is not installed")
    program = compiled(PROGRAMS / "counted.c")
    environment = os.environ | ({"LD_PRELOAD": allocator} if allocator else {})
    (_, base), (done, report) = (
        alloc_run(program, "8", rounds, env=environment) for rounds in ("0", "20000")
    )
    assert done.returncode == 0, done.stderr
    known = [int(word) for word in done.stdout.split()]
    assert known[0] == 160_000
    difference = [after - before for before, after in zip(counters(base), counters(report), strict=True)]
    assert difference == known
    assert report["problems"] == []
    (process,) = report["processes"]
    assert process["live_bytes"] == base["processes"][0]["live_bytes"]
    assert process["peak"]["value"] >= process["live_bytes"]
    requests = sum(size["requests"] for size in process["sizes"])
    assert requests == process["total"]["allocations"] + process["total"]["reallocations"]


def test_a_linked_allocator_is_counted(compiled: Compile) -> None:
    library = PRELOADS / "libjemalloc.so.2"
    if not library.exists():
        pytest.skip("libjemalloc2 is not installed")
    program = compiled(PROGRAMS / "counted.c", str(library))
    (_, base), (done, report) = (alloc_run(program, "2", rounds) for rounds in ("0", "5000"))
    known = [int(word) for word in done.stdout.split()]
    difference = [after - before for before, after in zip(counters(base), counters(report), strict=True)]
    assert difference == known


def test_threads_forks_and_handlers_are_survived_and_nothing_is_lost(compiled: Compile) -> None:
    program = compiled(PROGRAMS / "stress.c")
    done, report = alloc_run(program)
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
    (_, base), (_, report) = (alloc_run(program, *words) for words in ((), ("x",)))
    difference = [after - before for before, after in zip(counters(base), counters(report), strict=True)]
    assert difference[:2] == [3000, 3000]
    assert report["processes"][0]["bypass"] == []


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
    done, report = alloc_run(program)
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
    "git": ["git", "--version"],
    "signal": ["sh", "-c", "kill -TERM $$"],
    "python": [
        sys.executable,
        "-c",
        "import subprocess, os\nprint(subprocess.check_output(['env']))\nos._exit(5)",
    ],
    "gcc": ["cc", "-c", "-o", "out.o", "unit.c"],
}


@pytest.mark.parametrize("name", UNCHANGED)
def test_a_real_program_runs_as_it_would_without(name: str, tmp_path: Path) -> None:
    command = UNCHANGED[name]
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    Path("numbers").write_text("\n".join(str(n * 7919 % 10007) for n in range(20000)))
    Path("unit.c").write_text('#include <stdio.h>\nint main(void) { return printf("x"); }\n')
    environment = {key: value for key, value in os.environ.items() if key not in {"_", "SHLVL", "LD_PRELOAD"}}
    plain = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    done, report = alloc_run(*command, env=environment)
    expected = plain.returncode if plain.returncode >= 0 else 128 - plain.returncode
    assert done.returncode == expected
    assert (done.stdout, done.stderr) == (plain.stdout, plain.stderr)
    assert report["problems"] == []
    root = report["processes"][0]
    assert root["total"]["allocations"] > 0
    assert len({process["pid"] for process in report["processes"]}) == 1


def test_a_program_that_replaces_itself_is_counted_on(tmp_path: Path) -> None:
    done, report = alloc_run(
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
    for options, programs in (((), {"sh"}), (("--follow-children",), {"sh", "cat", "tr"})):
        _, report = alloc_run(*command, options=options)
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
            assert report["processes"] == []
            assert len(report["problems"]) == 1
            assert "No space left" in report["problems"][0] or "no space" in report["problems"][0]
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def test_what_would_not_be_counted_is_refused_before_it_runs(compiled: Compile, tmp_path: Path) -> None:
    static = compiled('#include <stdio.h>\nint main(void) { puts("ran"); return 0; }', "-static")
    script = tmp_path / "script"
    script.write_text(f"#!{static}\n")
    script.chmod(0o755)
    by_env = tmp_path / "by_env"
    by_env.write_text(f"#!/usr/bin/env {static}\n")
    by_env.chmod(0o755)
    for program in (static, script, by_env):
        done, report = alloc_run(program)
        assert (done.returncode, done.stdout, report) == (125, "", None)
        assert f"The allocations of {static} can not be counted." in done.stderr
        assert "statically linked" in done.stderr
    done, _ = alloc_run("no-such-program")
    assert done.returncode == 127
    (tmp_path / "text").write_text("no program")
    done, _ = alloc_run(tmp_path / "text")
    assert done.returncode == 126


def test_a_setuid_program_of_another_user_is_refused(compiled: Compile) -> None:
    program = compiled("int main(void) { return 0; }")
    if os.geteuid() == 0:
        os.chown(program, 65534, -1)
    else:
        pytest.skip("giving a file away needs root")
    program.chmod(program.stat().st_mode | stat.S_ISUID)
    done, _ = alloc_run(program)
    assert done.returncode == 125
    assert "setuid" in done.stderr


def test_a_sanitized_program_is_refused(compiled: Compile) -> None:
    try:
        program = compiled("int main(void) { return 0; }", "-fsanitize=address")
    except subprocess.CalledProcessError:
        pytest.skip("the compiler has no AddressSanitizer")
    done, _ = alloc_run(program)
    assert done.returncode == 125
    assert "sanitizer" in done.stderr


def test_the_extension_and_the_library_share_one_segment(directory: Path) -> None:
    code = (
        "import cfctl, os\nwith cfctl.Profiler().operation('work'): pass\n"
        "if os.fork() == 0:\n    with cfctl.Profiler().operation('child'): pass\n    block = bytearray(10**6); os._exit(0)\nos.wait()"
    )
    done, report = alloc_run(sys.executable, "-c", code)
    assert done.returncode == 0, done.stderr
    # One for each process: the child that records an operation opens its own, and is counted there.
    assert len(list(directory.glob("*.seg"))) == 2
    assert len(report["processes"]) == 2
    child = next(process for process in report["processes"] if process["inherited_bytes"])
    assert child["state"] == "ended"
    profile = subprocess.run(
        [sys.executable, "-m", "cfctl", "profile", "report", "--json", str(next(iter(directory.glob("*.seg"))))],
        capture_output=True, text=True,
    )  # fmt: skip
    assert json.loads(profile.stdout)["operations"][0]["name"] in {"work", "child"}


def test_a_hostile_name_reaches_no_terminal(compiled: Compile, tmp_path: Path) -> None:
    program = compiled("int main(void) { return 0; }")
    hostile = tmp_path / "\x1b[31mred\u202e\n[bold]"
    program.rename(hostile)
    done = subprocess.run(
        [sys.executable, "-m", "cfctl", "alloc", "run", "--", hostile, "\x1b]0;title\x07"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
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
    (process,) = report["processes"]
    assert process["state"] == "killed"
    assert process["live_bytes"] > 10_000_000
    assert report["problems"] == []


def test_more_threads_than_the_segment_has_room_for_lose_nothing(compiled: Compile) -> None:
    program = compiled(PROGRAMS / "counted.c")
    environment = os.environ | {"CFCTL_SEGMENT_LIMIT": "64KiB"}
    (_, base), (done, report) = (alloc_run(program, "60", rounds, env=environment) for rounds in ("0", "500"))
    known = [int(word) for word in done.stdout.split()]
    difference = [after - before for before, after in zip(counters(base), counters(report), strict=True)]
    assert difference == known
    assert report["processes"][0]["shards_refused"] > 0
