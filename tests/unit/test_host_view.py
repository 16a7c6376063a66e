from __future__ import annotations

import errno
import gzip
import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cfctl.errors import UnobservableError
from cfctl.host.kernel import build_options, command_line, cpu_flags
from cfctl.host.syscalls import CapturedSyscalls, RealSyscalls, SyscallError
from cfctl.host.view import MAX_FILE_BYTES, HostView, Lack, UnreadableError, read_file


def lack_of(view: HostView, path: str) -> Lack:
    with pytest.raises(UnreadableError) as caught:
        view.text(path)
    assert caught.value.source == f"/{path}"
    return caught.value.lack


def test_a_missing_file_is_missing(tmp_path: Path) -> None:
    assert lack_of(HostView(tmp_path), "proc/nothing") is Lack.MISSING


@pytest.mark.parametrize("content", [b"", b" \n", b"\0\0\0\0"])
def test_a_file_without_text_is_empty(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    assert lack_of(HostView(tmp_path), "file") is Lack.EMPTY


@pytest.mark.parametrize(
    ("number", "lack"),
    [
        (errno.EPERM, Lack.DENIED),
        (errno.EACCES, Lack.DENIED),
        (errno.EINVAL, Lack.REFUSED),
        (errno.EIO, Lack.REFUSED),
    ],
)
def test_a_refusal_names_its_kind(tmp_path: Path, number: int, lack: Lack) -> None:
    def refuse(path: str, max_bytes: int) -> bytes:
        raise OSError(number, os.strerror(number))

    assert lack_of(HostView(tmp_path, reader=refuse), "file") is lack


def test_a_fifo_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "stat")
    assert lack_of(HostView(tmp_path), "stat") is Lack.FOREIGN


def test_a_directory_and_a_device_are_no_files(tmp_path: Path) -> None:
    assert lack_of(HostView(tmp_path.parent), tmp_path.name) is Lack.FOREIGN
    assert lack_of(HostView("/"), "dev/zero") is Lack.FOREIGN


def test_a_huge_sparse_file_is_refused_after_the_limit(tmp_path: Path) -> None:
    with (tmp_path / "stat").open("wb") as file:
        file.truncate(10 << 30)
    assert lack_of(HostView(tmp_path), "stat") is Lack.TOO_LARGE


def test_a_file_of_the_largest_size_is_read_whole(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * MAX_FILE_BYTES)
    assert len(read_file(str(tmp_path / "file"), MAX_FILE_BYTES)) == MAX_FILE_BYTES


def test_a_link_out_of_a_captured_sysroot_is_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    sysroot = tmp_path / "captured"
    sysroot.mkdir()
    (sysroot / "absolute").symlink_to(secret)
    (sysroot / "relative").symlink_to("../secret")
    (sysroot / "inside").symlink_to("file")
    (sysroot / "file").write_text("fine")
    view = HostView(sysroot)
    assert lack_of(view, "absolute") is Lack.FOREIGN
    assert lack_of(view, "relative") is Lack.FOREIGN
    assert lack_of(view, "../secret") is Lack.FOREIGN
    assert view.text("inside") == "fine"


def test_a_link_out_of_a_captured_sysroot_names_nothing_of_ours(tmp_path: Path) -> None:
    outside = tmp_path / "outside/secret"
    outside.mkdir(parents=True)
    (tmp_path / "root/sys/block").mkdir(parents=True)
    (tmp_path / "root/sys/block/sda").symlink_to(outside.parent)
    (tmp_path / "root/sys/block/sdb/queue").mkdir(parents=True)
    view = HostView(tmp_path / "root")
    assert view.matching("sys/block/*/*") == ["sys/block/sdb/queue"]


def test_a_nul_in_a_path_is_a_missing_file(tmp_path: Path) -> None:
    assert lack_of(HostView(tmp_path), "proc/\0") is Lack.MISSING


