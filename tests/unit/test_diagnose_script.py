"""The script of remedies: what it does, what undoes it, and that no name of a host is read as shell."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfctl.diagnose.record import Actor, Commands, Status
from cfctl.diagnose.run import Request, diagnose
from cfctl.diagnose.script import fix_script
from cfctl.host.view import HostView
from tests.hosts.fake_host import FakeHost, MemoryView
from tests.hosts.golden import COMPLETE_HOSTS

if TYPE_CHECKING:
    from pathlib import Path

    from cfctl.diagnose.diagnosis import Diagnosis


def diagnosis_of(host: FakeHost, tmp_path: Path, pid: int | None = None) -> tuple[Diagnosis, HostView]:
    root = host.build(tmp_path / "host")
    return diagnose(Request(sysroot=str(root), pid=pid)), HostView(root / "t1")


@pytest.fixture(scope="module")
def default(tmp_path_factory: pytest.TempPathFactory) -> tuple[Diagnosis, HostView]:
    """Return the diagnosis of a host with issues, and its view."""
    return diagnosis_of(FakeHost.load("bare_default"), tmp_path_factory.mktemp("default"))


def script_with(
    default: tuple[Diagnosis, HostView], now: tuple[str, ...] = (), persist: tuple[str, ...] = ()
) -> str:
    """Return the script for a host with one issue that has these commands."""
    found, view = default
    issue = next(check for check in found.checks if check.actor is Actor.YOU)
    only = replace(found, checks=(replace(issue, commands=Commands(now, persist)),))
    return fix_script(only, view, "1.0")


def section(script: str, action: str) -> list[str]:
    body = script.split(f"        {action})\n")[1].split("            ;;")[0]
    return [line.strip() for line in body.splitlines()]


def test_a_setting_is_written_with_what_puts_it_back(tmp_path: Path) -> None:
    found, view = diagnosis_of(FakeHost.load("bare_default"), tmp_path)
    script = fix_script(found, view, "1.0")
    assert "put madvise /sys/kernel/mm/transparent_hugepage/enabled" in script
    assert "put always /sys/kernel/mm/transparent_hugepage/enabled" in script
    assert "run sysctl -w vm.swappiness=" in script
    for check in found.checks:
        assert (f"# {check.id} " in script) == (check.status is Status.ISSUE)


def test_each_form_of_command_has_its_undo(default: tuple[Diagnosis, HostView]) -> None:
    script = script_with(
        default,
        (
            "echo 1 > /sys/kernel/mm/ksm/run", "sysctl -w vm.swappiness=10", "swapoff -a",
            "systemctl disable --now irqbalance", "dmesg | grep -i tsc", "taskset -acp 4-7 PID", "kill -INT 77",
        ),
        ("echo 'vm.swappiness = 10' >> /etc/sysctl.d/90-cfctl.conf", "kernel command line: nosmt",
         "TimerSlackNSec=1 in the [Service] section of the program's systemd unit"),
    )  # fmt: skip
    assert section(script, "now") == [
        "put 1 /sys/kernel/mm/ksm/run", "run sysctl -w vm.swappiness=10", "run swapoff -a",
        "run systemctl disable --now irqbalance", "run kill -INT 77",
    ]  # fmt: skip
    assert section(script, "persist") == ["append 'vm.swappiness = 10' /etc/sysctl.d/90-cfctl.conf"]
    undo = section(script, "undo")
    assert "run swapon -a" in undo
    assert "run systemctl enable --now irqbalance" in undo
    assert "remove 'vm.swappiness = 10' /etc/sysctl.d/90-cfctl.conf" in undo
    for remark in (
        "by hand: kernel command line: nosmt", "by hand: TimerSlackNSec=1", "to look: dmesg | grep -i tsc",
        "by hand: taskset -acp 4-7 PID", "nothing undoes: kill -INT 77",
    ):  # fmt: skip
        assert remark in script


def test_a_network_device_is_set_and_set_back(tmp_path: Path) -> None:
    answers = {
        "coalescing": {"eth0": {"rx_us": 50, "adaptive_rx": 1}},
        "ring": {"eth0": {"rx": 256, "rx_max": 4096}},
    }
    dropped = {"sys/class/net/eth0/statistics/rx_dropped": "90000\n"}
    host = FakeHost.load("bare_default").with_syscalls(answers).with_files({}, dropped)
    found, view = diagnosis_of(host, tmp_path)
    script = fix_script(found, view, "1.0")
    for line in (
        "run ethtool -C eth0 adaptive-rx off rx-usecs 0", "run ethtool -C eth0 adaptive-rx on rx-usecs 50",
        "run ethtool -G eth0 rx 4096", "run ethtool -G eth0 rx 256",
    ):  # fmt: skip
        assert f" {line}\n" in script


def test_a_limit_in_bytes_is_undone_by_the_ratio_that_counted_before(tmp_path: Path) -> None:
    host = FakeHost.load("bare_default").with_files(
        {"proc/sys/vm/dirty_bytes": "0\n", "proc/sys/vm/dirty_ratio": "20\n"}
    )
    found, view = diagnosis_of(host, tmp_path)
    script = fix_script(found, view, "1.0")
    assert "run sysctl -w vm.dirty_ratio=20" in script
    assert "vm.dirty_bytes=0" not in script


def test_what_is_for_the_host_operator_is_a_comment(tmp_path: Path) -> None:
    found, view = diagnosis_of(FakeHost.load("docker_quota"), tmp_path)
    script = fix_script(found, view, "1.0")
    assert "# CGROUP_CPU_QUOTA " in script
    assert "cgroup_cpu_quota()" not in script
    assert "this is for the host operator" in script


def test_a_host_without_issues_gives_a_script_that_does_nothing(tmp_path: Path) -> None:
    found, view = diagnosis_of(FakeHost.load("bare_tuned"), tmp_path, 4242)
    script = fix_script(found, view, "1.0")
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (0, "There is nothing here that a script can change.\n")


@given(
    st.text(max_size=30),
    st.sampled_from(["echo {} > /x/{}", "echo '{}' >> {}", "ethtool -G {}", "{}", "run {}"]),
)
def test_no_text_of_a_host_becomes_shell(
    default: tuple[Diagnosis, HostView], tmp_path_factory: pytest.TempPathFactory, text: str, form: str
) -> None:
    tmp_path = tmp_path_factory.mktemp("script")
    hostile = form.format(
        f"a; touch {tmp_path}/broken; $(touch {tmp_path}/broken) `touch {tmp_path}/broken`" + text, "b"
    )
    script = script_with(default, (hostile,), (hostile,))
    # The actions themselves do nothing here, so that only the text of the script acts.
    for name in ("run", "put", "append", "remove"):
        script = script.replace(f"\n{name}() {{", f"\nunused_{name}() {{")
    head, _, rest = script.partition("set -u\n")
    stubs = "run() { :; }\nput() { :; }\nappend() { :; }\nremove() { :; }\n"
    done = subprocess.run(
        ["sh", "-s", "now"],
        input=head + stubs + rest,
        capture_output=True,
        text=True,
        timeout=30,
        cwd=tmp_path,
    )
    assert "syntax" not in done.stderr.lower()
    assert not (tmp_path / "broken").exists()


def test_now_persist_and_undo_leave_the_files_as_they_were(tmp_path: Path) -> None:
    """Run a script in a directory of its own: its absolute paths are moved there."""
    setting, config = tmp_path / "setting", tmp_path / "90-cfctl.conf"
    setting.write_text("always\n")
    config.write_text("other = 1\n")
    found, _ = diagnosis_of(FakeHost.load("bare_default"), tmp_path)
    issue = next(check for check in found.checks if check.actor is Actor.YOU)
    commands = Commands((f"echo madvise > {setting}",), (f"echo 'vm.swappiness = 10' >> {config}",))
    view = MemoryView({str(setting)[1:]: "[always] madvise never\n"}, {})
    script = fix_script(replace(found, checks=(replace(issue, commands=commands),)), view, "1.0")

    def run(*arguments: str) -> int:
        return subprocess.run(
            ["sh", "-s", *arguments], input=script, text=True, capture_output=True, timeout=30
        ).returncode

    assert run() == 2
    assert run("everything") == 2
    assert run("now") == 0
    assert setting.read_text() == "madvise\n"
    for _ in range(2):
        assert run("persist") == 0
        assert config.read_text() == "other = 1\nvm.swappiness = 10\n"
    assert run("undo") == 0
    assert setting.read_text() == "always\n"
    assert config.read_text() == "other = 1\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["90-cfctl.conf", "host", "setting"]


def test_a_command_that_fails_is_told_by_the_exit_status(default: tuple[Diagnosis, HostView]) -> None:
    script = script_with(default, ("false now", "true now"))
    done = subprocess.run(["sh", "-s", "now"], input=script, text=True, capture_output=True, timeout=30)
    assert (done.returncode, done.stdout) == (1, "+ false now\n+ true now\n")


@pytest.mark.system
@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
@pytest.mark.parametrize("name", COMPLETE_HOSTS)
def test_the_scripts_are_clean_under_shellcheck(tmp_path: Path, name: str) -> None:
    found, view = diagnosis_of(FakeHost.load(name), tmp_path, COMPLETE_HOSTS[name])
    file = tmp_path / "fix.sh"
    file.write_text(fix_script(found, view, "1.0"))
    done = subprocess.run(
        ["shellcheck", str(file)], capture_output=True, text=True, env=os.environ, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "")
