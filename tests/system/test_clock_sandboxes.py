"""The clock where parts of the machine are missing: TSC, /sys, CPUs, the zero of MONOTONIC, other users' rights."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.system

PROGRAM = """
import json
from cfctl import _native, clock
made = clock.calibrate(10_000_000)
before = _native.os_clock_ns(4)
now = clock.now_ns()
after = _native.os_clock_ns(4)
print(json.dumps({
    "source": made.source, "reason": made.source_reason, "verdict": made.verdict, "hz": made.frequency_hz,
    "offset": made.time_namespace_offset_ns, "clocksource": made.clocksource,
    "between": before - 100 <= now <= after + 100, "residual": clock.residual(made).value,
    "recheck": clock.recheck(made).action, "cpus": clock.cpu_offsets().reason, "health": clock.health(made).verdict,
    "costs": sorted(clock.read_costs()),
}))
"""

# CPython itself reads the clock through the vDSO, which faults when the TSC is disabled: this stands between.
SYSCALL_CLOCK = """
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t clock, struct timespec *now) { return (int)syscall(SYS_clock_gettime, clock, now); }
"""


def run(command: list[str], program: str = PROGRAM, **env: str) -> dict[str, object]:
    done = subprocess.run(
        [*command, sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | env,
    )
    if command and done.returncode and ("unshare" in done.stderr or "Operation not permitted" in done.stderr):
        pytest.skip(f"no namespaces here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def needs(tool: str) -> None:
    if shutil.which(tool) is None:
        pytest.skip(f"no {tool} here")


def assert_os_clock(found: dict[str, object], reason: str) -> None:
    assert found["source"] == "os"
    assert reason in str(found["reason"])
    assert found["hz"] == 1e9
    assert found["verdict"] == "valid"
    assert found["between"]
    assert found["residual"] == 0.0
    assert found["recheck"] == "keep"
    assert "OS clock" in str(found["cpus"]) or "one" in str(found["cpus"])


def test_the_os_clock_can_be_asked_for() -> None:
    assert_os_clock(run([], CFCTL_TICK_SOURCE="os"), "CFCTL_TICK_SOURCE=os")


def test_a_tsc_disabled_by_prctl_leaves_the_os_clock(tmp_path: Path) -> None:
    needs("cc")
    if os.uname().machine != "x86_64":
        pytest.skip("prctl(PR_SET_TSC) is x86's")
    (tmp_path / "clock.c").write_text(SYSCALL_CLOCK)
    library = tmp_path / "clock.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, tmp_path / "clock.c"], check=True)
    disable = "import ctypes\nassert ctypes.CDLL(None).prctl(26, 2, 0, 0, 0) == 0\n"
    assert_os_clock(run([], disable + PROGRAM, LD_PRELOAD=str(library)), "prctl")


def test_hidden_sys_leaves_the_os_clock() -> None:
    needs("unshare")
    hide = 'mount -t tmpfs none /sys && exec "$@"'
    found = run(["unshare", "-m", "--", "sh", "-c", hide, "sh"])
    assert_os_clock(found, "/sys")
    assert found["clocksource"] is None


def test_a_time_namespace_moves_the_zero_and_nothing_else() -> None:
    needs("unshare")
    found = run(["unshare", "-T", "--monotonic", "100000", "--boottime", "100000", "--fork", "--"])
    assert found["offset"] == 100_000 * 10**9
    assert found["between"]
    assert found["recheck"] == "keep"
    assert found["verdict"] == "valid"


def test_one_cpu_has_no_offset_and_says_so() -> None:
    needs("taskset")
    cpu = min(os.sched_getaffinity(0))
    found = run(["taskset", "-c", str(cpu)])
    assert "one" in str(found["cpus"]) or "OS clock" in str(found["cpus"])
    assert found["between"]


def test_without_proc_it_works_and_belongs_to_no_boot() -> None:
    needs("unshare")
    program = "import json\nfrom cfctl import clock\nm = clock.calibrate(10_000_000)\n"
    program += "print(json.dumps({'boot': m.boot_id, 'verdict': m.verdict}))"
    hide = 'mount -t tmpfs none /proc && exec "$@"'
    assert run(["unshare", "-m", "--", "sh", "-c", hide, "sh"], program) == {"boot": None, "verdict": "valid"}


@pytest.mark.parametrize("build", ["portable", "aarch64"])
def test_the_c_core_works_on_other_cpus(build: str, root: Path, tmp_path: Path) -> None:
    """The fallback for a CPU without a counter, and aarch64 under emulation where the tools are."""
    compiler, runner, flags = {
        "portable": ("cc", [], ["-DCF_TICK_PORTABLE"]),
        "aarch64": ("aarch64-linux-gnu-gcc", ["qemu-aarch64-static"], ["-static"]),
    }[build]
    needs(compiler)
    for tool in runner:
        needs(tool)
    sources = [root / "cfctl/native" / f"{name}.c" for name in ("clock", "tick", "sampler", "cost", "offset")]
    program = tmp_path / "test_clock"
    subprocess.run(
        [compiler, "-std=gnu11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-Wpedantic", "-Werror", *flags,
         "-I", root / "cfctl/native", *sources, root / "tests/native/test_clock.c", "-o", program, "-lm", "-lpthread"],
        check=True,
    )  # fmt: skip
    subprocess.run([*runner, program], check=True, timeout=300)
