"""Made noise must be seen: a hog on the measured CPU is a scheduled-out share, faults are faults."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from cfctl.probe.attribution import Cause
from cfctl.probe.conversion import Conversion
from cfctl.probe.gap_observation import MODES
from cfctl.probe.jitter import CpuJitter, measure_jitter
from cfctl.probe.threads import usable_cpus

pytestmark = pytest.mark.host

CLOCK = Conversion(1e9, 1.0, 10.0, "test", "made up")
HOG = "import os, sys; os.sched_setaffinity(0, {int(sys.argv[1])}); print(flush=True)\nwhile True: pass"
NS = 1_000_000_000


@contextmanager
def hog(cpu: int) -> Iterator[None]:
    """Keep one CPU busy."""
    program = subprocess.Popen([sys.executable, "-c", HOG, str(cpu)], stdout=subprocess.PIPE)
    try:
        assert program.stdout is not None
        program.stdout.readline()
        yield
    finally:
        program.kill()
        program.wait()
        assert program.stdout is not None
        program.stdout.close()


def assert_is_scheduled_out(cpu: CpuJitter) -> None:
    """Assert that what the thread waited for its CPU is found again as gaps with that cause.

    Not that nothing else took time: a hypervisor may take some of any machine.
    """
    assert cpu.attribution is not None
    found = [share for share in cpu.attribution.shares if share.cause is Cause.SCHEDULED_OUT]
    assert len(found) == 1
    assert found[0].share_ratio > 0.5
    if cpu.load.run_delay_ns is not None:
        assert found[0].lost_ns > 0.8 * cpu.load.run_delay_ns


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "off"])
def test_a_hog_on_the_measured_cpu_is_seen_as_scheduled_out(mode: str) -> None:
    cpu = usable_cpus(None)[-1]
    with hog(cpu):
        found = measure_jitter([cpu], NS // 2, attribution=mode, conversion=CLOCK).cpus[0]
    assert found.lost.value is not None
    assert found.lost.value > 0.2
    assert_is_scheduled_out(found)
    assert found.load.involuntary_switches > 0
    if found.load.run_delay_ns is not None:
        assert found.load.contaminated


@pytest.mark.system
@pytest.mark.skipif(shutil.which("stress-ng") is None, reason="stress-ng is not installed")
def test_stress_ng_on_the_measured_cpu_is_seen_as_scheduled_out() -> None:
    cpu = usable_cpus(None)[-1]
    command = ["stress-ng", "--cpu", "1", "--taskset", str(cpu), "--timeout", "60s", "--quiet"]
    program = subprocess.Popen(command, start_new_session=True)
    try:
        while program.poll() is None and not busy_ticks_of_children(program.pid):
            time.sleep(0.01)
        found = measure_jitter([cpu], NS, conversion=CLOCK).cpus[0]
    finally:
        program.terminate()
        program.wait()
    assert_is_scheduled_out(found)


def busy_ticks_of_children(pid: int) -> int:
    """Return the CPU time that the children of a process have used, in ticks of 10 ms."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            # One may end between the two reads.
            with suppress(FileNotFoundError, ProcessLookupError):
                fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
                total += int(fields[11]) + int(fields[12])
    return total


NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="needs root and setpriv")
@pytest.mark.parametrize(
    "command",
    [
        ["jitter", "--duration", "50ms"],
        ["wakeup", "--duration", "50ms"],
        ["core-to-core", "--samples", "20"],
        ["cost", "--samples", "20"],
        ["clock"],
    ],
    ids=lambda words: words[0],
)
def test_every_probe_works_for_nobody(command: list[str], tmp_path: Path) -> None:
    if command[0] == "core-to-core" and len(usable_cpus(None)) < 2:
        pytest.skip("one CPU is usable")
    home = tmp_path / "nobody"
    home.mkdir()
    os.chown(home, 65534, 65534)
    for parent in (tmp_path, *tmp_path.parents[:2]):
        parent.chmod(parent.stat().st_mode | 0o011)
    probe = subprocess.run(
        [*NOBODY, sys.executable, "-m", "cfctl", "probe", *command, "--json"],
        env={"HOME": str(home), "PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        cwd="/", capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    if "Permission denied" in probe.stderr and "cfctl:" not in probe.stderr:
        pytest.skip("this interpreter can not be run by nobody")
    assert probe.returncode == 0, probe.stderr
    found = json.loads(probe.stdout)
    assert found["schema"] == f"cfctl.probe.{command[0]}"
    for cpu in found.get("cpus", []) if command[0] == "jitter" else []:
        assert cpu["attribution"]["method"] == "unprivileged"
        assert (
            "root" in cpu["attribution"]["tracepoints"]
            or "permission" in cpu["attribution"]["tracepoints"].lower()
        )
