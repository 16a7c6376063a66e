"""`python -m tests.alloc`: what the suite does in small, at length; about 3 minutes.

Ten million operations on eight threads under each allocator, counted exactly; gdb and more of
Python's own test modules under the preload library, which must end as they do without.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PROGRAMS = ROOT / "tests" / "system" / "programs"
PRELOADS = Path("/usr/lib/x86_64-linux-gnu")
ALLOCATORS = ("", "libjemalloc.so.2", "libmimalloc.so.2.0", "libtcmalloc_minimal.so.4")
COUNTERS = ("allocations", "deallocations", "reallocations", "failures", "bytes_allocated", "bytes_freed")
THREADS, ROUNDS = 8, 1_250_000
MODULES = ("test_list", "test_dict", "test_json", "test_re", "test_threading", "test_subprocess", "test_mmap")
GDB_SCRIPT = ("break free", "run", "next", "delete", "continue", "info line main")
GDB_MARKS = ("hit Breakpoint 1", "exited normally", 'counted.c" starts at address')


def main() -> int:
    """Run all; return 1 when one of them failed."""
    failed = 0
    with tempfile.TemporaryDirectory(prefix="cfctl-alloc-") as directory:
        os.chdir(directory)
        os.environ["CFCTL_SEGMENT_DIR"] = f"{directory}/segments"
        for allocator in ALLOCATORS:
            failed += not _told(f"exact, {allocator or 'the C library'}", _exactness(allocator))
        failed += not _told("gdb", _gdb())
        for module in MODULES:
            failed += not _told(f"python -m test {module}", _python_module(module))
    return int(failed > 0)


def _told(name: str, problem: str | None) -> bool:
    """Print how it went; None is well, and what begins with "skipped" no failure."""
    print(f"{name}: {problem or 'ok'}", flush=True)
    return problem is None or problem.startswith("skipped")


def _under(
    command: Sequence[str], **environment: str
) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    out = Path("report.json").absolute()
    out.unlink(missing_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", "cfctl", "alloc", "run", "--json", "-o", str(out), "--", *command],
        capture_output=True, text=True, env=os.environ | environment, timeout=600,
    )  # fmt: skip
    return done, json.loads(out.read_text())


def _compiled(*options: str) -> str:
    program = Path("counted").absolute()
    subprocess.run(
        ["cc", "-w", "-g", "-fno-builtin", "-pthread", "-o", program, PROGRAMS / "counted.c", *options],
        check=True,
    )
    return str(program)


def _exactness(allocator: str) -> str | None:
    if shutil.which("cc") is None:
        return "skipped: no C compiler is installed"
    if allocator and not (PRELOADS / allocator).exists():
        return "skipped: it is not installed"
    program = _compiled()
    environment = {"LD_PRELOAD": str(PRELOADS / allocator)} if allocator else {}
    (_, base), (done, report) = (
        _under([program, str(THREADS), rounds], **environment) for rounds in ("0", str(ROUNDS))
    )
    known = [int(word) for word in done.stdout.split()]
    before, after = ([each["processes"][0]["total"][name] for name in COUNTERS] for each in (base, report))
    counted = [a - b for a, b in zip(after, before, strict=True)]
    if known[0] != THREADS * ROUNDS or report["problems"]:
        return f"the program did {known[:1]} allocations; problems: {report['problems']}"
    return None if counted == known else f"counted {counted}, the program did {known}"


def _gdb() -> str | None:
    """Run gdb itself under the library, and in it a program that it stops and goes on with."""
    if shutil.which("gdb") is None or shutil.which("cc") is None:
        return "skipped: gdb or a C compiler is not installed"
    commands = [word for line in GDB_SCRIPT for word in ("-ex", line)]
    command = ["gdb", "-nx", "-batch", *commands, "--args", _compiled(), "1", "100"]
    plain = subprocess.run(command, capture_output=True, text=True, timeout=300)
    done, report = _under(command)
    # Lines of gdb and of the program mix as they happen; what both have to hold is looked for.
    for output, status in ((plain.stdout, plain.returncode), (done.stdout, done.returncode)):
        missing = [mark for mark in GDB_MARKS if mark not in output]
        if status != 0 or missing:
            return f"status {status}, missing {missing}: {output!r} {done.stderr!r}"
    return None if report["processes"][0]["total"]["allocations"] > 10_000 else "gdb was not counted"


def _python_module(module: str) -> str | None:
    found = subprocess.run([sys.executable, "-c", f"import test.{module}"], capture_output=True)
    if found.returncode:
        return "skipped: this Python does not have it"
    command = [sys.executable, "-m", "test", "-q", module]
    plain = subprocess.run(command, capture_output=True, text=True, timeout=600)
    done, report = _under(command)
    if done.returncode != plain.returncode:
        return f"status {done.returncode}, without {plain.returncode}: {done.stdout[-2000:]}"
    return None if report["processes"][0]["total"]["allocations"] > 0 else "nothing was counted"


if __name__ == "__main__":
    sys.exit(main())