def test_a_file_is_read_once_for_one_moment(tmp_path: Path) -> None:
    (tmp_path / "counter").write_text("1")
    view = HostView(tmp_path)
    assert view.integer("counter") == 1
    (tmp_path / "counter").write_text("2")
    assert view.integer("counter") == 1
    assert HostView(tmp_path).integer("counter") == 2


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200))
def test_any_content_gives_a_value_or_a_reason(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    view = HostView(tmp_path)
    for read in (view.text, view.integer, view.word, view.choice, view.cpu_list, view.cpu_mask, view.fields):
        try:
            read("file")
        except UnreadableError as error:
            assert error.lack in {Lack.EMPTY, Lack.GARBAGE}  # noqa: PT017


def test_paths_are_matched_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for number in (10, 9, 1):
        (tmp_path / f"cpu{number}").mkdir()
    assert HostView(tmp_path).matching("cpu[0-9]*") == ["cpu1", "cpu9", "cpu10"]


def test_parameters_after_the_double_dash_are_not_the_kernels(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cmdline").write_text('quiet isolcpus=2-7 dyndbg="a b" skew-tick=1 -- nohz_full=2\n')
    assert command_line(HostView(tmp_path)) == {
        "quiet": "", "isolcpus": "2-7", "dyndbg": "a b", "skew_tick": "1"
    }  # fmt: skip


def test_build_options_come_from_boot_where_proc_has_none(tmp_path: Path) -> None:
    (tmp_path / "boot").mkdir()
    (tmp_path / "boot/config-6.1").write_text("# comment\nCONFIG_HZ=250\nCONFIG_X=m\n")
    names = {"release": "6.1", "version": "#1", "machine": "x86_64"}
    view = HostView(tmp_path, CapturedSyscalls({"uname": names}))
    assert build_options(view) == {"HZ": "250", "X": "m"}


def test_a_compressed_bomb_is_cut_off(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/config.gz").write_bytes(gzip.compress(b"CONFIG_A=y\n" + b"#" * (64 << 20)))
    assert build_options(HostView(tmp_path, CapturedSyscalls({}))) == {"A": "y"}


def test_flags_belong_to_their_cpu(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text("processor : 0\nflags : a b\n\nprocessor : 5\nflags : a\n")
    assert cpu_flags(HostView(tmp_path)) == {0: frozenset({"a", "b"}), 5: frozenset({"a"})}


@pytest.mark.parametrize(
    "capture", ["", "[]", "{", '{"adjtimex": 5}', '{"adjtimex": {"state": "x"}}', "null", "[" * 100_000]
)
def test_a_capture_that_is_not_understood_answers_nothing(tmp_path: Path, capture: str) -> None:
    (tmp_path / "syscalls.json").write_text(capture)
    syscalls = HostView(tmp_path).syscalls
    for ask in (
        syscalls.adjtimex, syscalls.clock_resolution_ns, syscalls.timer_slack_ns, syscalls.tsc_readable,
        syscalls.uname, syscalls.capabilities, syscalls.kernel_log,
    ):  # fmt: skip
        with pytest.raises(SyscallError):
            ask()
    with pytest.raises(SyscallError):
        syscalls.limit("NOFILE")
    with pytest.raises(SyscallError):
        syscalls.affinity(0)


def test_a_captured_refusal_keeps_its_reason(tmp_path: Path) -> None:
    (tmp_path / "syscalls.json").write_text(
        json.dumps({"adjtimex": {"error": "EPERM"}, "limits": {"NICE": {"error": "no"}}})
    )
    syscalls = HostView(tmp_path).syscalls
    with pytest.raises(UnobservableError, match="adjtimex: EPERM"):
        syscalls.adjtimex()
    with pytest.raises(UnobservableError, match=r"limits\(NICE\): no"):
        syscalls.limit("NICE")


@pytest.mark.host
def test_this_kernel_answers_as_the_standard_library_says() -> None:
    syscalls = RealSyscalls()
    assert syscalls.uname().release == os.uname().release
    assert syscalls.affinity(0) == tuple(sorted(os.sched_getaffinity(0)))
    assert syscalls.policy(0) in {"OTHER", "BATCH", "IDLE", "FIFO", "RR", "EXT"}
    assert syscalls.timer_slack_ns() >= 0
    clock = syscalls.adjtimex()
    assert 9000 <= clock.tick_us <= 11_000
    assert 0 <= clock.state <= 5
    status = Path("/proc/self/status").read_text()
    effective = next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff"))
    assert syscalls.capabilities() == int(effective, 16)
