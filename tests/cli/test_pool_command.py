"""`cfctl pool` and `cfctl diagnose memory` as a user sees them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.conftest import Cfctl

PROGRAM = """
import sys, cfctl
from cfctl.alloc import share_facts
share_facts()
pool = cfctl.Pool(list, list.clear, 4, name="rows \\x1b[31m")
held = [pool.acquire() for _ in range(2)]
for _ in range(998): pool.release(pool.acquire())
buffers = cfctl.BufferPool(1 << 16)
with buffers.item(): pass
try: pool.release(5)
except cfctl.errors.PoolError: pass
print(flush=True)
sys.stdin.read()
"""


@pytest.fixture
def segments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CFCTL_SEGMENT_DIR", str(tmp_path / "segments"))
    return tmp_path / "segments"


@pytest.fixture
def program(segments: Path) -> Iterator[int]:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
        process.kill()


def test_the_table_fits_80_columns_and_shows_no_escape_sequence(program: int, cfctl: Cfctl) -> None:
    shown = cfctl("pool", "stats", str(program))
    assert shown.returncode == 0
    assert max(map(len, shown.stdout.splitlines())) <= 80
    assert "\x1b" not in shown.stdout
    row = next(line for line in shown.stdout.splitlines() if line.startswith("rows"))
    assert row.split()[-8:] == ["3", "997", "3", "99.7", "%", "2", "3", "1"]
    assert "1 releases were refused" in shown.stdout


def test_the_json_holds_every_counter(program: int, cfctl: Cfctl) -> None:
    found = json.loads(cfctl("pool", "stats", str(program), "--json").stdout)
    assert (found["schema"], found["state"], found["pid"]) == ("cfctl.pools", "live", program)
    rows = {pool["created"]: pool for pool in found["pools"]}
    assert (rows[3]["hits"], rows[3]["misses"], rows[3]["in_use"], rows[3]["high_water"]) == (997, 3, 2, 3)
    assert rows[1]["item_bytes"] == 65536
    assert rows[3]["lost"] is None
    assert rows[3]["lost_reason"]


def test_live_readings_are_a_line_each_in_a_pipe(program: int, cfctl: Cfctl) -> None:
    lines = cfctl(
        "pool", "stats", str(program), "--live", "--updates", "2", "--interval", "1ms"
    ).stdout.splitlines()
    assert len(lines) == 2
    assert all(line.startswith(f"{program} live: rows") for line in lines)


def test_a_program_without_a_pool_ends_with_3(segments: Path, cfctl: Cfctl) -> None:
    subprocess.run([sys.executable, "-c", "import cfctl; cfctl.Profiler().record('x', 1)"], check=True)
    shown = cfctl("pool", "stats")
    assert shown.returncode == 3
    assert "no pool" in shown.stderr


@pytest.mark.parametrize("arguments", [["stats", "/nowhere"], ["bench", "--factory", "no:thing"], ["bench"]])
def test_a_mistake_ends_with_2_and_says_what(arguments: list[str], segments: Path, cfctl: Cfctl) -> None:
    shown = cfctl("pool", *arguments)
    assert shown.returncode in {2, 3}
    assert shown.stderr
    assert "Traceback" not in shown.stderr


def test_a_bench_of_the_users_own_module_gives_a_plain_verdict(tmp_path: Path, cfctl: Cfctl) -> None:
    (tmp_path / "own.py").write_text("def big(): return bytearray(1 << 20)\ndef small(): return []\n")
    big = cfctl("pool", "bench", "--factory", "own:big", "--duration", "20ms", cwd=tmp_path)
    assert big.stdout.startswith("own:big: pool: "), big.stderr
    small = cfctl("pool", "bench", "--factory", "own:small", "--duration", "20ms", "--json", cwd=tmp_path)
    assert json.loads(small.stdout)["verdict"] in {"fail", "inconclusive"}


def test_the_memory_of_a_program_is_diagnosed_while_it_runs_and_after(program: int, cfctl: Cfctl) -> None:
    running = cfctl("diagnose", "memory", str(program), "--duration", "0", "--json")
    found = json.loads(running.stdout)
    status = {check["id"]: check["status"] for check in found["checks"]}
    assert running.returncode == 1
    assert found["subject"] == "memory"
    assert status["POOL_MISUSE"] == "issue"
    assert status["MEM_RSS_TARGET"] == status["MEM_SWAPPED"] == status["GC_UNCOLLECTABLE"] == "pass"
    assert status["MEM_GROWTH"] == "unobservable"
    os.kill(program, 9)
    after = json.loads(cfctl("diagnose", "memory", *found["segments"], "--duration", "0", "--json").stdout)
    status = {check["id"]: (check["status"], check["reason"]) for check in after["checks"]}
    assert status["POOL_MISUSE"][0] == "issue"
    assert status["MEM_RSS_TARGET"] == ("unobservable", "no process is looked at: it has ended")


def test_the_checks_of_memory_are_listed_and_explained_and_are_none_of_latency(cfctl: Cfctl) -> None:
    listed = cfctl("diagnose", "memory", "--list").stdout
    assert "POOL_LEAK" in listed
    assert "TIMER_SLACK" not in listed
    assert "POOL_LEAK" not in cfctl("diagnose", "latency", "--list").stdout
    assert "items lost" in cfctl("diagnose", "explain", "POOL_LEAK").stdout
    assert cfctl("diagnose", "memory", str(os.getpid()), "--only", "TIMER_SLACK").returncode == 2


def test_a_process_that_is_not_there_is_a_mistake(segments: Path, cfctl: Cfctl) -> None:
    shown = cfctl("diagnose", "memory", "4194303")
    assert shown.returncode == 2
    assert "There is no process 4194303." in shown.stderr


def test_cycles_of_a_program_are_shown_with_its_allocations(segments: Path, cfctl: Cfctl) -> None:
    code = "class Node: pass\nfor _ in range(5000):\n n = Node(); n.parent = n\n"
    shown = cfctl("alloc", "run", "--cycles", "--", sys.executable, "-c", code)
    assert shown.returncode == 0
    assert "__main__.Node.parent -> __main__.Node" in shown.stderr
    assert "weakref.ref(parent)" in shown.stderr
    none = cfctl("alloc", "run", "--cycles", "--", "/bin/true")
    assert "No reference cycles were reported" in none.stderr
