from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from cfctl.host import fingerprint as module
from cfctl.host.fingerprint import fingerprint
from cfctl.host.view import HostView

if TYPE_CHECKING:
    from pathlib import Path

CPUINFO = "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: Xeon 9999\nflags\t\t: fpu tsc\n"


def captured(root: Path, files: dict[str, str]) -> HostView:
    for path, text in files.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return HostView(root)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Replace py-cpuinfo by a list of how often it was asked."""
    calls: list[str] = []

    def ask() -> str:
        calls.append("asked")
        return "Brand from py-cpuinfo"

    monkeypatch.setattr(module, "_asked_brand", ask)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return calls


def test_a_captured_host_is_described_from_its_own_files(tmp_path: Path) -> None:
    view = captured(
        tmp_path,
        {
            "proc/cpuinfo": CPUINFO,
            "sys/devices/system/cpu/online": "0-3\n",
            "sys/devices/system/node/node0/cpulist": "0-3\n",
            "sys/devices/system/clocksource/clocksource0/current_clocksource": "tsc\n",
            "proc/1/comm": "systemd\n",
            "syscalls.json": json.dumps(
                {"uname": {"release": "6.1.0", "version": "#1", "machine": "x86_64"}}
            ),
        },
    )
    found = fingerprint(view)
    assert found == module.Fingerprint(
        "Xeon 9999", 4, "6.1.0", "x86_64", "tsc", "none", "none", "4 threads, 1 NUMA node"
    )


@pytest.mark.parametrize("number", ["9" * 5000, "9" * 30, "\u0661"])
def test_a_number_that_no_cpu_has_is_no_cpu(tmp_path: Path, number: str) -> None:
    stat = f"cpu{number} 1 0 1 1 0 0 0 0\n"
    cpuinfo = f"processor : {number}\nflags : tsc\n"
    assert fingerprint(captured(tmp_path, {"proc/stat": stat, "proc/cpuinfo": cpuinfo})).cpu_count is None


def test_an_empty_host_has_an_empty_fingerprint(tmp_path: Path) -> None:
    assert fingerprint(HostView(tmp_path)) == module.Fingerprint(*[None] * 8)


def test_the_brand_is_asked_for_once_and_then_read_from_the_state(asked: list[str], tmp_path: Path) -> None:
    first, second = fingerprint(), fingerprint()
    assert first == second
    assert first.cpu_brand == "Brand from py-cpuinfo"
    assert asked == ["asked"]


def test_another_cpu_is_asked_for_again(
    asked: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fingerprint()
    monkeypatch.setattr(module, "_identity", lambda view: {"model": "another"})
    fingerprint()
    assert len(asked) == 2


def test_a_corrupt_cache_is_set_aside_and_asked_again(asked: list[str], tmp_path: Path) -> None:
    cache = tmp_path / "state" / "cfctl" / module.CACHE_NAME
    cache.parent.mkdir(parents=True)
    cache.write_text("{")
    assert fingerprint().cpu_brand == "Brand from py-cpuinfo"
    assert cache.with_name("cpu.json.corrupt").read_text() == "{"
    assert json.loads(cache.read_text())["brand"] == "Brand from py-cpuinfo"


def test_a_cached_brand_can_not_carry_an_escape_sequence(asked: list[str], tmp_path: Path) -> None:
    fingerprint()
    cache = tmp_path / "state" / "cfctl" / module.CACHE_NAME
    cache.write_text(json.dumps(json.loads(cache.read_text()) | {"brand": "\x1b[31mred"}))
    assert "\x1b" not in str(fingerprint().cpu_brand)


def test_an_unwritable_state_directory_does_not_matter(
    asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/dev/null/nowhere")
    assert fingerprint().cpu_brand == "Brand from py-cpuinfo"


@pytest.mark.host
def test_the_fingerprint_of_this_machine_agrees_with_the_interpreter(asked: list[str]) -> None:
    found = fingerprint()
    assert found.kernel == os.uname().release
    assert found.machine == os.uname().machine
